//! `raftmq group list|describe|transfer-leader|add-replica|remove-replica|replace|set-address`: a broker group is a
//! Raft group, and these change who is in it.
//!
//! Every change is one that Raft agrees on, so a group never has two opinions about its members. Nothing
//! here is done to a group that would lose its majority by it, unless that is asked for.

mod change;

use std::time::Duration;

use clap::{Args, Subcommand};
use raftmq_client::{Admin, BrokerStatus};
use serde_json::{Value, json};

use super::seeds::Seeds;
use crate::failure::Failure;
use crate::moments::{parse_age, shown_age};
use crate::output::Output;
use crate::survey::{GroupSurvey, Replica, survey};
use crate::terminal::{pairs, table};

/// Flags of `raftmq group`.
#[derive(Args, Debug)]
pub(crate) struct GroupArguments {
    #[command(subcommand)]
    verb: Verb,
    #[command(flatten)]
    seeds: Seeds,
    #[command(flatten)]
    output: Output,
    /// The broker group; needed where there are several
    #[arg(long, global = true, value_name = "NAME")]
    group: Option<String>,
    /// Longest wait for a change, catching up included
    #[arg(long, global = true, value_name = "DURATION", default_value = "10m", value_parser = parse_age)]
    timeout: Duration,
}

#[derive(Subcommand, Debug)]
enum Verb {
    /// All broker groups
    List,
    /// One broker group: its replicas, who leads, how far each has come
    Describe,
    /// Have another replica lead
    TransferLeader {
        /// Its broker id; without it, the voter that has come furthest
        to: Option<u64>,
        /// Only if the broker at this client address leads; otherwise nothing is done. For what stops that broker
        #[arg(long, value_name = "HOST:PORT")]
        away_from: Option<String>,
    },
    /// Add a replica: it is given everything, and votes once it has caught up
    ///
    /// Start the broker first, with the group's cluster_id and group, a broker_id that was never used in it, an empty
    /// data_dir, and itself beside the others in `members`.
    AddReplica {
        /// Address at which the other replicas reach the broker (its port for peers, 9081)
        #[arg(value_name = "HOST:PORT")]
        address: String,
        /// It does not vote
        #[arg(long)]
        learner: bool,
    },
    /// Take a replica out; its broker id is not used again
    RemoveReplica {
        /// Its broker id
        id: u64,
        /// Also if the voters that are left and answer are no majority
        #[arg(long)]
        force: bool,
    },
    /// Put another broker in the place of a dead or wiped one, in one step
    ///
    /// The newcomer is started and described as for add-replica. It votes when it has caught up, and the old one
    /// leaves in the same change, so that the group never needs more votes than it has.
    Replace {
        /// Broker id of the one that goes
        old: u64,
        /// Address at which the other replicas reach the one that comes (its port for peers, 9081)
        #[arg(value_name = "HOST:PORT")]
        address: String,
    },
    /// Tell brokers where another replica of their group is, when they do not find each other
    ///
    /// Rarely needed: a replica announces its address to those that it reaches, and the group takes it over. This is for
    /// replicas that all have other addresses and do not have them in `members`. It is said to each broker whose listener
    /// for operators is named (`--admin`), or to the one on this machine; each looks there too, and nowhere less.
    SetAddress {
        /// Broker id of the one that is elsewhere
        #[arg(long, value_name = "ID")]
        replica: u64,
        /// Where other replicas reach it now (its port for peers, 9081); empty ("") takes back what was said before
        #[arg(long, value_name = "HOST:PORT")]
        address: String,
    },
}

/// Does what was asked of broker groups.
pub(crate) async fn run(arguments: GroupArguments) -> Result<(), Failure> {
    let admin = arguments.seeds.client().await?.admin();
    let output = arguments.output;
    if let Verb::SetAddress { replica, address } = &arguments.verb {
        return set_address(&admin, *replica, address, output).await;
    }
    let mut name = arguments.group;
    let mut away = None;
    if let Verb::TransferLeader {
        away_from: Some(address),
        ..
    } = &arguments.verb
    {
        let status = admin.status(address).await?;
        if status.state != "leader" {
            follows(&status, output);
            return Ok(());
        }
        name = Some(status.group.clone());
        away = Some(status);
    }
    let groups = survey(&admin).await?;
    if let Verb::List = arguments.verb {
        list(&groups, output);
        return Ok(());
    }
    let group = choose(groups, name.as_deref())?;
    // It may have lost the lead meanwhile: then another leader is none of our business.
    if let Some(status) = away.as_ref().filter(|status| leads_not(&group, status)) {
        follows(status, output);
        return Ok(());
    }
    let change = change::Change {
        admin: admin.broker_group(group.name.clone()),
        group,
        timeout: arguments.timeout,
        output,
    };
    match arguments.verb {
        Verb::List | Verb::SetAddress { .. } => Ok(()),
        Verb::Describe => {
            let group = &change.group;
            output.show(|| as_json(group), || described(group));
            Ok(())
        }
        Verb::TransferLeader { to, .. } => {
            let away = away.map(|status| status.broker_id);
            change.transfer(to, away).await
        }
        Verb::AddReplica { address, learner } => change.add(&address, learner).await,
        Verb::RemoveReplica { id, force } => change.remove(id, force).await,
        Verb::Replace { old, address } => change.replace(old, &address).await,
    }
}

