//! What can go wrong, said so that a program can decide and a person can act.
//!
//! Two questions matter to a caller: may I try again ([`Error::is_retriable`]), and may it have happened all the same
//! ([`Error::is_outcome_unknown`]). Every variant answers both. Never holds a secret, never nests a foreign error type.

use proto::v2::Code;

/// Everything this crate returns as an error.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The caller's value breaks a rule; nothing was sent.
    #[error("{subject} is not valid: {reason}")]
    #[non_exhaustive]
    Invalid {
        /// What was given, with its value where that helps.
        subject: String,
        /// The rule that it breaks.
        reason: String,
    },

    /// No seed answered while the client was built.
    #[error("none of the seeds {seeds} answered within {waited_ms} ms: {reason}")]
    #[non_exhaustive]
    NoSeedAnswered {
        /// The addresses, separated by commas.
        seeds: String,
        /// How long the client tried, in milliseconds.
        waited_ms: u64,
        /// What the last of them did instead of answering.
        reason: String,
    },

    /// The servers answered, and the answer is no. It was not done.
    #[error("{operation} of {subject} was refused by {address} with {code:?}: {reason}")]
    #[non_exhaustive]
    Refused {
        /// The call, for instance `send`.
        operation: &'static str,
        /// What it was about: a topic, a consumer group, a queue.
        subject: String,
        /// Who said no.
        address: String,
        /// RocketMQ's code.
        code: Code,
        /// The server's words.
        reason: String,
    },

    /// The deadline passed without an answer. It was not done: it never left this process, or it changes nothing.
    #[error(
        "{operation} of {subject} got no answer before its deadline, last from {address}: {reason}"
    )]
    #[non_exhaustive]
    TimedOut {
        /// The call, for instance `query route`.
        operation: &'static str,
        /// What it was about.
        subject: String,
        /// The address that was tried last; `nobody` if none was.
        address: String,
        /// What happened there.
        reason: String,
    },

    /// The deadline passed, or a final refusal came, after an attempt whose answer was lost: it may have been done.
    #[error(
        "the outcome of {operation} of {subject} is unknown, last asked {address}: {reason}{}",
        message_id.as_ref().map(|id| format!(" (message id {id})")).unwrap_or_default()
    )]
    #[non_exhaustive]
    OutcomeUnknown {
        /// The call, for instance `send`.
        operation: &'static str,
        /// What it was about.
        subject: String,
        /// The address that was tried last.
        address: String,
        /// What happened there.
        reason: String,
        /// For a send: the id under which the message may have been stored.
        message_id: Option<String>,
    },

    /// A server's answer breaks the contract.
    #[error("{address} answered {operation} of {subject} with nonsense: {reason}")]
    #[non_exhaustive]
    Protocol {
        /// The call.
        operation: &'static str,
        /// What it was about.
        subject: String,
        /// Who answered.
        address: String,
        /// What is wrong with the answer.
        reason: String,
    },

    /// The file in which a consumer keeps its progress cannot be used.
    #[error("cannot {verb} the progress file {path}: {reason}")]
    #[non_exhaustive]
    ProgressFile {
        /// `open`, `understand`, `write`.
        verb: &'static str,
        /// The file.
        path: String,
        /// What is wrong.
        reason: String,
    },

    /// The producer, consumer or client was closed before this could be done.
    #[error("the {subject} is closed")]
    #[non_exhaustive]
    Closed {
        /// `producer`, `consumer`.
        subject: &'static str,
    },
}

impl Error {
    /// Whether the same call may succeed later, unchanged, without anybody's doing: an election ends, a server has less to do.
    /// What a person must do something about (a topic that does not exist) is not retriable.
    ///
    /// After [`Error::is_outcome_unknown`] a second send stores the message twice, unless it carries the same
    /// message id ([`crate::MessageBuilder::message_id`]) and comes within the brokers' window for duplicates.
    pub fn is_retriable(&self) -> bool {
        match self {
            Error::NoSeedAnswered { .. }
            | Error::TimedOut { .. }
            | Error::OutcomeUnknown { .. }
            | Error::Protocol { .. } => true,
            Error::Refused { code, .. } => code_is_retriable(*code),
            Error::ProgressFile { verb, .. } => *verb == "write",
            Error::Invalid { .. } | Error::Closed { .. } => false,
        }
    }

    /// Whether what this library does in the background goes on trying: what is retriable, and a topic that is missing, which
    /// may be made, or may not have been heard of everywhere yet.
    pub(crate) fn may_pass(&self) -> bool {
        self.is_retriable() || self.code() == Some(Code::TopicNotFound)
    }

    /// Whether the call may have taken effect although it failed.
    pub fn is_outcome_unknown(&self) -> bool {
        matches!(self, Error::OutcomeUnknown { .. })
    }

    /// RocketMQ's code, when a server gave one.
    pub fn code(&self) -> Option<Code> {
        match self {
            Error::Refused { code, .. } => Some(*code),
            _ => None,
        }
    }

    pub(crate) fn invalid(subject: impl Into<String>, reason: impl Into<String>) -> Error {
        Error::Invalid {
            subject: subject.into(),
            reason: reason.into(),
        }
    }
}

/// Refusals that time or another leader may turn into a yes.
pub(crate) fn code_is_retriable(code: Code) -> bool {
    code_is_transient(code)
        || matches!(
            code,
            Code::InternalError | Code::InternalServerError | Code::Forbidden
        )
}

/// Refusals that say 'not now': an election, an overload, a slow disk. Worth asking again until the deadline.
pub(crate) fn code_is_transient(code: Code) -> bool {
    matches!(
        code,
        Code::TooManyRequests
            | Code::HaNotAvailable
            | Code::ProxyTimeout
            | Code::MasterPersistenceTimeout
            | Code::SlavePersistenceTimeout
            | Code::RequestTimeout
    )
}

/// Refusals after which the thing asked for may have been done, or may yet be. `HA_NOT_AVAILABLE` is none: a broker says
/// it only when nothing was proposed.
pub(crate) fn code_leaves_outcome_unknown(code: Code) -> bool {
    matches!(
        code,
        Code::ProxyTimeout
            | Code::MasterPersistenceTimeout
            | Code::SlavePersistenceTimeout
            | Code::RequestTimeout
            | Code::InternalError
            | Code::InternalServerError
            | Code::Unspecified
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(code: Code) -> Error {
        Error::Refused {
            operation: "send",
            subject: "topic orders".to_owned(),
            address: "a:1".to_owned(),
            code,
            reason: "no".to_owned(),
        }
    }

    /// Catches a program that would retry for ever what can never succeed, or give up during an election.
    #[test]
    fn refusals_say_whether_to_try_again() {
        assert!(refused(Code::HaNotAvailable).is_retriable());
        assert!(refused(Code::TooManyRequests).is_retriable());
        assert!(!refused(Code::MessageBodyTooLarge).is_retriable());
        assert!(!refused(Code::IllegalTopic).is_retriable());
        assert!(!refused(Code::TopicNotFound).is_retriable());
        assert!(refused(Code::TopicNotFound).may_pass());
    }

    /// Catches messages that do not say who, what and where.
    #[test]
    fn the_text_names_topic_address_and_id() {
        let text = Error::OutcomeUnknown {
            operation: "send",
            subject: "topic orders".to_owned(),
            address: "10.0.0.1:8081".to_owned(),
            reason: "connection reset".to_owned(),
            message_id: Some("01AB".to_owned()),
        }
        .to_string();
        for part in ["orders", "10.0.0.1:8081", "connection reset", "01AB"] {
            assert!(text.contains(part), "{text}");
        }
    }
}
