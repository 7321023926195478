//! The state in memory: a mirror of the tables, but for the consume queues, which are too many rows.

use std::collections::BTreeMap;
use std::sync::Arc;

use proto::{QueueId, QueueOffset};
use store::table::clock::Clock;
use store::table::queue_bounds::QueueBounds;
use store::{CommitLog, Kv};

use super::dead_letters::DeadLetters;
use super::dedup::Dedup;
use super::references::References;
use super::retries::Retries;
use super::settings::{Group, Topic};
use super::settled::Settled;

/// Everything that entries have made so far.
#[derive(Default)]
pub(crate) struct State {
    pub(crate) clock: Clock,
    /// The number of the next topic or group.
    pub(crate) next_id: u64,
    pub(crate) log_floor: u64,
    pub(crate) topics: BTreeMap<u64, TopicState>,
    pub(crate) topic_ids: BTreeMap<String, u64>,
    pub(crate) groups: BTreeMap<String, GroupState>,
    /// Queues of all topics.
    pub(crate) queues: usize,
    /// Offsets of all groups.
    pub(crate) offsets: usize,
    pub(crate) dedup: Dedup,
    pub(crate) retries: Retries,
    pub(crate) settled: Settled,
    pub(crate) dead_letters: DeadLetters,
    /// What the retries and the dead letters point at.
    pub(crate) references: References,
    /// Absent only before the first restore.
    pub(crate) storage: Option<Storage>,
}

/// Where rows and message bodies are read from.
#[derive(Clone)]
pub(crate) struct Storage {
    pub(crate) kv: Arc<dyn Kv>,
    pub(crate) log: CommitLog,
}

/// A topic and its queues.
pub(crate) struct TopicState {
    pub(crate) topic: Arc<Topic>,
    /// By queue number.
    pub(crate) queues: Vec<QueueBounds>,
}

/// A consumer group and how far it has come.
pub(crate) struct GroupState {
    pub(crate) group: Arc<Group>,
    /// By topic id and queue.
    pub(crate) offsets: BTreeMap<(u64, QueueId), QueueOffset>,
}

impl State {
    pub(crate) fn topic(&self, name: &str) -> Option<&TopicState> {
        self.topics.get(self.topic_ids.get(name)?)
    }

    pub(crate) fn queue(&self, topic_id: u64, queue: QueueId) -> Option<QueueBounds> {
        self.topics
            .get(&topic_id)?
            .queues
            .get(queue as usize)
            .copied()
    }
}
