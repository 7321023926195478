//! What readers may see of the state machine: committed and applied, never half of a change.
//!
//! The read half of the broker goes through here: routes, offsets, messages, and waiting for what is
//! yet to come. A [`View`] answers from memory, and from tables and log for messages.
//!
//! Must never: change anything, or hold the machine's lock while it waits for the disk.

mod arrivals;
mod entry_cache;
mod read;
mod retries;
mod start;
#[cfg(test)]
mod view_test;

use std::sync::Arc;

use proto::{QueueId, QueueOffset, TimestampMs};
use store::StoreError;
pub use store::table::queue_bounds::QueueBounds;
use tokio::sync::watch;

pub use self::arrivals::Arrivals;
pub(crate) use self::arrivals::RetryArrivals;
pub(crate) use self::entry_cache::EntryCache;
pub use self::read::Stored;
use crate::log_time::Moment;
use crate::machine::dedup::DedupStatus;
pub(crate) use crate::machine::settings::FIRST_QUEUE;
pub use crate::machine::settings::{Group, Since, Topic};
use crate::machine::{Shared, State};

/// Why messages cannot be read.
#[derive(Debug, Clone, thiserror::Error)]
pub enum ReadError {
    /// The messages there were dropped.
    #[error("offset is below the first one that is kept, {min}")]
    OffsetTooSmall {
        /// First offset that can be read.
        min: QueueOffset,
    },
    /// Nothing was stored there yet.
    #[error("offset is above the next one, {max}")]
    OffsetTooLarge {
        /// Offset of the next message.
        max: QueueOffset,
    },
    /// No such topic or queue.
    #[error("queue does not exist")]
    NotFound,
    /// Tables and log contradict each other.
    #[error("queue {topic_id}/{queue} is damaged at offset {offset}: {detail}")]
    Corrupt {
        /// The topic.
        topic_id: u64,
        /// The queue.
        queue: QueueId,
        /// The message that cannot be read.
        offset: QueueOffset,
        /// What does not fit.
        detail: String,
    },
    /// The tables or the log cannot be read.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// A handle to what has been applied. Cheap to clone.
#[derive(Clone)]
pub struct View {
    shared: Arc<Shared>,
}

impl View {
    pub(crate) fn new(shared: Arc<Shared>) -> View {
        View { shared }
    }

    /// The topic of this name.
    pub fn topic(&self, name: &str) -> Option<Arc<Topic>> {
        self.look(|state| state.topic(name).map(|topic| topic.topic.clone()))
    }

    /// The topic of this number.
    pub fn topic_by_id(&self, topic_id: u64) -> Option<Arc<Topic>> {
        self.look(|state| state.topics.get(&topic_id).map(|topic| topic.topic.clone()))
    }

    /// All topics, by number.
    pub fn topics(&self) -> Vec<Arc<Topic>> {
        self.look(|state| {
            state
                .topics
                .values()
                .map(|topic| topic.topic.clone())
                .collect()
        })
    }

    /// The consumer group of this name.
    pub fn group(&self, name: &str) -> Option<Arc<Group>> {
        self.look(|state| state.groups.get(name).map(|group| group.group.clone()))
    }

    /// All consumer groups, by name.
    pub fn groups(&self) -> Vec<Arc<Group>> {
        self.look(|state| {
            state
                .groups
                .values()
                .map(|group| group.group.clone())
                .collect()
        })
    }

    /// A queue's first and next offset; none if the queue does not exist.
    pub fn queue(&self, topic_id: u64, queue: QueueId) -> Option<QueueBounds> {
        self.look(|state| state.queue(topic_id, queue))
    }

    /// The bounds of all queues of a topic, by queue number; empty if there is no such topic.
    pub fn queues(&self, topic_id: u64) -> Vec<QueueBounds> {
        self.look(|state| {
            state
                .topics
                .get(&topic_id)
                .map(|topic| topic.queues.clone())
                .unwrap_or_default()
        })
    }

    /// The next offset that a group has to consume; none if it has not started in that queue.
    pub fn committed_offset(
        &self,
        group: &str,
        topic_id: u64,
        queue: QueueId,
    ) -> Option<QueueOffset> {
        self.look(|state| {
            state
                .groups
                .get(group)?
                .offsets
                .get(&(topic_id, queue))
                .copied()
        })
    }

    /// All places of a group: topic id, queue and offset, in that order.
    pub fn committed_offsets(&self, group: &str) -> Vec<(u64, QueueId, QueueOffset)> {
        self.look(|state| {
            let Some(group) = state.groups.get(group) else {
                return Vec::new();
            };
            let offsets = group.offsets.iter();
            offsets
                .map(|((topic_id, queue), offset)| (*topic_id, *queue, *offset))
                .collect()
        })
    }

    /// Tells when a queue gets messages.
    pub fn arrivals(&self, topic_id: u64, queue: QueueId) -> Arrivals {
        Arrivals::new(self.shared.clone(), topic_id, queue)
    }

    /// A number that grows with every change of topics or groups. Of this process only.
    pub fn config_version(&self) -> u64 {
        self.shared.config_version()
    }

    /// Tells when [`View::config_version`] grows.
    pub fn config_changes(&self) -> watch::Receiver<u64> {
        self.shared.config_changes()
    }

    /// What time the last applied entry said it was, milliseconds since the Unix epoch.
    pub fn last_time_ms(&self) -> TimestampMs {
        self.last_moment().time_ms
    }

    /// What the last applied entry said of time.
    pub(crate) fn last_moment(&self) -> Moment {
        self.look(|state| Moment {
            time_ms: state.clock.time_ms,
            passed_ms: state.clock.passed_ms,
        })
    }

    /// The last applied entry that carried commands; blank and membership entries do not count.
    pub fn applied_index(&self) -> u64 {
        self.look(|state| state.clock.log_index)
    }

    /// The first log entry that rows may point at.
    pub fn log_floor(&self) -> u64 {
        self.look(|state| state.log_floor)
    }

    /// How well messages that are sent again are recognised, for metrics.
    pub(crate) fn dedup_status(&self) -> DedupStatus {
        self.look(|state| state.dedup.status(state.clock.passed_ms))
    }

    /// Bytes of the messages that this process has applied since it started, for metrics.
    pub fn payload_bytes(&self) -> u64 {
        self.shared.payload_bytes()
    }

    fn look<T>(&self, look: impl FnOnce(&State) -> T) -> T {
        self.shared.look(look)
    }
}
