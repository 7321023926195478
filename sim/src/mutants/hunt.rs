//! Runs worlds until one of them catches the bug.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::runner;
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

/// Looks for the first of so many worlds that catches the bug that is selected: scenarios in turn, seeds
/// from 1 on. The same one however many run at the same time.
pub(super) fn hunt(scenarios: &[&'static Scenario], worlds: u64, jobs: usize) -> Option<Catch> {
    let next = AtomicU64::new(0);
    let first: Mutex<Option<Catch>> = Mutex::new(None);
    let is_over = |number| {
        let first = first.lock().expect("no holder panics");
        let caught = first.as_ref().is_some_and(|catch| catch.tried <= number);
        caught || number >= worlds
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
    let report = runner::run(Spec {
        seed,
        scenario,
        schedule: None,
        keep_lines: false,
    });
    let violation = report.violation?;
    Some(Catch {
        tried: number + 1,
        scenario: scenario.name,
        seed,
        invariant: violation.invariant,
        simulated: report.simulated,
    })
}
