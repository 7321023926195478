//! `raftmq cluster status|health`: who leads, who follows, how far behind; and whether that is well.

use std::time::Duration;

use clap::{Args, Subcommand};
use raftmq_client::{Admin, BrokerStatus};
use serde_json::json;
use tokio::time::Instant;

use super::seeds::Seeds;
use crate::failure::Failure;
use crate::moments::{parse_age, shown_age};
use crate::output::Output;
use crate::survey::{GroupSurvey, Replica, survey, wrong_clock};
use crate::terminal::{Colour, note, paint, table};

/// Entries that a replica may lack before it counts as behind.
const LAG_MAX_DEFAULT: u64 = 10_000;
/// Longest wait for the leader's proof that a majority still follows it.
const PROOF_TIMEOUT: Duration = Duration::from_secs(3);
/// Pause between two looks of `--wait`.
const LOOK_INTERVAL: Duration = Duration::from_millis(250);

/// Flags of `raftmq cluster`.
#[derive(Args, Debug)]
pub(crate) struct ClusterArguments {
    #[command(subcommand)]
    verb: Verb,
    #[command(flatten)]
    seeds: Seeds,
    #[command(flatten)]
    output: Output,
}

#[derive(Subcommand, Debug)]
enum Verb {
    /// Every broker: who leads, how far each has come; exit code 6 unless all are well
    Status,
    /// One line for a probe: exit code 0 or 6, from what Raft says now
    Health(HealthArguments),
}

#[derive(Args, Debug)]
struct HealthArguments {
    /// Only this broker: it follows or leads, and lacks little of what is committed (readiness)
    #[arg(long, value_name = "HOST:PORT")]
    broker: Option<String>,
    /// It is enough that every group takes and delivers messages; a dead minority is no failure
    #[arg(long, conflicts_with = "broker")]
    serving: bool,
    /// Log entries that a replica may lack
    #[arg(long, default_value_t = LAG_MAX_DEFAULT)]
    max_lag: u64,
    /// Broker groups that there are at least. A group that is down as a whole is a trouble anyhow, but name servers remember it
    /// for some minutes only
    #[arg(long, value_name = "COUNT", conflicts_with = "broker")]
    expect_groups: Option<usize>,
    /// Look again and again until all is well, at most this long (30s, 5m)
    #[arg(long, value_name = "DURATION", value_parser = parse_age)]
    wait: Option<Duration>,
}

/// Asks every broker about itself.
pub(crate) async fn run(arguments: ClusterArguments) -> Result<(), Failure> {
    let (seeds, output) = (arguments.seeds, arguments.output);
    match arguments.verb {
        Verb::Status => {
            let groups = survey(&seeds.client().await?.admin()).await?;
            show(&groups, output);
            judge(&groups, output)
        }
        Verb::Health(health) => {
            let deadline = health.wait.map(|wait| Instant::now() + wait);
            let client = seeds.client_within(health.wait.unwrap_or_default()).await?;
            probe(&client.admin(), &health, deadline, output).await
        }
    }
}

fn show(groups: &[GroupSurvey], output: Output) {
    let replicas = || groups.iter().flat_map(|group| &group.replicas);
    output.show(
        || replicas().map(Replica::as_json).collect(),
        || {
            let rows: Vec<Vec<String>> = groups
                .iter()
                .flat_map(|group| group.replicas.iter().map(move |one| row(group, one)))
                .collect();
            let headings = [
                "group",
                "broker",
                "address",
                "role",
                "state",
                "term",
                "committed",
                "applied",
                "behind",
                "up",
            ];
            table(&headings, &rows)
        },
    );
}

fn row(group: &GroupSurvey, replica: &Replica) -> Vec<String> {
    let address = &replica.address;
    let mut cells = vec![
        address.group.clone(),
        address.broker_id.to_string(),
        address.client_address.clone(),
        group.role(address.broker_id).to_owned(),
    ];
    match &replica.status {
        Ok(status) => cells.extend([
            shown_state(status),
            status.term.to_string(),
            status.committed.to_string(),
            status.applied.to_string(),
            group
                .behind(status)
                .map_or("-".to_owned(), |behind| behind.to_string()),
            shown_age(status.uptime_ms),
        ]),
        Err(error) => {
            note(format_args!("broker {}: {error}", address.broker_id));
            cells.push(paint(Colour::Bad, "no answer"));
            cells.extend(std::iter::repeat_n("-".to_owned(), 5));
        }
    }
    cells
}

fn shown_state(status: &BrokerStatus) -> String {
    match status.state.as_str() {
        "leader" => paint(Colour::Good, "leader"),
        "follower" => "follower".to_owned(),
        other => paint(Colour::Bad, other),
    }
}

fn judge(groups: &[GroupSurvey], output: Output) -> Result<(), Failure> {
    let troubles = groups.iter();
    let troubles = troubles.flat_map(|group| group.troubles(LAG_MAX_DEFAULT));
    let troubles = troubles.map(|trouble| trouble.text);
    let troubles: Vec<String> = none_known(groups).into_iter().chain(troubles).collect();
    if !troubles.is_empty() {
        return Err(Failure::Unhealthy(troubles.join("; ")));
    }
    if !output.json {
        crate::terminal::say(paint(Colour::Good, "all is well"));
    }
    Ok(())
}

/// What a probe found.
struct Health {
    troubles: Vec<String>,
    /// What was looked at, for the line that says that all is well.
    seen: String,
}

