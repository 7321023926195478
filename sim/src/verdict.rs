//! How a world went: what a sweep needs of it, small enough to be told by another process.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::failure::Failure;
use crate::report;
use crate::runner::Report;

/// How a world went.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verdict {
    /// Messages, disk operations and changes of state.
    pub events: u64,
    /// Of all of them, with their times: the same world has the same.
    pub hash: u64,
    /// How long it took in its own time.
    pub simulated: Duration,
    /// How often what happened in it.
    pub counts: BTreeMap<String, u64>,
    /// What was wrong with it, if anything.
    pub wrong: Option<Wrong>,
}

/// What was wrong with a world.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Wrong {
    /// What it violated.
    pub invariant: String,
    /// All there is to say for a person.
    pub text: String,
}

impl Verdict {
    /// Of a world that was run; the history of one that failed is in a file then, if there is a place for it.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn of(report: &Report, failures: Option<&Path>) -> Result<Verdict, Failure> {
        let wrong = match (report::check(report, failures), &report.violation) {
            (Err(Failure::Violated(text)), Some(violation)) => Some(Wrong {
                invariant: violation.invariant.to_owned(),
                text,
            }),
            (checked, _) => checked.map(|()| None)?,
        };
        Ok(Verdict {
            events: report.traced.events,
            hash: report.traced.hash,
            simulated: report.simulated,
            counts: report.traced.counts.clone(),
            wrong,
        })
    }
}
