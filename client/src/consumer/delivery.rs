//! What a consumer is told and what it gets: queues, starting points, filters, deliveries. Plain data.

use std::sync::Arc;

use proto::v2;

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
        TopicQueue {
            topic: topic.into(),
            queue,
        }
    }
}

impl std::fmt::Display for TopicQueue {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "{}/{}", self.topic, self.queue)
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

/// A place in a queue to go to.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum SeekTo {
    /// This offset.
    Offset(u64),
    /// The oldest message that is still there.
    Begin,
    /// After the newest message.
    End,
    /// The first message stored at or after this time, in milliseconds since the Unix epoch.
    TimeMs(u64),
}

impl From<u64> for SeekTo {
    fn from(offset: u64) -> SeekTo {
        SeekTo::Offset(offset)
    }
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

/// Which messages of a topic a consumer wants. Brokers filter; what they leave out is neither delivered nor redelivered.
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

impl Filter {
    pub(crate) fn to_wire(&self) -> v2::FilterExpression {
        let (kind, expression) = match self {
            Filter::All => (v2::FilterType::Tag, "*"),
            Filter::Tag(tags) => (v2::FilterType::Tag, tags.as_str()),
            Filter::Sql(expression) => (v2::FilterType::Sql, expression.as_str()),
        };
        v2::FilterExpression {
            r#type: kind as i32,
            expression: expression.to_owned(),
        }
    }
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
    /// Which delivery of this message to its group this is, as far as failures were counted; the first is 1.
    pub attempt: u32,
    /// What was sent.
    pub message: ReceivedMessage,
}

impl Delivery {
    /// The queue that it came from.
    pub fn topic_queue(&self) -> TopicQueue {
        TopicQueue {
            topic: self.topic.clone(),
            queue: self.queue,
        }
    }
}
