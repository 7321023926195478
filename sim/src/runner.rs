//! Runs one world from its seed, on a thread of its own, and says how it went.
//!
//! A fresh thread, because hash maps and random numbers of the standard library are seeded per thread. And
//! inside a runtime of tokio's own whose generator is seeded, because tokio's channels draw from it whom to
//! wake first. Nothing else of that runtime is used.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::{Duration, Instant};

use madsim::runtime::Runtime;
use real_tokio::runtime::{Builder, RngSeed};

use crate::history::{History, Record};
use crate::panics;
use crate::simulation;
use crate::spec::Spec;
use crate::trace::{Trace, Traced, now};
use crate::violation::Violation;

/// Simulated time after which a world is given up.
const TIME_LIMIT: Duration = Duration::from_secs(7_200);

/// How a world went.
pub struct Report {
    /// What was run.
    pub spec: Spec,
    /// What was wrong with it, if anything.
    pub violation: Option<Violation>,
    /// What clients did and saw.
    pub history: Vec<Record>,
    /// What happened.
    pub traced: Traced,
    /// How long it took in its own time.
    pub simulated: Duration,
    /// How long it took in ours.
    pub took: Duration,
}

/// Runs a world. A panic in it is a violation like any other.
pub fn run(spec: Spec) -> Report {
    let trace = Arc::new(Trace::new(spec.keep_lines));
    let history = Arc::new(History::new(trace.clone()));
    let living = (spec.clone(), trace.clone(), history.clone());
    let ran = simulate(spec.seed, move || {
        let (spec, trace, history) = living;
        simulation::live(spec, trace, history)
    });
    Report {
        spec,
        violation: ran.violation,
        history: history.take(),
        traced: trace.finish(),
        simulated: ran.simulated,
        took: ran.took,
    }
}

/// How a simulation went.
pub struct Simulated {
    /// What was wrong, if anything.
    pub violation: Option<Violation>,
    /// How long it took in its own time.
    pub simulated: Duration,
    /// How long it took in ours.
    pub took: Duration,
}

/// Runs `work` in a simulation of its own.
#[expect(
    clippy::disallowed_methods,
    reason = "a simulation needs a thread of its own, and is measured from outside"
)]
pub fn simulate<F>(seed: u64, work: impl FnOnce() -> F + Send + 'static) -> Simulated
where
    F: Future<Output = Option<Violation>>,
{
    let begun = Instant::now();
    let thread = std::thread::spawn(move || simulate_here(seed, work));
    let (violation, simulated) = thread.join().expect("every panic is caught inside");
    Simulated {
        violation,
        simulated,
        took: begun.elapsed(),
    }
}

fn simulate_here<F>(seed: u64, work: impl FnOnce() -> F) -> (Option<Violation>, Duration)
where
    F: Future<Output = Option<Violation>>,
{
    let mut world = Runtime::with_seed_and_config(seed, madsim::Config::default());
    world.set_time_limit(TIME_LIMIT);
    let seeded = Builder::new_current_thread()
        .rng_seed(RngSeed::from_bytes(&seed.to_le_bytes()))
        .build()
        .expect("a runtime without threads or drivers needs nothing");
    let mut simulated = Duration::ZERO;
    let ended = std::panic::catch_unwind(AssertUnwindSafe(|| {
        // Unconstrained: tokio's budget for one task would interrupt the whole simulation.
        seeded.block_on(real_tokio::task::unconstrained(async {
            world.block_on(async {
                let violation = work().await;
                simulated = now();
                violation
            })
        }))
    }));
    let violation = ended.unwrap_or_else(|_| Some(Violation::new("no-panic", panics::take())));
    // What is left of the world must not speak to the network of the next one.
    host::network::simulated::set_wire(None);
    (violation, simulated)
}
