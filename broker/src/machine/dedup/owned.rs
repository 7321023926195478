//! What is remembered of one owner in one topic: rows, the oldest of which goes first.

use std::collections::VecDeque;

use proto::QueueId;
use store::table::dedup::{Owner, Row, Run};

use super::RowNumber;
use super::sequences::{Sequences, Spot, Stored};

/// About what an owner takes in memory, beside its rows.
const OWNER_BYTES: u64 = 256;
/// About what a row takes, beside what it names.
const ROW_BYTES: u64 = 160;
/// About what a run takes.
const RUN_BYTES: u64 = 32;
/// A digest.
const DIGEST_BYTES: u64 = 8;
/// About what a run of a sequenced sender takes more, to be found.
const SEQUENCE_BYTES: u64 = 96;
/// About what a client's message takes more, to be found.
const SPOT_BYTES: u64 = 80;

/// See the module's text.
#[derive(Default)]
pub(super) struct Owned {
    /// The oldest first.
    rows: VecDeque<(RowNumber, Row)>,
    /// What the rows take.
    rows_bytes: u64,
    /// What all of it took when it was weighed.
    bytes: u64,
    /// Of a sequenced sender: where its sequences are.
    sequences: Sequences,
}

impl Owned {
    /// What made the newest row.
    pub(super) fn newest(&self) -> Option<RowNumber> {
        self.rows.back().map(|(number, _)| *number)
    }

    /// The row that this made.
    pub(super) fn row(&self, number: RowNumber) -> Option<&Row> {
        let place = self
            .rows
            .binary_search_by_key(&number, |(number, _)| *number);
        place.ok().map(|place| &self.rows[place].1)
    }

    /// Begins the newest row, of what goes to a queue.
    pub(super) fn begin(&mut self, number: RowNumber, passed_ms: u64, queue: QueueId) {
        let row = Row {
            passed_ms,
            queue,
            runs: Vec::with_capacity(1),
            digests: Vec::new(),
        };
        self.rows.push_back((number, row));
        self.rows_bytes += ROW_BYTES;
    }

    /// Adds messages to the newest row.
    pub(super) fn add(&mut self, owner: Owner, queue: QueueId, run: Run, digests: &[u64]) {
        let (number, row) = self.rows.back_mut().expect("a row was begun");
        let at = row.digests.len();
        row.digests.extend_from_slice(digests);
        let before = match row.runs.last_mut() {
            Some(last) if continues(last, &run) => {
                last.count += run.count;
                Some(last.first)
            }
            _ => {
                row.runs.push(run);
                None
            }
        };
        self.rows_bytes += digests.len() as u64 * message_bytes(owner);
        if before.is_none() {
            self.rows_bytes += run_bytes(owner);
        }
        if let Owner::Sequenced(_) = owner {
            let stored = Stored {
                count: run.count,
                spot: Spot {
                    queue,
                    offset: run.first_offset,
                },
                row: *number,
                at,
            };
            let before = before.map(|id| id as u64);
            self.sequences.add(run.first as u64, before, stored);
        }
    }

    /// The oldest row.
    pub(super) fn oldest(&self) -> Option<RowNumber> {
        self.rows.front().map(|(number, _)| *number)
    }

    /// The oldest row that may go alone. Of a sequenced sender the newest row of each queue may not: it says how far the
    /// sender came there.
    pub(super) fn oldest_to_spare(&self, owner: Owner) -> Option<RowNumber> {
        let spare = |(number, row): &&(RowNumber, Row)| match owner {
            Owner::Sequenced(_) => !self.sequences.is_newest(row.queue, *number),
            Owner::Client(_) => true,
        };
        self.rows.iter().find(spare).map(|(number, _)| *number)
    }

    /// Forgets a row.
    pub(super) fn forget(&mut self, owner: Owner, number: RowNumber) -> Option<Row> {
        let place = self
            .rows
            .binary_search_by_key(&number, |(number, _)| *number);
        let (_, row) = self.rows.remove(place.ok()?)?;
        let (runs, messages) = (row.runs.len() as u64, row.digests.len() as u64);
        self.rows_bytes -= ROW_BYTES + runs * run_bytes(owner) + messages * message_bytes(owner);
        if let Owner::Sequenced(_) = owner {
            let firsts = row.runs.iter().map(|run| run.first as u64);
            self.sequences.remove(firsts, row.queue, number);
        }
        Some(row)
    }

    /// The message of a sequence, and what it and those of its run behind it say.
    pub(super) fn find(&self, sequence: u64) -> Option<(Spot, &[u64])> {
        let (skipped, stored) = self.sequences.find(sequence)?;
        let row = self.row(stored.row)?;
        let digests = row
            .digests
            .get(stored.at..stored.at + stored.count as usize)?;
        let spot = Spot {
            queue: stored.spot.queue,
            offset: stored.spot.offset + u64::from(skipped),
        };
        Some((spot, digests.get(skipped as usize..)?))
    }

    /// The highest sequence.
    pub(super) fn highest(&self) -> Option<u64> {
        self.sequences.highest()
    }

    /// The highest sequence in a queue.
    pub(super) fn highest_of(&self, queue: QueueId) -> Option<u64> {
        self.sequences.highest_of(queue)
    }

    /// The next sequence that is stored.
    pub(super) fn next_after(&self, sequence: u64) -> Option<u64> {
        self.sequences.next_after(sequence)
    }

    /// What it took when it was weighed last, and what it takes now; 0 if it has no rows.
    pub(super) fn weigh(&mut self) -> (u64, u64) {
        let now = match self.rows.is_empty() {
            true => 0,
            false => OWNER_BYTES + self.rows_bytes,
        };
        (std::mem::replace(&mut self.bytes, now), now)
    }
}

fn continues(last: &Run, next: &Run) -> bool {
    last.first.checked_add(u128::from(last.count)) == Some(next.first)
        && last.first_offset + u64::from(last.count) == next.first_offset
}

fn run_bytes(owner: Owner) -> u64 {
    match owner {
        Owner::Sequenced(_) => RUN_BYTES + SEQUENCE_BYTES,
        Owner::Client(_) => RUN_BYTES,
    }
}

fn message_bytes(owner: Owner) -> u64 {
    match owner {
        Owner::Sequenced(_) => DIGEST_BYTES,
        Owner::Client(_) => DIGEST_BYTES + SPOT_BYTES,
    }
}
