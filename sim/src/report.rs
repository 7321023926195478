//! What a person reads: the story of a world, and what is wrong with it.

use std::fmt;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use crate::failure::Failure;
use crate::runner::Report;
use crate::spec::Spec;
use crate::violation::Violation;

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
