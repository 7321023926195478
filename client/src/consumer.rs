//! Consumers.

use std::sync::Arc;
use std::time::Duration;

use crate::error::Error;
use crate::received::ReceivedMessage;

/// One queue of one topic.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct TopicQueue {
    /// The topic.
    pub topic: Arc<str>,
    /// Number of the queue within the topic.
    pub queue: u32,
}

impl TopicQueue {
    /// Queue number `queue` of `topic`.
    pub fn new(topic: impl Into<Arc<str>>, queue: u32) -> TopicQueue {
        TopicQueue { topic: topic.into(), queue }
    }
}

/// Where a group starts in a queue in which it has committed no offset.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum ConsumeFrom {
    /// At the oldest message that is still there.
    #[default]
    Earliest,
    /// After the newest message.
    Latest,
    /// At the first message stored at or after this time, in milliseconds since the Unix epoch.
    TimeMs(u64),
}

impl ConsumeFrom {
    pub(crate) fn from_wire(kind: i32, time_ms: u64) -> ConsumeFrom {
        use proto::command::put_group::ConsumeFrom as Wire;
        match Wire::try_from(kind) {
            Ok(Wire::Latest) => ConsumeFrom::Latest,
            Ok(Wire::Timestamp) => ConsumeFrom::TimeMs(time_ms),
            Ok(Wire::Earliest) | Err(_) => ConsumeFrom::Earliest,
        }
    }

    /// The kind as `command.v1` numbers it, and the time.
    pub(crate) fn to_wire(self) -> (i32, u64) {
        use proto::command::put_group::ConsumeFrom as Wire;
        match self {
            ConsumeFrom::Earliest => (Wire::Earliest as i32, 0),
            ConsumeFrom::Latest => (Wire::Latest as i32, 0),
            ConsumeFrom::TimeMs(time_ms) => (Wire::Timestamp as i32, time_ms),
        }
    }
}

/// Which messages of a topic a consumer wants.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub enum Filter {
    /// All of them.
    #[default]
    All,
    /// Those with one of the tags, as `a` or `a || b`.
    Tag(String),
    /// Those for which an SQL92 expression over their properties is true.
    Sql(String),
}

/// One message, and where it stood.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Delivery {
    /// The topic.
    pub topic: Arc<str>,
    /// Number of the queue within the topic.
    pub queue: u32,
    /// Offset in the queue.
    pub offset: u64,
    /// What was sent.
    pub message: ReceivedMessage,
}

/// Consumes topics as a member of a consumer group, or chosen queues on its own.
pub struct PullConsumer {}

impl PullConsumer {
    /// Adds a topic. The group's members share its queues among themselves.
    pub async fn subscribe(&self, topic: &str, filter: Filter) -> Result<(), Error> { unimplemented!() }
    /// Gives up a topic.
    pub async fn unsubscribe(&self, topic: &str) -> Result<(), Error> { unimplemented!() }
    /// Takes exactly these queues, whoever else does. Excludes `subscribe`.
    pub async fn assign(&self, queues: impl IntoIterator<Item = TopicQueue>) -> Result<(), Error> { unimplemented!() }
    /// The queues that this consumer reads now, in order.
    pub fn assignment(&self) -> Vec<TopicQueue> { unimplemented!() }
    /// Up to `max` messages; waits until there is at least one or `timeout` has passed (then none).
    pub async fn poll(&self, max: usize, timeout: Duration) -> Result<Vec<Delivery>, Error> { unimplemented!() }
    /// Goes to an offset of an assigned queue: the next `poll` continues there.
    pub async fn seek(&self, queue: &TopicQueue, offset: u64) -> Result<(), Error> { unimplemented!() }
    /// The offset that the next `poll` continues at in an assigned queue.
    pub fn position(&self, queue: &TopicQueue) -> Option<u64> { unimplemented!() }
    /// Says that everything handed out so far is done, and commits it.
    pub async fn commit(&self) -> Result<(), Error> { unimplemented!() }
    /// Commits one offset of one queue: the next one to deliver.
    pub async fn commit_offset(&self, queue: &TopicQueue, offset: u64) -> Result<(), Error> { unimplemented!() }
    /// What the group has committed in a queue, if anything.
    pub async fn committed(&self, queue: &TopicQueue) -> Result<Option<u64>, Error> { unimplemented!() }
    /// Leaves: commits (with automatic commits: everything handed out) and says goodbye, so that others take over at once.
    pub async fn close(self) -> Result<(), Error> { unimplemented!() }
}

/// Describes a [`PullConsumer`].
#[derive(Clone)]
pub struct PullConsumerBuilder {}

impl PullConsumerBuilder {
    pub(crate) fn new(core: Arc<crate::core::Core>, group: String, member_id: String) -> Self { unimplemented!() }
    /// Where to start in a queue in which the group has committed no offset. Default the oldest message.
    #[must_use]
    pub fn consume_from(self, start: ConsumeFrom) -> Self { unimplemented!() }
    /// How often to commit what is done, by itself. Default 5 s.
    #[must_use]
    pub fn auto_commit(self, interval: Duration) -> Self { unimplemented!() }
    /// Commits only when told to.
    #[must_use]
    pub fn manual_commit(self) -> Self { unimplemented!() }
    /// How often to tell the servers that this member lives, and to share the queues anew. Default 2 s.
    #[must_use]
    pub fn heartbeat_interval(self, interval: Duration) -> Self { unimplemented!() }
    /// How long a broker may hold a pull that finds nothing. Default 15 s.
    #[must_use]
    pub fn long_polling_timeout(self, timeout: Duration) -> Self { unimplemented!() }
    /// Most messages asked for by one pull. Default 256.
    #[must_use]
    pub fn pull_messages_max(self, messages: usize) -> Self { unimplemented!() }
    /// Most messages kept ready for each queue. Default 1024.
    #[must_use]
    pub fn prefetch_messages(self, messages: usize) -> Self { unimplemented!() }
    /// Most bytes kept ready for each queue. Default 8 MiB.
    #[must_use]
    pub fn prefetch_bytes(self, bytes: usize) -> Self { unimplemented!() }
    /// The consumer, not yet reading anything.
    pub fn build(self) -> Result<PullConsumer, Error> { unimplemented!() }
}
