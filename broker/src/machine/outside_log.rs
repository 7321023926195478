//! Mutant: offsets of consumer groups that are changed where they are asked for, and not through the log.

use proto::{QueueId, QueueOffset};

use super::Shared;
use crate::view::View;

impl View {
    /// Sets a group's place in the memory of this broker.
    pub(crate) fn keep_offset(
        &self,
        group: &str,
        topic_id: u64,
        queue: QueueId,
        offset: QueueOffset,
    ) {
        self.shared().keep_offset(group, (topic_id, queue), offset);
    }
}

impl Shared {
    fn keep_offset(&self, group: &str, place: (u64, QueueId), offset: QueueOffset) {
        self.change(|state| {
            if let Some(group) = state.groups.get_mut(group) {
                let present = group.offsets.entry(place).or_insert(offset);
                *present = offset.max(*present);
            }
        });
    }
}
