//! Makes a world that fails small: fewer faults, shorter, fewer clients, as long as it violates the same
//! invariant. What is left is stored as a case.
//!
//! Faults are left out in ever smaller pieces (delta debugging); they stand for themselves, so that any of
//! them can go. Every attempt is a whole world.

use std::io::Write;
use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use clap::Args;

use crate::case::Case;
use crate::failure::Failure;
use crate::mutants;
use crate::report;
use crate::scenario::Scenario;
use crate::schedule::{Fault, Shape, Timed};
use crate::spec::{Course, Spec};
use crate::verdict::Verdict;
use crate::worker::Errand;
use crate::workload::Plan;

/// Time that the chaos goes on after its last fault, in milliseconds.
const AFTER_LAST_FAULT_MS: u64 = 3_000;

/// Shortest that a fault is made, in milliseconds.
const SHORTEST_MS: u64 = 50;

/// Shrinks a world that fails, and stores what is left as a case.
#[derive(Debug, Args)]
pub struct Command {
    /// The seed of the world.
    #[arg(long)]
    seed: u64,
    /// Its scenario.
    #[arg(long)]
    scenario: String,
    /// A known bug that the world has, in a build that holds them.
    #[arg(long)]
    mutant: Option<String>,
    /// What went wrong, in a line.
    #[arg(long, default_value = "found by a sweep")]
    about: String,
    /// Where cases are stored.
    #[arg(long, default_value = "sim/regressions")]
    regressions: PathBuf,
    /// Worlds at the same time.
    #[arg(long, default_value_t = 2)]
    jobs: usize,
}

impl Command {
    /// Fails if the world does not.
    pub fn run(&self, out: &mut impl Write) -> Result<(), Failure> {
        let known = self.mutant.as_deref().map(mutants::named).transpose()?;
        let mutant = known.map(|target| target.name);
        let spec = Spec::new(Scenario::find(&self.scenario)?, self.seed);
        let whole = spec.course();
        let Some(wrong) = live(&spec, mutant, &whole)?.wrong else {
            return Err(Failure::Holds(report::reproduce(&spec)));
        };
        writeln!(out, "{}\n  {}", wrong.text, size(&whole))?;
        let mut minimizer = Minimizer {
            spec,
            mutant,
            invariant: wrong.invariant.clone(),
            jobs: self.jobs.max(1),
            tried: AtomicUsize::new(1),
            smallest: whole,
        };
        minimizer.run(out)?;
        let case = Case {
            about: self.about.clone(),
            scenario: self.scenario.clone(),
            seed: self.seed,
            invariant: wrong.invariant,
            course: minimizer.smallest.clone(),
        };
        let path = case.write(&self.regressions)?;
        let tried = minimizer.tried.load(Ordering::Relaxed);
        writeln!(
            out,
            "{} after {tried} worlds: {}",
            size(&case.course),
            path.display()
        )?;
        for timed in &case.course.schedule.faults {
            writeln!(out, "{:8} ms  {:?}", timed.at_ms, timed.fault)?;
        }
        Ok(())
    }
}

fn size(course: &Course) -> String {
    format!(
        "{} faults in {} ms, {} topics, {} producers, {} consumers",
        course.schedule.faults.len(),
        course.schedule.chaos_ms,
        course.plan.topics.len(),
        course.plan.producers.len(),
        course.plan.consumers.len()
    )
}

/// A world with other faults or clients than its seed says, in a process of its own.
fn live(spec: &Spec, mutant: Option<&'static str>, course: &Course) -> Result<Verdict, Failure> {
    let errand = Errand {
        spec: Spec {
            course: Some(course.clone()),
            ..spec.clone()
        },
        mutant,
        failures: None,
    };
    errand.run()
}

struct Minimizer {
    spec: Spec,
    mutant: Option<&'static str>,
    invariant: String,
    jobs: usize,
    tried: AtomicUsize,
    smallest: Course,
}

