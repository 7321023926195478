//! Where the sequences of one sender are, and how far it came in each queue.

use std::collections::BTreeMap;

use proto::QueueId;

use super::RowNumber;

/// See the module's text.
#[derive(Default)]
pub(super) struct Sequences {
    /// Runs by their first sequence; they do not overlap.
    runs: BTreeMap<u64, Stored>,
    /// The highest sequence in each queue, and the row that names it: what a sender sends to one queue, it sends in order.
    highest: BTreeMap<QueueId, (u64, RowNumber)>,
}

/// Where a message is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Spot {
    pub(super) queue: QueueId,
    pub(super) offset: u64,
}

/// A run of sequences.
#[derive(Debug, Clone, Copy)]
pub(super) struct Stored {
    pub(super) count: u32,
    /// Of the first.
    pub(super) spot: Spot,
    /// The row that names it.
    pub(super) row: RowNumber,
    /// Which digest of the row is the first one's.
    pub(super) at: usize,
}

impl Sequences {
    /// Adds a run; one that continues the run which begins `before` becomes a part of it.
    pub(super) fn add(&mut self, first: u64, before: Option<u64>, stored: Stored) {
        let last = first + u64::from(stored.count.saturating_sub(1));
        match before.and_then(|before| self.runs.get_mut(&before)) {
            Some(run) => run.count += stored.count,
            None => {
                self.runs.insert(first, stored);
            }
        }
        let highest = self.highest.entry(stored.spot.queue).or_default();
        *highest = (highest.0.max(last), stored.row);
    }

    /// A row goes: its runs, and how far the sender came in its queue if no later row says more.
    pub(super) fn remove(
        &mut self,
        firsts: impl Iterator<Item = u64>,
        queue: QueueId,
        row: RowNumber,
    ) {
        for first in firsts {
            if self.runs.get(&first).is_some_and(|run| run.row == row) {
                self.runs.remove(&first);
            }
        }
        if self.is_newest(queue, row) {
            self.highest.remove(&queue);
        }
    }

    /// The run that holds a sequence, and which one of it that is.
    pub(super) fn find(&self, sequence: u64) -> Option<(u32, &Stored)> {
        let (first, stored) = self.runs.range(..=sequence).next_back()?;
        let skipped = sequence - first;
        (skipped < u64::from(stored.count)).then_some((skipped as u32, stored))
    }

    pub(super) fn highest(&self) -> Option<u64> {
        self.highest.values().map(|(sequence, _)| *sequence).max()
    }

    pub(super) fn highest_of(&self, queue: QueueId) -> Option<u64> {
        self.highest.get(&queue).map(|(sequence, _)| *sequence)
    }

    /// Whether no row says more of how far the sender came in this queue.
    pub(super) fn is_newest(&self, queue: QueueId, row: RowNumber) -> bool {
        self.highest.get(&queue).is_some_and(|(_, of)| *of == row)
    }

    pub(super) fn next_after(&self, sequence: u64) -> Option<u64> {
        let above = sequence.checked_add(1)?;
        self.runs.range(above..).next().map(|(first, _)| *first)
    }
}
