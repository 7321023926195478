//! Why a run of the simulator failed.

use std::io;
use std::path::PathBuf;

/// Why a run of the simulator failed.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// A world did what it must not.
    #[error("{0}")]
    Violated(String),
    /// The process of a world ended without saying how it went.
    #[error("{reproduce}\n  ended without a verdict: {ended}; what it said stands above")]
    NoVerdict {
        /// The line that reproduces it.
        reproduce: String,
        /// How the process ended.
        ended: String,
    },
    /// Two runs of one seed differ.
    #[error("{0}")]
    NotDeterministic(String),
    /// Something that the scenarios promise never happened.
    #[error("never happened in this sweep: {0}")]
    Vacuous(String),
    /// The world that was to be made smaller is in order.
    #[error("{0}: violates nothing")]
    Holds(String),
    /// The file holds no case.
    #[error("{path} is no case: {error}")]
    NoCase {
        /// Which file.
        path: PathBuf,
        /// What is wrong with it.
        error: String,
    },
    /// The scenario does not exist.
    #[error("no scenario {name:?}; there are {names}")]
    NoSuchScenario {
        /// As given.
        name: String,
        /// Those that exist.
        names: String,
    },
    /// The build holds no known bugs.
    #[error("built without known bugs: see `make sim-mutants`")]
    NoMutants,
    /// The known bug does not exist.
    #[error("no such mutant; there are {0}")]
    NoSuchMutant(String),
    /// What was found cannot be written down.
    #[error("cannot write: {0}")]
    Io(#[from] io::Error),
}