impl Minimizer {
    /// Until nothing can be left out any more.
    fn run(&mut self, out: &mut impl Write) -> Result<(), Failure> {
        loop {
            let before = self.smallest.clone();
            self.fewer_faults();
            self.less_time();
            self.fewer_clients();
            self.narrower_faults();
            self.shorter_faults();
            let tried = self.tried.load(Ordering::Relaxed);
            writeln!(out, "  {} after {tried} worlds", size(&self.smallest))?;
            if self.smallest == before {
                return Ok(());
            }
        }
    }

    fn fewer_faults(&mut self) {
        let mut piece = self.smallest.schedule.faults.len();
        while piece > 0 {
            let count = self.smallest.schedule.faults.len();
            let candidates = (0..count).step_by(piece).map(|start| {
                let mut course = self.smallest.clone();
                let end = (start + piece).min(count);
                course.schedule.faults.drain(start..end);
                course
            });
            let shrank = self.take_first(candidates.collect());
            if !shrank || piece > self.smallest.schedule.faults.len() {
                piece /= 2;
            }
        }
    }

    fn less_time(&mut self) {
        let last = self.smallest.schedule.faults.last();
        let needed = last.map_or(0, |timed| timed.at_ms) + AFTER_LAST_FAULT_MS;
        if needed < self.smallest.schedule.chaos_ms {
            let mut course = self.smallest.clone();
            course.schedule.chaos_ms = needed;
            self.take_first(vec![course]);
        }
    }

    fn fewer_clients(&mut self) {
        loop {
            let plan = &self.smallest.plan;
            let topics = plan.topics.iter().map(|topic| {
                let mut fewer = plan.clone();
                fewer.topics.retain(|other| other != topic);
                fewer
                    .producers
                    .retain(|producer| producer.topic != topic.name);
                fewer
                    .consumers
                    .retain(|consumer| consumer.topic != topic.name);
                fewer.retriers.retain(|retrier| retrier.topic != topic.name);
                fewer
                    .push_consumers
                    .retain(|consumer| consumer.topic != topic.name);
                fewer
            });
            let producers = (0..plan.producers.len()).map(|place| {
                let mut fewer = plan.clone();
                fewer.producers.remove(place);
                fewer
            });
            let consumers = (0..plan.consumers.len()).map(|place| {
                let mut fewer = plan.clone();
                fewer.consumers.remove(place);
                fewer
            });
            let retriers = (0..plan.retriers.len()).map(|place| {
                let mut fewer = plan.clone();
                fewer.retriers.remove(place);
                fewer
            });
            let push_consumers = (0..plan.push_consumers.len()).map(|place| {
                let mut fewer = plan.clone();
                fewer.push_consumers.remove(place);
                fewer
            });
            let clients = producers
                .chain(consumers)
                .chain(retriers)
                .chain(push_consumers);
            let plans: Vec<Plan> = topics.chain(clients).collect();
            let candidates = plans.into_iter().map(|plan| Course {
                plan,
                schedule: self.smallest.schedule.clone(),
            });
            if !self.take_first(candidates.collect()) {
                return;
            }
        }
    }

    fn narrower_faults(&mut self) {
        for place in 0..self.smallest.schedule.faults.len() {
            loop {
                let narrower = narrower(&self.smallest.schedule.faults[place].fault);
                let candidates = narrower.into_iter().map(|fault| {
                    let mut course = self.smallest.clone();
                    course.schedule.faults[place].fault = fault;
                    course
                });
                if !self.take_first(candidates.collect()) {
                    break;
                }
            }
        }
    }

    fn shorter_faults(&mut self) {
        for place in 0..self.smallest.schedule.faults.len() {
            while let Some(shorter) = shorter(&self.smallest.schedule.faults[place]) {
                let mut course = self.smallest.clone();
                course.schedule.faults[place] = shorter;
                if !self.take_first(vec![course]) {
                    break;
                }
            }
        }
    }

