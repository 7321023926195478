//! Many worlds, several at a time, each in a process of its own, and what they come to together.

use std::collections::BTreeMap;
use std::io::Write;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::mpsc;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crate::case::Case;
use crate::coverage::{self, Coverage};
use crate::failure::Failure;
use crate::report;
use crate::runner;
use crate::scenario::{SCENARIOS, Scenario};
use crate::simulation;
use crate::spec::Spec;
use crate::verdict::Verdict;
use crate::worker::Errand;

/// How long a cluster is left alone to see how fast time passes.
const IDLE: Duration = Duration::from_secs(3_600);

/// How long that may take: the machine may be busy with other things, too.
const IDLE_TAKES_AT_MOST: Duration = Duration::from_secs(10);

/// How often that is tried: the machine may be very busy for a moment.
const IDLE_TRIES: usize = 3;

/// What to sweep over.
pub struct Sweep {
    /// Which kinds of worlds.
    pub scenarios: Vec<&'static Scenario>,
    /// Which seeds of each.
    pub seeds: Range<u64>,
    /// Worlds at the same time.
    pub jobs: usize,
    /// No world begins after so long.
    pub limit: Option<Duration>,
    /// Whether each is run twice and compared.
    pub twice: bool,
    /// Where histories of failed worlds go.
    pub failures: PathBuf,
    /// Where cases lie that are replayed first.
    pub regressions: PathBuf,
}

#[derive(Default)]
struct Total {
    worlds: u64,
    events: u64,
    simulated: Duration,
    counts: BTreeMap<String, u64>,
    failures: Vec<String>,
}

impl Total {
    fn count(&mut self, counts: &BTreeMap<String, u64>) {
        for (name, count) in counts {
            *self.counts.entry(name.clone()).or_default() += count;
        }
    }

    fn add(
        &mut self,
        spec: &Spec,
        ended: Result<Verdict, Failure>,
        out: &mut impl Write,
    ) -> Result<(), Failure> {
        self.worlds += 1;
        let verdict = match ended {
            Ok(verdict) => verdict,
            Err(failure) => {
                writeln!(out, "{failure}")?;
                self.failures.push(failure.to_string());
                return Ok(());
            }
        };
        self.events += verdict.events;
        self.simulated += verdict.simulated;
        self.count(&verdict.counts);
        if let Some(wrong) = verdict.wrong {
            writeln!(out, "{}", wrong.text)?;
            self.failures.push(format!(
                "  {} ({})",
                report::reproduce(spec),
                wrong.invariant
            ));
        }
        Ok(())
    }
}

impl Sweep {
    /// Runs all worlds. Fails if any of them did.
    pub fn run(&self, out: &mut impl Write) -> Result<(), Failure> {
        idle_hour(out)?;
        let mut total = Total::default();
        self.replay(&mut total, out)?;
        let begun = Instant::now();
        let specs: Vec<Spec> = self
            .seeds
            .clone()
            .flat_map(|seed| {
                let of_seed = move |scenario: &&'static Scenario| Spec::new(scenario, seed);
                self.scenarios.iter().map(of_seed)
            })
            .collect();
        let waiting = Mutex::new(specs.into_iter());
        let (results, done) = mpsc::channel();
        std::thread::scope(|scope| -> Result<(), Failure> {
            for _ in 0..self.jobs.max(1) {
                let (results, waiting) = (results.clone(), &waiting);
                scope.spawn(move || {
                    loop {
                        if self.limit.is_some_and(|limit| begun.elapsed() > limit) {
                            return;
                        }
                        let spec = waiting.lock().expect("no holder panics").next();
                        let Some(spec) = spec else {
                            return;
                        };
                        let ended = self.live(&spec);
                        if results.send((spec, ended)).is_err() {
                            return;
                        }
                    }
                });
            }
            drop(results);
            for (spec, ended) in done {
                total.add(&spec, ended, out)?;
            }
            Ok(())
        })?;
        let coverage = Coverage::of(&total.counts);
        coverage.write(out)?;
        summarise(&total, begun.elapsed(), out)?;
        if !total.failures.is_empty() {
            return Err(Failure::Violated(format!(
                "{} of {} worlds failed:\n{}",
                total.failures.len(),
                total.worlds,
                total.failures.join("\n")
            )));
        }
        let failures = coverage.failures();
        match self.must_cover(total.worlds) && !failures.is_empty() {
            true => Err(Failure::Vacuous(failures.join(", "))),
            false => Ok(()),
        }
    }

