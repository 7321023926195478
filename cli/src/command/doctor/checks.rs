//! Finds the symptoms in the facts. Pure: one function for each row or two of the table.

use std::collections::BTreeSet;

use raftmq_client::{BrokerStatus, GroupQueue, GroupState};

use super::facts::{Facts, Watched};
use super::symptoms::Cause;
use crate::command::route::differences;
use crate::moments::{shown_age, shown_bytes};
use crate::survey::{GroupSurvey, wrong_clock};

/// A sync this slow is felt by every send, microseconds.
const SLOW_SYNC_US: u64 = 100_000;
/// A majority should answer its leader within this time, milliseconds.
const SLOW_PROOF_MS: u64 = 1_000;
/// Entries that a replica may lack.
const LAG_MAX: u64 = 10_000;
/// Clocks may differ by this much beyond what the measurement cannot tell, milliseconds.
const CLOCK_OFFSET_MS: u64 = 500;
/// A disk is nearly full when less than this many times the needed bytes are free.
const DISK_WARNING_FACTOR: u64 = 2;
/// Findings of one kind that are told one by one; the rest is counted.
const TOLD_MAX: usize = 5;

/// A row of the table that is true of this cluster, and what was seen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Finding {
    pub(super) cause: Cause,
    pub(super) seen: String,
}

/// All findings, in the order of the table.
pub(super) fn findings(facts: &Facts) -> Vec<Finding> {
    let mut findings = Vec::new();
    for cause in Cause::ALL {
        let mut seen = seen(cause, facts);
        if seen.len() > TOLD_MAX {
            let more = seen.split_off(TOLD_MAX).len();
            seen.push(format!("and {more} more"));
        }
        findings.extend(seen.into_iter().map(|seen| Finding { cause, seen }));
    }
    findings
}

fn seen(cause: Cause, facts: &Facts) -> Vec<String> {
    match cause {
        Cause::TopicMissing => topic_missing(facts),
        Cause::TopicUnknown => topics_unknown(facts),
        Cause::SlowDisk => of_brokers(facts, |_, status| slow_disk(status)),
        Cause::NoProof => slow_proofs(facts),
        Cause::NoConsumer => of_consumer_groups(facts, no_consumer),
        Cause::QueueWithoutOwner => of_consumer_groups(facts, without_owner),
        Cause::SlowConsumers => of_consumer_groups(facts, slow_consumers),
        Cause::NotCommitted => of_consumer_groups(facts, not_committed),
        Cause::SentAgain => sent_again(facts),
        Cause::NotRegistered => not_registered(facts),
        Cause::NoMajority => without_leader(facts),
        Cause::ReplicaSilent => silent_replicas(facts),
        Cause::ReplicaBehind => of_brokers(facts, behind),
        Cause::ReplicaDamaged => of_brokers(facts, |_, status| damaged(status)),
        Cause::NameServerSilent => silent_name_servers(facts),
        Cause::NameServersDiffer => differences(&facts.name_servers, facts.topic.as_deref()),
        Cause::DiskNearlyFull => of_brokers(facts, |_, status| disk(status)),
        Cause::ClocksDiffer => clocks(facts),
        Cause::ClockWrong => of_brokers(facts, |_, status| clock(status)),
    }
}

fn of_brokers(
    facts: &Facts,
    look: impl Fn(&GroupSurvey, &BrokerStatus) -> Option<String>,
) -> Vec<String> {
    let mut seen = Vec::new();
    for group in &facts.groups {
        for status in group.answers() {
            let found = look(group, status);
            let id = status.broker_id;
            seen.extend(found.map(|found| format!("broker {id} of group {}: {found}", group.name)));
        }
    }
    seen
}

fn of_consumer_groups(facts: &Facts, look: impl Fn(&Watched) -> Option<String>) -> Vec<String> {
    let groups = facts.consumer_groups.iter();
    let found = groups.filter_map(|group| Some((group, look(group)?)));
    found
        .map(|(group, found)| format!("consumer group {}: {found}", group.after.description.name))
        .collect()
}

fn topic_missing(facts: &Facts) -> Vec<String> {
    let Some(name) = &facts.topic else {
        return Vec::new();
    };
    // A group without a leader cannot say which topics it has.
    let all_told = facts.topics.len() == facts.groups.len();
    let known = facts
        .topics
        .values()
        .flatten()
        .any(|topic| topic.name == *name);
    match all_told && !known {
        true => vec![format!(
            "topic {name} is on none of {} broker groups",
            facts.groups.len()
        )],
        false => Vec::new(),
    }
}

