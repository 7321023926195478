//! One broker group's replica: propose, read barrier, leadership, membership.
//!
//! The handle is cheap to clone; every call goes to tasks that end with the shutdown signal.

pub(crate) mod change;
mod propose;
mod start;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use store::{CommitLog, Room};
use tokio::sync::watch;

use crate::addresses::ADDRESS_BYTES_MAX;
use crate::clocks::ClockStatus;
use crate::error::{ChangeError, ProposeError, RaftError};
use crate::maintenance::Maintenance;
use crate::member::Member;
use crate::repair::Repairer;
use crate::standing::{Leadership, Phase};
use crate::state::State;
use crate::status::GroupStatus;
use crate::types::Payload;

pub(crate) use change::{Move, hand_over, relocate, transfer_leader};
pub use propose::Proposed;

/// A replica of a broker group.
#[derive(Clone)]
pub struct RaftGroup {
    inner: Arc<Inner>,
}

struct Inner {
    state: Arc<State>,
    log: CommitLog,
    repairer: Repairer,
    maintenance: Arc<Maintenance>,
    connections: crate::connections::Connections,
    peers: crate::peers::Peers,
    propose_timeout: Duration,
    /// Closed when every task of this replica has ended.
    tasks: watch::Receiver<()>,
}

impl RaftGroup {
    /// Proposes one entry and waits until it is applied here, at most `propose_timeout_ms`.
    ///
    /// Refused before anything is proposed while the disk is full; see
    /// [`RaftGroup::propose_upkeep`].
    pub async fn propose(&self, body: Bytes) -> Result<Proposed, ProposeError> {
        if self.inner.state.room() > Room::Everything {
            return Err(ProposeError::Full);
        }
        self.propose_upkeep(body).await
    }

    /// Like [`RaftGroup::propose`], also while the disk is full: for the small entries that make
    /// room, such as retention's. They use what is held in reserve; see [`RaftGroup::room`].
    pub async fn propose_upkeep(&self, body: Bytes) -> Result<Proposed, ProposeError> {
        propose::propose(&self.inner.state, body, self.inner.propose_timeout).await
    }

    /// Has every replica end the segment that it writes to and begin another one: what is full can be dropped. Waits as
    /// [`RaftGroup::propose`] does, and is refused when the disk is full, since it takes a file.
    pub async fn roll(&self) -> Result<Proposed, ProposeError> {
        self.propose(Payload::ROLL.0).await
    }

    /// What this replica's disk had room for when it was looked at last, less than two seconds ago.
    pub fn room(&self) -> Room {
        self.inner.state.room()
    }

    /// Returns when this replica is the leader, a majority has confirmed it after the call, and
    /// everything committed before the call is applied here.
    pub async fn read_barrier(&self, timeout: Duration) -> Result<(), ProposeError> {
        propose::read_barrier(&self.inner.state, timeout).await
    }

    /// Who leads, and whether this replica may serve as the leader.
    pub fn leadership(&self) -> watch::Receiver<Leadership> {
        self.inner.state.leadership().subscribe()
    }

    /// The commit log, for reading.
    pub fn log(&self) -> CommitLog {
        self.inner.log.clone()
    }

    /// What this replica is doing.
    pub fn phase(&self) -> watch::Receiver<Phase> {
        self.inner.state.phase_changes()
    }

    /// What the replicas' clocks say, as this replica heard it within the last seconds.
    pub fn clocks(&self) -> ClockStatus {
        self.inner.state.clocks.status()
    }

    /// Positions, members and counters, for operators and metrics.
    pub fn status(&self) -> GroupStatus {
        GroupStatus::of(&self.inner.state, &self.inner.log)
    }

