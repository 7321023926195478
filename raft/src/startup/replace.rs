//! Replaces what a replica lost by a peer's snapshot: a damaged log whose entries nobody has any more,
//! or tables of which no whole checkpoint is left.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use proto::raft as wire;
use store::Damage;
use tokio::time::Instant;

use super::Startup;
use crate::connections::Class;
use crate::counters::Counters;
use crate::error::RaftError;
use crate::introductions::Acquaintance;
use crate::storage;

/// Longest wait for a peer to take the request.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);

/// Pause between attempts, while no peer can help. There is no deadline.
const RETRY_PAUSE: Duration = Duration::from_millis(200);

/// How long to wait before the same peer is asked again: one that is sending says so, and one that had to give up begins anew,
/// where it broke off. Another peer would begin from the start.
const ASK_AGAIN: Duration = Duration::from_secs(10);

/// Longest wait for a snapshot of one peer.
const SNAPSHOT_TIMEOUT: Duration = Duration::from_secs(900);

/// How long a start waits for a peer's tables in the place of those that were given up. Whoever has no peer any more uses
/// what it has: one block that cannot be read is better than nothing that can.
const GIVEN_UP_PATIENCE: Duration = Duration::from_secs(30);

/// Whether the live tables are some that were given up for rot.
pub(crate) struct GivenUp {
    waiting: AtomicBool,
    used: AtomicBool,
}

impl GivenUp {
    pub(crate) fn new(given_up: bool) -> GivenUp {
        GivenUp {
            waiting: AtomicBool::new(given_up),
            used: AtomicBool::new(given_up),
        }
    }

    /// Whether others are waited for.
    pub(super) fn are_waiting(&self) -> bool {
        self.waiting.load(Ordering::Relaxed)
    }

    /// Whether nothing took their place.
    pub(super) fn are_used(&self) -> bool {
        self.used.load(Ordering::Relaxed)
    }

    fn stop_waiting(&self) {
        self.waiting.store(false, Ordering::Relaxed);
    }

    fn were_replaced(&self) {
        self.stop_waiting();
        self.used.store(false, Ordering::Relaxed);
    }
}

impl Startup {
    /// Whether every peer that could have the entry has dropped it.
    pub(super) fn is_dropped_everywhere(&self, index: u64) -> bool {
        let known = self.known.borrow();
        let mut holders = known
            .values()
            .filter(|peer| peer.answers())
            .filter(|peer| peer.status.has_entries && peer.status.applied >= index)
            .peekable();
        holders.peek().is_some() && holders.all(|peer| peer.status.dropped > index)
    }

    /// Asks a peer for a snapshot that holds all that was ever promised here, and puts it in place.
    /// Whether that was done. Where nobody has committed so much, one of what the leader has committed: it may need this
    /// replica to commit more. What that leaves out is the log's damage still, and comes by entries.
    pub(super) async fn repair_by_snapshot(&self, damage: Damage) -> Result<bool, RaftError> {
        // Of all that is damaged.
        let mut index = self.log.promised_end().saturating_sub(1);
        if self.holder_of(index).is_none()
            && let Some((leader, _)) = self.leader()
            && leader.status.has_entries
            && leader.status.applied + 1 >= self.first_entry()
        {
            index = index.min(leader.status.applied);
        }
        let replaced = self.replace_by_snapshot(index).await?;
        if replaced {
            Counters::add(
                &self.state.counters.entries_repaired,
                (index + 1).saturating_sub(damage.first_bad_index),
            );
        }
        Ok(replaced)
    }

    /// Whether the tables are behind the first entry that Raft may ask for, so that the log cannot continue them.
    pub(super) fn tables_are_lost(&self) -> bool {
        let next = self.state.applied_index().map_or(0, |index| index + 1);
        next < self.first_entry()
    }

    /// The lowest index that Raft may ask for.
    pub(super) fn first_entry(&self) -> u64 {
        storage::first_entry(&self.log)
    }

