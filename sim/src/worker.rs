//! Worlds in processes of their own, one each.
//!
//! What a world does not give back, some 20 MB, ends with its process: thousands of them would fill any
//! memory. And one that aborts or never ends takes no other with it.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use clap::Args;

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
    #[arg(long)]
    seed: u64,
    /// Its scenario.
    #[arg(long)]
    scenario: String,
    /// Run it twice and compare.
    #[arg(long)]
    twice: bool,
    /// Where its history goes if it fails.
    #[arg(long)]
    failures: PathBuf,
}

impl World {
    /// Writes the verdict. Fails if the world differs from itself, or if it cannot be written.
    pub fn run(&self, out: &mut impl Write) -> Result<(), Failure> {
        give_up_in_time();
        let spec = Spec::new(Scenario::find(&self.scenario)?, self.seed);
        let report = runner::run(spec.clone());
        if self.twice && runner::run(spec).traced.hash != report.traced.hash {
            return Err(Failure::NotDeterministic(format!(
                "{} differs from itself",
                report::reproduce(&report.spec)
            )));
        }
        let verdict = Verdict::of(&report, &self.failures)?;
        let line = serde_json::to_string(&verdict).expect("a verdict is plain data");
        writeln!(out, "{line}")?;
        Ok(())
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

/// Runs a world as its seed says in a process of its own. What it says on standard error goes to ours.
///
/// # Errors
/// The process ended without a verdict: it was aborted, or the world differs from itself.
pub fn run(spec: &Spec, twice: bool, failures: &Path) -> Result<Verdict, Failure> {
    let mut command = Command::new(std::env::current_exe()?);
    command
        .args(["world", "--seed", &spec.seed.to_string()])
        .args(["--scenario", spec.scenario.name])
        .arg("--failures")
        .arg(failures)
        .args(twice.then_some("--twice"))
        .stdin(Stdio::null())
        .stderr(Stdio::inherit());
    let ended = command.output()?;
    let told = serde_json::from_slice(&ended.stdout);
    match (ended.status.success(), told) {
        (true, Ok(verdict)) => Ok(verdict),
        _ => Err(Failure::NoVerdict {
            reproduce: report::reproduce(spec),
            ended: ended.status.to_string(),
        }),
    }
}
