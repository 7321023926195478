//! Keys: a kind, then numbers and texts so written that bytes sort as what they mean.

use crate::table::{Fields, Kind};

/// Longest text in a key, bytes. Names are checked long before (`proto`); this is the layout's bound.
const TEXT_BYTES_MAX: usize = u16::MAX as usize;

/// A key under construction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Key(Vec<u8>);

impl Key {
    /// The key that is the kind alone: the key of a table's only row, and the start of all others.
    pub(super) fn new(kind: Kind) -> Key {
        let mut bytes = Vec::with_capacity(32);
        bytes.push(kind.tag());
        Key(bytes)
    }

    /// All keys of a kind: `from <= key < to`.
    pub(super) fn range(kind: Kind) -> (Key, Key) {
        (Key::new(kind), Key(vec![kind.tag() + 1]))
    }

    /// Appends a byte.
    pub(super) fn u8(mut self, number: u8) -> Key {
        self.0.push(number);
        self
    }

    /// Appends 8 bytes, big-endian.
    pub(super) fn u64(mut self, number: u64) -> Key {
        self.0.extend_from_slice(&number.to_be_bytes());
        self
    }

    /// Appends 4 bytes, big-endian.
    pub(super) fn u32(mut self, number: u32) -> Key {
        self.0.extend_from_slice(&number.to_be_bytes());
        self
    }

    /// Appends a length (2 bytes) and the text. No such key is the start of another's text.
    pub(super) fn text(mut self, text: &str) -> Key {
        assert!(
            text.len() <= TEXT_BYTES_MAX,
            "a name in a key is at most 65,535 bytes"
        );
        self.0.extend_from_slice(&(text.len() as u16).to_be_bytes());
        self.0.extend_from_slice(text.as_bytes());
        self
    }

    /// All keys that start with this one and are longer or equal: `from <= key < to`.
    pub(super) fn prefix_range(self) -> (Key, Key) {
        let mut end = self.0.clone();
        // The kind byte is never 255, so the carry stops at the latest there.
        while let Some(last) = end.pop() {
            if last < u8::MAX {
                end.push(last + 1);
                break;
            }
        }
        (self, Key(end))
    }
}

impl AsRef<[u8]> for Key {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

/// Reads a key's fields after its kind.
pub(super) fn fields(kind: Kind, key: &[u8]) -> Result<Fields<'_>, crate::error::StoreError> {
    match key.split_first() {
        Some((tag, rest)) if *tag == kind.tag() => Ok(Fields::new(kind, rest)),
        _ => Err(kind.corrupt("a key of another kind")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Would catch a range that leaves out the row with the highest number, or runs into the next
    /// kind.
    #[test]
    fn a_prefix_range_holds_its_extensions_only() {
        let (from, to) = Key::new(Kind::ConsumeQueue).u64(u64::MAX).prefix_range();
        let inside = Key::new(Kind::ConsumeQueue)
            .u64(u64::MAX)
            .u32(u32::MAX)
            .u64(u64::MAX);
        let outside = Key::new(Kind::QueueBounds).u64(0);
        assert!(from.as_ref() <= inside.as_ref() && inside.as_ref() < to.as_ref());
        assert!(to.as_ref() <= outside.as_ref());
    }

    /// Would catch texts without their length: "a" + "bc" and "ab" + "c" would be one key.
    #[test]
    fn texts_do_not_run_into_each_other() {
        let one = Key::new(Kind::Group).text("a").text("bc");
        let other = Key::new(Kind::Group).text("ab").text("c");
        assert_ne!(one, other);
    }
}
