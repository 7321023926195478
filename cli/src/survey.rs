//! Every broker asked about itself at one moment, and what follows from the answers.
//!
//! Nothing is remembered between two surveys: whether a group is well is read from what its replicas say
//! of Raft now. Judging is pure, so that it can be tested without a cluster.

use std::collections::{BTreeMap, BTreeSet};

use futures::future::join_all;
use host::{Clock, SystemClock};
use raftmq_client::{Admin, BrokerAddress, BrokerStatus, DedupStatus, TransferStatus};
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::failure::Failure;
use crate::moments::{shown_age, shown_bytes};

/// One replica and what it said.
#[derive(Clone, Debug)]
pub struct Replica {
    /// Who was asked.
    pub address: BrokerAddress,
    /// The answer, or why there is none.
    pub status: Result<BrokerStatus, String>,
    /// Milliseconds that the answer took.
    pub took_ms: u64,
    /// This machine's clock in the middle of that time.
    pub local_ms: u64,
}

/// One broker group.
#[derive(Clone, Debug)]
pub struct GroupSurvey {
    /// Its name.
    pub name: String,
    /// Its registration ran out at the name servers: they send no client to it.
    pub expired: bool,
    /// Its replicas by broker id.
    pub replicas: Vec<Replica>,
}

/// Something that is not as it should be, in one line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trouble {
    /// Whether the group still takes and delivers messages in spite of it.
    pub serves: bool,
    /// What it is.
    pub text: String,
}

/// Asks every broker that the seeds know, and those that the brokers name. A group that is down as a whole is among them for
/// as long as name servers remember that it was there.
///
/// # Errors
///
/// If no seed answers.
pub async fn survey(admin: &Admin) -> Result<Vec<GroupSurvey>, Failure> {
    let (live, expired) = admin.brokers_and_expired().await?;
    let lost: BTreeSet<String> = expired.iter().map(|one| one.group.clone()).collect();
    let mut waiting: BTreeSet<BrokerAddress> = live.into_iter().chain(expired).collect();
    let mut asked: BTreeMap<String, BTreeMap<u64, Replica>> = BTreeMap::new();
    while !waiting.is_empty() {
        let answers = join_all(waiting.iter().map(|address| ask(admin, address))).await;
        let mut named: BTreeSet<BrokerAddress> = BTreeSet::new();
        for (replica, members) in answers {
            named.extend(members);
            let group = asked.entry(replica.address.group.clone()).or_default();
            group.insert(replica.address.broker_id, replica);
        }
        let is_new = |address: &BrokerAddress| {
            let group = asked.get(&address.group);
            group.is_none_or(|group| !group.contains_key(&address.broker_id))
        };
        waiting = named.into_iter().filter(is_new).collect();
    }
    let groups = asked.into_iter().map(|(name, replicas)| GroupSurvey {
        expired: lost.contains(&name),
        name,
        replicas: replicas.into_values().collect(),
    });
    Ok(groups.collect())
}

/// Asks one; what it said, and whom it named of its group. A machine that has become another broker names that one.
async fn ask(admin: &Admin, address: &BrokerAddress) -> (Replica, Vec<BrokerAddress>) {
    let (begin, local_ms) = (Instant::now(), SystemClock.now_ms());
    let status = admin.status(&address.client_address).await;
    let took_ms = u64::try_from(begin.elapsed().as_millis()).unwrap_or(u64::MAX);
    let members = status.iter().flat_map(|status| &status.replicas);
    let members = members.filter(|member| member.group == address.group);
    let members = members.cloned().collect();
    let replica = Replica {
        address: address.clone(),
        status: status
            .map_err(|error| error.to_string())
            .and_then(|status| of(address, status)),
        took_ms,
        local_ms: local_ms + took_ms / 2,
    };
    (replica, members)
}

