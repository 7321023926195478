//! Queues only grow at their end and are only dropped from at their beginning, as long as a process runs.
//! (openraft's invariant 12, of what this state machine holds; groups' offsets are the oracle's, since an
//! operator may set them back.)

use std::collections::BTreeMap;

use broker::View;

use crate::machine::Machine;
use crate::violation::Violation;

/// First and next offset of a queue.
type Bounds = (u64, u64);

#[derive(Default)]
pub(super) struct QueuesForward {
    /// Of each process, topic and queue.
    before: BTreeMap<(Machine, u64, u64, u32), Bounds>,
}

impl QueuesForward {
    pub(super) fn look(
        &mut self,
        machine: Machine,
        life: u64,
        view: &View,
    ) -> Result<(), Violation> {
        for topic in view.topics() {
            for (queue, bounds) in (0..).zip(view.queues(topic.id)) {
                let key = (machine, life, topic.id, queue);
                self.seen(key, (bounds.min_offset, bounds.next_offset))?;
            }
        }
        Ok(())
    }

    pub(super) fn seen(
        &mut self,
        key: (Machine, u64, u64, u32),
        now: Bounds,
    ) -> Result<(), Violation> {
        let before = self.before.insert(key, now).unwrap_or_default();
        if now.0 < before.0 || now.1 < before.1 || now.0 > now.1 {
            let (machine, _, topic, queue) = key;
            let detail =
                format!("{machine}: queue {queue} of topic {topic} was {before:?} and is {now:?}");
            return Err(Violation::new("queues-forward", detail));
        }
        Ok(())
    }
}
