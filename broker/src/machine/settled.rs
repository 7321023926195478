//! What groups were done with lately: a call that arrives late, or twice, must not bring a message back.
//!
//! A mirror of the table `settled`. Bounded by the time that passes along the log, as message ids are, and
//! by count. What was forgotten can come back: then a group gets a message once more.

use std::collections::{BTreeMap, BTreeSet};

use host::{Mutant, mutant};
use proto::QueueOffset;
use store::Batch;
use store::table::settled::{self, Row};
use store::table::{DeliveryKey, GroupQueue};

use super::limits::SETTLED_MAX;

/// Settles whatever delivery: one that died has no further one, also if a member that does not know of it counts anew
/// and further.
pub(super) const EVERY_ATTEMPT: u32 = u32::MAX;

/// The messages that are remembered.
#[derive(Default)]
pub(crate) struct Settled {
    rows: BTreeMap<DeliveryKey, Remembered>,
    /// The oldest first. The same order on every replica, whatever it was restored from.
    order: BTreeSet<(u64, DeliveryKey)>,
}

#[derive(Clone, Copy)]
struct Remembered {
    attempt: u32,
    passed_ms: u64,
}

impl Settled {
    /// The delivery that settled a message or was its last; 0 if nothing is known.
    pub(super) fn attempt(&self, key: DeliveryKey) -> u32 {
        // Mutant: whatever was settled.
        if mutant::is(Mutant::SettledForgotten) {
            return 0;
        }
        self.rows.get(&key).map_or(0, |row| row.attempt)
    }

    /// Remembers that a message was done with at this delivery, or at a later one that is known.
    pub(super) fn remember(
        &mut self,
        batch: &mut Batch,
        key: DeliveryKey,
        attempt: u32,
        passed_ms: u64,
    ) {
        let attempt = attempt.max(self.attempt(key));
        self.insert(key, Remembered { attempt, passed_ms });
        let row = Row {
            key,
            attempt,
            passed_ms,
        };
        settled::put(batch, &row);
        while self.rows.len() > SETTLED_MAX {
            let Some((_, oldest)) = self.order.first().copied() else {
                return;
            };
            self.forget(batch, oldest);
        }
    }

    /// Loads a row.
    pub(super) fn load(&mut self, row: &Row) {
        let (attempt, passed_ms) = (row.attempt, row.passed_ms);
        self.insert(row.key, Remembered { attempt, passed_ms });
    }

    /// Forgets what is older than `window_ms` when `passed_ms` have passed. A window of 0 does not bound.
    pub(super) fn expire(&mut self, passed_ms: u64, window_ms: u64, batch: &mut Batch) {
        while let Some((settled_ms, key)) = self.order.first().copied()
            && window_ms > 0
            && settled_ms.saturating_add(window_ms) < passed_ms
        {
            self.forget(batch, key);
        }
    }

    /// Forgets a group's messages; of one topic, or of all.
    pub(super) fn forget_group(&mut self, batch: &mut Batch, group_id: u64, topic_id: Option<u64>) {
        let queues = GroupQueue::of_group(group_id, topic_id);
        self.forget_range(batch, *queues.start(), *queues.end(), 0);
    }

    /// Forgets the messages of a queue from an offset on: the group is to get them anew.
    pub(super) fn forget_from(&mut self, batch: &mut Batch, queue: GroupQueue, from: QueueOffset) {
        self.forget_range(batch, queue, queue, from);
    }

    fn forget_range(
        &mut self,
        batch: &mut Batch,
        first: GroupQueue,
        last: GroupQueue,
        from: QueueOffset,
    ) {
        let first = DeliveryKey {
            queue: first,
            offset: from,
        };
        let last = DeliveryKey {
            queue: last,
            offset: QueueOffset::MAX,
        };
        let keys: Vec<DeliveryKey> = self.rows.range(first..=last).map(|(key, _)| *key).collect();
        for key in keys {
            self.forget(batch, key);
        }
    }

    fn forget(&mut self, batch: &mut Batch, key: DeliveryKey) {
        if let Some(row) = self.rows.remove(&key) {
            self.order.remove(&(row.passed_ms, key));
            settled::delete(batch, key);
        }
    }

    fn insert(&mut self, key: DeliveryKey, row: Remembered) {
        if let Some(former) = self.rows.insert(key, row) {
            self.order.remove(&(former.passed_ms, key));
        }
        self.order.insert((row.passed_ms, key));
    }
}
