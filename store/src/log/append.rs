//! Appending: entries get their places, become readable, and wait for the flusher.
//!
//! Does everything that may be refused first: after the first change nothing fails any more.

use super::record::{HEADER_BYTES, record_len};
use super::segment::{self, segment_path};
use super::segment_list::Open;
use super::state::{Done, Item, Spare, State};
use super::{CommitLog, Shared};
use crate::entry::{Entry, EntryKind};
use crate::error::{Result, StoreError};

impl CommitLog {
    /// Appends entries, which must follow the last one. They are readable when this returns, and
    /// durable when `done` is called, in the order of the appends.
    ///
    /// On an error nothing was appended and `done` is not called. [`StoreError::Busy`] and
    /// [`StoreError::DiskFull`] may pass; after [`StoreError::Io`] the replica must stop. What fits into files that are
    /// there is appended however full the disk is: their blocks are reserved.
    pub fn append(&self, entries: Vec<Entry>, done: Done) -> Result<()> {
        let shared = &self.shared;
        let bytes = entries.iter().map(record_len).sum();
        let mut state = shared.state();
        state.check_writable()?;
        state.check_follows(&entries)?;
        shared.check_room(&state, bytes)?;
        shared.space.appended(bytes);
        shared.enqueue(&mut state, entries, done)?;
        state.pending_bytes += bytes;
        state.assert_positions();
        drop(state);
        shared.appended.notify_one();
        Ok(())
    }
}

impl CommitLog {
    /// Whether so many entries, whose bodies have so many bytes together, would fit into the segment that is written to if they
    /// were appended now: no other file is needed for them then. None of them may be of the kind [`EntryKind::Roll`].
    pub fn has_place(&self, entries: usize, body_bytes: u64) -> bool {
        let (shared, state) = (&self.shared, self.shared.state());
        let bytes = (entries * HEADER_BYTES) as u64 + body_bytes;
        let end = state.segments.tail().map(|tail| tail.end);
        end.is_some_and(|end| end + bytes <= shared.segment_bytes)
    }

    /// Index of the first entry of the segment that is written to; none before the first entry.
    pub fn tail_begin(&self) -> Option<u64> {
        let state = self.shared.state();
        state.segments.tail().map(|tail| tail.first_index)
    }
}

impl Shared {
    fn check_room(&self, state: &State, bytes: u64) -> Result<()> {
        let (pending_bytes, bytes_max) = (state.pending_bytes, self.config.pending_bytes_max);
        // One append of any size is taken when nothing else waits: it would never fit otherwise.
        if pending_bytes > 0 && pending_bytes + bytes > bytes_max {
            return Err(StoreError::Busy {
                pending_bytes,
                bytes_max,
            });
        }
        Ok(())
    }

    /// Gives the entries their places. Fails before any change, if a segment file cannot be made.
    pub(super) fn enqueue(&self, state: &mut State, entries: Vec<Entry>, done: Done) -> Result<()> {
        let mut files = Vec::new();
        for len in self.segments_needed(state, &entries) {
            match self.take_spare(state, len) {
                Ok(file) => files.push(file),
                Err(error) => {
                    files
                        .into_iter()
                        .for_each(|file| self.return_spare(state, file));
                    return Err(error);
                }
            }
        }
        let mut files = files.into_iter();
        for entry in entries {
            let end = state.segments.tail().map(|tail| tail.end);
            if self.rolls(end, &entry) {
                let file = files.next().expect("as many files as segments begin");
                begin_segment(state, entry.index, file);
            }
            place(state, &entry);
            state.ring.push(entry.clone());
            state.positions.appended = Some(entry.log_id());
            state.queue.push_back(Item::Record(entry));
        }
        state.queue.push_back(Item::Done(done));
        Ok(())
    }

    /// The rule by which segments end. It looks at entries only, so that all replicas agree.
    fn rolls(&self, end: Option<u64>, entry: &Entry) -> bool {
        match end {
            None => true,
            Some(end) if end == segment::HEADER_BYTES as u64 => false,
            Some(end) => {
                entry.kind == EntryKind::Roll || end + record_len(entry) > self.segment_bytes
            }
        }
    }

    /// Length of the file of each segment that these entries begin.
    fn segments_needed(&self, state: &State, entries: &[Entry]) -> Vec<u64> {
        let mut end = state.segments.tail().map(|tail| tail.end);
        let mut lens = Vec::new();
        for entry in entries {
            if self.rolls(end, entry) {
                end = Some(segment::HEADER_BYTES as u64);
                lens.push(segment::HEADER_BYTES as u64 + record_len(entry));
            }
            end = end.map(|end| end + record_len(entry));
        }
        lens
    }
}

fn begin_segment(state: &mut State, first_index: u64, spare: Spare) {
    let open = Open {
        first_index,
        path: segment_path(&state.dir, first_index),
        file: spare.file.clone(),
        positions: Vec::new(),
        end: segment::HEADER_BYTES as u64,
    };
    state.segments.push_open(open);
    state.queue.push_back(Item::Roll { first_index, spare });
}

fn place(state: &mut State, entry: &Entry) {
    let tail = state
        .segments
        .tail_mut()
        .expect("the first entry began a segment");
    assert_eq!(tail.end_index(), entry.index, "records follow each other");
    let position = u32::try_from(tail.end).expect("segments end long before 4 GiB");
    tail.positions.push(position);
    tail.end += record_len(entry);
}
