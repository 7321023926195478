//! What this replica knows of itself, shared by the peer port, the background tasks and the handle.
//!
//! Holds facts, decides nothing, and never waits.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use openraft::metrics::RaftMetrics;
use openraft_rt::WatchReceiver as _;
use proto::raft as wire;
use store::{CommitLog, DataDir, Room};
use tokio::sync::watch;
use tonic::Status;

use crate::address_file;
use crate::clocks::Clocks;
use crate::convert::vote_from_bytes;
use crate::counters::Counters;
use crate::error::RaftError;
use crate::peers::Peers;
use crate::snapshot::SnapshotData;
use crate::standing::{Leadership, Phase, Vote};
use crate::state_machine::Raft;
use crate::types::{RaftLogId, StoredMembership, TypeConfig};

/// The facts of one replica.
pub(crate) struct State {
    peers: Peers,
    configured: Vec<u64>,
    log: CommitLog,
    data_dir: Arc<DataDir>,
    raft: OnceLock<Raft>,
    phase: watch::Sender<Phase>,
    applied: Arc<watch::Sender<Option<RaftLogId>>>,
    /// The membership in the tables when the replica started: what is known before Raft runs.
    membership_at_start: StoredMembership,
    leadership: watch::Sender<Leadership>,
    failure: watch::Sender<Option<String>>,
    /// Why a peer says that this replica must not go on.
    refusal: watch::Sender<Option<String>>,
    /// The highest that peers were told to hold against this replica.
    promised_end: AtomicU64,
    room: watch::Sender<Room>,
    /// Of the disk, as last looked at; the highest number before that.
    free_bytes: AtomicU64,
    checkpoint: watch::Receiver<Option<u64>>,
    repair_snapshot: watch::Sender<Option<Arc<SnapshotData>>>,
    /// Whether this replica leaves the lead to others, whatever its clock says.
    stands_back: AtomicBool,
    pub(crate) clocks: Arc<Clocks>,
    pub(crate) counters: Arc<Counters>,
    /// Held while the members are changed from here: what is proposed rests on what they are.
    pub(crate) changing: tokio::sync::Mutex<()>,
    /// Held while the file of operators' addresses is written.
    saving_addresses: tokio::sync::Mutex<()>,
}

/// What a [`State`] is made of.
pub(crate) struct StateParts {
    pub(crate) peers: Peers,
    pub(crate) configured: Vec<u64>,
    pub(crate) log: CommitLog,
    pub(crate) data_dir: Arc<DataDir>,
    pub(crate) applied: Arc<watch::Sender<Option<RaftLogId>>>,
    pub(crate) membership: StoredMembership,
    pub(crate) checkpoint: watch::Receiver<Option<u64>>,
    pub(crate) clocks: Arc<Clocks>,
    pub(crate) counters: Arc<Counters>,
}

impl State {
    pub(crate) fn new(parts: StateParts) -> State {
        State {
            peers: parts.peers,
            configured: parts.configured,
            log: parts.log,
            data_dir: parts.data_dir,
            raft: OnceLock::new(),
            phase: watch::channel(Phase::Waiting).0,
            applied: parts.applied,
            membership_at_start: parts.membership,
            leadership: watch::channel(Leadership::default()).0,
            failure: watch::channel(None).0,
            refusal: watch::channel(None).0,
            promised_end: AtomicU64::new(0),
            room: watch::channel(Room::default()).0,
            free_bytes: AtomicU64::new(u64::MAX),
            checkpoint: parts.checkpoint,
            repair_snapshot: watch::channel(None).0,
            stands_back: AtomicBool::new(false),
            clocks: parts.clocks,
            counters: parts.counters,
            changing: tokio::sync::Mutex::default(),
            saving_addresses: tokio::sync::Mutex::default(),
        }
    }

    /// Raft, once it runs.
    pub(crate) fn raft(&self) -> Option<Raft> {
        self.raft.get().cloned()
    }

    pub(crate) fn started(&self, raft: Raft) {
        if self.raft.set(raft).is_ok() {
            self.enter(Phase::Running);
        }
    }

    pub(crate) fn phase(&self) -> Phase {
        *self.phase.borrow()
    }

    /// A replica that stopped stays stopped.
    pub(crate) fn enter(&self, phase: Phase) {
        self.phase.send_if_modified(|current| {
            let change = *current != phase && *current != Phase::Stopped;
            if change {
                tracing::info!(
                    from = current.name(),
                    to = phase.name(),
                    "replica changes phase"
                );
                *current = phase;
            }
            change
        });
    }

    pub(crate) fn phase_changes(&self) -> watch::Receiver<Phase> {
        self.phase.subscribe()
    }

