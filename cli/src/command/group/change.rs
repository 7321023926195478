//! Changes of a broker group: check, do, wait until it is so, say so.

use std::collections::BTreeSet;
use std::time::Duration;

use raftmq_client::{Admin, BrokerStatus};
use serde_json::json;
use tokio::time::Instant;

use super::{led_by, look_again};
use crate::failure::Failure;
use crate::output::Output;
use crate::survey::GroupSurvey;
use crate::terminal::note;

/// Entries that a newcomer may lack when it begins to vote: it gets them within the next moments.
const CAUGHT_UP_LAG: u64 = 64;
/// Pause between two looks.
const LOOK_INTERVAL: Duration = Duration::from_millis(200);
/// How often a long wait says how far it has come.
const PROGRESS_INTERVAL: Duration = Duration::from_secs(2);
/// Longest wait for one change that Raft has to agree on.
const STEP_TIMEOUT: Duration = Duration::from_secs(30);

/// One broker group, about to be changed.
pub(super) struct Change {
    /// Calls to this group.
    pub(super) admin: Admin,
    /// As it was just now.
    pub(super) group: GroupSurvey,
    /// Longest wait for all of it.
    pub(super) timeout: Duration,
    pub(super) output: Output,
}

impl Change {
    /// Has another replica lead, and never the one that the lead is to go `away` from.
    pub(super) async fn transfer(&self, to: Option<u64>, away: Option<u64>) -> Result<(), Failure> {
        let leader = led_by(&self.group)?;
        let to = match to {
            Some(to) if away == Some(to) => {
                return Err(Failure::Configuration(format!(
                    "broker {to} is the one that the lead is to go away from"
                )));
            }
            Some(to) => {
                self.require_voter(leader, to)?;
                to
            }
            None => self.successor(leader, away)?,
        };
        if to != leader.broker_id {
            self.hand_over(to).await?;
        }
        self.say(
            json!({ "leader": to }),
            &format!("broker {to} leads group {}", self.group.name),
        );
        Ok(())
    }

    /// Adds the broker at `address`.
    pub(super) async fn add(&self, address: &str, learner: bool) -> Result<(), Failure> {
        let leader = led_by(&self.group)?;
        let newcomer = self.newcomer(leader, address).await?;
        let id = newcomer.broker_id;
        self.introduce(&newcomer).await?;
        if !learner {
            let mut voters: BTreeSet<u64> = leader.voters.iter().copied().collect();
            voters.insert(id);
            self.set_voters(&voters).await?;
        }
        let role = if learner { "learner" } else { "voter" };
        self.say(
            json!({ "added": id, "role": role }),
            &format!("broker {id} is a {role} of group {}", self.group.name),
        );
        Ok(())
    }

    /// Takes replica `id` out.
    pub(super) async fn remove(&self, id: u64, force: bool) -> Result<(), Failure> {
        let leader = led_by(&self.group)?;
        if !leader.replicas.iter().any(|one| one.broker_id == id) {
            return Err(self.unknown(id));
        }
        if leader.voters.contains(&id) {
            let left: BTreeSet<u64> = others(leader, id);
            if !force {
                self.require_majority(&left, id)?;
            }
            if leader.broker_id == id {
                self.hand_over(self.successor(leader, Some(id))?).await?;
            }
            self.set_voters(&left).await?;
        } else {
            self.admin
                .clone()
                .timeout(self.step())
                .remove_learner(id)
                .await?;
        }
        self.say(
            json!({ "removed": id }),
            &format!(
                "broker {id} is out of group {}; stop its process, and never start it again",
                self.group.name
            ),
        );
        Ok(())
    }

    /// Puts the broker at `address` in the place of replica `old`.
    pub(super) async fn replace(&self, old: u64, address: &str) -> Result<(), Failure> {
        let leader = led_by(&self.group)?;
        if !leader.voters.contains(&old) {
            return Err(self.unknown(old));
        }
        let newcomer = self.newcomer(leader, address).await?;
        let id = newcomer.broker_id;
        if leader.broker_id == old {
            self.hand_over(self.successor(leader, Some(old))?).await?;
        }
        self.introduce(&newcomer).await?;
        let mut voters = others(leader, old);
        voters.insert(id);
        self.set_voters(&voters).await?;
        self.say(
            json!({ "removed": old, "added": id, "role": "voter" }),
            &format!(
                "broker {id} votes in the place of broker {old} in group {}",
                self.group.name
            ),
        );
        Ok(())
    }

