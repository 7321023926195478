//! What waits for another delivery, what is dead, and where both stand in the log.

use std::collections::BTreeSet;

use bytes::Bytes;
use proto::{QueueId, QueueOffset, TimestampMs};
use store::StoreError;
use store::table::{DeliveryKey, GroupQueue};

use super::{RetryArrivals, View};
use crate::machine::{Due, Location, Retry};

impl View {
    /// A queue as a group reads it; none if one of them does not exist.
    pub(crate) fn group_queue(
        &self,
        group: &str,
        topic_id: u64,
        queue: QueueId,
    ) -> Option<GroupQueue> {
        self.look(|state| {
            state.queue(topic_id, queue)?;
            let group_id = state.groups.get(group)?.group.id;
            Some(GroupQueue {
                group_id,
                topic_id,
                queue,
            })
        })
    }

    /// What is due when `passed_ms` have passed along the log: at most `limit`, and none that the caller holds.
    pub(crate) fn retries_due(
        &self,
        queue: GroupQueue,
        passed_ms: u64,
        held: &BTreeSet<QueueOffset>,
        limit: usize,
    ) -> Due {
        self.look(|state| state.retries.due(queue, passed_ms, held, limit))
    }

    /// Tells when a group's retries in a queue change.
    pub(crate) fn retry_arrivals(&self, queue: GroupQueue) -> RetryArrivals {
        RetryArrivals::new(self.shared.clone(), queue)
    }

    /// The message that waits; none if it does not any more.
    pub(crate) fn retry(&self, key: DeliveryKey) -> Option<Retry> {
        self.look(|state| state.retries.get(key))
    }

    /// Messages of a queue that wait for another delivery to a group.
    pub fn retry_count(&self, group: &str, topic_id: u64, queue: QueueId) -> usize {
        let queue = self.group_queue(group, topic_id, queue);
        queue.map_or(0, |queue| self.look(|state| state.retries.count_of(queue)))
    }

    /// How many messages of a queue wait for another delivery to a group, and when the oldest was stored.
    pub(crate) fn waiting_retries(
        &self,
        group: &str,
        topic_id: u64,
        queue: QueueId,
    ) -> (u64, Option<TimestampMs>) {
        let queue = self.group_queue(group, topic_id, queue);
        queue.map_or((0, None), |queue| {
            self.look(|state| {
                let retries = &state.retries;
                (retries.count_of(queue) as u64, retries.oldest_ms(queue))
            })
        })
    }

    /// The message that stands there; none if there is no message.
    pub(crate) async fn message_at(&self, location: Location) -> Result<Option<Bytes>, StoreError> {
        let storage = self.look(|state| state.storage.clone());
        let storage = storage.ok_or(StoreError::Closed)?;
        let entry = self.decoded(&storage, location.log_index).await?;
        Ok(entry.and_then(|entry| entry.message(location.command, location.position)))
    }

    /// Messages in the entries before `log_index` that retries or dead letters point at, in the log's
    /// order, the first `limit` of them.
    pub(crate) fn referenced_below(&self, log_index: u64, limit: usize) -> Vec<Location> {
        self.look(|state| state.references.below(log_index, limit))
    }

    /// The lowest entry that a retry or a dead letter points at.
    pub(crate) fn lowest_reference(&self) -> Option<u64> {
        self.look(|state| state.references.lowest())
    }

    /// How much had passed along the log when the oldest dead letter died.
    pub(crate) fn oldest_death_ms(&self) -> Option<u64> {
        self.look(|state| {
            let topics = state.topics.values();
            let topics = topics.filter(|topic| topic.topic.dead_letters);
            let oldest = topics.filter_map(|topic| state.dead_letters.oldest_of(topic.topic.id));
            oldest.map(|(_, letter)| letter.passed_ms).min()
        })
    }
}
