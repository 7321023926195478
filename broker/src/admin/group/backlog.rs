//! How far a consumer group is behind: in every queue that it reads, or has read, what it has not finished.
//!
//! That is what is still there behind its committed offset, or behind where it starts if it has committed nothing, and what
//! waits for another delivery. What retention dropped is not: nobody can read it any more.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use proto::cluster::GroupQueue;
use proto::{QueueId, QueueOffset, TimestampMs};
use tokio::time::Instant;

use super::milliseconds;
use crate::admin::messages::stored_at;
use crate::grpc::status::{Refusal, unreadable};
use crate::pullers::Puller;
use crate::service::Service;
use crate::view::{Group, QueueBounds, Topic};

/// One queue that a group reads.
pub(super) struct Reading {
    pub(super) topic: Arc<Topic>,
    pub(super) queue: QueueId,
    pub(super) bounds: QueueBounds,
    pub(super) committed: Option<QueueOffset>,
    /// Messages from where the group goes on.
    pub(super) unread: u64,
    /// Messages that wait for another delivery.
    pub(super) retries: u64,
    /// Where the group goes on, among what is still there.
    next: QueueOffset,
    oldest_retry_ms: Option<TimestampMs>,
    owner: Option<Puller>,
}

/// The queues of every topic in which the group has committed an offset or pulled lately, or to which a member subscribes.
pub(super) async fn readings(
    service: &Service,
    group: &Group,
    now: Instant,
) -> Result<Vec<Reading>, Refusal> {
    let mut pullers = service.pullers.of_group(&group.name, now);
    let offsets = service.view.committed_offsets(&group.name).into_iter();
    let offsets: BTreeMap<(u64, QueueId), QueueOffset> = offsets
        .map(|(topic_id, queue, offset)| ((topic_id, queue), offset))
        .collect();
    let places = offsets.keys().chain(pullers.keys());
    let mut topic_ids: BTreeSet<u64> = places.map(|(topic_id, _)| *topic_id).collect();
    let members = service.clients.subscriptions(&group.name, now).into_iter();
    for topics in members.filter_map(|(_, topics)| topics) {
        let known = topics.iter().filter_map(|name| service.view.topic(name));
        topic_ids.extend(known.map(|topic| topic.id));
    }
    let mut readings = Vec::new();
    for topic in topic_ids
        .into_iter()
        .filter_map(|id| service.view.topic_by_id(id))
    {
        for (queue, bounds) in (0..).zip(service.view.queues(topic.id)) {
            let place = (topic.id, queue);
            let committed = offsets.get(&place).copied();
            let next = match committed {
                Some(offset) => offset,
                None => {
                    let start = service.view.start_of(group, &topic, queue, None).await;
                    start.map_err(|error| unreadable(&topic.name, &error))?
                }
            };
            let next = next.clamp(bounds.min_offset, bounds.next_offset);
            let (retries, oldest_retry_ms) =
                service.view.waiting_retries(&group.name, topic.id, queue);
            readings.push(Reading {
                topic: topic.clone(),
                queue,
                bounds,
                committed,
                unread: bounds.next_offset - next,
                retries,
                next,
                oldest_retry_ms,
                owner: pullers.remove(&place),
            });
        }
    }
    readings
        .sort_by(|one, other| (&one.topic.name, one.queue).cmp(&(&other.topic.name, other.queue)));
    Ok(readings)
}

impl Reading {
    /// What operators are shown.
    pub(super) async fn described(
        &self,
        service: &Service,
        now: Instant,
    ) -> Result<GroupQueue, Refusal> {
        let stored_ms = match self.unread {
            0 => None,
            _ => stored_at(service, self.topic.id, self.queue, self.next).await?,
        };
        let oldest_ms = self.oldest_retry_ms.into_iter().chain(stored_ms).min();
        let now_ms = service.now().time_ms;
        let owner = self.owner.as_ref();
        Ok(GroupQueue {
            topic: self.topic.name.clone(),
            queue: self.queue,
            min_offset: self.bounds.min_offset,
            max_offset: self.bounds.next_offset,
            committed: self.committed.is_some(),
            offset: self.committed.unwrap_or(0),
            lag_ms: oldest_ms.map_or(0, |oldest_ms| now_ms.saturating_sub(oldest_ms)),
            owner: owner.map_or_else(String::new, |owner| owner.client_id.to_string()),
            owner_seen_ms_ago: owner.map_or(0, |owner| milliseconds(now - owner.at)),
            pulled_offset: owner.map_or(0, |owner| owner.offset),
            unread: self.unread,
            retries: self.retries,
        })
    }
}
