//! Worlds in processes of their own, one each.
//!
//! What a world does not give back, some 20 MB, ends with its process: thousands of them would fill any
//! memory. And one that aborts or never ends takes no other with it.

use std::ffi::OsStr;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use clap::Args;

use crate::case::Case;
use crate::report::{self, Failure};
use crate::runner;
use crate::scenario::Scenario;
use crate::simulation::Spec;
use crate::verdict::Verdict;

/// How long a world may take: a hundred times what it takes on a busy machine.
const TAKES_AT_MOST: Duration = Duration::from_secs(900);

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
    /// Where its history goes if it fails.
    #[arg(long)]
    failures: PathBuf,
}

impl World {
    /// Writes the verdict.
    ///
    /// # Errors
    /// There is no such world, or its verdict cannot be written.
    pub fn run(&self, out: &mut impl Write) -> Result<(), Failure> {
        give_up_in_time();
        let verdict = Verdict::of(&runner::run(self.spec()?), &self.failures)?;
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

/// Runs a world as its seed says in a process of its own; `twice`: in two, which must do the same.
///
/// # Errors
/// A process ended without a verdict, or the world differs from itself.
pub fn run(spec: &Spec, twice: bool, failures: &Path) -> Result<Verdict, Failure> {
    let seed = spec.seed.to_string();
    let world = ["--seed", &seed, "--scenario", spec.scenario.name].map(OsStr::new);
    let reproduce = report::reproduce(spec);
    let verdict = run_process(&world, &reproduce, failures)?;
    if twice && run_process(&world, &reproduce, failures)?.hash != verdict.hash {
        let text = format!("{reproduce}\n  differs from itself");
        return Err(Failure::NotDeterministic(text));
    }
    Ok(verdict)
}

/// Runs a case in a process of its own.
///
/// # Errors
/// The process ended without a verdict.
pub fn run_case(path: &Path, failures: &Path) -> Result<Verdict, Failure> {
    let reproduce = format!("make sim CASE={}", path.display());
    run_process(
        &[OsStr::new("--case"), path.as_os_str()],
        &reproduce,
        failures,
    )
}

/// What the process says on standard error goes to ours.
fn run_process(world: &[&OsStr], reproduce: &str, failures: &Path) -> Result<Verdict, Failure> {
    let mut command = Command::new(this_program()?);
    let failures = [OsStr::new("--failures"), failures.as_os_str()];
    let command = command.arg("world").args(world).args(failures);
    let ended = command
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .output()?;
    match (
        ended.status.success(),
        serde_json::from_slice(&ended.stdout),
    ) {
        (true, Ok(verdict)) => Ok(verdict),
        _ => Err(Failure::NoVerdict {
            reproduce: reproduce.to_owned(),
            ended: ended.status.to_string(),
        }),
    }
}

/// The program that runs, also when its file was replaced since.
fn this_program() -> io::Result<PathBuf> {
    match cfg!(target_os = "linux") {
        true => Ok(PathBuf::from("/proc/self/exe")),
        false => std::env::current_exe(),
    }
}
