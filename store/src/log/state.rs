//! What a commit log knows in memory, behind one lock that is never held across a wait.
//!
//! The positions of the log live here, and their inequalities are asserted wherever they change:
//! `dropped <= purged <= flushed <= appended`.

use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::Arc;

use host::File;

use super::ring::Ring;
use super::segment_list::SegmentList;
use crate::entry::{Entry, LogId};
use crate::error::{Result, StoreError};

/// Called once entries are synced, or never will be.
pub type Done = Box<dyn FnOnce(Result<()>) + Send>;

/// How far the log has come. Entries above `flushed` do not survive a power cut yet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Positions {
    /// First index whose record is still in a segment; the index that comes next if none is.
    pub dropped: u64,
    /// Raft does not ask for entries up to here.
    pub purged: Option<LogId>,
    /// The last entry that is synced.
    pub flushed: Option<LogId>,
    /// The last entry.
    pub appended: Option<LogId>,
}

/// Entries that were promised and are not there any more. Peers have them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Damage {
    /// The first index that cannot be read.
    pub first_bad_index: u64,
    /// The last index that was synced, as far as is known; before a good segment, the last missing
    /// one.
    pub synced_index: u64,
    /// Whether the damage is in a full segment, with a good one after it: then
    /// `replace_segment` repairs it, otherwise `reset_from` does.
    pub sealed: bool,
}

/// A file that is ready to become a segment.
pub(crate) struct Spare {
    pub(crate) file: Arc<dyn File>,
    pub(crate) path: PathBuf,
    /// Length of the file.
    pub(crate) len: u64,
}

/// Work for the flusher, in order.
pub(crate) enum Item {
    /// The records that follow go into a new segment.
    Roll {
        first_index: u64,
        spare: Spare,
    },
    Record(Entry),
    /// The records before are all of one append.
    Done(Done),
}

pub(crate) struct State {
    pub(crate) positions: Positions,
    pub(crate) segments: SegmentList,
    pub(crate) ring: Ring,
    pub(crate) queue: VecDeque<Item>,
    /// Bytes of records that are appended and not synced.
    pub(crate) pending_bytes: u64,
    /// Whether the flusher is at work on what it took from the queue.
    pub(crate) in_flight: bool,
    /// Whether something that must be alone with the log is at work.
    pub(crate) exclusive: bool,
    pub(crate) closed: bool,
    /// What broke the log for good.
    pub(crate) failure: Option<StoreError>,
    /// What is missing, lowest first.
    pub(crate) damages: Vec<Damage>,
    /// What was promised beyond what can be read, while the end of the log is damaged.
    pub(crate) promised: Option<LogId>,
    /// Whether nobody knows how far the log was synced: then its last damage has no end yet.
    pub(crate) mark_lost: bool,
    pub(crate) generation: u64,
    pub(crate) dir: PathBuf,
    pub(crate) spares: Vec<Spare>,
    pub(crate) next_spare: u64,
    /// Grows whenever entries are taken back: what was read in between may be gone.
    pub(crate) epoch: u64,
}

impl State {
    /// The index that comes next.
    pub(crate) fn next_index(&self) -> u64 {
        self.positions.appended.map_or(0, |last| last.index + 1)
    }

    pub(crate) fn is_idle(&self) -> bool {
        self.queue.is_empty() && !self.in_flight
    }

    /// Asserts what must hold of the positions at any time. A damaged log has lost some of them.
    pub(crate) fn assert_positions(&self) {
        if !self.damages.is_empty() {
            return;
        }
        let Positions {
            dropped,
            purged,
            flushed,
            appended,
        } = self.positions;
        let index = |id: Option<LogId>| id.map_or(0, |id| id.index + 1);
        assert!(
            dropped <= index(purged),
            "dropped {dropped} <= purged {purged:?}"
        );
        assert!(
            index(purged) <= index(flushed),
            "purged {purged:?} <= flushed {flushed:?}"
        );
        assert!(
            index(flushed) <= index(appended),
            "flushed {flushed:?} <= appended {appended:?}"
        );
        assert!(
            flushed <= appended,
            "terms never fall: {flushed:?}, {appended:?}"
        );
    }

    /// Whether the log may be written at all.
    pub(crate) fn check_writable(&self) -> Result<()> {
        if let Some(failure) = &self.failure {
            return Err(failure.clone());
        }
        if self.closed {
            return Err(StoreError::Closed);
        }
        if let Some(damage) = self.damages.first() {
            return Err(StoreError::corrupt_at(
                &self.dir,
                damage.first_bad_index,
                "the log must be repaired before it can grow",
            ));
        }
        if self.exclusive {
            let detail = "append while entries are being taken back".to_string();
            return Err(StoreError::Refused { detail });
        }
        Ok(())
    }

    /// Whether `entries` continue the log.
    pub(crate) fn check_follows(&self, entries: &[Entry]) -> Result<()> {
        let mut expected = self.next_index();
        let mut last_term = self.positions.appended.map_or(0, |last| last.term);
        for entry in entries {
            if entry.index != expected || entry.term < last_term {
                let (found, found_term) = (entry.index, entry.term);
                return Err(StoreError::OutOfOrder {
                    expected,
                    last_term,
                    found,
                    found_term,
                });
            }
            if entry.body.len() > super::record::BODY_BYTES_MAX {
                let detail = format!("entry {} has {} bytes", entry.index, entry.body.len());
                return Err(StoreError::Refused { detail });
            }
            (expected, last_term) = (expected + 1, entry.term);
        }
        Ok(())
    }

    /// The error for an index that the log does not hold.
    pub(crate) fn out_of_range(&self, index: u64) -> StoreError {
        StoreError::OutOfRange {
            index,
            first: self.positions.dropped,
            last: self.next_index().saturating_sub(1),
        }
    }
}
