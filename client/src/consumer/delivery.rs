//! What a consumer is told and what it gets: queues, starting points, filters, deliveries. Plain data.

use std::cmp::Ordering;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use proto::place::{Life, StartAt};
use proto::v2;

use crate::error::Error;
use crate::received::ReceivedMessage;

/// One queue of one topic. One that a delivery names remembers which life of the topic that came from (a topic that was
/// deleted and made again is another one): what is committed by it is not taken for progress in a later one.
#[derive(Clone, Debug)]
pub struct TopicQueue {
    /// The topic.
    pub topic: Arc<str>,
    /// Number of the queue within the topic.
    pub queue: u32,
    /// The life of the topic, if one is meant. The same queue all the same.
    life: Option<Life>,
}

impl TopicQueue {
    /// Queue number `queue` of `topic`.
    pub fn new(topic: impl Into<Arc<str>>, queue: u32) -> TopicQueue {
        TopicQueue {
            topic: topic.into(),
            queue,
            life: None,
        }
    }

    pub(crate) fn life(&self) -> Option<Life> {
        self.life
    }

    /// The queue in this life of its topic.
    pub(crate) fn of_life(&self, life: Option<Life>) -> TopicQueue {
        TopicQueue {
            life,
            ..self.clone()
        }
    }

    fn name(&self) -> (&str, u32) {
        (&self.topic, self.queue)
    }
}

impl PartialEq for TopicQueue {
    fn eq(&self, other: &TopicQueue) -> bool {
        self.name() == other.name()
    }
}

impl Eq for TopicQueue {}

impl PartialOrd for TopicQueue {
    fn partial_cmp(&self, other: &TopicQueue) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for TopicQueue {
    fn cmp(&self, other: &TopicQueue) -> Ordering {
        self.name().cmp(&other.name())
    }
}

impl Hash for TopicQueue {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.name().hash(state);
    }
}

impl std::fmt::Display for TopicQueue {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "{}/{}", self.topic, self.queue)
    }
}

/// Where a group starts in a queue in which it has committed no offset. It is the group's own: what made it says so, and
/// the same holds for all its members from then on.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum ConsumeFrom {
    /// At the oldest message that is still there.
    #[default]
    Earliest,
    /// At the first message stored after the group was made: in a queue that is added later, at its beginning.
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
    /// As calls carry it.
    pub(crate) fn to_header(self) -> StartAt {
        match self {
            ConsumeFrom::Earliest => StartAt::Earliest,
            ConsumeFrom::Latest => StartAt::Latest { since_ms: None },
            ConsumeFrom::TimeMs(time_ms) => StartAt::TimeMs(time_ms),
        }
    }

    /// Whether a group that starts there starts here.
    pub(crate) fn is(self, told: StartAt) -> bool {
        match (self, told) {
            (ConsumeFrom::Latest, StartAt::Latest { .. }) => true,
            (wish, told) => wish.to_header() == told,
        }
    }

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
    /// Those for which an SQL92 expression over their properties is true. No broker evaluates it yet: who subscribes with it is
    /// told so at once ([`crate::Error::Invalid`]).
    Sql(String),
}

impl Filter {
    /// Refuses what no broker will do: said at once, and not by every pull.
    pub(crate) fn check(&self) -> Result<(), Error> {
        match self {
            Filter::All => Ok(()),
            Filter::Tag(tags) => model::Filter::of_tags(tags)
                .map(drop)
                .map_err(|error| Error::invalid("filter", error.to_string())),
            Filter::Sql(expression) => Err(Error::invalid(
                format!("filter SQL {expression:?}"),
                "brokers do not evaluate SQL yet: use Filter::Tag, or Filter::All and look at the properties",
            )),
        }
    }

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
    /// The life of the topic that it came from.
    pub(crate) life: Option<Life>,
}

impl Delivery {
    /// The queue that it came from.
    pub fn topic_queue(&self) -> TopicQueue {
        TopicQueue {
            topic: self.topic.clone(),
            queue: self.queue,
            life: self.life,
        }
    }
}

/// What a delivery counts for where bytes are bounded.
pub(crate) fn size(delivery: &Delivery) -> usize {
    delivery.message.encoded().len()
}
