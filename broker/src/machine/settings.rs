//! What is agreed on of topics and consumer groups, beside their messages and their progress.

use std::collections::BTreeMap;

use model::RetryPolicy;
use proto::TimestampMs;
use proto::place::Life;

/// A topic's settings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Topic {
    /// Its number; never used for another topic.
    pub id: u64,
    /// Its name.
    pub name: String,
    /// Its queues have the numbers 0 to `queue_count - 1`; those below [`Topic::first_queue`] are never offered.
    pub queue_count: u32,
    /// `apache.rocketmq.v2.MessageType`; 0 accepts any.
    pub message_type: i32,
    /// Free settings, by name.
    pub attributes: BTreeMap<String, String>,
    /// Whether it is the dead-letter queue of a consumer group: nobody sends to it.
    pub dead_letters: bool,
    /// See [`Life`].
    pub mark: u64,
}

/// Attribute of a topic: number of the first queue that is offered, where another broker group has the lower ones.
pub(crate) const FIRST_QUEUE: &str = "queues.first";

impl Topic {
    /// Tells it from others of its name.
    pub fn life(&self) -> Life {
        Life {
            topic_id: self.id,
            mark: self.mark,
        }
    }

    /// Whether clients are told of a queue: one below the first has a number that is another broker group's.
    pub fn offers(&self, queue: u32) -> bool {
        (self.first_queue()..self.queue_count).contains(&queue)
    }

    /// Number of the first queue that clients are told of; 0 unless broker groups share the topic.
    pub fn first_queue(&self) -> u32 {
        let first = self.attributes.get(FIRST_QUEUE);
        let first = first.and_then(|number| number.parse().ok()).unwrap_or(0);
        // One queue is always offered.
        u32::min(first, self.queue_count.saturating_sub(1))
    }
}

/// A consumer group's settings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Group {
    /// Its number; never used for another group or topic.
    pub id: u64,
    /// Its name.
    pub name: String,
    /// Whether messages of a queue are delivered one batch after the other.
    pub fifo: bool,
    /// Deliveries of a message before it goes to the dead-letter queue; 0 for the default.
    pub max_attempts: i32,
    /// Where it starts in a queue where it has no offset yet: a `proto::command::put_group::ConsumeFrom`.
    pub consume_from: i32,
    /// With `ConsumeFrom::Timestamp`: from which time on, milliseconds since the Unix epoch.
    pub consume_from_ms: TimestampMs,
    /// Free settings, by name.
    pub attributes: BTreeMap<String, String>,
    /// Since when it starts where it does.
    pub since: Since,
}

impl Group {
    /// What becomes of a message that it fails to process.
    pub(crate) fn retry_policy(&self) -> RetryPolicy {
        RetryPolicy::of(self.max_attempts, &self.attributes)
    }
}

/// When a consumer group was made, or was last given another start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Since {
    /// The entry that did it.
    pub log_index: u64,
    /// Its command's number in that entry.
    pub command: u32,
    /// The log's time then; or when the group was made elsewhere.
    pub time_ms: TimestampMs,
    /// It was made elsewhere before: only the time counts.
    pub elsewhere: bool,
}
