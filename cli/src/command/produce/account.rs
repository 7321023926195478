//! What became of each line: pure bookkeeping, and the words for it.

use std::fmt;

use raftmq_client::{BODY_BYTES_MAX, Error};

use crate::failure::Failure;

/// Stretches of lines that are kept to be named; there may be as many as a file has lines.
const STRETCHES_MAX: usize = 64;
/// Of these, how many are named.
const STRETCHES_NAMED: usize = 8;

/// Where the messages come from.
pub(super) struct Source {
    /// What one of them is called.
    pub(super) unit: &'static str,
    /// The file, if it is one.
    pub(super) name: Option<String>,
}

impl Source {
    fn place(&self, number: u64) -> String {
        let of = self.name.iter().map(|name| format!(" of {name}"));
        format!("{} {number}{}", self.unit, of.collect::<String>())
    }
}

/// Why no further line was sent.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Stop {
    /// There is none.
    AtEnd,
    /// Somebody asked for it: by which signal.
    Asked(&'static str),
    /// The line cannot be a message.
    Invalid { number: u64 },
    /// A message was not stored, or nobody knows.
    Failed,
    /// The input cannot be read.
    Unreadable(String),
}

/// Numbers of lines, in order.
#[derive(Debug, Default)]
struct Numbers {
    count: u64,
    stretches: Vec<(u64, u64)>,
}

impl Numbers {
    fn add(&mut self, number: u64) {
        self.count += 1;
        let has_room = self.stretches.len() < STRETCHES_MAX;
        match self.stretches.last_mut() {
            Some((_, last)) if *last + 1 == number => *last = number,
            _ if has_room => self.stretches.push((number, number)),
            _ => {}
        }
    }

    fn first(&self) -> Option<u64> {
        self.stretches.first().map(|(first, _)| *first)
    }
}

impl fmt::Display for Numbers {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let named = self.stretches.iter().take(STRETCHES_NAMED);
        let words = named.map(|(first, last)| match first == last {
            true => first.to_string(),
            false => format!("{first} to {last}"),
        });
        write!(formatter, "{}", words.collect::<Vec<_>>().join(", "))?;
        match self.stretches.len() > STRETCHES_NAMED {
            true => write!(formatter, ", …"),
            false => Ok(()),
        }
    }
}

/// See the module's text.
#[derive(Debug, Default)]
pub(super) struct Account {
    empty: u64,
    left_out: Numbers,
    sent: u64,
    last_sent: u64,
    stored: u64,
    /// Of these, lines behind one that was not stored.
    stored_behind: u64,
    not_stored: Numbers,
    unknown: Numbers,
    /// Of the first line that was not stored.
    failure: Option<(u64, Error)>,
}

impl Account {
    /// A line without a body.
    pub(super) fn empty(&mut self) {
        self.empty += 1;
    }

    /// A line that is too long, and may be left out.
    pub(super) fn left_out(&mut self, number: u64) {
        self.left_out.add(number);
    }

    /// The same, of one that was sent: the brokers' limit is lower.
    pub(super) fn refused_as_too_long(&mut self, number: u64) {
        self.sent -= 1;
        self.left_out.add(number);
    }

    /// A line was handed to the producer.
    pub(super) fn sent(&mut self, number: u64) {
        self.sent += 1;
        self.last_sent = number;
    }

    /// Its message is on the disks of a majority.
    pub(super) fn stored(&mut self, _: u64) {
        self.stored += 1;
        self.stored_behind += u64::from(self.failure.is_some());
    }

    /// Its message is not stored, or nobody knows.
    pub(super) fn failed(&mut self, number: u64, error: Error) {
        match error.is_outcome_unknown() {
            true => self.unknown.add(number),
            false => self.not_stored.add(number),
        }
        self.failure.get_or_insert((number, error));
    }

    /// What is told however it ends.
    pub(super) fn told(&self) -> Vec<String> {
        let mut told = Vec::new();
        if self.empty > 0 {
            let empty = self.empty;
            told.push(format!(
                "{empty} empty lines were left out: a message has a body"
            ));
        }
        if self.left_out.count > 0 {
            let Numbers { count, .. } = self.left_out;
            told.push(format!(
                "{count} lines were left out, too long for a message: {}",
                self.left_out
            ));
        }
        told.push(format!("{} messages stored", self.stored));
        told
    }

