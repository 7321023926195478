//! Runs worlds until one of them catches the bug.
//!
//! What goes wrong in a world must be the bug's work: the same world without it must be in order.

use std::ops::Range;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use host::Mutant;

use crate::report::Failure;
use crate::runner::{self, Report};
use crate::scenario::Scenario;
use crate::simulation::Spec;

/// How a bug was caught.
pub(super) struct Catch {
    /// Worlds up to this one, in order.
    pub(super) tried: u64,
    pub(super) scenario: &'static str,
    pub(super) seed: u64,
    pub(super) invariant: &'static str,
    /// When, in the time of that world.
    pub(super) simulated: Duration,
}

/// Looks for the first of so many worlds that catches a bug: scenarios in turn, seeds from 1 on. The same
/// one however many run at the same time.
pub(super) fn hunt(
    mutant: Mutant,
    scenarios: &[&'static Scenario],
    worlds: u64,
    jobs: usize,
) -> Result<Option<Catch>, Failure> {
    let mut left = 0..worlds;
    loop {
        select(Some(mutant))?;
        let Some(catch) = first_violation(scenarios, left.clone(), jobs) else {
            return Ok(None);
        };
        select(None)?;
        left.start = catch.tried;
        if try_one(scenarios, catch.tried - 1).is_none() {
            return Ok(Some(catch));
        }
    }
}

/// From now on all worlds have this bug and no other.
pub(crate) fn select(mutant: Option<Mutant>) -> Result<(), Failure> {
    #[cfg(raftmq_mutants)]
    host::mutant::select(mutant);
    match mutant.is_none_or(host::mutant::is) {
        true => Ok(()),
        false => Err(Failure::NoMutants),
    }
}

fn first_violation(
    scenarios: &[&'static Scenario],
    worlds: Range<u64>,
    jobs: usize,
) -> Option<Catch> {
    let next = AtomicU64::new(worlds.start);
    let first: Mutex<Option<Catch>> = Mutex::new(None);
    let is_over = |number| {
        let first = first.lock().expect("no holder panics");
        let caught = first.as_ref().is_some_and(|catch| catch.tried <= number);
        caught || number >= worlds.end
    };
    std::thread::scope(|scope| {
        for _ in 0..jobs.max(1) {
            scope.spawn(|| {
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if is_over(number) {
                        return;
                    }
                    let Some(catch) = try_one(scenarios, number) else {
                        continue;
                    };
                    let mut first = first.lock().expect("no holder panics");
                    if first.as_ref().is_none_or(|first| catch.tried < first.tried) {
                        *first = Some(catch);
                    }
                }
            });
        }
    });
    first.into_inner().expect("no holder panics")
}

fn try_one(scenarios: &[&'static Scenario], number: u64) -> Option<Catch> {
    let count = scenarios.len() as u64;
    let scenario = scenarios[(number % count) as usize];
    let seed = number / count + 1;
    let report = run(scenario, seed);
    let violation = report.violation?;
    Some(Catch {
        tried: number + 1,
        scenario: scenario.name,
        seed,
        invariant: violation.invariant,
        simulated: report.simulated,
    })
}

/// One world.
pub(super) fn run(scenario: &'static Scenario, seed: u64) -> Report {
    runner::run(Spec::new(scenario, seed))
}