/// Says to each broker where a replica is. Done if one of them took it.
async fn set_address(
    admin: &Admin,
    replica: u64,
    address: &str,
    output: Output,
) -> Result<(), Failure> {
    let outcomes = admin.set_address(replica, address).await;
    let told = |outcome: &Result<(), raftmq_client::Error>| match outcome {
        Ok(()) if address.is_empty() => format!("forgets where broker {replica} was said to be"),
        Ok(()) => format!("looks for broker {replica} at {address} too"),
        Err(error) => error.to_string(),
    };
    let took = outcomes.iter().any(|(_, outcome)| outcome.is_ok());
    let rows = outcomes
        .iter()
        .map(|(listener, outcome)| vec![listener.clone(), told(outcome)]);
    let rows: Vec<Vec<String>> = rows.collect();
    if !took {
        let reasons: Vec<String> = rows.iter().map(|row| row.join(": ")).collect();
        return Err(Failure::Unreachable(format!(
            "no broker took it: {}",
            reasons.join("; ")
        )));
    }
    let as_json = |(listener, outcome): &(String, Result<(), raftmq_client::Error>)| {
        let error = outcome.as_ref().err().map(ToString::to_string);
        json!({ "listener": listener, "taken": outcome.is_ok(), "error": error })
    };
    output.show(
        || outcomes.iter().map(as_json).collect(),
        || table(&["listener", "broker"], &rows),
    );
    Ok(())
}

/// Whether another broker than this one leads the group.
fn leads_not(group: &GroupSurvey, status: &BrokerStatus) -> bool {
    let leader = group.leader();
    leader.is_some_and(|leader| leader.broker_id != status.broker_id)
}

/// Says that a broker has nothing to hand over.
fn follows(status: &BrokerStatus, output: Output) {
    let BrokerStatus {
        broker_id, group, ..
    } = status;
    output.show(
        || json!({ "leader": status.leader, "group": group }),
        || format!("broker {broker_id} does not lead group {group}: nothing to hand over"),
    );
}

/// The group that is meant.
fn choose(groups: Vec<GroupSurvey>, name: Option<&str>) -> Result<GroupSurvey, Failure> {
    let names: Vec<String> = groups.iter().map(|group| group.name.clone()).collect();
    let mut meant = groups
        .into_iter()
        .filter(|group| name.is_none_or(|name| name == group.name));
    match (meant.next(), meant.next()) {
        (Some(group), None) => Ok(group),
        (Some(_), Some(_)) => Err(Failure::Configuration(format!(
            "there are broker groups {}: name one with --group",
            names.join(", ")
        ))),
        (None, _) => Err(Failure::NotFound(format!(
            "no broker group {}: there are {}",
            name.unwrap_or_default(),
            names.join(", ")
        ))),
    }
}

/// The replica that serves as the leader.
fn led_by(group: &GroupSurvey) -> Result<&BrokerStatus, Failure> {
    group.leader().ok_or_else(|| {
        let troubles = group.troubles(u64::MAX);
        let reasons: Vec<String> = troubles.into_iter().map(|trouble| trouble.text).collect();
        Failure::Unreachable(reasons.join("; "))
    })
}

/// Asks again how the group is.
async fn look_again(admin: &Admin, name: &str) -> Result<GroupSurvey, Failure> {
    choose(survey(admin).await?, Some(name))
}

fn list(groups: &[GroupSurvey], output: Output) {
    output.show(
        || groups.iter().map(as_json).collect(),
        || {
            let rows: Vec<Vec<String>> = groups.iter().map(row).collect();
            table(
                &[
                    "broker group",
                    "leader",
                    "term",
                    "voters",
                    "replicas",
                    "answer",
                ],
                &rows,
            )
        },
    );
}

