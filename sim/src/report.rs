//! What a person reads: the story of a world, and what is wrong with it.

use std::fmt;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use crate::runner::Report;
use crate::simulation::Spec;
use crate::violation::Violation;

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

/// Writes a line to standard error.
pub fn note(what: fmt::Arguments<'_>) {
    // Nobody can be told if that fails.
    let _ = writeln!(io::stderr(), "{what}");
}

/// The line that reproduces a world.
pub fn reproduce(spec: &Spec) -> String {
    format!(
        "make sim SEED={} SCENARIO={}",
        spec.seed, spec.scenario.name
    )
}

/// Tells what happened.
pub fn tell_story(report: &Report, out: &mut impl Write) -> io::Result<()> {
    writeln!(
        out,
        "seed {} of {}: {}",
        report.spec.seed, report.spec.scenario.name, report.spec.scenario.about
    )?;
    for line in &report.traced.story {
        writeln!(out, "{line}")?;
    }
    for (name, count) in &report.traced.counts {
        writeln!(out, "{count:12}  {name}")?;
    }
    writeln!(
        out,
        "{} events, hash {:016x}, {:.1} simulated seconds in {:.2}",
        report.traced.events,
        report.traced.hash,
        report.simulated.as_secs_f64(),
        report.took.as_secs_f64()
    )
}

/// An error if the world did what it must not; its history is in a file then, if there is a place for it.
pub fn check(report: &Report, failures: Option<&Path>) -> Result<(), Failure> {
    let Some(violation) = &report.violation else {
        return Ok(());
    };
    let mut text = explain(report, violation);
    if let Some(failures) = failures {
        let file = write_history(report, failures)?;
        text.push_str(&format!("\n  history: {}", file.display()));
    }
    Err(Failure::Violated(text))
}

fn explain(report: &Report, violation: &Violation) -> String {
    let mut text = format!("{}\n  violates {violation}", reproduce(&report.spec));
    for line in &violation.proof {
        text.push_str("\n    ");
        text.push_str(line);
    }
    text
}

#[expect(
    clippy::disallowed_methods,
    reason = "outside of every simulation, for a person to read"
)]
fn write_history(report: &Report, failures: &Path) -> Result<PathBuf, Failure> {
    std::fs::create_dir_all(failures)?;
    let name = format!("{}-{}.jsonl", report.spec.scenario.name, report.spec.seed);
    let path = failures.join(name);
    let mut text = String::new();
    for record in &report.history {
        let line = serde_json::to_string(record).expect("records are plain data");
        text.push_str(&line);
        text.push('\n');
    }
    std::fs::write(&path, text)?;
    Ok(path)
}