    /// The last entry in the tables and, where the engine keeps one, a digest of all their rows, as
    /// soon as the tables hold an entry after `past`. Replicas whose tables end with the same entry
    /// have the same digest.
    pub async fn tables_past(&self, past: Option<u64>) -> (store::LogId, Option<u64>) {
        let mut changes = self.inner.state.applied();
        loop {
            changes.borrow_and_update();
            let (applied, digest) = self.inner.maintenance.tables().await;
            match applied {
                Some(applied) if Some(applied.index) > past => return (applied, digest),
                _ => {}
            }
            if changes.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }

    /// Asks a voter to take over. Returns when another replica leads, at most after `timeout`.
    pub async fn transfer_leader(
        &self,
        broker_id: u64,
        timeout: Duration,
    ) -> Result<(), ChangeError> {
        change::transfer_leader(&self.inner.state, broker_id, timeout).await
    }

    /// Has another voter take over if this replica leads; for a replica that is about to stop. The one that has come
    /// furthest is asked. Returns it when it leads, at most after `timeout`; `None` if there was nothing to hand over.
    pub async fn hand_over(&self, timeout: Duration) -> Result<Option<u64>, ChangeError> {
        let state = &self.inner.state;
        let clocks = state.clocks.status();
        // One whose clock is wrong would hand over in its turn.
        let is_right = |voter| clocks.agreed_ms.is_none() || state.clocks.is_right(voter);
        match change::hand_over(state, is_right, timeout).await? {
            None => change::hand_over(state, |_| true, timeout).await,
            taken => Ok(taken),
        }
    }

    /// Adds a replica that follows without voting. It must be running, so that its data directory
    /// is known, and must not belong to another group.
    pub async fn add_learner(&self, member: Member, timeout: Duration) -> Result<(), ChangeError> {
        let inner = &self.inner;
        let replica_id =
            change::replica_id_of(&inner.state, &inner.peers, &inner.connections, &member).await?;
        change::add_learner(&inner.state, member, replica_id, timeout).await
    }

    /// Takes a replica that does not vote out of the group.
    pub async fn remove_learner(
        &self,
        broker_id: u64,
        timeout: Duration,
    ) -> Result<(), ChangeError> {
        change::remove_learner(&self.inner.state, broker_id, timeout).await
    }

    /// Makes exactly these replicas the voters; each must be a voter or a learner that caught up.
    /// Former voters leave the group.
    pub async fn change_voters(
        &self,
        voters: BTreeSet<u64>,
        timeout: Duration,
    ) -> Result<(), ChangeError> {
        change::change_voters(&self.inner.state, voters, timeout).await
    }

    /// Has this replica look for another member at `peer_address` too, until it is found there or elsewhere; also after a
    /// restart. For a group whose members cannot tell each other where they are. An empty address takes that back.
    pub async fn set_address(&self, broker_id: u64, peer_address: &str) -> Result<(), ChangeError> {
        let inner = &self.inner;
        let refused = |reason: String| Err(ChangeError::Refused { reason });
        if broker_id == inner.peers.identity().broker_id {
            return refused(format!(
                "this is broker {broker_id}: it announces the address in its own configuration"
            ));
        }
        if peer_address.len() > ADDRESS_BYTES_MAX {
            return refused(format!(
                "the address has {} bytes, and may have {ADDRESS_BYTES_MAX}",
                peer_address.len()
            ));
        }
        let address = Some(peer_address).filter(|address| !address.is_empty());
        // What was said of one that has left the group can be taken back.
        if address.is_some() && inner.state.membership().get_node(&broker_id).is_none() {
            return refused(format!("broker {broker_id} is not in the group"));
        }
        if let Some(address) = address {
            (inner.connections.check(address)).or_else(|error| refused(error.to_string()))?;
        }
        let written = inner.state.set_address(broker_id, address).await;
        written.map_err(|error| ChangeError::Unknown {
            reason: format!("it is used, but not kept for the next start: {error}"),
        })
    }

    /// Makes a checkpoint of the tables now; returns the index that it reaches.
    pub async fn checkpoint(&self, timeout: Duration) -> Result<u64, RaftError> {
        self.inner.maintenance.checkpoint(timeout).await
    }

    /// Drops now whatever segments may be dropped; returns the first index kept.
    pub async fn drop_log(&self) -> Result<u64, RaftError> {
        self.inner.maintenance.drop_log().await
    }

    /// Reads a log entry that a reader found damaged from a peer, and replaces the segment that
    /// holds it. Returns when the entry is readable.
    pub async fn repair_entry(&self, index: u64) -> Result<(), RaftError> {
        self.inner
            .repairer
            .repair_index(index)
            .await
            .map_err(RaftError::Store)
    }

    /// Reads every sealed segment once and repairs what is damaged; returns how many segments were.
    pub async fn scrub(&self) -> Result<u64, RaftError> {
        self.inner.maintenance.scrub().await
    }

    /// Returns when the replica must not go on, with the reason: the process must end with a
    /// failure. Never returns after an orderly shutdown.
    pub async fn failed(&self) -> RaftError {
        let mut failure = self.inner.state.failure();
        match failure.wait_for(Option::is_some).await {
            Ok(reason) => RaftError::Failed {
                reason: reason.clone().unwrap_or_default(),
            },
            Err(_) => std::future::pending().await,
        }
    }

    /// Returns when every task of this replica has ended, after shutdown. Its data directory can be
    /// opened again once the last handle is dropped.
    pub async fn closed(&self) {
        let mut tasks = self.inner.tasks.clone();
        while tasks.changed().await.is_ok() {}
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::path::Path;

    use host::{Host, Shutdown, ShutdownTrigger};
    use openraft::ChangeMembers;
    use store::{Identity, LogConfig, MemEngine};

    use super::change::Retry;
    use super::*;
    use crate::config::RaftConfig;
    use crate::suite_test::Nothing;
    use crate::types::{Node, StoredMembership};

    const PATIENCE: Duration = Duration::from_secs(20);

    /// A replica alone, which leads.
    async fn alone(directory: &Path) -> (RaftGroup, ShutdownTrigger) {
        let host = Host::real();
        let identity = Identity {
            cluster_id: "c".into(),
            group: "g".into(),
            broker_id: 1,
        };
        let alone = Member {
            broker_id: 1,
            client_address: "127.0.0.1:1".into(),
            peer_address: "127.0.0.1:2".into(),
        };
        let engine = Arc::new(MemEngine::new(host.disk.clone()));
        let mut config = RaftConfig::new(
            identity,
            directory.join("data"),
            "127.0.0.1:0",
            vec![alone],
            engine,
            host::testing::cluster_secret(),
        );
        config.log = LogConfig {
            segment_bytes: 16 << 10,
            reserve_bytes: 1,
            prefill: false,
            ..LogConfig::default()
        };
        let (trigger, shutdown) = Shutdown::new();
        let group = RaftGroup::start(config, host, Box::new(Nothing), shutdown, |router| router);
        let group = group.await.unwrap();
        let mut leadership = group.leadership();
        let serving = leadership.wait_for(|leadership| leadership.serving);
        tokio::time::timeout(PATIENCE, serving)
            .await
            .unwrap()
            .unwrap();
        (group, trigger)
    }

    /// Catches a change that rests on members who are not the members any more: one that was taken out is taken in again.
    #[tokio::test(flavor = "multi_thread")]
    async fn a_change_rests_on_the_members_as_they_are() {
        let directory = tempfile::tempdir().unwrap();
        let (group, _trigger) = alone(directory.path()).await;
        let state = &group.inner.state;
        let at = |place: &str| Node {
            peer_address: place.into(),
            client_address: "c:1".into(),
            replica_id: 90,
        };
        let (from, to) = (at("a:1"), at("b:1"));
        let moves = BTreeMap::from([(
            9,
            Move {
                from,
                to: to.clone(),
            },
        )]);
        relocate(state, moves, PATIENCE).await.unwrap();
        let is_member = || state.membership().get_node(&9).is_some();
        assert!(!is_member(), "it is none, so it has not moved");
        let as_they_were = StoredMembership::default();
        let members = ChangeMembers::SetNodes(BTreeMap::from([(9, to)]));
        let raft = state.raft().unwrap();
        let proposed = change::propose(&raft, members, &as_they_were, PATIENCE).await;
        assert!(matches!(proposed, Err(Retry::Yes(_))), "{proposed:?}");
        assert!(!is_member());
    }

    /// Catches a consensus core that has ended by a defect while its process goes on as if it were a replica.
    #[tokio::test(flavor = "multi_thread")]
    async fn a_panic_of_the_core_ends_the_replica() {
        let directory = tempfile::tempdir().unwrap();
        let (group, _trigger) = alone(directory.path()).await;
        let raft = group.inner.state.raft().unwrap();
        let _ = raft
            .external_request(|_| panic!("a defect, on purpose"))
            .await;
        let failure = tokio::time::timeout(PATIENCE, group.failed()).await;
        let failure = failure.expect("it says so").to_string();
        assert!(failure.starts_with("replica stopped"), "{failure}");
    }
}