fn row(group: &GroupSurvey) -> Vec<String> {
    let leader = group.leader();
    let dash = || "-".to_owned();
    vec![
        group.name.clone(),
        leader.map_or_else(dash, |leader| leader.broker_id.to_string()),
        leader.map_or_else(dash, |leader| leader.term.to_string()),
        leader.map_or_else(dash, |leader| leader.voters.len().to_string()),
        leader.map_or_else(dash, |leader| leader.replicas.len().to_string()),
        group.answers().count().to_string(),
    ]
}

fn as_json(group: &GroupSurvey) -> Value {
    let leader = group.leader();
    let replicas: Vec<Value> = group
        .replicas
        .iter()
        .map(|replica| {
            let mut value = replica.as_json();
            value["role"] = group.role(replica.address.broker_id).into();
            let status = replica.status.as_ref().ok();
            value["behind"] = status.and_then(|status| group.behind(status)).into();
            value
        })
        .collect();
    json!({
        "group": group.name,
        "leader": leader.map(|leader| leader.broker_id),
        "term": leader.map(|leader| leader.term),
        "voters": leader.map(|leader| &leader.voters),
        "replicas": replicas,
    })
}

fn described(group: &GroupSurvey) -> String {
    let leader = group.leader();
    let shown = |text: Option<String>| text.unwrap_or_else(|| "none".to_owned());
    let facts = [
        ("broker group", group.name.clone()),
        (
            "leader",
            shown(leader.map(|leader| format!("broker {}", leader.broker_id))),
        ),
        ("term", shown(leader.map(|leader| leader.term.to_string()))),
        (
            "committed",
            shown(leader.map(|leader| leader.committed.to_string())),
        ),
    ];
    let rows: Vec<Vec<String>> = group
        .replicas
        .iter()
        .map(|replica| replica_row(group, replica))
        .collect();
    let headings = [
        "broker",
        "role",
        "state",
        "client address",
        "peer address",
        "applied",
        "behind",
        "checkpoint",
        "up",
    ];
    format!("{}\n\n{}", pairs(&facts), table(&headings, &rows))
}

fn replica_row(group: &GroupSurvey, replica: &Replica) -> Vec<String> {
    let address = &replica.address;
    let status = replica.status.as_ref().ok();
    let number = |of: fn(&BrokerStatus) -> u64| {
        status.map_or("-".to_owned(), |status| of(status).to_string())
    };
    let behind = status.and_then(|status| group.behind(status));
    vec![
        address.broker_id.to_string(),
        group.role(address.broker_id).to_owned(),
        status.map_or("no answer".to_owned(), |status| status.state.clone()),
        address.client_address.clone(),
        address.peer_address.clone(),
        number(|status| status.applied),
        behind.map_or("-".to_owned(), |behind| behind.to_string()),
        number(|status| status.checkpoint),
        status.map_or("-".to_owned(), |status| shown_age(status.uptime_ms)),
    ]
}

#[cfg(test)]
mod tests {
    use proto::cluster::BrokerStatusResponse;
    use raftmq_client::BrokerAddress;

    use super::*;

    fn status(broker_id: u64, serving: bool) -> BrokerStatus {
        let response = BrokerStatusResponse {
            group: "g".to_owned(),
            broker_id,
            serving,
            voters: vec![1, 2],
            ..Default::default()
        };
        response.into()
    }

    fn led_by_broker(leader: Option<u64>) -> GroupSurvey {
        let replica = |broker_id| Replica {
            address: BrokerAddress {
                group: "g".to_owned(),
                broker_id,
                client_address: format!("b{broker_id}:1"),
                peer_address: format!("b{broker_id}:2"),
            },
            status: Ok(status(broker_id, leader == Some(broker_id))),
            took_ms: 1,
            local_ms: 0,
        };
        GroupSurvey {
            name: "g".to_owned(),
            expired: false,
            replicas: (1..=2).map(replica).collect(),
        }
    }

    /// Catches a broker that is about to stop, lost the lead a moment ago, and takes it away from its successor.
    #[test]
    fn the_lead_is_moved_away_only_from_whom_it_was_meant() {
        let stops = status(1, true);
        assert!(!leads_not(&led_by_broker(Some(1)), &stops));
        assert!(leads_not(&led_by_broker(Some(2)), &stops));
        assert!(!leads_not(&led_by_broker(None), &stops), "nobody knows");
    }
}
