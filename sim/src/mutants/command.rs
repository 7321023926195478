//! `raftmq-sim mutants`.

use std::io::Write;

use clap::Args;

use super::hunt::{Catch, Hunt};
use super::targets::{self, Target};
use crate::failure::Failure;
use crate::mutants;
use crate::report;
use crate::runner;
use crate::scenario::Scenario;
use crate::spec::Spec;

/// Puts known bugs back, one at a time, and requires that each is caught.
#[derive(Debug, Args)]
pub struct Command {
    /// Only this bug.
    #[arg(long)]
    mutant: Option<String>,
    /// Only this scenario.
    #[arg(long)]
    scenario: Option<String>,
    /// Worlds of each bug, if not as many as are stated for it.
    #[arg(long)]
    worlds: Option<u64>,
    /// Seeds from this one on.
    #[arg(long, default_value_t = 1)]
    first: u64,
    /// One seed of the scenario: tell the story of its world with the bug.
    #[arg(long, requires = "mutant", requires = "scenario")]
    seed: Option<u64>,
    /// Worlds at the same time.
    #[arg(long, default_value_t = 2)]
    jobs: usize,
}

impl Command {
    /// Fails if a bug is not caught.
    pub fn run(&self, out: &mut impl Write) -> Result<(), Failure> {
        let mut missed = Vec::new();
        if self.seed.is_none() {
            write_row(
                out,
                [
                    "mutant",
                    "scenario",
                    "seed",
                    "worlds",
                    "within",
                    "invariant",
                    "at",
                ],
            )?;
        }
        for target in self.targets()? {
            let name = target.name;
            let scenarios = self.scenarios(target)?;
            if let Some(seed) = self.seed {
                mutants::select(name)?;
                return tell(scenarios[0], seed, out);
            }
            let worlds = self.worlds.unwrap_or(target.worlds);
            let hunt = Hunt {
                mutant: name,
                scenarios: &scenarios,
                invariants: target.invariants,
                first_seed: self.first,
                worlds,
                jobs: self.jobs,
            };
            match hunt.run()? {
                Some(catch) => write_catch(out, name, worlds, &catch)?,
                None => {
                    let tried = worlds.to_string();
                    write_row(out, [name, "-", "-", &tried, &tried, "not caught", "-"])?;
                    missed.push(name);
                }
            }
        }
        match missed.is_empty() {
            true => Ok(()),
            false => Err(Failure::Vacuous(format!(
                "a violation by {}",
                missed.join(", ")
            ))),
        }
    }

    fn targets(&self) -> Result<Vec<&'static Target>, Failure> {
        // A build without them says so at once.
        mutants::switch()?;
        Ok(match &self.mutant {
            Some(name) => vec![mutants::named(name)?],
            None => targets::ALL.iter().collect(),
        })
    }

    fn scenarios(&self, target: &Target) -> Result<Vec<&'static Scenario>, Failure> {
        let names = match &self.scenario {
            Some(name) => vec![name.as_str()],
            None => target.scenarios.to_vec(),
        };
        names.into_iter().map(Scenario::find).collect()
    }
}

fn tell(scenario: &'static Scenario, seed: u64, out: &mut impl Write) -> Result<(), Failure> {
    let report = runner::run(Spec::new(scenario, seed));
    report::tell_story(&report, out)?;
    if let Some(violation) = &report.violation {
        writeln!(out, "{violation}")?;
        for line in &violation.proof {
            writeln!(out, "    {line}")?;
        }
    }
    Ok(())
}

fn write_catch(
    out: &mut impl Write,
    name: &str,
    worlds: u64,
    catch: &Catch,
) -> std::io::Result<()> {
    let seed = catch.seed.to_string();
    let (tried, within) = (catch.tried.to_string(), worlds.to_string());
    let at = format!("{:.1} s", catch.simulated.as_secs_f64());
    let row = [
        name,
        catch.scenario,
        &seed,
        &tried,
        &within,
        &catch.invariant,
        &at,
    ];
    write_row(out, row)
}

fn write_row(out: &mut impl Write, row: [&str; 7]) -> std::io::Result<()> {
    let [mutant, scenario, seed, worlds, within, invariant, at] = row;
    writeln!(
        out,
        "{mutant:28} {scenario:12} {seed:>5} {worlds:>6} {within:>6}  {invariant:34} {at:>9}"
    )
}
