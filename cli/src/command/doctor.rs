//! `raftmq doctor`: walks through the table of symptoms and says which of them this cluster has, why, and
//! what to do.
//!
//! | file | what it does |
//! | --- | --- |
//! | `symptoms` | the table; `docs/troubleshooting.md` shows the same |
//! | `facts` | asks the cluster, and changes nothing |
//! | `checks` | finds symptoms in the facts; pure |

mod checks;
mod facts;
mod symptoms;

use std::time::Duration;

use clap::Args;
use serde_json::{Value, json};

use super::seeds::Seeds;
use crate::failure::Failure;
use crate::moments::parse_age;
use crate::output::Output;
use crate::terminal::{Colour, note, paint, say};
use checks::Finding;
use symptoms::Symptom;

/// Flags of `raftmq doctor`.
#[derive(Args, Debug)]
pub(crate) struct DoctorArguments {
    /// Look for this topic in particular, and at its messages only
    #[arg(long)]
    topic: Option<String>,
    /// How long consumer groups are watched; at least as long as consumers wait between two commits (5 s)
    #[arg(long, value_name = "DURATION", default_value = "6s", value_parser = parse_age)]
    watch: Duration,
    #[command(flatten)]
    seeds: Seeds,
    #[command(flatten)]
    output: Output,
}

/// Says what it finds; exit code 6 if it finds anything.
pub(crate) async fn run(arguments: DoctorArguments) -> Result<(), Failure> {
    let admin = arguments.seeds.client().await?.admin();
    note(format_args!(
        "looking for {} s; nothing is changed",
        arguments.watch.as_secs_f32().ceil()
    ));
    let facts = facts::gather(&admin, arguments.topic.clone(), arguments.watch).await?;
    let findings = checks::findings(&facts);
    if arguments.output.json {
        say(as_json(&findings));
    } else {
        say(shown(&findings));
    }
    match findings.len() {
        0 => Ok(()),
        count => Err(Failure::Unhealthy(format!("{count} findings"))),
    }
}

fn as_json(findings: &[Finding]) -> Value {
    let symptoms: Vec<Value> = Symptom::ALL
        .iter()
        .map(|symptom| {
            let found: Vec<Value> = findings
                .iter()
                .filter(|finding| finding.cause.symptom() == *symptom)
                .map(|finding| {
                    let (cause, fix) = (finding.cause.text(), finding.cause.fix());
                    json!({ "seen": finding.seen, "cause": cause, "fix": fix })
                })
                .collect();
            json!({ "symptom": symptom.title(), "found": found })
        })
        .collect();
    json!({ "healthy": findings.is_empty(), "symptoms": symptoms })
}

fn shown(findings: &[Finding]) -> String {
    let mut lines = Vec::new();
    for symptom in Symptom::ALL {
        let found = findings
            .iter()
            .filter(|finding| finding.cause.symptom() == symptom);
        let found: Vec<&Finding> = found.collect();
        let mark = match found.is_empty() {
            true => paint(Colour::Good, "no "),
            false => paint(Colour::Bad, "YES"),
        };
        lines.push(format!("{mark}  {}", symptom.title()));
        for finding in found {
            lines.push(format!(
                "       seen   {}",
                paint(Colour::Strong, &finding.seen)
            ));
            lines.push(format!("       cause  {}", finding.cause.text()));
            lines.push(format!("       fix    {}", finding.cause.fix()));
        }
    }
    lines.join("\n")
}