fn topics_unknown(facts: &Facts) -> Vec<String> {
    let mut seen = Vec::new();
    for (address, table) in &facts.name_servers {
        let Ok(table) = table else { continue };
        for (group, topics) in &facts.topics {
            let Some(route) = table.groups.iter().find(|route| route.group == *group) else {
                continue;
            };
            let known: BTreeSet<&str> =
                route.topics.iter().map(|(name, _)| name.as_str()).collect();
            let unknown = topics
                .iter()
                .filter(|topic| !known.contains(topic.name.as_str()));
            seen.extend(unknown.map(|topic| {
                format!(
                    "name server {address} has no route for topic {} of group {group}",
                    topic.name
                )
            }));
        }
    }
    seen
}

fn slow_disk(status: &BrokerStatus) -> Option<String> {
    let slow = status.sync_p99_us >= SLOW_SYNC_US;
    slow.then(|| {
        format!(
            "1 of 100 syncs takes about {} or more",
            shown_age(status.sync_p99_us / 1_000)
        )
    })
}

fn slow_proofs(facts: &Facts) -> Vec<String> {
    let proofs = facts.proofs.iter().filter_map(|(name, proof)| {
        let leads = facts
            .groups
            .iter()
            .any(|group| group.name == *name && group.leader().is_some());
        match proof {
            Ok(took_ms) if *took_ms > SLOW_PROOF_MS => Some(format!(
                "the leader of group {name} took {} to hear from a majority",
                shown_age(*took_ms)
            )),
            // Without a leader there is nobody to prove anything; that is told elsewhere.
            Err(reason) if leads => Some(format!(
                "the leader of group {name} heard from no majority: {reason}"
            )),
            _ => None,
        }
    });
    proofs.collect()
}

fn lag(state: &GroupState) -> u64 {
    state.queues.iter().map(GroupQueue::lag).sum()
}

fn no_consumer(group: &Watched) -> Option<String> {
    let waiting = lag(&group.after);
    (group.after.members.is_empty() && waiting > 0)
        .then(|| format!("{waiting} messages wait and no member is alive"))
}

fn without_owner(group: &Watched) -> Option<String> {
    if group.after.members.is_empty() {
        return None;
    }
    let lives = |client_id: &str| {
        let mut members = group.after.members.iter();
        members.any(|member| member.client_id == client_id)
    };
    let left: Vec<String> = group
        .after
        .queues
        .iter()
        .filter(|queue| queue.unread > 0)
        .filter(|queue| {
            !queue
                .owner
                .as_ref()
                .is_some_and(|owner| lives(&owner.client_id))
        })
        .map(|queue| queue.queue.to_string())
        .collect();
    (!left.is_empty()).then(|| {
        let members = group.after.members.len();
        format!(
            "{members} members are alive, and none of them reads {}",
            left.join(", ")
        )
    })
}

fn slow_consumers(group: &Watched) -> Option<String> {
    let (before, after) = (lag(&group.before), lag(&group.after));
    let (members, queues) = (group.after.members.len(), group.after.queues.len());
    (members > 0 && after > before).then(|| {
        format!(
            "the backlog grew from {before} to {after} while it was watched, with {members} members for \
             {queues} queues"
        )
    })
}

/// Handed out, and not committed through all the time that it was watched.
fn not_committed(group: &Watched) -> Option<String> {
    let stuck = |after: &GroupQueue| {
        let before = group
            .before
            .queues
            .iter()
            .find(|before| before.queue == after.queue)?;
        let given_before = before.owner.as_ref()?.pulled_offset;
        let given = after.owner.as_ref()?.pulled_offset.min(given_before);
        let unmoved = before.committed == after.committed;
        let committed = after
            .committed
            .unwrap_or(after.min_offset)
            .max(after.min_offset);
        given
            .checked_sub(committed)
            .filter(|open| unmoved && *open > 0)
    };
    let open: u64 = group.after.queues.iter().filter_map(stuck).sum();
    (open > 0)
        .then(|| format!("{open} messages were handed out and not committed while it was watched"))
}

fn sent_again(facts: &Facts) -> Vec<String> {
    let twice = facts.stored_twice.iter();
    twice
        .map(|(topic, id, places)| {
            format!(
                "message {id} of topic {topic} is stored at {}",
                places.join(" and ")
            )
        })
        .collect()
}

