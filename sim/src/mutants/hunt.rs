//! Runs worlds until one of them catches the bug.
//!
//! What goes wrong in a world must be the bug's work: the same world without it must be in order.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::failure::Failure;
use crate::scenario::Scenario;
use crate::spec::Spec;
use crate::verdict::Verdict;
use crate::worker::Errand;

/// Where to look for a bug: scenarios in turn, seeds from the first one on.
pub(super) struct Hunt<'a> {
    pub(super) mutant: &'static str,
    pub(super) scenarios: &'a [&'static Scenario],
    /// What counts for a catch.
    pub(super) invariants: &'a [&'static str],
    pub(super) first_seed: u64,
    pub(super) worlds: u64,
    /// Worlds at the same time. Changes nothing of what is found.
    pub(super) jobs: usize,
}

/// How a bug was caught.
pub(super) struct Catch {
    /// Worlds up to this one, in order.
    pub(super) tried: u64,
    pub(super) scenario: &'static str,
    pub(super) seed: u64,
    pub(super) invariant: String,
    /// When, in the time of that world.
    pub(super) simulated: Duration,
}

impl Hunt<'_> {
    /// The first world that catches the bug.
    pub(super) fn run(&self) -> Result<Option<Catch>, Failure> {
        let mut begin = 0;
        loop {
            let Some(catch) = self.first_catch(begin) else {
                return Ok(None);
            };
            begin = catch.tried;
            if self.live(catch.tried - 1, None)?.wrong.is_none() {
                return Ok(Some(catch));
            }
        }
    }

    fn first_catch(&self, begin: u64) -> Option<Catch> {
        let next = AtomicU64::new(begin);
        let first: Mutex<Option<Catch>> = Mutex::new(None);
        let is_over = |number| {
            let first = first.lock().expect("no holder panics");
            let caught = first.as_ref().is_some_and(|catch| catch.tried <= number);
            caught || number >= self.worlds
        };
        let search = || {
            loop {
                let number = next.fetch_add(1, Ordering::Relaxed);
                if is_over(number) {
                    return;
                }
                let Some(catch) = self.try_one(number) else {
                    continue;
                };
                let mut first = first.lock().expect("no holder panics");
                if first.as_ref().is_none_or(|first| catch.tried < first.tried) {
                    *first = Some(catch);
                }
            }
        };
        std::thread::scope(|scope| {
            for _ in 0..self.jobs.max(1) {
                scope.spawn(search);
            }
        });
        first.into_inner().expect("no holder panics")
    }

    fn try_one(&self, number: u64) -> Option<Catch> {
        // A process that ended without a verdict is no catch either.
        let verdict = self.live(number, Some(self.mutant)).ok()?;
        let invariant = verdict.wrong?.invariant;
        let spec = self.world(number);
        self.invariants.contains(&&*invariant).then_some(Catch {
            tried: number + 1,
            scenario: spec.scenario.name,
            seed: spec.seed,
            invariant,
            simulated: verdict.simulated,
        })
    }

    fn live(&self, number: u64, mutant: Option<&'static str>) -> Result<Verdict, Failure> {
        let errand = Errand {
            spec: self.world(number),
            mutant,
            failures: None,
        };
        errand.run()
    }

    fn world(&self, number: u64) -> Spec {
        let count = self.scenarios.len() as u64;
        let scenario = self.scenarios[(number % count) as usize];
        Spec::new(scenario, self.first_seed + number / count)
    }
}
