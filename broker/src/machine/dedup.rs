//! Recognises messages that were stored before, for as long as a client may send them again.
//!
//! Ids are numbers and come in runs, so a run of any length costs as much as one id. What is
//! remembered is bounded by time and by count; both bounds come with the entry, so that every replica
//! forgets the same ids at the same entry. The time is what has passed along the log, not what a clock
//! says: a leader whose clock jumps forward must not make everybody forget what a client sends again. Ids of one topic are known in all of its queues: a client
//! that tries again may choose another queue.

use std::collections::{BTreeMap, VecDeque};

use store::Batch;
use store::table::dedup::{self, Run};

use super::entry::Place;
use super::limits::DEDUP_IDS_MAX;

/// The ids that are remembered.
#[derive(Default)]
pub(crate) struct Dedup {
    /// By topic and first id; the runs of a topic do not overlap.
    known: BTreeMap<(u64, u128), Stored>,
    /// The same runs in the order in which they were stored.
    order: VecDeque<Remembered>,
    /// Ids in all runs.
    ids: u64,
}

#[derive(Debug, Clone, Copy)]
struct Stored {
    count: u32,
    first_offset: u64,
}

#[derive(Debug, Clone, Copy)]
struct Remembered {
    log_index: u64,
    command: u32,
    count: u32,
    passed_ms: u64,
    topic_id: u64,
    first: u128,
}

/// What is known of the first ids of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Found {
    /// The first `count` were stored before, at these offsets.
    Known {
        /// How many.
        count: u32,
        /// Offset of the first.
        first_offset: u64,
    },
    /// The first `count` are new.
    New {
        /// How many.
        count: u32,
    },
}

impl Dedup {
    /// Looks at the ids `first` to `first + count - 1` and tells about the first of them.
    pub(super) fn find(&self, topic_id: u64, first: u128, count: u32) -> Found {
        let wanted = (topic_id, first);
        if let Some((&(topic, start), stored)) = self.known.range(..=wanted).next_back()
            && topic == topic_id
            && first - start < u128::from(stored.count)
        {
            let skipped = (first - start) as u32;
            return Found::Known {
                count: count.min(stored.count - skipped),
                first_offset: stored.first_offset + u64::from(skipped),
            };
        }
        match self.known.range(wanted..).next() {
            Some((&(topic, start), _))
                if topic == topic_id && start - first < u128::from(count) =>
            {
                Found::New {
                    count: (start - first) as u32,
                }
            }
            _ => Found::New { count },
        }
    }

    /// Remembers ids that [`Dedup::find`] called new. The caller writes the row.
    pub(super) fn remember(&mut self, place: Place, topic_id: u64, run: Run) {
        self.insert(
            place.log_index,
            place.command,
            place.passed_ms,
            topic_id,
            run,
        );
    }

    /// Loads a row; rows come in log order.
    pub(super) fn load(&mut self, row: &dedup::Row) {
        for run in &row.runs {
            self.insert(
                row.log_index,
                row.command,
                row.passed_ms,
                row.topic_id,
                *run,
            );
        }
    }

    /// Forgets the rows that are older than `window_ms` when `passed_ms` have passed, and the oldest ones while more
    /// than `ids_max` ids are remembered. A bound of 0 does not bound.
    pub(super) fn expire(
        &mut self,
        passed_ms: u64,
        window_ms: u64,
        ids_max: u64,
        batch: &mut Batch,
    ) {
        let ids_max = if ids_max == 0 {
            DEDUP_IDS_MAX
        } else {
            ids_max.min(DEDUP_IDS_MAX)
        };
        while let Some(oldest) = self.order.front().copied() {
            let old = window_ms > 0 && oldest.passed_ms.saturating_add(window_ms) < passed_ms;
            if !old && self.ids <= ids_max {
                return;
            }
            // A row goes as a whole.
            while let Some(run) = self.order.front()
                && (run.log_index, run.command) == (oldest.log_index, oldest.command)
            {
                self.ids -= u64::from(run.count);
                self.known.remove(&(run.topic_id, run.first));
                self.order.pop_front();
            }
            dedup::delete(batch, oldest.log_index, oldest.command);
        }
        // Memory that a burst took is given back when the burst is forgotten.
        self.order.shrink_to(1024);
    }

    fn insert(&mut self, log_index: u64, command: u32, passed_ms: u64, topic_id: u64, run: Run) {
        let stored = Stored {
            count: run.count,
            first_offset: run.first_offset,
        };
        self.known.insert((topic_id, run.first), stored);
        self.order.push_back(Remembered {
            log_index,
            command,
            count: run.count,
            passed_ms,
            topic_id,
            first: run.first,
        });
        self.ids += u64::from(run.count);
    }
}
