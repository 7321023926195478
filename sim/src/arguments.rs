//! The command line.

use std::io;
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;

use crate::case::Case;
use crate::failure::Failure;
use crate::minimize;
use crate::mutants;
use crate::panics;
use crate::report;
use crate::runner;
use crate::scenario::{SCENARIOS, Scenario};
use crate::spec::Spec;
use crate::sweep::{self, Sweep};
use crate::worker;

/// Simulates worlds of brokers, name servers and clients in which everything goes wrong.
#[derive(Debug, Parser)]
#[command(name = "raftmq-sim")]
pub struct Arguments {
    #[command(subcommand)]
    command: Option<Subcommand>,
    /// One seed: tell the story of its world.
    #[arg(long, conflicts_with_all = ["seeds", "first"])]
    seed: Option<u64>,
    /// A file with a case: tell the story of its world.
    #[arg(long, conflicts_with_all = ["seed", "seeds", "first", "scenario"])]
    case: Option<std::path::PathBuf>,
    /// How many seeds of each scenario.
    #[arg(long, default_value_t = 24)]
    seeds: u64,
    /// The first of them.
    #[arg(long, default_value_t = 1)]
    first: u64,
    /// Only this scenario.
    #[arg(long)]
    scenario: Option<String>,
    /// Run each seed twice and compare everything that happened.
    #[arg(long)]
    twice: bool,
    /// Worlds at the same time.
    #[arg(long, default_value_t = default_jobs())]
    jobs: usize,
    /// Begin no world after so many minutes.
    #[arg(long)]
    minutes: Option<u64>,
    /// Where histories of failed worlds go.
    #[arg(long, default_value = "target/sim-failures")]
    failures: std::path::PathBuf,
    /// Where the cases lie that are replayed before a sweep.
    #[arg(long, default_value = "sim/regressions")]
    regressions: std::path::PathBuf,
}

/// What else than worlds of the system as it is.
#[derive(Debug, clap::Subcommand)]
enum Subcommand {
    Mutants(mutants::Command),
    Minimize(minimize::Command),
    World(worker::World),
}

fn default_jobs() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

impl Arguments {
    /// Does what was asked. Fails if any world did.
    pub fn run(self) -> ExitCode {
        log_to_stderr();
        panics::keep();
        let mut out = io::stdout();
        let result = match (&self.command, self.scenarios()) {
            (Some(Subcommand::Mutants(command)), _) => command.run(&mut out),
            (Some(Subcommand::Minimize(command)), _) => command.run(&mut out),
            (Some(Subcommand::World(world)), _) => world.run(&mut out),
            (None, Ok(scenarios)) => self.run_scenarios(scenarios, &mut out),
            (None, Err(failure)) => Err(failure),
        };
        match result {
            Ok(()) => ExitCode::SUCCESS,
            Err(failure) => {
                report::note(format_args!("{failure}"));
                ExitCode::FAILURE
            }
        }
    }

    fn run_scenarios(
        &self,
        scenarios: Vec<&'static Scenario>,
        out: &mut impl io::Write,
    ) -> Result<(), Failure> {
        if let Some(path) = &self.case {
            return self.tell(Case::read(path)?.spec()?, out);
        }
        if let Some(seed) = self.seed {
            for scenario in scenarios {
                self.tell(Spec::new(scenario, seed), out)?;
            }
            return Ok(());
        }
        let sweep = Sweep {
            scenarios,
            seeds: self.first..self.first + self.seeds,
            jobs: self.jobs,
            limit: self
                .minutes
                .map(|minutes| Duration::from_secs(60 * minutes)),
            twice: self.twice,
            failures: self.failures.clone(),
            regressions: self.regressions.clone(),
        };
        sweep.run(out)
    }

    /// One world, and what happened in it.
    fn tell(&self, spec: Spec, out: &mut impl io::Write) -> Result<(), Failure> {
        if self.twice {
            return sweep::compare(&spec, out);
        }
        let report = runner::run(spec);
        report::tell_story(&report, out)?;
        report::check(&report, Some(&self.failures))
    }

    fn scenarios(&self) -> Result<Vec<&'static Scenario>, Failure> {
        match &self.scenario {
            None => Ok(SCENARIOS.iter().collect()),
            Some(name) => Scenario::find(name).map(|scenario| vec![scenario]),
        }
    }
}

/// What the servers and clients log, if `RUST_LOG` asks for it.
fn log_to_stderr() {
    if std::env::var_os("RUST_LOG").is_some() {
        tracing_subscriber::fmt()
            .with_env_filter(tracing_subscriber::EnvFilter::from_default_env())
            .with_writer(io::stderr)
            .with_ansi(false)
            .init();
    }
}