fn not_registered(facts: &Facts) -> Vec<String> {
    let mut seen = Vec::new();
    if facts.groups.is_empty() {
        seen.push("no broker group is known at all".to_owned());
    }
    for group in &facts.groups {
        let Some(leader) = group.leader() else {
            continue;
        };
        for (address, table) in &facts.name_servers {
            let Ok(table) = table else { continue };
            let route = table.groups.iter().find(|route| route.group == group.name);
            let listed = leader.name_servers.iter().any(|known| known == address);
            let hint = match listed {
                true => "its leader is configured with that name server",
                false => "its leader's name_servers does not list that name server",
            };
            match route {
                None => seen.push(format!(
                    "name server {address} does not know group {}; {hint}",
                    group.name
                )),
                Some(route) => {
                    let known: BTreeSet<u64> =
                        route.replicas.iter().map(|one| one.broker_id).collect();
                    let missing = leader
                        .replicas
                        .iter()
                        .filter(|one| !known.contains(&one.broker_id));
                    seen.extend(missing.map(|one| {
                        format!(
                            "name server {address} does not know broker {} of group {}",
                            one.broker_id, group.name
                        )
                    }));
                }
            }
        }
    }
    seen
}

fn without_leader(facts: &Facts) -> Vec<String> {
    let groups = facts.groups.iter().filter(|group| group.leader().is_none());
    groups
        .filter_map(|group| group.troubles(LAG_MAX).into_iter().next())
        .map(|trouble| trouble.text)
        .collect()
}

fn silent_replicas(facts: &Facts) -> Vec<String> {
    let mut seen = Vec::new();
    for group in &facts.groups {
        for replica in &group.replicas {
            let (id, address) = (replica.address.broker_id, &replica.address.client_address);
            if let (Err(reason), true) = (&replica.status, group.role(id) != "removed") {
                seen.push(format!(
                    "broker {id} of group {} at {address}: {reason}",
                    group.name
                ));
            }
        }
    }
    seen
}

fn behind(group: &GroupSurvey, status: &BrokerStatus) -> Option<String> {
    if group.role(status.broker_id) == "removed" {
        return None;
    }
    let behind = group.behind(status).filter(|behind| *behind > LAG_MAX)?;
    Some(format!(
        "lacks {behind} entries of what the leader has committed"
    ))
}

fn damaged(status: &BrokerStatus) -> Option<String> {
    let (found, repaired) = (status.damage_found, status.segments_repaired);
    let now = status.state == "repairing";
    (now || found > 0).then(|| {
        let state = if now { ", and is repairing now" } else { "" };
        format!("found {found} damaged places since its start, replaced {repaired} segments{state}")
    })
}

fn silent_name_servers(facts: &Facts) -> Vec<String> {
    let silent = facts.name_servers.iter();
    silent
        .filter_map(|(address, table)| {
            Some(format!("name server {address}: {}", table.as_ref().err()?))
        })
        .collect()
}

fn disk(status: &BrokerStatus) -> Option<String> {
    // A broker that has just started has not measured yet.
    let (free, needed) = (status.disk_free_bytes?, status.disk_needed_bytes);
    if free >= needed.saturating_mul(DISK_WARNING_FACTOR) {
        return None;
    }
    let state = if free < needed {
        "sends are refused"
    } else {
        "sends are still taken"
    };
    Some(format!(
        "{} are free, {} must be: {state}",
        shown_bytes(free),
        shown_bytes(needed)
    ))
}

/// What the group's other clocks say of one, which those know better than we do.
fn clock(status: &BrokerStatus) -> Option<String> {
    (status.clock_apart_ms != 0).then(|| wrong_clock(status.clock_apart_ms))
}

/// The earliest and the latest of the brokers' clocks, where they differ by more than the answers' times
/// on their ways can explain.
fn clocks(facts: &Facts) -> Vec<String> {
    struct Clock {
        name: String,
        offset_ms: i128,
        unsure_ms: u64,
    }
    let mut clocks: Vec<Clock> = Vec::new();
    for group in &facts.groups {
        for replica in &group.replicas {
            let Ok(status) = &replica.status else {
                continue;
            };
            clocks.push(Clock {
                name: format!("broker {} of group {}", status.broker_id, group.name),
                offset_ms: i128::from(status.now_ms) - i128::from(replica.local_ms),
                unsure_ms: replica.took_ms.div_ceil(2),
            });
        }
    }
    let early = clocks.iter().min_by_key(|clock| clock.offset_ms);
    let late = clocks.iter().max_by_key(|clock| clock.offset_ms);
    let (Some(early), Some(late)) = (early, late) else {
        return Vec::new();
    };
    let apart = u64::try_from(late.offset_ms - early.offset_ms).unwrap_or(u64::MAX);
    let sure = apart.saturating_sub(early.unsure_ms + late.unsure_ms);
    match sure > CLOCK_OFFSET_MS {
        true => vec![format!(
            "the clock of {} is {} ahead of that of {}",
            late.name,
            shown_age(apart),
            early.name
        )],
        false => Vec::new(),
    }
}

#[cfg(test)]
#[path = "checks_test.rs"]
mod checks_test;