    /// Goes on with the first of them that still fails, the same one however many run at a time. Whether
    /// there was one.
    fn take_first(&mut self, candidates: Vec<Course>) -> bool {
        let next = AtomicUsize::new(0);
        let first: Mutex<Option<usize>> = Mutex::new(None);
        std::thread::scope(|scope| {
            for _ in 0..self.jobs {
                scope.spawn(|| {
                    loop {
                        let place = next.fetch_add(1, Ordering::Relaxed);
                        let found = *first.lock().expect("no holder panics");
                        if place >= candidates.len() || found.is_some_and(|found| found < place) {
                            return;
                        }
                        if self.still_fails(&candidates[place]) {
                            let mut first = first.lock().expect("no holder panics");
                            *first = Some(first.map_or(place, |found| found.min(place)));
                        }
                    }
                });
            }
        });
        let first = first.into_inner().expect("no holder panics");
        if let Some(place) = first {
            self.smallest = candidates[place].clone();
        }
        first.is_some()
    }

    fn still_fails(&self, course: &Course) -> bool {
        self.tried.fetch_add(1, Ordering::Relaxed);
        // A process that ended without a verdict failed in another way.
        let verdict = live(&self.spec, self.mutant, course);
        let wrong = verdict.ok().and_then(|verdict| verdict.wrong);
        wrong.is_some_and(|wrong| wrong.invariant == self.invariant)
    }
}

/// The same fault without one of those that it strikes, in every way.
fn narrower(fault: &Fault) -> Vec<Fault> {
    match fault {
        Fault::Partition { shape, how, for_ms } => {
            let shapes: Vec<Shape> = match shape {
                Shape::Split(side) => without_one(side).map(Shape::Split).collect(),
                Shape::NameServersInPart(links) => {
                    without_one(links).map(Shape::NameServersInPart).collect()
                }
                Shape::Swizzle(links) => without_one(links).map(Shape::Swizzle).collect(),
                _ => Vec::new(),
            };
            let narrower = shapes.into_iter().map(|shape| Fault::Partition {
                shape,
                how: *how,
                for_ms: *for_ms,
            });
            narrower.collect()
        }
        Fault::Crash {
            who,
            power,
            down_ms,
            storm,
        } => {
            let narrower = without_one(who).map(|who| Fault::Crash {
                who,
                power: *power,
                down_ms: *down_ms,
                storm: *storm,
            });
            narrower.collect()
        }
        _ => Vec::new(),
    }
}

/// All but one of them, in every way; something is left.
fn without_one<T: Clone>(all: &[T]) -> impl Iterator<Item = Vec<T>> {
    let places = if all.len() > 1 { 0..all.len() } else { 0..0 };
    places.map(|place| {
        let mut fewer = all.to_vec();
        fewer.remove(place);
        fewer
    })
}

/// The same fault, half as long; none if it has no length, or is short enough.
fn shorter(timed: &Timed) -> Option<Timed> {
    let mut shorter = timed.clone();
    let length = match &mut shorter.fault {
        Fault::Partition { for_ms, .. }
        | Fault::Weather { for_ms, .. }
        | Fault::Pause { for_ms, .. }
        | Fault::DiskRoom { for_ms, .. }
        | Fault::SlowSyncs { for_ms, .. }
        | Fault::TablesStall { for_ms, .. }
        | Fault::TablesRefuse { for_ms, .. }
        | Fault::SlowCheckpoints { for_ms, .. }
        | Fault::BriefTopic { for_ms, .. }
        | Fault::BriefGroup { for_ms, .. } => for_ms,
        Fault::Crash { down_ms, .. }
        | Fault::GroupDown { down_ms, .. }
        | Fault::Restore { down_ms, .. }
        | Fault::Stop { down_ms, .. } => down_ms,
        Fault::Wipe { after_ms, .. } => after_ms,
        _ => return None,
    };
    *length /= 2;
    (*length >= SHORTEST_MS).then_some(shorter)
}
