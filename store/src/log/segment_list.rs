//! Which segments the log consists of, and which of them holds an index.
//!
//! Sealed segments first, then those still being filled: usually one, and more while the flusher is
//! behind. Keeps what is in memory only; other files of this folder change the disk.

use std::collections::{BTreeMap, VecDeque};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use host::File;

use super::segment::Summary;

/// A full segment. Its index file is read when it is needed.
pub(crate) struct Sealed {
    pub(crate) first_index: u64,
    pub(crate) last_index: u64,
    pub(crate) path: PathBuf,
    pub(crate) summary: OnceLock<Summary>,
    /// Set before the file is reused or replaced: what was read since may belong to somebody else.
    retired: AtomicBool,
}

impl Sealed {
    pub(crate) fn new(
        first_index: u64,
        last_index: u64,
        path: PathBuf,
        summary: Option<Summary>,
    ) -> Sealed {
        let cell = OnceLock::new();
        if let Some(summary) = summary {
            cell.get_or_init(|| summary);
        }
        Sealed {
            first_index,
            last_index,
            path,
            summary: cell,
            retired: AtomicBool::new(false),
        }
    }

    /// Records in the segment.
    pub(crate) fn count(&self) -> u64 {
        self.last_index - self.first_index + 1
    }

    pub(crate) fn retire(&self) {
        self.retired.store(true, Ordering::SeqCst);
    }

    pub(crate) fn is_retired(&self) -> bool {
        self.retired.load(Ordering::SeqCst)
    }
}

/// A segment being filled.
#[derive(Clone)]
pub(crate) struct Open {
    pub(crate) first_index: u64,
    pub(crate) path: PathBuf,
    pub(crate) file: Arc<dyn File>,
    /// Where each record begins, those not written yet included.
    pub(crate) positions: Vec<u32>,
    /// Where the next record will begin.
    pub(crate) end: u64,
}

impl Open {
    /// Index of the record that comes next.
    pub(crate) fn end_index(&self) -> u64 {
        self.first_index + self.positions.len() as u64
    }

    /// Where the record of `index` begins and ends, if it is here.
    pub(crate) fn span(&self, index: u64) -> Option<std::ops::Range<u64>> {
        let place = usize::try_from(index.checked_sub(self.first_index)?).ok()?;
        let start = u64::from(*self.positions.get(place)?);
        let end = self
            .positions
            .get(place + 1)
            .map_or(self.end, |next| u64::from(*next));
        Some(start..end)
    }
}

/// Where an index is to be found.
pub(crate) enum Place<'a> {
    Sealed(&'a Arc<Sealed>),
    Open(&'a Open),
}

/// The segments of a log, lowest first.
#[derive(Default)]
pub(crate) struct SegmentList {
    sealed: BTreeMap<u64, Arc<Sealed>>,
    open: VecDeque<Open>,
}

impl SegmentList {
    pub(crate) fn push_sealed(&mut self, sealed: Arc<Sealed>) {
        assert!(
            self.open.is_empty(),
            "sealed segments come before open ones"
        );
        self.sealed.insert(sealed.first_index, sealed);
    }

    pub(crate) fn push_open(&mut self, open: Open) {
        if let Some(tail) = self.open.back() {
            assert_eq!(
                tail.end_index(),
                open.first_index,
                "segments follow each other"
            );
        }
        self.open.push_back(open);
    }

    /// The lowest open segment is full.
    pub(crate) fn seal(&mut self, sealed: Arc<Sealed>) {
        let open = self
            .open
            .pop_front()
            .expect("the flusher seals a segment that is open");
        assert_eq!(
            open.first_index, sealed.first_index,
            "segments are sealed in order"
        );
        self.sealed.insert(sealed.first_index, sealed);
    }

    /// Puts another file in the place of a sealed segment, or in a gap.
    pub(crate) fn replace_sealed(&mut self, sealed: Arc<Sealed>) {
        self.sealed.insert(sealed.first_index, sealed);
    }

    pub(crate) fn find(&self, index: u64) -> Option<Place<'_>> {
        let open = self
            .open
            .iter()
            .rev()
            .find(|open| open.first_index <= index);
        if let Some(open) = open {
            return (index < open.end_index()).then_some(Place::Open(open));
        }
        let (_, sealed) = self.sealed.range(..=index).next_back()?;
        (index <= sealed.last_index).then_some(Place::Sealed(sealed))
    }

    pub(crate) fn tail(&self) -> Option<&Open> {
        self.open.back()
    }

    pub(crate) fn tail_mut(&mut self) -> Option<&mut Open> {
        self.open.back_mut()
    }

    pub(crate) fn open_front(&self) -> Option<&Open> {
        self.open.front()
    }

    pub(crate) fn sealed(&self) -> impl DoubleEndedIterator<Item = &Arc<Sealed>> {
        self.sealed.values()
    }

    pub(crate) fn sealed_at(&self, first_index: u64) -> Option<&Arc<Sealed>> {
        self.sealed.get(&first_index)
    }

    pub(crate) fn open(&self) -> impl DoubleEndedIterator<Item = &Open> {
        self.open.iter()
    }

    /// First index of the lowest segment.
    pub(crate) fn first_index(&self) -> Option<u64> {
        let sealed = self.sealed.first_key_value().map(|(first, _)| *first);
        sealed.or_else(|| self.open.front().map(|open| open.first_index))
    }

    /// Takes out the sealed segments that end below `first_index`.
    pub(crate) fn take_below(&mut self, first_index: u64) -> Vec<Arc<Sealed>> {
        let ends_below = |sealed: &Arc<Sealed>| sealed.last_index < first_index;
        let count = self
            .sealed
            .values()
            .take_while(|sealed| ends_below(sealed))
            .count();
        (0..count)
            .filter_map(|_| self.sealed.pop_first())
            .map(|(_, sealed)| sealed)
            .collect()
    }

    /// Takes out every segment that begins at or above `index`; returns their first indexes,
    /// highest first.
    pub(crate) fn take_from(&mut self, index: u64) -> Vec<u64> {
        let mut taken = Vec::new();
        while self
            .open
            .back()
            .is_some_and(|open| open.first_index >= index)
        {
            taken.extend(self.open.pop_back().map(|open| open.first_index));
        }
        for (first, sealed) in self.sealed.split_off(&index).into_iter().rev() {
            sealed.retire();
            taken.push(first);
        }
        taken
    }

    /// Takes out the highest sealed segment, if no segment is open.
    pub(crate) fn take_last_sealed(&mut self) -> Option<Arc<Sealed>> {
        if !self.open.is_empty() {
            return None;
        }
        self.sealed.pop_last().map(|(_, sealed)| sealed)
    }
}