    /// States why the replica must stop. The first reason stays.
    pub(crate) fn fail(&self, reason: impl Into<String>) {
        // What fails while a refused replica stops is not why.
        let refusal = self.refusal.borrow().clone();
        let reason = refusal.unwrap_or_else(|| reason.into());
        self.failure.send_if_modified(|current| {
            let first = current.is_none();
            if first {
                tracing::error!(reason, "replica fails");
                *current = Some(reason.clone());
            }
            first
        });
        self.enter(Phase::Stopped);
    }

    /// A peer refuses this replica: it stops at once. Its start does not count, and that is noted before it fails: the
    /// process may be gone right after.
    pub(crate) fn refuse(&self, error: &RaftError) {
        let reason = error.to_string();
        self.refusal.send_if_modified(|current| {
            let first = current.is_none();
            if first {
                tracing::error!(reason, "replica is refused");
                *current = Some(reason.clone());
            }
            first
        });
        self.enter(Phase::Stopped);
    }

    pub(crate) fn refusal(&self) -> watch::Receiver<Option<String>> {
        self.refusal.subscribe()
    }

    pub(crate) fn failure(&self) -> watch::Receiver<Option<String>> {
        self.failure.subscribe()
    }

    pub(crate) fn leadership(&self) -> &watch::Sender<Leadership> {
        &self.leadership
    }

    pub(crate) fn applied(&self) -> watch::Receiver<Option<RaftLogId>> {
        self.applied.subscribe()
    }

    pub(crate) fn applied_index(&self) -> Option<u64> {
        self.applied.borrow().as_ref().map(|log_id| log_id.index())
    }

    /// Has this replica leave the lead to others, or end that.
    pub(crate) fn stand_back(&self, stands_back: bool) {
        self.stands_back.store(stands_back, Ordering::Relaxed);
    }

    pub(crate) fn stands_back(&self) -> bool {
        self.stands_back.load(Ordering::Relaxed)
    }

    /// What the disk has room for.
    pub(crate) fn room(&self) -> Room {
        *self.room.borrow()
    }

    /// Free bytes of the disk, as last looked at; the highest number before that.
    pub(crate) fn free_bytes(&self) -> u64 {
        self.free_bytes.load(Ordering::Relaxed)
    }

    pub(crate) fn set_room(&self, room: Room, free_bytes: u64) {
        self.free_bytes.store(free_bytes, Ordering::Relaxed);
        let before = self.room.send_replace(room);
        if before != room {
            tracing::warn!(?before, ?room, "what the disk has room for changes");
        }
    }

    /// The index that the newest checkpoint reaches.
    pub(crate) fn checkpoint_index(&self) -> Option<u64> {
        *self.checkpoint.borrow()
    }

    /// What each peer, by broker id, is known to have promised: the index after it.
    pub(crate) fn promised_by_peers(&self) -> BTreeMap<u64, u64> {
        self.peers.promises().ends()
    }

    /// openraft's own view, once it runs.
    pub(crate) fn raft_metrics(&self) -> Option<RaftMetrics<TypeConfig>> {
        let metrics = self.raft()?.metrics();
        let metrics = metrics.borrow_watched().clone();
        Some(metrics)
    }

    /// Whether a snapshot may take the place of the log.
    #[allow(clippy::result_large_err, reason = "the transport's own error type")]
    pub(crate) fn check_repairing(&self) -> Result<(), Status> {
        match self.phase() {
            Phase::Repairing => Ok(()),
            _ => Err(Status::failed_precondition("replica asked for no snapshot")),
        }
    }

    /// Takes a snapshot that was asked for because this replica cannot repair its log by entries.
    #[allow(clippy::result_large_err, reason = "the transport's own error type")]
    pub(crate) fn repair_with(&self, snapshot: SnapshotData) -> Result<(), Status> {
        self.check_repairing()?;
        self.repair_snapshot.send_replace(Some(Arc::new(snapshot)));
        Ok(())
    }

    pub(crate) fn repair_snapshots(&self) -> watch::Receiver<Option<Arc<SnapshotData>>> {
        self.repair_snapshot.subscribe()
    }

    /// Hands out the snapshot that was received; while it is kept no other one can be received.
    pub(crate) fn take_repair_snapshot(&self) -> Option<Arc<SnapshotData>> {
        self.repair_snapshot.send_replace(None)
    }

    /// Whether nothing was ever promised here.
    pub(crate) fn is_pristine(&self) -> bool {
        self.log.last().is_none()
            && self.log.purged().is_none()
            && self.applied_index().is_none()
            && self.data_dir.superblock().vote.is_empty()
    }

    /// The term that this replica has come to; 0 before Raft runs.
    pub(crate) fn term(&self) -> u64 {
        let Some(raft) = self.raft.get() else {
            return 0;
        };
        let metrics = raft.server_metrics();
        metrics.borrow_watched().vote.leader_id.term
    }

