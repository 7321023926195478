//! What the demo puts around a line: its number, so that every line is a message of its own and even
//! an empty one has a body.
//!
//! ```text
//! body   decimal number of the line, from 0 | one space | the line as it is in the file
//! ```

use bytes::Bytes;

/// The body that carries line `number`.
pub(crate) fn wrap(number: usize, line: &[u8]) -> Bytes {
    let mut body = number.to_string().into_bytes();
    body.push(b' ');
    body.extend_from_slice(line);
    Bytes::from(body)
}

/// The number and the line in a body; None if it is no envelope.
pub(crate) fn open(body: &[u8]) -> Option<(usize, &[u8])> {
    let blank = body.iter().position(|byte| *byte == b' ')?;
    let number = std::str::from_utf8(&body[..blank]).ok()?.parse().ok()?;
    Some((number, &body[blank + 1..]))
}

#[cfg(test)]
mod tests {
    use super::{open, wrap};

    /// Catches lines that change on their way: empty, with blanks, not text.
    #[test]
    fn every_line_comes_out_as_it_went_in() {
        for line in [b"".as_slice(), b" ", b"GET / 200", b"\xff\x00"] {
            assert_eq!(open(&wrap(17, line)), Some((17, line)));
        }
        assert_eq!(open(b"no number"), None);
        assert_eq!(open(b"12"), None);
    }
}
