//! `raftmq cluster status`: who leads, who follows, how far behind.

use clap::{Args, Subcommand};
use futures::future::join_all;
use raftmq_client::{BrokerAddress, BrokerStatus};
use serde_json::json;

use super::seeds::Seeds;
use crate::failure::Failure;
use crate::terminal::{Colour, note, paint, say, table};

/// Flags of `raftmq cluster`.
#[derive(Args, Debug)]
pub(crate) struct ClusterArguments {
    #[command(subcommand)]
    verb: Verb,
    #[command(flatten)]
    seeds: Seeds,
    /// Print JSON
    #[arg(long, global = true)]
    json: bool,
}

#[derive(Subcommand, Debug)]
enum Verb {
    /// Every broker: who leads, how far each has come; exit code 1 unless all are well
    Status,
}

struct Seen {
    address: BrokerAddress,
    status: Result<BrokerStatus, raftmq_client::Error>,
}

/// Asks every broker about itself.
pub(crate) async fn run(arguments: ClusterArguments) -> Result<(), Failure> {
    let Verb::Status = arguments.verb;
    let admin = arguments.seeds.client().await?.admin();
    let brokers = admin.brokers().await?;
    let asked = brokers.into_iter().map(|address| {
        let admin = &admin;
        async move {
            let status = admin.status(&address.client_address).await;
            Seen { address, status }
        }
    });
    let seen = join_all(asked).await;
    if arguments.json {
        say(serde_json::Value::Array(seen.iter().map(as_json).collect()));
    } else {
        show(&seen);
    }
    judge(&seen)
}

fn show(seen: &[Seen]) {
    let ahead = seen
        .iter()
        .filter_map(|broker| Some(broker.status.as_ref().ok()?.appended))
        .max();
    let ahead = ahead.unwrap_or(0);
    let rows: Vec<Vec<String>> = seen.iter().map(|broker| row(broker, ahead)).collect();
    let headings = [
        "group",
        "broker",
        "address",
        "state",
        "term",
        "committed",
        "applied",
        "behind",
        "up s",
    ];
    say(table(&headings, &rows));
}

fn row(broker: &Seen, ahead: u64) -> Vec<String> {
    let address = &broker.address;
    let mut cells = vec![
        address.group.clone(),
        address.broker_id.to_string(),
        address.client_address.clone(),
    ];
    match &broker.status {
        Ok(status) => cells.extend([
            status.state.clone(),
            status.term.to_string(),
            status.committed.to_string(),
            status.applied.to_string(),
            ahead.saturating_sub(status.appended).to_string(),
            (status.uptime_ms / 1000).to_string(),
        ]),
        Err(error) => {
            note(format_args!("broker {}: {error}", address.broker_id));
            cells.push("no answer".to_owned());
            cells.extend(std::iter::repeat_n("-".to_owned(), 5));
        }
    }
    cells
}

fn as_json(broker: &Seen) -> serde_json::Value {
    let address = &broker.address;
    let mut value = json!({
        "group": address.group,
        "broker_id": address.broker_id,
        "client_address": address.client_address,
        "peer_address": address.peer_address,
    });
    let more = match &broker.status {
        Ok(status) => json!({
            "state": status.state, "term": status.term, "leader": status.leader,
            "serving": status.serving, "voters": status.voters,
            "dropped": status.dropped, "purged": status.purged, "checkpoint": status.checkpoint,
            "durable_applied": status.durable_applied, "applied": status.applied,
            "committed": status.committed, "flushed": status.flushed, "appended": status.appended,
            "log_bytes_written": status.log_bytes_written, "log_syncs": status.log_syncs,
            "payload_bytes": status.payload_bytes,
            "snapshots_installed": status.snapshots_installed,
            "segments_repaired": status.segments_repaired,
            "uptime_ms": status.uptime_ms, "version": status.version,
        }),
        Err(error) => json!({ "error": error.to_string() }),
    };
    if let (Some(value), serde_json::Value::Object(more)) = (value.as_object_mut(), more) {
        value.extend(more);
    }
    value
}

/// Well is: every broker answers, and each group has one that serves.
fn judge(seen: &[Seen]) -> Result<(), Failure> {
    let mut troubles = Vec::new();
    let mut groups: Vec<&str> = seen
        .iter()
        .map(|broker| broker.address.group.as_str())
        .collect();
    groups.sort_unstable();
    groups.dedup();
    for group in groups {
        let members = || seen.iter().filter(|broker| broker.address.group == group);
        let serves = |broker: &Seen| broker.status.as_ref().is_ok_and(|status| status.serving);
        if !members().any(serves) {
            troubles.push(format!("group {group} has no leader that serves"));
        }
        let silent = members().filter(|broker| broker.status.is_err()).count();
        if silent > 0 {
            troubles.push(format!(
                "{silent} of the brokers of group {group} do not answer"
            ));
        }
    }
    if troubles.is_empty() {
        say(paint(Colour::Good, "all is well"));
        Ok(())
    } else {
        Err(Failure::Operation(troubles.join("; ")))
    }
}