async fn probe(
    admin: &Admin,
    asked: &HealthArguments,
    deadline: Option<Instant>,
    output: Output,
) -> Result<(), Failure> {
    let health = loop {
        let looked = match &asked.broker {
            Some(address) => broker_health(admin, address, asked.max_lag).await,
            None => cluster_health(admin, asked).await,
        };
        let again = deadline.is_some_and(|deadline| Instant::now() + LOOK_INTERVAL < deadline);
        match looked {
            Ok(health) if health.troubles.is_empty() || !again => break health,
            Err(failure) if !again => return Err(failure),
            _ => tokio::time::sleep(LOOK_INTERVAL).await,
        }
    };
    let healthy = health.troubles.is_empty();
    if output.json || healthy {
        output.show(
            || json!({ "healthy": healthy, "troubles": health.troubles }),
            || paint(Colour::Good, format_args!("healthy: {}", health.seen)),
        );
    }
    if healthy {
        Ok(())
    } else {
        Err(Failure::Unhealthy(health.troubles.join("; ")))
    }
}

async fn cluster_health(admin: &Admin, asked: &HealthArguments) -> Result<Health, Failure> {
    let groups = survey(admin).await?;
    let mut troubles: Vec<String> = none_known(&groups).into_iter().collect();
    troubles.extend(too_few(&groups, asked.expect_groups));
    for group in &groups {
        let found = group.troubles(asked.max_lag).into_iter();
        let counts = found.filter(|trouble| !asked.serving || !trouble.serves);
        troubles.extend(counts.map(|trouble| trouble.text));
        // A leader that was cut off a moment ago still says that it leads: it has to prove it.
        if group.leader().is_some()
            && let Err(error) = prove(admin, &group.name).await
        {
            let reason = format!(
                "the leader of group {} cannot prove that it leads",
                group.name
            );
            troubles.push(format!("{reason}: {error}"));
        }
    }
    let replicas: usize = groups.iter().map(|group| group.replicas.len()).sum();
    Ok(Health {
        troubles,
        seen: format!("broker groups: {}, brokers: {replicas}", groups.len()),
    })
}

/// A system without brokers is not well, however few of them fail.
fn none_known(groups: &[GroupSurvey]) -> Option<String> {
    let none = groups.is_empty();
    none.then(|| "no broker group has registered with the name servers".to_owned())
}

/// A group that nobody remembers is noticed by whoever says how many there are.
fn too_few(groups: &[GroupSurvey], expected: Option<usize>) -> Option<String> {
    let (count, expected) = (groups.len(), expected?);
    if count >= expected {
        return None;
    }
    let names: Vec<&str> = groups.iter().map(|group| group.name.as_str()).collect();
    let names = match names.is_empty() {
        true => "none".to_owned(),
        false => names.join(", "),
    };
    Some(format!(
        "{count} of {expected} broker groups are known: {names}"
    ))
}

/// Has the leader hear from a majority: a listing is answered only after that.
async fn prove(admin: &Admin, group: &str) -> Result<(), Failure> {
    let admin = admin.clone().broker_group(group).timeout(PROOF_TIMEOUT);
    admin.list_groups().await?;
    Ok(())
}

async fn broker_health(admin: &Admin, address: &str, lag_max: u64) -> Result<Health, Failure> {
    let status = admin.status(address).await?;
    let mut troubles = Vec::new();
    let id = status.broker_id;
    let committed = match (&status.leader_address, status.serving) {
        (_, true) => status.committed,
        (Some(leader), false) => match admin.status(leader).await {
            Ok(leader) if leader.serving => leader.committed.max(status.committed),
            Ok(_) => {
                troubles.push(format!("broker {id} follows {leader}, which does not lead"));
                status.committed
            }
            Err(error) => {
                troubles.push(format!("broker {id} follows {leader}: {error}"));
                status.committed
            }
        },
        (None, false) => {
            troubles.push(format!(
                "broker {id} is {} and knows no leader",
                status.state
            ));
            status.committed
        }
    };
    if matches!(status.state.as_str(), "repairing" | "stopped") {
        troubles.push(format!("broker {id} is {}", status.state));
    }
    if status.clock_apart_ms != 0 {
        troubles.push(format!(
            "broker {id}: {}",
            wrong_clock(status.clock_apart_ms)
        ));
    }
    let behind = committed.saturating_sub(status.applied);
    if behind > lag_max {
        troubles.push(format!(
            "broker {id} lacks {behind} of the committed entries"
        ));
    }
    Ok(Health {
        troubles,
        seen: format!("broker {id} is {}, {behind} entries behind", status.state),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn groups(names: &[&str]) -> Vec<GroupSurvey> {
        let group = |name: &&str| GroupSurvey {
            name: (*name).to_owned(),
            expired: false,
            replicas: Vec::new(),
        };
        names.iter().map(group).collect()
    }

    /// Catches a probe that passes because a group has been down for so long that nobody remembers it.
    #[test]
    fn a_group_that_is_expected_and_unknown_is_a_trouble() {
        assert_eq!(too_few(&groups(&["a", "b"]), Some(2)), None);
        assert_eq!(too_few(&groups(&["a", "b", "c"]), Some(2)), None);
        assert_eq!(too_few(&groups(&[]), None), None);
        assert_eq!(
            too_few(&groups(&["a"]), Some(2)).unwrap(),
            "1 of 2 broker groups are known: a"
        );
        assert_eq!(
            too_few(&groups(&[]), Some(1)).unwrap(),
            "0 of 1 broker groups are known: none"
        );
    }
}