    /// Whether the membership has this very data directory under this broker's id: then all that it ever promised is
    /// here.
    pub(crate) fn is_own_member(&self) -> bool {
        let own = self.peers.identity().broker_id;
        let replica_id = self.peers.incarnation().replica_id;
        let membership = self.membership();
        let mut nodes = membership.nodes();
        nodes.any(|(id, node)| *id == own && node.replica_id == replica_id)
    }

    /// Whether the membership has this data directory under this broker id.
    pub(crate) fn has_member(&self, broker_id: u64, replica_id: u64) -> bool {
        let membership = self.membership();
        let node = membership.get_node(&broker_id);
        node.is_some_and(|node| node.replica_id == replica_id)
    }

    /// Takes over what an operator says about an address, and keeps it.
    pub(crate) async fn set_address(
        &self,
        broker_id: u64,
        address: Option<&str>,
    ) -> Result<(), RaftError> {
        // Of two at the same time the one that is written last knows both.
        let _saving = self.saving_addresses.lock().await;
        let addresses = self.peers.addresses();
        addresses.set(broker_id, address);
        let (host, path) = (self.data_dir.host(), self.data_dir.path());
        address_file::write(host, path, &addresses.all_set()).await
    }

    /// The last vote that was saved.
    pub(crate) fn vote(&self) -> Option<Vote> {
        let vote = vote_from_bytes(&self.data_dir.superblock().vote).ok()??;
        Some(Vote {
            term: vote.leader_id.term,
            candidate: vote.leader_id.voted_for,
            committed: vote.committed,
        })
    }

    /// The effective membership, or the one in the tables before Raft runs.
    pub(crate) fn membership(&self) -> StoredMembership {
        match self.raft() {
            Some(raft) => {
                let metrics = raft.server_metrics();
                let membership = metrics.borrow_watched().membership_config.clone();
                StoredMembership::clone(&membership)
            }
            None => self.membership_at_start.clone(),
        }
    }

    /// The replicas whose clocks count: those that vote, or will make the group.
    pub(crate) fn clock_voters(&self) -> Vec<u64> {
        let membership = self.membership();
        let id = self.peers.identity().broker_id;
        // The tables of a restored copy know the members of the group that it was copied from: no peers of its own.
        match membership.get_node(&id).is_some() {
            true => membership.voter_ids().collect(),
            false => self.configured.clone(),
        }
    }

    /// The index after an entry that is applied, and of which this replica will always know that it had synced it. Never
    /// goes back while the process lives, also where the log is repaired: peers would take it for an older copy.
    fn promised_end(&self, applied: Option<u64>) -> u64 {
        let applied_end = applied.map_or(0, |index| index + 1);
        let end = self.log.marked_end().min(applied_end);
        self.promised_end.fetch_max(end, Ordering::SeqCst).max(end)
    }

    /// The answer to a peer's question who this is.
    pub(crate) fn to_wire(&self) -> wire::StatusResponse {
        let identity = self.peers.identity();
        let incarnation = self.peers.incarnation();
        // Before the log's end, which is then at least what this replica had when it led.
        let leadership = self.leadership.borrow().clone();
        let positions = self.log.positions();
        let last = self.log.last();
        let applied = self.applied_index();
        let promised_end = self.promised_end(applied);
        wire::StatusResponse {
            cluster_id: identity.cluster_id.clone(),
            group: identity.group.clone(),
            broker_id: identity.broker_id,
            term: leadership.term,
            leader: leadership.leader.map_or(0, |leader| leader.broker_id),
            last: last.map(|last| wire::LogId {
                term: last.term,
                index: last.index,
            }),
            committed: applied.unwrap_or(0),
            applied: applied.unwrap_or(0),
            dropped: positions.dropped,
            incarnation: incarnation.number,
            state: self.phase().name().to_string(),
            replica_id: incarnation.replica_id,
            pristine: self.is_pristine(),
            members: members_to_wire(&self.membership()),
            configured: self.configured.clone(),
            purged: self.log.purged().map_or(0, |purged| purged.index),
            has_entries: applied.is_some(),
            checkpoint: self.checkpoint_index().unwrap_or(0),
            clock_ms: self.clocks.own_ms(),
            voted_term: Some(self.vote().map_or(0, |vote| vote.term)),
            promised_end: Some(promised_end),
            free_bytes: self.free_bytes(),
            announcement: Some(self.peers.addresses().own().clone()),
            reached: self.peers.addresses().reached(),
        }
    }
}

fn members_to_wire(membership: &StoredMembership) -> Vec<wire::MemberStatus> {
    let voters: Vec<u64> = membership.voter_ids().collect();
    let member = |(broker_id, node): (&u64, &crate::types::Node)| wire::MemberStatus {
        broker_id: *broker_id,
        peer_address: node.peer_address.clone(),
        client_address: node.client_address.clone(),
        replica_id: node.replica_id,
        voter: voters.contains(broker_id),
    };
    membership.nodes().map(member).collect()
}
