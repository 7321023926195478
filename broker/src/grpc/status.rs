//! The only mapping from what went wrong to RocketMQ's codes.
//!
//! | what happened | code | outcome |
//! | --- | --- | --- |
//! | no leader, no majority, broker stopping | `HA_NOT_AVAILABLE` | not done |
//! | too much in flight, disk nearly full | `TOO_MANY_REQUESTS` | not done |
//! | no answer before the deadline, connection to the leader lost | `MASTER_PERSISTENCE_TIMEOUT` | unknown |
//! | the place is of another life of the topic | `PRECONDITION_FAILED` | not done |
//! | topic, group or queue went away meanwhile | `TOPIC_NOT_FOUND`, … | not done |
//!
//! The texts say what happened to what; clients show them to people.

use model::NameError;
use model::message::{Broken, Rule};
use proto::command::{CommandReply, command_reply};
use proto::v2::{self, Code};

use crate::clients::NotTaken;
use crate::proposer::ProposalError;
use crate::view::{ReadError, Topic};

/// A final refusal: the code and text that the caller gets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Refusal {
    pub(crate) code: Code,
    pub(crate) reason: String,
}

impl Refusal {
    pub(crate) fn new(code: Code, reason: impl Into<String>) -> Refusal {
        Refusal {
            code,
            reason: reason.into(),
        }
    }

    pub(crate) fn into_status(self) -> v2::Status {
        v2::Status {
            code: self.code.into(),
            message: self.reason,
        }
    }
}

/// Why this broker could not answer a call that only the leader answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum CallError {
    /// The answer is no; it would be the same elsewhere.
    Refused(Refusal),
    /// Nothing was done, because this broker does not lead (any more): ask the leader.
    Moved(String),
    /// It may or may not have been done.
    Unknown(String),
}

impl From<Refusal> for CallError {
    fn from(refusal: Refusal) -> CallError {
        CallError::Refused(refusal)
    }
}

impl From<ProposalError> for CallError {
    fn from(error: ProposalError) -> CallError {
        let text = error.to_string();
        match error {
            ProposalError::NotLeader | ProposalError::NoQuorum | ProposalError::Stopped => {
                CallError::Moved(text)
            }
            ProposalError::Unknown(_) => CallError::Unknown(text),
            ProposalError::TooMuchInFlight(_) => too_many_requests(text).into(),
            ProposalError::TooLarge => Refusal::new(Code::PayloadTooLarge, text).into(),
            ProposalError::Full => disk_nearly_full(text).into(),
            ProposalError::Refused { reply } => refused_by_machine(reply).into(),
        }
    }
}

/// What the state machine refused.
fn refused_by_machine(reply: CommandReply) -> Refusal {
    use command_reply::Refusal as Cause;
    let code = match reply.refusal() {
        Cause::TopicNotFound => Code::TopicNotFound,
        Cause::GroupNotFound => Code::ConsumerGroupNotFound,
        Cause::TooMany => Code::TooManyRequests,
        Cause::TopicExists | Cause::GroupExists => Code::PreconditionFailed,
        Cause::QueueNotFound | Cause::Invalid => Code::BadRequest,
        Cause::None => Code::InternalServerError,
    };
    Refusal::new(code, reply.detail)
}

impl From<NotTaken> for Refusal {
    fn from(error: NotTaken) -> Refusal {
        match error {
            NotTaken::TooManyClients(_) | NotTaken::Undecided { .. } => {
                too_many_requests(error.to_string())
            }
            NotTaken::Taken { .. } => Refusal::new(Code::PreconditionFailed, error.to_string()),
        }
    }
}

impl From<Broken> for Refusal {
    fn from(broken: Broken) -> Refusal {
        let code = match broken.rule {
            Rule::BodyEmpty => Code::MessageBodyEmpty,
            Rule::BodySize => Code::MessageBodyTooLarge,
            Rule::Id => Code::IllegalMessageId,
            Rule::Tag => Code::IllegalMessageTag,
            Rule::Key => Code::IllegalMessageKey,
            Rule::Group => Code::IllegalMessageGroup,
            Rule::PropertyKey => Code::IllegalMessagePropertyKey,
            Rule::PropertiesSize => Code::MessagePropertiesTooLarge,
            Rule::DeliveryTime => Code::IllegalDeliveryTime,
            Rule::Recovery => Code::BadRequest,
        };
        Refusal::new(code, broken.to_string())
    }
}

/// A read of `topic` that failed for another reason than its offset.
pub(crate) fn unreadable(topic: &str, error: &ReadError) -> Refusal {
    match error {
        ReadError::NotFound => topic_not_found(topic),
        other => Refusal::new(Code::InternalServerError, other.to_string()),
    }
}

pub(crate) fn illegal_topic(error: &NameError) -> Refusal {
    Refusal::new(Code::IllegalTopic, error.to_string())
}

pub(crate) fn illegal_group(error: &NameError) -> Refusal {
    Refusal::new(Code::IllegalConsumerGroup, error.to_string())
}

/// The text is RocketMQ's own: clients' tests compare it.
pub(crate) fn topic_not_found(topic: &str) -> Refusal {
    Refusal::new(
        Code::TopicNotFound,
        format!("CODE: 17  DESC: No topic route info in name server for the topic: {topic}"),
    )
}

/// A place that was told before the topic was deleted and made again, or before its broker group was restored.
pub(crate) fn other_life(topic: &str) -> Refusal {
    Refusal::new(
        Code::PreconditionFailed,
        format!(
            "topic {topic} is not the one that is meant: it was made again, or restored from a backup, since then; ask where to start"
        ),
    )
}

pub(crate) fn group_not_found(group: &str) -> Refusal {
    Refusal::new(
        Code::ConsumerGroupNotFound,
        format!("consumer group {group} does not exist"),
    )
}

pub(crate) fn queue_not_found(topic: &Topic, queue: i32) -> Refusal {
    let (name, first, count) = (&topic.name, topic.first_queue(), topic.queue_count);
    let has = match first {
        0 => format!("it has {count} queues"),
        _ => format!("this broker group has {first} to {}", count - 1),
    };
    Refusal::new(
        Code::BadRequest,
        format!("queue {queue} of topic {name} does not exist: {has}"),
    )
}

pub(crate) fn client_id_required() -> Refusal {
    Refusal::new(
        Code::ClientIdRequired,
        "header x-mq-client-id is missing or empty",
    )
}

pub(crate) fn too_many_requests(reason: impl Into<String>) -> Refusal {
    Refusal::new(Code::TooManyRequests, reason)
}

/// Clients back off and come again, which is what a full disk needs.
pub(crate) fn disk_nearly_full(reason: impl Into<String>) -> Refusal {
    Refusal::new(Code::TooManyRequests, reason)
}

pub(crate) fn not_available(reason: impl Into<String>) -> Refusal {
    Refusal::new(Code::HaNotAvailable, reason)
}

pub(crate) fn outcome_unknown(reason: impl Into<String>) -> Refusal {
    Refusal::new(Code::MasterPersistenceTimeout, reason)
}

pub(crate) fn not_implemented(what: &str) -> Refusal {
    Refusal::new(
        Code::NotImplemented,
        format!("{what} is not supported by this version"),
    )
}

pub(crate) fn ok() -> v2::Status {
    v2::Status {
        code: Code::Ok.into(),
        message: String::new(),
    }
}
