//! Why a command ended without success, and the exit code that says so to a script.
//!
//! [`ExitCode`] is the one list of codes: `raftmq --help` and `docs/cli.md` show it.

use raftmq_client::{Code, Error};
use thiserror::Error as ThisError;

/// How a command ended, as a number that a script can branch on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum ExitCode {
    /// Done.
    Done = 0,
    /// It was tried and failed.
    Failed = 1,
    /// The command line or a configuration is wrong.
    Usage = 2,
    /// Less than was asked for.
    Incomplete = 3,
    /// What was named does not exist.
    NotFound = 4,
    /// Nobody answered in time.
    Unreachable = 5,
    /// A check did not hold.
    Unhealthy = 6,
    /// Nobody can say whether it was done.
    Unknown = 7,
}

impl ExitCode {
    /// Every code, in order.
    pub const ALL: [ExitCode; 8] = [
        ExitCode::Done,
        ExitCode::Failed,
        ExitCode::Usage,
        ExitCode::Incomplete,
        ExitCode::NotFound,
        ExitCode::Unreachable,
        ExitCode::Unhealthy,
        ExitCode::Unknown,
    ];

    /// The number that the process ends with.
    pub fn number(self) -> u8 {
        self as u8
    }

    /// What it means, for people.
    pub fn meaning(self) -> &'static str {
        match self {
            ExitCode::Done => "done",
            ExitCode::Failed => "it was tried and failed, or was refused",
            ExitCode::Usage => {
                "the command line, a context or a configuration is wrong; nothing was tried"
            }
            ExitCode::Incomplete => "fewer messages than `consume --count` asked for",
            ExitCode::NotFound => {
                "the topic, consumer group, broker, message or context does not exist"
            }
            ExitCode::Unreachable => "no server answered before the deadline; nothing was done",
            ExitCode::Unhealthy => {
                "a check did not hold: `cluster status`, `cluster health`, `route`, `doctor`, `log inspect`"
            }
            ExitCode::Unknown => {
                "the answer was lost after the request was sent: it may have been done; look before you repeat"
            }
        }
    }
}

/// One clear line for the person at the terminal.
#[derive(Debug, ThisError)]
pub enum Failure {
    /// A flag, an environment variable or a key of a configuration file is wrong.
    #[error("{0}")]
    Configuration(String),
    /// What was asked for was tried and did not succeed.
    #[error("{0}")]
    Operation(String),
    /// There was less than was asked for.
    #[error("{0}")]
    Incomplete(String),
    /// What was named is not there.
    #[error("{0}")]
    NotFound(String),
    /// Nobody answered.
    #[error("{0}")]
    Unreachable(String),
    /// A check did not hold.
    #[error("{0}")]
    Unhealthy(String),
    /// It may have been done.
    #[error("{0}")]
    Unknown(String),
}

impl Failure {
    /// The process's exit code.
    pub fn exit_code(&self) -> ExitCode {
        match self {
            Failure::Operation(_) => ExitCode::Failed,
            Failure::Configuration(_) => ExitCode::Usage,
            Failure::Incomplete(_) => ExitCode::Incomplete,
            Failure::NotFound(_) => ExitCode::NotFound,
            Failure::Unreachable(_) => ExitCode::Unreachable,
            Failure::Unhealthy(_) => ExitCode::Unhealthy,
            Failure::Unknown(_) => ExitCode::Unknown,
        }
    }

    /// Says what was being done when `cause` happened.
    pub fn during(what: impl std::fmt::Display, cause: impl std::fmt::Display) -> Failure {
        Failure::Operation(format!("{what}: {cause}"))
    }

    /// The same failure with words before it that say what was being done.
    #[must_use]
    pub fn after(self, what: impl std::fmt::Display) -> Failure {
        let text = format!("{what}: {self}");
        match self {
            Failure::Configuration(_) => Failure::Configuration(text),
            Failure::Operation(_) => Failure::Operation(text),
            Failure::Incomplete(_) => Failure::Incomplete(text),
            Failure::NotFound(_) => Failure::NotFound(text),
            Failure::Unreachable(_) => Failure::Unreachable(text),
            Failure::Unhealthy(_) => Failure::Unhealthy(text),
            Failure::Unknown(_) => Failure::Unknown(text),
        }
    }
}

impl From<Error> for Failure {
    /// The client's errors say what happened to what; a value that breaks a rule is the caller's mistake.
    fn from(error: Error) -> Failure {
        let text = error.to_string();
        match error {
            Error::Invalid { .. } => Failure::Configuration(text),
            Error::NoSeedAnswered { .. } | Error::TimedOut { .. } => Failure::Unreachable(text),
            Error::OutcomeUnknown { .. } => Failure::Unknown(text),
            Error::Refused { code, .. } if is_absence(code) => Failure::NotFound(text),
            _ => Failure::Operation(text),
        }
    }
}

fn is_absence(code: Code) -> bool {
    matches!(
        code,
        Code::NotFound
            | Code::TopicNotFound
            | Code::ConsumerGroupNotFound
            | Code::MessageNotFound
            | Code::OffsetNotFound
    )
}

#[cfg(test)]
mod tests {
    use super::ExitCode;

    /// Catches two codes with one number, or a list that leaves one out.
    #[test]
    fn codes_are_numbered_in_order() {
        let numbers: Vec<u8> = ExitCode::ALL.iter().map(|code| code.number()).collect();
        assert_eq!(numbers, [0, 1, 2, 3, 4, 5, 6, 7]);
    }

    /// Catches a table in the manual that says something else than the program.
    #[test]
    fn the_manual_lists_the_codes() {
        let manual = include_str!("../../docs/cli.md");
        for code in ExitCode::ALL {
            let row = format!("| {} | {} |", code.number(), code.meaning());
            assert!(manual.contains(&row), "docs/cli.md lacks: {row}");
        }
    }
}
