//! What is to be sent, one body after the other, each with its number. Reads off the async threads, a little ahead, and never
//! keeps more of a line than a message may hold.

use std::io::{self, BufRead, BufReader, Read};

use tokio::sync::mpsc;

use super::{BODY_BYTES_MAX, ProduceArguments};
use crate::failure::Failure;
use crate::files;

/// Lines read ahead of the producer.
const LINES_AHEAD_MAX: usize = 1024;

/// What was read of one line.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Body {
    /// All of it.
    Whole(Vec<u8>),
    /// Nothing: a message has a body.
    Empty,
    /// It is longer than any message may be.
    TooLong,
}

/// A body and its place, counted from 1.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Line {
    pub(super) number: u64,
    pub(super) body: Body,
}

pub(super) type Lines = mpsc::Receiver<io::Result<Line>>;

/// Begins to read what the command line names.
pub(super) fn open(arguments: &ProduceArguments) -> Result<Lines, Failure> {
    let (sender, receiver) = mpsc::channel(LINES_AHEAD_MAX);
    if !arguments.messages.is_empty() {
        let messages = arguments.messages.clone();
        tokio::spawn(async move {
            for (number, message) in (1..).zip(messages) {
                let body = body(message.into_bytes());
                if sender.send(Ok(Line { number, body })).await.is_err() {
                    return;
                }
            }
        });
        return Ok(receiver);
    }
    let input: Box<dyn Read + Send> = match &arguments.file {
        Some(path) => {
            let file = files::open(path);
            Box::new(file.map_err(|error| Failure::during(path.display(), error))?)
        }
        None => Box::new(io::stdin()),
    };
    let (whole, first) = (arguments.whole, arguments.from_line.unwrap_or(1));
    // Standard input blocks: it is read off the async threads.
    tokio::task::spawn_blocking(move || {
        let mut input = BufReader::new(input);
        if whole {
            // Whoever waited for it has given up: nobody is left to tell.
            let _ = sender.blocking_send(everything(&mut input));
            return;
        }
        for number in 1.. {
            let line = match line(&mut input) {
                Ok(None) => return,
                Ok(Some(_)) if number < first => continue,
                Ok(Some(body)) => Ok(Line { number, body }),
                Err(error) => Err(error),
            };
            let failed = line.is_err();
            if sender.blocking_send(line).is_err() || failed {
                return;
            }
        }
    });
    Ok(receiver)
}

fn body(bytes: Vec<u8>) -> Body {
    match bytes.len() {
        0 => Body::Empty,
        length if length > BODY_BYTES_MAX => Body::TooLong,
        _ => Body::Whole(bytes),
    }
}

fn everything(input: &mut impl Read) -> io::Result<Line> {
    let mut bytes = Vec::new();
    input
        .take(BODY_BYTES_MAX as u64 + 1)
        .read_to_end(&mut bytes)?;
    let body = body(bytes);
    Ok(Line { number: 1, body })
}

/// The next line without its end, which may be `\r\n`; none at the end of the input.
fn line(input: &mut impl BufRead) -> io::Result<Option<Body>> {
    let mut bytes = Vec::new();
    // Room for both bytes of a line's end, and one that shows that there is more.
    let most = BODY_BYTES_MAX as u64 + 3;
    if input.by_ref().take(most).read_until(b'\n', &mut bytes)? == 0 {
        return Ok(None);
    }
    if bytes.pop_if(|last| *last == b'\n').is_none() && bytes.len() as u64 == most {
        input.skip_until(b'\n')?;
        return Ok(Some(Body::TooLong));
    }
    bytes.pop_if(|last| *last == b'\r');
    Ok(Some(body(bytes)))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Catches a line that is cut, one that is taken for two, and one without an end that fills the memory.
    #[test]
    fn lines_are_read_whole_or_known_to_be_too_long() {
        let longest = "x".repeat(BODY_BYTES_MAX);
        let text = format!("a\n\r\n{longest}\r\n{longest}x\nb\r\n{longest}{longest}\nlast");
        let mut input = text.as_bytes();
        let mut read = Vec::new();
        while let Some(body) = line(&mut input).unwrap() {
            read.push(body);
        }
        let whole = |text: &str| Body::Whole(text.as_bytes().to_vec());
        let expected = [
            whole("a"),
            Body::Empty,
            whole(&longest),
            Body::TooLong,
            whole("b"),
            Body::TooLong,
            whole("last"),
        ];
        assert!(read == expected, "{} lines", read.len());
    }
}
