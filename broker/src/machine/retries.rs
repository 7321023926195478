//! The messages that wait for another delivery, by queue and by when they are due.
//!
//! A mirror of the table `retry`, whose rows are bounded, sorted once more by due time: so a poll costs
//! what it answers, and the table needs no index.

use std::collections::{BTreeMap, BTreeSet};

use proto::{QueueOffset, TimestampMs};
use store::table::retry::Row;
use store::table::{DeliveryKey, GroupQueue};

use super::references::Location;

/// A message that waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Retry {
    pub(crate) location: Location,
    /// Deliveries that failed.
    pub(crate) attempt: u32,
    /// When it may be delivered again: when so much has passed along the log.
    pub(crate) due_ms: u64,
    /// When the message was stored.
    pub(crate) time_ms: TimestampMs,
}

impl Retry {
    pub(super) fn row(&self, key: DeliveryKey) -> Row {
        Row {
            key,
            log_index: self.location.log_index,
            command: self.location.command,
            position: self.location.position,
            attempt: self.attempt,
            due_ms: self.due_ms,
            time_ms: self.time_ms,
        }
    }

    pub(super) fn of(row: &Row) -> (DeliveryKey, Retry) {
        let location = Location {
            log_index: row.log_index,
            command: row.command,
            position: row.position,
        };
        let retry = Retry {
            location,
            attempt: row.attempt,
            due_ms: row.due_ms,
            time_ms: row.time_ms,
        };
        (row.key, retry)
    }
}

/// What a poll finds.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Due {
    /// Messages that are due, the one that waits longest first.
    pub(crate) now: Vec<(QueueOffset, Retry)>,
    /// When the next one is due that is not among them; it may be due already.
    pub(crate) next_ms: Option<u64>,
}

/// All messages that wait.
#[derive(Default)]
pub(crate) struct Retries {
    queues: BTreeMap<GroupQueue, Waiting>,
    count: usize,
    /// How many of each group.
    groups: BTreeMap<u64, usize>,
}

#[derive(Default)]
struct Waiting {
    rows: BTreeMap<QueueOffset, Retry>,
    due: BTreeSet<(u64, QueueOffset)>,
}

impl Retries {
    pub(crate) fn get(&self, key: DeliveryKey) -> Option<Retry> {
        self.queues.get(&key.queue)?.rows.get(&key.offset).copied()
    }

    /// How many there are.
    pub(crate) fn count(&self) -> usize {
        self.count
    }

    /// How many wait of one group.
    pub(super) fn count_of_group(&self, group_id: u64) -> usize {
        self.groups.get(&group_id).copied().unwrap_or(0)
    }

    /// Groups for which any waits.
    pub(super) fn groups(&self) -> usize {
        self.groups.len()
    }

    /// How many wait in one queue.
    pub(crate) fn count_of(&self, queue: GroupQueue) -> usize {
        self.queues
            .get(&queue)
            .map_or(0, |waiting| waiting.rows.len())
    }

    /// Adds a message, or changes it.
    pub(super) fn put(&mut self, key: DeliveryKey, retry: Retry) {
        let waiting = self.queues.entry(key.queue).or_default();
        match waiting.rows.insert(key.offset, retry) {
            Some(former) => drop(waiting.due.remove(&(former.due_ms, key.offset))),
            None => {
                self.count += 1;
                *self.groups.entry(key.queue.group_id).or_default() += 1;
            }
        }
        waiting.due.insert((retry.due_ms, key.offset));
    }

    pub(super) fn remove(&mut self, key: DeliveryKey) -> Option<Retry> {
        let waiting = self.queues.get_mut(&key.queue)?;
        let removed = waiting.rows.remove(&key.offset)?;
        waiting.due.remove(&(removed.due_ms, key.offset));
        self.count -= 1;
        if waiting.rows.is_empty() {
            self.queues.remove(&key.queue);
        }
        if let Some(count) = self.groups.get_mut(&key.queue.group_id) {
            *count -= 1;
            if *count == 0 {
                self.groups.remove(&key.queue.group_id);
            }
        }
        Some(removed)
    }

    /// The messages of a group; of one topic, or of all.
    pub(super) fn of_group(&self, group_id: u64, topic_id: Option<u64>) -> Vec<DeliveryKey> {
        let queues = self.queues.range(GroupQueue::of_group(group_id, topic_id));
        let keys = queues.flat_map(|(queue, waiting)| {
            let key = |offset: &QueueOffset| DeliveryKey {
                queue: *queue,
                offset: *offset,
            };
            waiting.rows.keys().map(key)
        });
        keys.collect()
    }

    /// The messages of a queue that lie before an offset.
    pub(super) fn before(&self, queue: GroupQueue, offset: QueueOffset) -> Vec<DeliveryKey> {
        let waiting = self.queues.get(&queue).into_iter();
        let offsets = waiting.flat_map(|waiting| waiting.rows.range(..offset));
        offsets
            .map(|(offset, _)| DeliveryKey {
                queue,
                offset: *offset,
            })
            .collect()
    }

    /// When the oldest message was stored that waits in a queue.
    pub(crate) fn oldest_ms(&self, queue: GroupQueue) -> Option<TimestampMs> {
        let (_, oldest) = self.queues.get(&queue)?.rows.first_key_value()?;
        Some(oldest.time_ms)
    }

    /// What of a queue is due when `passed_ms` have passed, at most `limit`, but for those that the caller holds. Looks at
    /// no more than both together.
    pub(crate) fn due(
        &self,
        queue: GroupQueue,
        passed_ms: u64,
        held: &BTreeSet<QueueOffset>,
        limit: usize,
    ) -> Due {
        let mut due = Due::default();
        let Some(waiting) = self.queues.get(&queue) else {
            return due;
        };
        for (due_ms, offset) in &waiting.due {
            if held.contains(offset) {
                continue;
            }
            if *due_ms > passed_ms || due.now.len() == limit {
                due.next_ms = Some(*due_ms);
                break;
            }
            due.now.push((*offset, waiting.rows[offset]));
        }
        due
    }
}
