//! Who leads, and whether this replica may serve as the leader.
//!
//! A new leader serves only after it applied an entry of its own term: by then it has applied
//! everything that any earlier leader answered for. A leader that a majority has not answered lately
//! does not serve: another one may have been elected.

use std::sync::Arc;
use std::time::Duration;

use host::Shutdown;
use openraft::ServerState;
use openraft::metrics::RaftServerMetrics;
use openraft_rt::{Instant as _, WatchReceiver as _};
use tokio::sync::watch;

use crate::introductions::Acquaintances;
use crate::member::Member;
use crate::standing::Leadership;
use crate::state::State;
use crate::state_machine::Raft;
use crate::types::{RaftLogId, TypeConfig};

/// Publishes [`Leadership`] while Raft runs, and its failure.
pub(crate) struct LeadershipWatch {
    pub(crate) raft: Raft,
    pub(crate) state: Arc<State>,
    /// How long a majority's silence is believed to be harmless: the leader's lease.
    pub(crate) lease: Duration,
    /// What peers say of the group.
    pub(crate) known: watch::Receiver<Acquaintances>,
    /// Time between looks at the lease, which ends without an event.
    pub(crate) interval: Duration,
}

impl LeadershipWatch {
    pub(crate) async fn run(self, shutdown: Shutdown) {
        // This one changes with votes and members only, not with every entry.
        let mut changes = self.raft.server_metrics();
        let mut applied = self.state.applied();
        loop {
            let server = changes.borrow_and_update().clone();
            let applied_now = *applied.borrow_and_update();
            let leadership = self.judge(&server, applied_now);
            let waits_to_serve = leadership.is_leader && !leadership.serving;
            self.publish(leadership);
            tokio::select! {
                biased;
                () = shutdown.wait() => break,
                changed = changes.changed() => if changed.is_err() { break },
                _ = applied.changed(), if waits_to_serve => {}
                () = tokio::time::sleep(self.interval) => {}
            }
        }
        if !shutdown.is_shut_down() {
            // Raft has ended, and nobody told it to: this process must not go on as if it were a replica.
            let metrics = self.raft.metrics().borrow_watched().clone();
            let reason = match &metrics.running_state {
                Err(fatal) => fatal.to_string(),
                Ok(()) => "the consensus core ended by a defect; what it said is above".to_owned(),
            };
            self.state.fail(reason);
        }
        let term = self.state.leadership().borrow().term;
        self.publish(Leadership {
            term,
            ..Leadership::default()
        });
    }

    fn judge(
        &self,
        server: &RaftServerMetrics<TypeConfig>,
        applied: Option<RaftLogId>,
    ) -> Leadership {
        let is_leader = server.state == ServerState::Leader;
        let term = server.vote.leader_id.term;
        let survivors = match is_leader {
            true => Vec::new(),
            false => self.survivors(server, applied),
        };
        // Nobody tells a replica that was taken out when this changes.
        let leader = server.current_leader.filter(|_| survivors.is_empty());
        let leader = leader.and_then(|broker_id| {
            let node = server.membership_config.get_node(&broker_id)?;
            Some(Member::from_node(broker_id, node))
        });
        let caught_up = applied.is_some_and(|log_id| *log_id.leader_id == term);
        let serving = is_leader && caught_up && self.has_majority(server);
        Leadership {
            term,
            leader,
            is_leader,
            serving,
            survivors,
        }
    }

    /// Who is left of a group that this replica was taken out of, if it was: as a peer says that has agreed on
    /// more than is known here, else as this replica's own log says.
    fn survivors(
        &self,
        server: &RaftServerMetrics<TypeConfig>,
        applied: Option<RaftLogId>,
    ) -> Vec<Member> {
        let applied = applied.map_or(0, |log_id| log_id.index);
        let known = self.known.borrow();
        let statuses = known.values().map(|peer| &peer.status);
        let ahead = statuses
            .filter(|status| !status.members.is_empty() && status.committed > applied)
            .max_by_key(|status| status.committed);
        if let Some(status) = ahead {
            let members: Vec<Member> = status.members.iter().map(Member::from_status).collect();
            let is_member = members.iter().any(|one| one.broker_id == server.id);
            return if is_member { Vec::new() } else { members };
        }
        let membership = &server.membership_config;
        let taken_out = membership.get_node(&server.id).is_none();
        let nodes = membership.nodes().filter(|_| taken_out);
        nodes
            .map(|(id, node)| Member::from_node(*id, node))
            .collect()
    }

    /// Whether a majority answered this leader within the lease. A leader alone is its own majority.
    fn has_majority(&self, server: &RaftServerMetrics<TypeConfig>) -> bool {
        let mut voters = server.membership_config.voter_ids();
        if voters.all(|voter| voter == server.id) {
            return true;
        }
        let acked = self.raft.data_metrics().borrow_watched().last_quorum_acked;
        acked.is_some_and(|acked| acked.into_inner().elapsed() < self.lease)
    }

    fn publish(&self, leadership: Leadership) {
        self.state.leadership().send_if_modified(|current| {
            let changed = *current != leadership;
            if changed {
                tracing::info!(?leadership, "leadership changes");
                *current = leadership;
            }
            changed
        });
    }
}