    /// What the broker at `address` says of itself, if it can join this group.
    async fn newcomer(
        &self,
        leader: &BrokerStatus,
        address: &str,
    ) -> Result<BrokerStatus, Failure> {
        let newcomer = self.admin.status(address).await?;
        fit(leader, &newcomer)
            .map_err(|reason| Failure::Operation(format!("broker at {address}: {reason}")))?;
        Ok(newcomer)
    }

    /// Makes the newcomer a learner and waits until it has caught up.
    async fn introduce(&self, newcomer: &BrokerStatus) -> Result<(), Failure> {
        let admin = self.admin.clone().timeout(self.step());
        admin.add_learner(&newcomer.own).await?;
        let deadline = Instant::now() + self.timeout;
        let mut told = Instant::now();
        loop {
            let group = look_again(&self.admin, &self.group.name).await;
            let behind = group.ok().and_then(|group| {
                let status = group.answer_of(newcomer.broker_id)?;
                group.behind(status)
            });
            if behind.is_some_and(|behind| behind <= CAUGHT_UP_LAG) {
                return Ok(());
            }
            if Instant::now() >= deadline {
                let how_far = behind
                    .map_or("it does not answer, or nobody leads".to_owned(), |behind| {
                        format!("it lacks {behind} entries")
                    });
                return Err(Failure::Unhealthy(format!(
                    "broker {} did not catch up within {} s: {how_far}; it is a learner of the group, and \
                     the same command goes on from there",
                    newcomer.broker_id,
                    self.timeout.as_secs()
                )));
            }
            if told.elapsed() >= PROGRESS_INTERVAL {
                told = Instant::now();
                let behind = behind.map_or("?".to_owned(), |behind| behind.to_string());
                note(format_args!(
                    "… broker {} lacks {behind} entries",
                    newcomer.broker_id
                ));
            }
            tokio::time::sleep(LOOK_INTERVAL).await;
        }
    }

    /// Has exactly these vote, and waits until the leader says so.
    async fn set_voters(&self, voters: &BTreeSet<u64>) -> Result<(), Failure> {
        let ids: Vec<u64> = voters.iter().copied().collect();
        let admin = self.admin.clone().timeout(self.step());
        let changed = admin.change_voters(&ids).await;
        let is_so = |group: &GroupSurvey| {
            let leader = group.leader();
            leader.is_some_and(|leader| leader.voters.iter().copied().eq(ids.iter().copied()))
        };
        // Whatever became of the answer, the membership says whether it was done.
        let seen = self.wait_until(is_so).await;
        match (seen, changed) {
            (true, _) => Ok(()),
            (false, Err(error)) => Err(error.into()),
            (false, Ok(())) => Err(Failure::Unknown(format!(
                "the leader of group {} does not show voters {ids:?} yet",
                self.group.name
            ))),
        }
    }

    async fn hand_over(&self, to: u64) -> Result<(), Failure> {
        let admin = self.admin.clone().timeout(self.step());
        let handed = admin.transfer_leader(to).await;
        let leads =
            |group: &GroupSurvey| group.leader().is_some_and(|leader| leader.broker_id == to);
        match (self.wait_until(leads).await, handed) {
            (true, _) => Ok(()),
            (false, Err(error)) => Err(error.into()),
            (false, Ok(())) => Err(Failure::Operation(format!(
                "broker {to} did not take over the lead of group {}",
                self.group.name
            ))),
        }
    }

    /// Longest wait for one change that Raft has to agree on, where all of it may not take longer.
    fn step(&self) -> Duration {
        STEP_TIMEOUT.min(self.timeout)
    }

    async fn wait_until(&self, is_so: impl Fn(&GroupSurvey) -> bool) -> bool {
        let deadline = Instant::now() + self.step();
        loop {
            let group = look_again(&self.admin, &self.group.name).await;
            if group.is_ok_and(|group| is_so(&group)) {
                return true;
            }
            if Instant::now() >= deadline {
                return false;
            }
            tokio::time::sleep(LOOK_INTERVAL).await;
        }
    }

