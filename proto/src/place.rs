//! What our consumers and brokers tell each other about places in queues, in the metadata of calls whose contract has no
//! room for it. Pure.
//!
//! Callers that send none of it mean: the topic as it is now, and a group that starts at the oldest message.

use std::fmt;
use std::str::FromStr;

use crate::TimestampMs;

/// In a consumer's calls: where its group starts, should this call make it; see [`StartAt`]. In the answer to a heartbeat:
/// where the group does start.
pub const CONSUME_FROM: &str = "x-raftmq-consume-from";

/// In a question for a group's offset: where to start is wanted where nothing is committed; see [`StartOf`]. In the answer:
/// what the offset is, [`COMMITTED`] or where the group starts.
pub const START: &str = "x-raftmq-start";

/// See [`START`].
pub const COMMITTED: &str = "committed";

/// In a heartbeat, with any value: the log's time is wanted. In the answer: that, in milliseconds since the Unix epoch.
/// What is stored after the answer has no lower time.
pub const LOG_TIME: &str = "x-raftmq-log-time";

/// In a call about a place in a queue: the life of the topic that is meant; see [`Life`]. In the answers to pulls and to
/// questions where to start: the life that the topic has. A call that means another life is refused with
/// `PRECONDITION_FAILED`.
pub const LIFE: &str = "x-raftmq-life";

/// In a call that one broker group must answer: its name. Queue numbers, consumer groups and topics of one name exist in
/// several, so whoever is of another one refuses it, and does not say who leads there. In an answer to `QueryRoute`: the one
/// broker group whose queues it has, since a broker knows no others.
pub const BROKER_GROUP: &str = "x-raftmq-group";

/// Which topic of a name is meant: a topic that was deleted and made again is another one, and so is one of a broker group
/// that was restored from a backup. Offsets of one life mean nothing in another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Life {
    /// The topic's number in its broker group; not used again there.
    pub topic_id: u64,
    /// When it was made, or what its broker group's history was called when that began anew: tells apart what has the same
    /// number in two histories.
    pub mark: u64,
}

impl fmt::Display for Life {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(to, "{:x}-{:x}", self.topic_id, self.mark)
    }
}

impl FromStr for Life {
    type Err = NotUnderstood;

    fn from_str(text: &str) -> Result<Life, NotUnderstood> {
        let number = |text: &str| u64::from_str_radix(text, 16).map_err(|_| NotUnderstood);
        let (topic_id, mark) = text.split_once('-').ok_or(NotUnderstood)?;
        Ok(Life {
            topic_id: number(topic_id)?,
            mark: number(mark)?,
        })
    }
}

/// Where a consumer group starts in a queue in which it has committed nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StartAt {
    /// At the oldest message that is still there.
    Earliest,
    /// At what is stored after the group was made: in a queue that is added later at its beginning.
    Latest {
        /// When the group was made, where it exists elsewhere already.
        since_ms: Option<TimestampMs>,
    },
    /// At the first message that was stored then or later.
    TimeMs(TimestampMs),
}

impl fmt::Display for StartAt {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            StartAt::Earliest => write!(to, "earliest"),
            StartAt::Latest { since_ms: None } => write!(to, "latest"),
            StartAt::Latest {
                since_ms: Some(since_ms),
            } => write!(to, "latest-since {since_ms}"),
            StartAt::TimeMs(time_ms) => write!(to, "time {time_ms}"),
        }
    }
}

/// Text that is none of what was expected.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("it is not understood")]
pub struct NotUnderstood;

impl FromStr for StartAt {
    type Err = NotUnderstood;

    fn from_str(text: &str) -> Result<StartAt, NotUnderstood> {
        let number = |text: &str| text.parse().map_err(|_| NotUnderstood);
        match text.split_once(' ') {
            None if text == "earliest" => Ok(StartAt::Earliest),
            None if text == "latest" => Ok(StartAt::Latest { since_ms: None }),
            Some(("latest-since", since)) => Ok(StartAt::Latest {
                since_ms: Some(number(since)?),
            }),
            Some(("time", time)) => Ok(StartAt::TimeMs(number(time)?)),
            _ => Err(NotUnderstood),
        }
    }
}

/// Whose start is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StartOf {
    /// The group's, if it has committed nothing.
    Group,
    /// That of a member which gets every message and keeps its own progress, whatever its group has committed.
    Member {
        /// Since when it exists: a group that starts at the latest message is as old as this for it.
        since_ms: TimestampMs,
    },
}

impl fmt::Display for StartOf {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            StartOf::Group => write!(to, "group"),
            StartOf::Member { since_ms } => write!(to, "member {since_ms}"),
        }
    }
}

impl FromStr for StartOf {
    type Err = NotUnderstood;

    fn from_str(text: &str) -> Result<StartOf, NotUnderstood> {
        match text.split_once(' ') {
            None if text == "group" => Ok(StartOf::Group),
            Some(("member", since)) => match since.parse() {
                Ok(since_ms) => Ok(StartOf::Member { since_ms }),
                Err(_) => Err(NotUnderstood),
            },
            _ => Err(NotUnderstood),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Catches a wish that is read as another one.
    #[test]
    fn what_is_written_is_read() {
        let starts = [
            StartAt::Earliest,
            StartAt::Latest { since_ms: None },
            StartAt::Latest { since_ms: Some(7) },
            StartAt::TimeMs(0),
        ];
        for start in starts {
            assert_eq!(start.to_string().parse(), Ok(start));
        }
        for start in [StartOf::Group, StartOf::Member { since_ms: 9 }] {
            assert_eq!(start.to_string().parse(), Ok(start));
        }
        let life = Life {
            topic_id: 7,
            mark: u64::MAX,
        };
        assert_eq!(life.to_string().parse(), Ok(life));
        for text in ["", "7", "-", "7-", "x-1", "1-2-3"] {
            assert_eq!(text.parse::<Life>(), Err(NotUnderstood), "{text:?}");
        }
        for text in ["", "latest 7", "time", "time x", "time -1", "earliest "] {
            assert_eq!(text.parse::<StartAt>(), Err(NotUnderstood), "{text:?}");
        }
        for text in ["", "member", "group 1", "member x"] {
            assert_eq!(text.parse::<StartOf>(), Err(NotUnderstood), "{text:?}");
        }
    }
}
