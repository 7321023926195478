//! Recent entries in memory: what followers and consumers at the tail read.
//!
//! Holds the same `Bytes` that were appended. Never lets go of an entry that is not synced yet: it
//! cannot be read from anywhere else.

use std::collections::VecDeque;

use super::record::record_len;
use crate::entry::{Entry, LogId};

#[derive(Default)]
pub(crate) struct Ring {
    entries: VecDeque<Entry>,
    bytes: u64,
}

impl Ring {
    pub(crate) fn push(&mut self, entry: Entry) {
        if let Some(last) = self.entries.back() {
            assert_eq!(
                last.index + 1,
                entry.index,
                "entries in memory follow each other"
            );
        }
        self.bytes += record_len(&entry);
        self.entries.push_back(entry);
    }

    pub(crate) fn get(&self, index: u64) -> Option<&Entry> {
        let first = self.entries.front()?.index;
        self.entries
            .get(usize::try_from(index.checked_sub(first)?).ok()?)
    }

    /// Lets go of the oldest entries until `bytes_max` is kept, but of none above `flushed`.
    pub(crate) fn evict(&mut self, bytes_max: u64, flushed: Option<LogId>) {
        while self.bytes > bytes_max {
            match self.entries.front() {
                Some(entry) if flushed.is_some_and(|flushed| entry.index <= flushed.index) => {}
                _ => break,
            }
            self.pop_front();
        }
    }

    /// Forgets the entries from `index` on.
    pub(crate) fn truncate(&mut self, index: u64) {
        while self
            .entries
            .back()
            .is_some_and(|entry| entry.index >= index)
        {
            if let Some(entry) = self.entries.pop_back() {
                self.bytes -= record_len(&entry);
            }
        }
    }

    /// Forgets the entries below `index`: their segments are gone.
    pub(crate) fn drop_below(&mut self, index: u64) {
        while self
            .entries
            .front()
            .is_some_and(|entry| entry.index < index)
        {
            self.pop_front();
        }
    }

    fn pop_front(&mut self) {
        if let Some(entry) = self.entries.pop_front() {
            self.bytes -= record_len(&entry);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::entry::EntryKind;

    fn entry(index: u64) -> Entry {
        Entry {
            term: 1,
            index,
            kind: EntryKind::Normal,
            body: vec![0; 68].into(),
        }
    }

    /// Catches an entry that is neither in memory nor on the disk, and memory that only grows.
    #[test]
    fn unsynced_entries_stay_whatever_the_bound() {
        let mut ring = Ring::default();
        (10..20).for_each(|index| ring.push(entry(index)));
        ring.evict(0, Some(LogId { term: 1, index: 14 }));
        assert_eq!((ring.get(14), ring.get(15)), (None, Some(&entry(15))));
        assert_eq!(ring.bytes, 500);
        ring.evict(0, None);
        assert_eq!(ring.bytes, 500);
        ring.truncate(18);
        assert_eq!((ring.get(18), ring.get(17)), (None, Some(&entry(17))));
        ring.push(entry(18));
        ring.drop_below(18);
        assert_eq!((ring.get(17), ring.get(18)), (None, Some(&entry(18))));
        assert_eq!(ring.bytes, 100);
    }
}
