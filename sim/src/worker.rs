//! Worlds in processes of their own, one each.
//!
//! What a world does not give back, some 20 MB, ends with its process: thousands of them would fill any
//! memory. And one that aborts or never ends takes no other with it.

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use clap::Args;

use crate::case::Case;
use crate::failure::Failure;
use crate::mutants;
use crate::report;
use crate::runner;
use crate::scenario::Scenario;
use crate::spec::Spec;
use crate::verdict::Verdict;

/// How long a world may take: a hundred times what it takes on a busy machine.
const TAKES_AT_MOST: Duration = Duration::from_secs(900);

/// Where a process finds its case.
const STANDARD_INPUT: &str = "/dev/stdin";

/// Runs one world and tells a sweep how it went.
#[derive(Debug, Args)]
#[command(hide = true)]
pub struct World {
    /// Its seed.
    #[arg(long, requires = "scenario")]
    seed: Option<u64>,
    /// Its scenario.
    #[arg(long)]
    scenario: Option<String>,
    /// Or the file with its case.
    #[arg(long, conflicts_with = "seed", required_unless_present = "seed")]
    case: Option<PathBuf>,
    /// A known bug that it has.
    #[arg(long)]
    mutant: Option<String>,
    /// Where its history goes if it fails.
    #[arg(long)]
    failures: Option<PathBuf>,
}

impl World {
    /// Writes the verdict.
    ///
    /// # Errors
    /// There is no such world, or its verdict cannot be written.
    pub fn run(&self, out: &mut impl Write) -> Result<(), Failure> {
        give_up_in_time();
        if let Some(name) = &self.mutant {
            mutants::select(mutants::named(name)?.name)?;
        }
        let verdict = Verdict::of(&runner::run(self.spec()?), self.failures.as_deref())?;
        let line = serde_json::to_string(&verdict).expect("a verdict is plain data");
        writeln!(out, "{line}")?;
        Ok(())
    }

    fn spec(&self) -> Result<Spec, Failure> {
        match (&self.case, &self.scenario, self.seed) {
            (None, Some(scenario), Some(seed)) => Ok(Spec::new(Scenario::find(scenario)?, seed)),
            (Some(path), ..) => Case::read(path)?.spec(),
            _ => unreachable!("the command line asks for one of both"),
        }
    }
}

/// Ends this process if it takes too long: a world that stands still in its own time does not notice.
#[expect(
    clippy::disallowed_methods,
    reason = "outside of the simulation, to end it"
)]
fn give_up_in_time() {
    std::thread::spawn(|| {
        std::thread::sleep(TAKES_AT_MOST);
        report::note(format_args!("no end after {TAKES_AT_MOST:?}"));
        std::process::abort();
    });
}

/// What a process shall do: live through one world.
#[derive(Clone)]
pub struct Errand<'a> {
    /// Which: as its seed says, or as its course does.
    pub spec: Spec,
    /// A known bug that it has, in a build that holds them.
    pub mutant: Option<&'static str>,
    /// Where its history goes if it fails; nowhere, if nobody wants it.
    pub failures: Option<&'a Path>,
}

impl Errand<'_> {
    /// What became of the world. What its process says on standard error goes to ours.
    ///
    /// # Errors
    /// The process ended without a verdict.
    pub fn run(&self) -> Result<Verdict, Failure> {
        let mut process = self.command()?.spawn()?;
        if let Some(mut stdin) = process.stdin.take()
            && self.spec.course.is_some()
        {
            let case = serde_json::to_vec(&Case::of(&self.spec)).expect("a case is plain data");
            // One that ended before it has read all has no verdict, and that is what counts.
            let _ = stdin.write_all(&case);
        }
        let ended = process.wait_with_output()?;
        match (
            ended.status.success(),
            serde_json::from_slice(&ended.stdout),
        ) {
            (true, Ok(verdict)) => Ok(verdict),
            _ => Err(Failure::NoVerdict {
                reproduce: report::reproduce(&self.spec),
                ended: ended.status.to_string(),
            }),
        }
    }

    /// The same again, which must do the same.
    ///
    /// # Errors
    /// As [`Errand::run`]; or the world differs from itself.
    pub fn run_twice(&self) -> Result<Verdict, Failure> {
        let verdict = self.run()?;
        if self.run()?.hash != verdict.hash {
            let text = format!("{}\n  differs from itself", report::reproduce(&self.spec));
            return Err(Failure::NotDeterministic(text));
        }
        Ok(verdict)
    }

    fn command(&self) -> io::Result<Command> {
        let mut command = Command::new(this_program()?);
        command.arg("world");
        match self.spec.course {
            Some(_) => command.args(["--case", STANDARD_INPUT]),
            None => {
                let seed = self.spec.seed.to_string();
                command.args(["--seed", &seed, "--scenario", self.spec.scenario.name])
            }
        };
        if let Some(mutant) = self.mutant {
            command.args(["--mutant", mutant]);
        }
        if let Some(failures) = self.failures {
            command.arg("--failures").arg(failures);
        }
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        Ok(command)
    }
}

/// The program that runs, also when its file was replaced since.
fn this_program() -> io::Result<PathBuf> {
    match cfg!(target_os = "linux") {
        true => Ok(PathBuf::from("/proc/self/exe")),
        false => std::env::current_exe(),
    }
}