    /// Whether all is stored that was to be; otherwise why not, and where to go on.
    pub(super) fn outcome(&self, stop: Stop, source: &Source) -> Result<(), Failure> {
        let why = match (&stop, &self.failure) {
            (_, Some((number, error))) => Failure::from(error.clone()).after(source.place(*number)),
            (Stop::AtEnd, None) => return Ok(()),
            (Stop::Asked(signal), None) => Failure::Operation(format!("stopped by {signal}")),
            (Stop::Invalid { number }, None) => Failure::Configuration(format!(
                "{} is longer than {BODY_BYTES_MAX} bytes, which is the most that a message holds",
                source.place(*number)
            )),
            (Stop::Failed, None) => Failure::Operation("not all was sent".to_owned()),
            (Stop::Unreadable(reason), None) => {
                Failure::Operation(format!("reading the messages: {reason}"))
            }
        };
        if self.sent == 0 {
            return Err(why);
        }
        let text = format!("{why}; {}", self.summary(&stop, source));
        // Something was done: what says that nothing was is not true any more.
        Err(match why {
            Failure::Unknown(_) => Failure::Unknown(text),
            _ if self.unknown.count > 0 => Failure::Unknown(text),
            Failure::NotFound(_) if self.stored == 0 => Failure::NotFound(text),
            Failure::Unreachable(_) if self.stored == 0 => Failure::Unreachable(text),
            _ => Failure::Operation(text),
        })
    }

    fn summary(&self, stop: &Stop, source: &Source) -> String {
        let unit = source.unit;
        let mut parts = vec![format!(
            "{} of {} messages that were sent are stored",
            self.stored, self.sent
        )];
        for (numbers, what) in [
            (&self.not_stored, "not stored"),
            (&self.unknown, "perhaps stored"),
        ] {
            if numbers.count > 0 {
                parts.push(format!("{} are {what}: {unit} {numbers}", numbers.count));
            }
        }
        let waited_for = self.stored + self.not_stored.count + self.unknown.count;
        let open = self.sent - waited_for;
        if open > 0 {
            parts.push(format!("of {open} the answers were not waited for"));
        }
        parts.push(format!("the last {unit} sent is {}", self.last_sent));
        if unit == "line" {
            parts.push(self.way_on(stop));
        }
        parts.join("; ")
    }

    fn way_on(&self, stop: &Stop) -> String {
        let failed = [self.not_stored.first(), self.unknown.first()];
        let first = failed.into_iter().flatten().min();
        let next = first.unwrap_or(self.last_sent + 1);
        let mut way = format!("--from-line {next} goes on there");
        if self.stored_behind > 0 {
            let behind = self.stored_behind;
            way += &format!(", and sends {behind} again that are stored behind it");
        }
        if matches!(stop, Stop::Invalid { .. }) && first.is_none() {
            way += ", with --skip-invalid without what is too long";
        }
        way
    }
}

#[cfg(test)]
mod tests {
    use raftmq_client::Message;

    use super::*;
    use crate::failure::ExitCode;

    fn source() -> Source {
        Source {
            unit: "line",
            name: Some("orders.txt".to_owned()),
        }
    }

    fn error() -> Error {
        Message::builder("no topic!").body("x").build().unwrap_err()
    }

    /// Catches an end that says that nothing was tried when thousands are stored, and a wrong line to go on at.
    #[test]
    fn what_was_sent_is_told_with_the_line_to_go_on_at() {
        let mut account = Account::default();
        for number in [1, 2, 4] {
            account.sent(number);
        }
        account.empty();
        account.stored(1);
        account.stored(2);
        account.stored(4);
        let failure = account.outcome(Stop::Invalid { number: 5 }, &source());
        let failure = failure.unwrap_err();
        assert_eq!(failure.exit_code(), ExitCode::Failed);
        let text = failure.to_string();
        for part in [
            "line 5 of orders.txt is longer than",
            "3 of 3 messages that were sent are stored",
            "--from-line 5 goes on there",
            "--skip-invalid",
        ] {
            assert!(text.contains(part), "{part}: {text}");
        }
        let nothing = Account::default().outcome(Stop::Invalid { number: 1 }, &source());
        assert_eq!(nothing.unwrap_err().exit_code(), ExitCode::Usage);
    }

    /// Catches messages that were refused among others that are stored, and of which nobody says which.
    #[test]
    fn lines_that_failed_are_named() {
        let mut account = Account::default();
        for number in 1..=6 {
            account.sent(number);
        }
        account.stored(1);
        account.failed(2, error());
        account.failed(3, error());
        account.stored(4);
        account.failed(5, error());
        let text = account.outcome(Stop::Failed, &source()).unwrap_err();
        let text = text.to_string();
        for part in [
            "line 2 of orders.txt: ",
            "2 of 6 messages that were sent are stored",
            "3 are not stored: line 2 to 3, 5",
            "of 1 the answers were not waited for",
            "--from-line 2 goes on there, and sends 1 again",
        ] {
            assert!(text.contains(part), "{part}: {text}");
        }
        assert!(Account::default().outcome(Stop::AtEnd, &source()).is_ok());
    }

    /// Catches a list of lines that grows with the file.
    #[test]
    fn lines_are_named_in_stretches_and_not_without_end() {
        let mut numbers = Numbers::default();
        (1..=1000).for_each(|number| numbers.add(number * 2));
        assert_eq!((numbers.count, numbers.stretches.len()), (1000, 64));
        assert_eq!(numbers.to_string(), "2, 4, 6, 8, 10, 12, 14, 16, …");
    }
}