/// The answer, if it is of whom was asked.
fn of(address: &BrokerAddress, status: BrokerStatus) -> Result<BrokerStatus, String> {
    let BrokerStatus {
        group, broker_id, ..
    } = &status;
    if (group, *broker_id) == (&address.group, address.broker_id) {
        return Ok(status);
    }
    let place = &address.client_address;
    Err(format!(
        "broker {broker_id} of group {group} is at {place} now"
    ))
}

impl GroupSurvey {
    /// The replica that serves as the leader; of two, which a change of leader can show for a moment, the
    /// one of the later term.
    pub fn leader(&self) -> Option<&BrokerStatus> {
        let serving = self.answers().filter(|status| status.serving);
        serving.max_by_key(|status| status.term)
    }

    /// Those that answered.
    pub fn answers(&self) -> impl Iterator<Item = &BrokerStatus> {
        self.replicas
            .iter()
            .filter_map(|replica| replica.status.as_ref().ok())
    }

    /// The answer of one replica.
    pub fn answer_of(&self, broker_id: u64) -> Option<&BrokerStatus> {
        self.answers().find(|status| status.broker_id == broker_id)
    }

    /// Entries that a replica lacks of what the leader has committed.
    pub fn behind(&self, status: &BrokerStatus) -> Option<u64> {
        let leader = self.leader()?;
        Some(
            leader
                .committed
                .saturating_sub(status.applied.min(status.appended)),
        )
    }

    /// What a replica is to its group.
    pub fn role(&self, broker_id: u64) -> &'static str {
        match self.leader() {
            None => "unknown",
            Some(leader) if leader.broker_id == broker_id => "leader",
            Some(leader) if leader.voters.contains(&broker_id) => "voter",
            Some(leader) if leader.replicas.iter().any(|one| one.broker_id == broker_id) => {
                "learner"
            }
            Some(_) => "removed",
        }
    }

    /// All that is not as it should be. `lag_max`: entries that a replica may lack.
    pub fn troubles(&self, lag_max: u64) -> Vec<Trouble> {
        let mut troubles = Vec::new();
        let leader = self.leader();
        match leader {
            None => troubles.push(self.without_leader()),
            Some(_) if self.expired => troubles.push(Trouble {
                serves: false,
                text: format!(
                    "group {} is led and not registered: no client is sent to it",
                    self.name
                ),
            }),
            Some(_) => {}
        }
        for replica in &self.replicas {
            let id = replica.address.broker_id;
            if self.role(id) == "removed" {
                continue;
            }
            let text = match &replica.status {
                Err(reason) => Some(format!("does not answer: {reason}")),
                Ok(status) => self.trouble_of(status, lag_max),
            };
            troubles.extend(text.map(|text| Trouble {
                serves: leader.is_some(),
                text: format!("broker {id} of group {}: {text}", self.name),
            }));
            let full = replica.status.as_ref().ok().and_then(full_disk);
            troubles.extend(full.map(|text| Trouble {
                // A leader with a full disk takes no messages; one that could has taken over otherwise.
                serves: leader.is_some_and(|leader| leader.broker_id != id),
                text: format!("broker {id} of group {}: {text}", self.name),
            }));
        }
        troubles
    }

    fn without_leader(&self) -> Trouble {
        let heard: BTreeSet<u64> = self.answers().map(|status| status.broker_id).collect();
        if heard.is_empty() {
            // Nobody says who votes.
            let (name, count) = (&self.name, self.replicas.len());
            let text = format!("group {name} has no leader: none of its {count} replicas answers");
            return Trouble {
                serves: false,
                text,
            };
        }
        let voters = self.answers().map(|status| status.voters.clone());
        let voters = voters.max_by_key(Vec::len).unwrap_or_default();
        let there = voters.iter().filter(|voter| heard.contains(voter)).count();
        let text = format!(
            "group {} has no leader: {there} of {} voters answer, {} are needed",
            self.name,
            voters.len(),
            voters.len() / 2 + 1
        );
        Trouble {
            serves: false,
            text,
        }
    }

    fn trouble_of(&self, status: &BrokerStatus, lag_max: u64) -> Option<String> {
        match status.state.as_str() {
            "repairing" => Some("repairs damage from its peers".to_owned()),
            "stopped" => Some("has stopped; its log says why".to_owned()),
            _ if status.clock_apart_ms != 0 => Some(wrong_clock(status.clock_apart_ms)),
            "candidate" => Some("knows no leader".to_owned()),
            _ => {
                let behind = self.behind(status).filter(|behind| *behind > lag_max)?;
                Some(format!(
                    "lacks {behind} entries of what the leader has committed"
                ))
            }
        }
    }
}