    /// The voter other than the leader and `but` that has come furthest.
    fn successor(&self, leader: &BrokerStatus, but: Option<u64>) -> Result<u64, Failure> {
        let candidates = self.group.answers().filter(|status| {
            let id = status.broker_id;
            id != leader.broker_id && Some(id) != but && leader.voters.contains(&id)
        });
        let furthest = candidates.max_by_key(|status| status.appended);
        furthest.map(|status| status.broker_id).ok_or_else(|| {
            let name = &self.group.name;
            Failure::Operation(format!(
                "no other voter of group {name} answers, nobody can take over"
            ))
        })
    }

    fn require_voter(&self, leader: &BrokerStatus, id: u64) -> Result<(), Failure> {
        match leader.voters.contains(&id) {
            true => Ok(()),
            false => Err(self.unknown(id)),
        }
    }

    /// Refuses to leave a group that cannot agree on anything.
    fn require_majority(&self, left: &BTreeSet<u64>, id: u64) -> Result<(), Failure> {
        let there = left
            .iter()
            .filter(|id| self.group.answer_of(**id).is_some())
            .count();
        if there > left.len() / 2 {
            return Ok(());
        }
        Err(Failure::Operation(format!(
            "without broker {id}, {there} of the {} voters left answer, which is no majority: bring the others \
             back first, or use --force",
            left.len()
        )))
    }

    fn unknown(&self, id: u64) -> Failure {
        let known: Vec<String> = self
            .group
            .replicas
            .iter()
            .map(|replica| replica.address.broker_id)
            .map(|id| format!("{id} ({})", self.group.role(id)))
            .collect();
        Failure::NotFound(format!(
            "broker {id} does not vote in group {}, which has {}",
            self.group.name,
            known.join(", ")
        ))
    }

    fn say(&self, mut document: serde_json::Value, text: &str) {
        document["group"] = self.group.name.clone().into();
        self.output.show(|| document, || text);
    }
}

fn others(leader: &BrokerStatus, id: u64) -> BTreeSet<u64> {
    let voters = leader.voters.iter().copied();
    voters.filter(|voter| *voter != id).collect()
}

/// Whether a broker can join the group that `leader` leads, or is on its way there already.
fn fit(leader: &BrokerStatus, newcomer: &BrokerStatus) -> Result<(), String> {
    let id = newcomer.broker_id;
    if (&newcomer.cluster_id, &newcomer.group) != (&leader.cluster_id, &leader.group) {
        return Err(format!(
            "it is of cluster {} group {}, not of cluster {} group {}",
            newcomer.cluster_id, newcomer.group, leader.cluster_id, leader.group
        ));
    }
    if leader.voters.contains(&id) {
        return Err(format!("broker {id} votes in the group already"));
    }
    let known = leader.replicas.iter().find(|one| one.broker_id == id);
    match known {
        Some(known) if *known != newcomer.own => Err(format!(
            "broker id {id} belongs to the learner at {}; ids are not used again",
            known.client_address
        )),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use proto::cluster::{BrokerStatusResponse, Replica};

    use super::*;

    fn status(group: &str, broker_id: u64, learners: &[u64]) -> BrokerStatus {
        let replica = |broker_id| Replica {
            broker_id,
            client_address: format!("b{broker_id}:1"),
            peer_address: format!("b{broker_id}:2"),
        };
        let own = replica(broker_id);
        BrokerStatusResponse {
            cluster_id: "c".to_owned(),
            group: group.to_owned(),
            broker_id,
            voters: vec![1, 2, 3],
            replicas: [&[1, 2, 3], learners]
                .concat()
                .into_iter()
                .map(replica)
                .collect(),
            client_address: own.client_address,
            peer_address: own.peer_address,
            ..Default::default()
        }
        .into()
    }

    /// Catches a broker of another group taken in, an id used twice, and a change that cannot be resumed.
    #[test]
    fn only_a_new_broker_of_the_same_group_fits() {
        let leader = status("g", 1, &[4]);
        assert_eq!(fit(&leader, &status("g", 5, &[])), Ok(()));
        assert_eq!(fit(&leader, &status("g", 4, &[])), Ok(()), "half way there");
        assert!(
            fit(&leader, &status("h", 5, &[]))
                .unwrap_err()
                .contains("group h")
        );
        assert!(
            fit(&leader, &status("g", 2, &[]))
                .unwrap_err()
                .contains("votes")
        );
        let mut other = status("g", 4, &[]);
        other.own.client_address = "elsewhere:1".to_owned();
        assert!(fit(&leader, &other).unwrap_err().contains("not used again"));
    }
}
