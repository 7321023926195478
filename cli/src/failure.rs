//! Why a command ended without success, and the exit code that says so to a script.
//!
//! | code | meaning |
//! | ---- | ------- |
//! | 0 | done |
//! | 1 | it was tried and failed, or a check did not hold |
//! | 2 | the command line or a configuration file is wrong; nothing was tried |
//! | 3 | `consume --count N` ended with fewer than N messages |

use thiserror::Error;

/// One clear line for the person at the terminal.
#[derive(Debug, Error)]
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
}

impl Failure {
    /// The process's exit code.
    pub fn exit_code(&self) -> u8 {
        match self {
            Failure::Operation(_) => 1,
            Failure::Configuration(_) => 2,
            Failure::Incomplete(_) => 3,
        }
    }

    /// Says what was being done when `cause` happened.
    pub fn during(what: impl std::fmt::Display, cause: impl std::fmt::Display) -> Failure {
        Failure::Operation(format!("{what}: {cause}"))
    }
}

impl From<raftmq_client::Error> for Failure {
    /// The client's errors say what happened to what; a value that breaks a rule is the caller's mistake.
    fn from(error: raftmq_client::Error) -> Failure {
        match error {
            raftmq_client::Error::Invalid { .. } => Failure::Configuration(error.to_string()),
            _ => Failure::Operation(error.to_string()),
        }
    }
}
