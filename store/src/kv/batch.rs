//! Changes that happen together or not at all.
//!
//! Keys and values are copied into one buffer, so that a batch of many small rows costs few
//! allocations.

/// An ordered list of changes, written by [`Kv::write`](crate::Kv::write) as one.
///
/// A later change of a key wins over an earlier one.
#[derive(Debug, Default, Clone)]
pub struct Batch {
    /// Of each operation in turn: its key, then its value (put) or upper bound (range).
    bytes: Vec<u8>,
    operations: Vec<Frame>,
}

#[derive(Debug, Clone, Copy)]
struct Frame {
    verb: Verb,
    key_len: u32,
    value_len: u32,
}

#[derive(Debug, Clone, Copy)]
enum Verb {
    Put,
    Delete,
    DeleteRange,
}

/// One change, borrowed from its batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operation<'a> {
    /// `key` has `value` from now on.
    Put {
        /// The key.
        key: &'a [u8],
        /// Its new value.
        value: &'a [u8],
    },
    /// `key` is absent from now on.
    Delete {
        /// The key.
        key: &'a [u8],
    },
    /// Every key with `from <= key < to` is absent from now on.
    DeleteRange {
        /// First key of the range.
        from: &'a [u8],
        /// First key after the range.
        to: &'a [u8],
    },
}

impl Batch {
    /// A batch that changes nothing.
    pub fn new() -> Batch {
        Batch::default()
    }

    /// Sets `key` to `value`.
    pub fn put(&mut self, key: impl AsRef<[u8]>, value: impl AsRef<[u8]>) {
        self.push(Verb::Put, key.as_ref(), value.as_ref());
    }

    /// Removes `key`; an absent one is no error.
    pub fn delete(&mut self, key: impl AsRef<[u8]>) {
        self.push(Verb::Delete, key.as_ref(), &[]);
    }

    /// Removes every key with `from <= key < to`. Both are of one kind. For many rows: a range
    /// costs every later reader of its family a little until it is compacted away.
    pub fn delete_range(&mut self, from: impl AsRef<[u8]>, to: impl AsRef<[u8]>) {
        self.push(Verb::DeleteRange, from.as_ref(), to.as_ref());
    }

    /// Whether it changes nothing.
    pub fn is_empty(&self) -> bool {
        self.operations.is_empty()
    }

    /// Number of changes.
    pub fn len(&self) -> usize {
        self.operations.len()
    }

    /// The changes in the order in which they were added.
    pub fn iter(&self) -> impl Iterator<Item = Operation<'_>> {
        let mut rest = self.bytes.as_slice();
        self.operations.iter().map(move |frame| {
            let (key, after_key) = rest.split_at(frame.key_len as usize);
            let (value, after_value) = after_key.split_at(frame.value_len as usize);
            rest = after_value;
            match frame.verb {
                Verb::Put => Operation::Put { key, value },
                Verb::Delete => Operation::Delete { key },
                Verb::DeleteRange => Operation::DeleteRange {
                    from: key,
                    to: value,
                },
            }
        })
    }

    fn push(&mut self, verb: Verb, key: &[u8], value: &[u8]) {
        debug_assert!(!key.is_empty(), "a key starts with its kind");
        let key_len = u32::try_from(key.len()).expect("a key is far below 4 GiB");
        let value_len = u32::try_from(value.len()).expect("a table's value is far below 4 GiB");
        self.bytes.extend_from_slice(key);
        self.bytes.extend_from_slice(value);
        self.operations.push(Frame {
            verb,
            key_len,
            value_len,
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Would catch operations that are cut at the wrong place in the shared buffer.
    #[test]
    fn gives_back_what_was_put_in_order() {
        let mut batch = Batch::new();
        batch.put([1, 2], []);
        batch.delete([3]);
        batch.delete_range([4], [5, 6]);
        batch.put([7], [8, 9]);
        let operations: Vec<_> = batch.iter().collect();
        assert_eq!(
            operations,
            [
                Operation::Put {
                    key: &[1, 2],
                    value: &[]
                },
                Operation::Delete { key: &[3] },
                Operation::DeleteRange {
                    from: &[4],
                    to: &[5, 6]
                },
                Operation::Put {
                    key: &[7],
                    value: &[8, 9]
                },
            ]
        );
        assert_eq!(batch.len(), 4);
    }
}