    /// Returns when a peer has given other tables in the place of those that were given up, or nobody did for a while.
    pub(super) async fn replace_given_up(&self) -> Result<(), RaftError> {
        let deadline = Instant::now() + GIVEN_UP_PATIENCE;
        while self.given_up.are_waiting() {
            let index = self.first_entry().saturating_sub(1);
            if self.replace_by_snapshot(index).await? {
                break;
            }
            if Instant::now() >= deadline {
                tracing::error!(
                    "the tables are damaged, and no peer gives others: they are used as they are"
                );
                self.given_up.stop_waiting();
            }
            tokio::time::sleep(RETRY_PAUSE).await;
        }
        Ok(())
    }

    /// Returns when the tables are such that the log continues them. Ours stays, if the snapshot ends
    /// in it.
    pub(super) async fn restore_tables(&self) -> Result<(), RaftError> {
        while self.tables_are_lost() {
            let index = self.first_entry().saturating_sub(1);
            tracing::error!(index, "tables are lost; asking a peer for a snapshot");
            if !self.replace_by_snapshot(index).await? {
                tokio::time::sleep(RETRY_PAUSE).await;
            }
        }
        Ok(())
    }

    /// Asks a peer for a snapshot that reaches `index`, and puts it in place. Whether that was done.
    async fn replace_by_snapshot(&self, index: u64) -> Result<bool, RaftError> {
        let Some(peer) = self.holder_of(index) else {
            return Ok(false);
        };
        let mut received = self.state.repair_snapshots();
        received.mark_unchanged();
        let arrival = async {
            while self.request_snapshot(&peer, index).await {
                if tokio::time::timeout(ASK_AGAIN, received.changed())
                    .await
                    .is_ok()
                {
                    return true;
                }
            }
            false
        };
        let arrival = tokio::time::timeout(SNAPSHOT_TIMEOUT, arrival).await;
        let snapshot = self.state.take_repair_snapshot();
        let (Ok(true), Some(snapshot)) = (arrival, snapshot) else {
            return Ok(false);
        };
        let meta = snapshot.received_meta();
        let last = meta.as_ref().and_then(|meta| meta.last_log_id);
        if last.is_none_or(|last| last.index < index) {
            tracing::warn!(
                index,
                ?last,
                peer = peer.address,
                "the snapshot does not reach far enough"
            );
            return Ok(false);
        }
        self.snapshots.install(snapshot.as_ref().clone()).await?;
        self.applied.send_replace(last);
        self.given_up.were_replaced();
        tracing::info!(index, peer = peer.address, "a snapshot was put in place");
        Ok(true)
    }

    fn holder_of(&self, index: u64) -> Option<Acquaintance> {
        self.any_peer(|status| status.has_entries && status.applied >= index)
    }

    async fn request_snapshot(&self, peer: &Acquaintance, index: u64) -> bool {
        let identity = self.peers.identity();
        // Only for whoever does not know better: it is sent to where the holder reaches this replica.
        let announced = self.peers.addresses().own().peer_address.clone();
        let membership = self.state.membership();
        let address = match membership.get_node(&identity.broker_id) {
            Some(node) if announced.is_empty() => node.peer_address.clone(),
            _ => announced,
        };
        let request = wire::SnapshotRequest {
            cluster_id: identity.cluster_id.clone(),
            group: identity.group.clone(),
            sender: Some(self.peers.sender_to_broker(peer.status.broker_id)),
            peer_address: address,
            index,
        };
        let Ok(mut client) = self.connections.client(&peer.address, Class::Control) else {
            return false;
        };
        let call = client.request_snapshot(request);
        match tokio::time::timeout(REQUEST_TIMEOUT, call).await {
            Ok(Ok(_)) => true,
            Ok(Err(error)) => {
                tracing::warn!(peer = peer.address, %error, "peer sends no snapshot yet");
                false
            }
            Err(_) => false,
        }
    }
}