/// What is said of a disk that has no room for messages any more.
fn full_disk(status: &BrokerStatus) -> Option<String> {
    let (free, needed) = (status.disk_free_bytes?, status.disk_needed_bytes);
    (free < needed).then(|| {
        format!(
            "its disk is full: {} are free, {} must be for messages to be taken",
            shown_bytes(free),
            shown_bytes(needed)
        )
    })
}

impl Replica {
    /// Everything that was said, for programs.
    pub fn as_json(&self) -> Value {
        let address = &self.address;
        let mut value = json!({
            "group": address.group,
            "broker_id": address.broker_id,
            "client_address": address.client_address,
            "peer_address": address.peer_address,
        });
        let more = match &self.status {
            Ok(status) => status_json(status),
            Err(error) => json!({ "error": error }),
        };
        if let (Some(value), Value::Object(more)) = (value.as_object_mut(), more) {
            value.extend(more);
        }
        value
    }
}

/// What is wrong with a clock that is so far ahead of a majority's.
pub fn wrong_clock(apart_ms: i64) -> String {
    let side = if apart_ms > 0 { "ahead of" } else { "behind" };
    format!(
        "its clock is {} {side} what a majority of its group's clocks say: it does not lead where another can",
        shown_age(apart_ms.unsigned_abs())
    )
}

fn status_json(status: &BrokerStatus) -> Value {
    json!({
        "state": status.state, "term": status.term, "leader": status.leader,
        "serving": status.serving, "voters": status.voters,
        "dropped": status.dropped, "purged": status.purged, "checkpoint": status.checkpoint,
        "durable_applied": status.durable_applied, "applied": status.applied,
        "committed": status.committed, "flushed": status.flushed, "appended": status.appended,
        "log_bytes_written": status.log_bytes_written, "log_syncs": status.log_syncs,
        "sync_p99_us": status.sync_p99_us,
        "payload_bytes": status.payload_bytes,
        "snapshots_installed": status.snapshots_installed,
        "segments_repaired": status.segments_repaired, "damage_found": status.damage_found,
        "disk_free_bytes": status.disk_free_bytes, "disk_needed_bytes": status.disk_needed_bytes,
        "dedup": dedup_json(&status.dedup), "transfers": transfers_json(&status.transfers),
        "now_ms": status.now_ms, "clock_apart_ms": status.clock_apart_ms,
        "uptime_ms": status.uptime_ms, "version": status.version,
    })
}

fn transfers_json(transfers: &TransferStatus) -> Value {
    json!({
        "request_bytes": transfers.request_bytes, "request_bytes_max": transfers.request_bytes_max,
        "answer_bytes": transfers.answer_bytes, "answer_bytes_max": transfers.answer_bytes_max,
        "connections": transfers.connections, "requests_cut": transfers.requests_cut,
        "answers_cut": transfers.answers_cut, "gave_way": transfers.gave_way,
        "refused": transfers.refused,
    })
}

fn dedup_json(dedup: &DedupStatus) -> Value {
    json!({
        "bytes": dedup.bytes, "bytes_max": dedup.bytes_max, "senders": dedup.senders,
        "window_ms": dedup.window_ms, "sender_window_ms": dedup.sender_window_ms,
        "repeated": dedup.repeated, "different": dedup.different, "too_late": dedup.too_late,
    })
}

#[cfg(test)]
#[path = "survey_test.rs"]
mod survey_test;
