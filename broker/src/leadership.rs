//! Who leads the group now, and whether this broker may answer for it.
//!
//! Asked by every call. Knows no clock but the monotonic one, and never waits without a bound.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use proto::BrokerId;
use raft::Member;
use tokio::sync::watch;
use tokio::time::Instant;

/// What to do with a call that the leader must answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Standing {
    /// This broker leads and has applied all that its log held when it was elected.
    Serving,
    /// Another broker leads, or knows more about it; the address at which clients reach it.
    Forward(String),
    /// No leader became known in time.
    Unavailable,
}

/// Watches the group's leadership. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Leadership {
    changes: watch::Receiver<raft::Leadership>,
    own: BrokerId,
    wait_max: Duration,
    /// Which survivor of a group that this broker was taken out of is asked next.
    turn: Arc<AtomicUsize>,
}

impl Leadership {
    pub(crate) fn new(
        changes: watch::Receiver<raft::Leadership>,
        own: BrokerId,
        wait_max: Duration,
    ) -> Leadership {
        Leadership {
            changes,
            own,
            wait_max,
            turn: Arc::default(),
        }
    }

    /// What holds now; waits until a leader is known, not longer than `until` and the configured wait.
    pub(crate) async fn standing(&self, until: Instant) -> Standing {
        if let Some(standing) = self.decide(&self.changes.borrow()) {
            return standing;
        }
        // Whoever is still sent here, by an old route or as its access point, is passed on.
        if let Some(survivor) = self.survivor() {
            return Standing::Forward(survivor);
        }
        let wait = until
            .saturating_duration_since(Instant::now())
            .min(self.wait_max);
        let mut changes = self.changes.clone();
        let known = changes.wait_for(|leadership| self.decide(leadership).is_some());
        match tokio::time::timeout(wait, known).await {
            Ok(Ok(leadership)) => self.decide(&leadership).unwrap_or(Standing::Unavailable),
            _ => Standing::Unavailable,
        }
    }

    /// Whether this broker leads and may answer.
    pub(crate) fn is_serving(&self) -> bool {
        let leadership = self.changes.borrow();
        leadership.is_leader && leadership.serving
    }

    /// The leader, if one is known.
    pub(crate) fn leader(&self) -> Option<Member> {
        self.changes.borrow().leader.clone()
    }

    /// Returns when another broker than `standing` says is known to lead. A leader that is merely not
    /// known, or waits for its followers, may still answer.
    pub(crate) async fn changed_from(&self, standing: &Standing) {
        let mut changes = self.changes.clone();
        let other = |now: &raft::Leadership| self.decide(now).is_some_and(|now| now != *standing);
        if changes.wait_for(other).await.is_err() {
            // The group is gone, and with it whoever could tell.
            std::future::pending().await
        }
    }

    /// Shows the leader's address for clients, if one is known.
    pub(crate) fn with_leader_address(&self, show: impl FnOnce(&str)) {
        if let Some(leader) = &self.changes.borrow().leader {
            show(&leader.client_address);
        }
    }

    /// Where other replicas reach the leader, or who is left of a group that this broker was taken out of, by the address
    /// at which clients do.
    pub(crate) fn peer_address(&self, client_address: &str) -> Option<String> {
        let leadership = self.changes.borrow();
        let mut known = leadership.leader.iter().chain(&leadership.survivors);
        let member = known.find(|member| member.client_address == client_address)?;
        Some(member.peer_address.clone())
    }

    /// A receiver of its own, for tasks that follow every change.
    pub(crate) fn changes(&self) -> watch::Receiver<raft::Leadership> {
        self.changes.clone()
    }

    /// Of a broker that was taken out of its group: one of those that stayed, another one each time.
    fn survivor(&self) -> Option<String> {
        let leadership = self.changes.borrow();
        let count = leadership.survivors.len();
        let turn = self.turn.fetch_add(1, Ordering::Relaxed);
        let survivor = leadership.survivors.get(turn.checked_rem(count)?)?;
        Some(survivor.client_address.clone())
    }

    fn decide(&self, leadership: &raft::Leadership) -> Option<Standing> {
        if leadership.is_leader {
            return leadership.serving.then_some(Standing::Serving);
        }
        match &leadership.leader {
            Some(leader) if leader.broker_id != self.own => {
                Some(Standing::Forward(leader.client_address.clone()))
            }
            _ => None,
        }
    }
}
