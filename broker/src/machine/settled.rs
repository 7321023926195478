//! What groups were done with lately: a call that arrives late, or twice, must not bring a message back.
//!
//! A mirror of the table `settled`. Bounded by the time that passes along the log, as message ids are, and
//! by count; where there are too many, the group that has most forgets its oldest, so that no group forgets for another.
//! What was forgotten can come back: then a group gets a message once more.

use std::collections::{BTreeMap, BTreeSet};

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
    /// The same of each group.
    groups: BTreeMap<u64, BTreeSet<(u64, DeliveryKey)>>,
    /// How many each group has; whoever has most is last.
    sizes: BTreeSet<(usize, u64)>,
}

#[derive(Clone, Copy)]
struct Remembered {
    attempt: u32,
    passed_ms: u64,
}

impl Settled {
    /// The delivery that settled a message or was its last; 0 if nothing is known.
    pub(super) fn attempt(&self, key: DeliveryKey) -> u32 {
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
            let largest = self.sizes.last().and_then(|(_, id)| self.groups.get(id));
            let Some((_, oldest)) = largest.and_then(BTreeSet::first).copied() else {
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
            self.unlist((row.passed_ms, key));
            settled::delete(batch, key);
        }
    }

    fn insert(&mut self, key: DeliveryKey, row: Remembered) {
        if let Some(former) = self.rows.insert(key, row) {
            self.unlist((former.passed_ms, key));
        }
        let listed = (row.passed_ms, key);
        self.order.insert(listed);
        let group_id = key.queue.group_id;
        let of_group = self.groups.entry(group_id).or_default();
        self.sizes.remove(&(of_group.len(), group_id));
        of_group.insert(listed);
        self.sizes.insert((of_group.len(), group_id));
    }

    fn unlist(&mut self, listed: (u64, DeliveryKey)) {
        self.order.remove(&listed);
        let group_id = listed.1.queue.group_id;
        let Some(of_group) = self.groups.get_mut(&group_id) else {
            return;
        };
        self.sizes.remove(&(of_group.len(), group_id));
        of_group.remove(&listed);
        match of_group.len() {
            0 => drop(self.groups.remove(&group_id)),
            count => drop(self.sizes.insert((count, group_id))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(group_id: u64, offset: QueueOffset) -> DeliveryKey {
        DeliveryKey {
            queue: GroupQueue {
                group_id,
                topic_id: 1,
                queue: 0,
            },
            offset,
        }
    }

    /// Catches a group whose late calls bring messages back because another group settles many.
    #[test]
    fn a_busy_group_forgets_its_own_and_nobody_elses() {
        let (mut settled, mut batch) = (Settled::default(), Batch::default());
        settled.remember(&mut batch, key(1, 0), 3, 1);
        for offset in 0..SETTLED_MAX as u64 {
            settled.remember(&mut batch, key(2, offset), 1, 2 + offset);
        }
        assert_eq!(settled.attempt(key(1, 0)), 3, "forgotten for another group");
        assert_eq!(settled.attempt(key(2, 0)), 0, "too many are remembered");
        assert_eq!(settled.attempt(key(2, 1)), 1);
        // A mirror that was loaded in the order of its keys forgets the same.
        let mut loaded = Settled::default();
        for (key, row) in &settled.rows {
            let (key, attempt, passed_ms) = (*key, row.attempt, row.passed_ms);
            loaded.load(&Row {
                key,
                attempt,
                passed_ms,
            });
        }
        assert_eq!(
            (&loaded.order, &loaded.sizes),
            (&settled.order, &settled.sizes)
        );
        settled.forget_group(&mut batch, 2, None);
        settled.expire(1_000, 1, &mut batch);
        assert!(settled.rows.is_empty() && settled.order.is_empty());
        assert!(settled.groups.is_empty() && settled.sizes.is_empty());
    }
}