    /// One world, or one and the same twice.
    fn live(&self, spec: &Spec) -> Result<Verdict, Failure> {
        let errand = Errand {
            spec: spec.clone(),
            mutant: None,
            failures: Some(&self.failures),
        };
        match self.twice {
            true => errand.run_twice(),
            false => errand.run(),
        }
    }

    /// Whether there were enough worlds for everything to happen in one of them.
    fn must_cover(&self, worlds: u64) -> bool {
        let scenarios = SCENARIOS.len() as u64;
        self.scenarios.len() == SCENARIOS.len() && worlds >= scenarios * coverage::SEEDS_MIN
    }

    /// Every world that failed once must hold for ever.
    fn replay(&self, total: &mut Total, out: &mut impl Write) -> Result<(), Failure> {
        let cases = Case::all(&self.regressions)?;
        for (path, case) in &cases {
            let wrong = match self.live(&case.spec()?) {
                Ok(verdict) => {
                    total.count(&verdict.counts);
                    verdict.wrong.map(|wrong| wrong.text)
                }
                Err(failure) => Some(failure.to_string()),
            };
            if let Some(wrong) = wrong {
                let path = path.display();
                writeln!(out, "{path}: {}", case.about)?;
                let text = format!("make sim CASE={path}\n{wrong}");
                return Err(Failure::Violated(text));
            }
        }
        writeln!(
            out,
            "{} cases of {} hold",
            cases.len(),
            self.regressions.display()
        )?;
        Ok(())
    }
}

fn summarise(total: &Total, took: Duration, out: &mut impl Write) -> std::io::Result<()> {
    let minutes = took.as_secs_f64() / 60.0;
    writeln!(
        out,
        "{} worlds in {:.1} s: {:.0} a minute, {:.0} simulated hours an hour, {} events",
        total.worlds,
        took.as_secs_f64(),
        total.worlds as f64 / minutes,
        total.simulated.as_secs_f64() / took.as_secs_f64(),
        total.events
    )
}

/// Proves that time is simulated: an hour of a cluster that nobody uses passes in seconds.
fn idle_hour(out: &mut impl Write) -> Result<(), Failure> {
    let idle = || runner::simulate(0, || simulation::idle(IDLE, Arc::default()));
    let mut ran = idle();
    for _ in 1..IDLE_TRIES {
        if ran.took > IDLE_TAKES_AT_MOST {
            ran = idle();
        }
    }
    writeln!(
        out,
        "an hour of an idle cluster took {:.2} s",
        ran.took.as_secs_f64()
    )?;
    match ran.violation {
        Some(violation) => Err(Failure::Violated(format!("an idle hour: {violation}"))),
        None if ran.simulated < IDLE || ran.took > IDLE_TAKES_AT_MOST => {
            let (simulated, took) = (ran.simulated, ran.took);
            let text = format!("time is not simulated: {simulated:?} took {took:?}");
            Err(Failure::Violated(text))
        }
        None => Ok(()),
    }
}

/// Runs a world twice and shows where they begin to differ.
pub fn compare(spec: &Spec, out: &mut impl Write) -> Result<(), Failure> {
    let spec = Spec {
        keep_lines: true,
        ..spec.clone()
    };
    let (one, other) = (runner::run(spec.clone()), runner::run(spec));
    let (lines, others) = (&one.traced.lines, &other.traced.lines);
    writeln!(
        out,
        "{}: {} events, hash {:016x}",
        report::reproduce(&one.spec),
        one.traced.events,
        one.traced.hash
    )?;
    let same = lines
        .iter()
        .zip(others)
        .take_while(|(one, other)| one == other)
        .count();
    if same == lines.len() && same == others.len() {
        return Ok(());
    }
    let begin = same.saturating_sub(5);
    let show = |lines: &[String]| lines[begin..(same + 3).min(lines.len())].join("\n    ");
    Err(Failure::NotDeterministic(format!(
        "{} differs from itself at event {same}:\n    {}\n  and\n    {}",
        report::reproduce(&one.spec),
        show(lines),
        show(others)
    )))
}
