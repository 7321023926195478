//! Keeps a replica whose clock is wrong from leading.
//!
//! What the leader writes does not depend on its own clock, so this is no matter of safety: who leads is who clients are
//! told to believe, and a machine whose clock is wrong is not well. Such a replica hands over, and lets others stand for
//! election first. It gives way no further than that: where nobody else leads, it does.

use std::sync::Arc;
use std::time::Duration;

use host::Shutdown;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::group::change;
use crate::introductions::Acquaintances;
use crate::peers::HELLO_INTERVAL;
use crate::state::State;
use crate::state_machine::Raft;

/// How long others are left to find a leader among themselves: several of their elections.
const PATIENCE: Duration = Duration::from_secs(3);

/// Longest wait for another to take over.
const HAND_OVER_MAX: Duration = Duration::from_secs(3);

/// First pause after an attempt to hand over; doubles with each, up to [`REMIND_EVERY`]. A leader that tries takes no
/// entries meanwhile, and may be elected again because the others lack some.
const HAND_OVER_PAUSE: Duration = Duration::from_secs(5);

/// Pause after which an operator is told once more.
const REMIND_EVERY: Duration = Duration::from_secs(300);

/// Looks at the clocks while Raft runs.
pub(crate) struct Timekeeper {
    pub(crate) raft: Raft,
    pub(crate) state: Arc<State>,
    /// What peers say of the group.
    pub(crate) known: watch::Receiver<Acquaintances>,
}

/// What it found last.
#[derive(Default)]
struct Found {
    /// Since when this replica's clock is known to be wrong, and when that was said last.
    wrong: Option<(Instant, Instant)>,
    /// Since when no other replica leads.
    leaderless: Option<Instant>,
    /// When it may hand over again, and the pause after that.
    hand_over: Option<(Instant, Duration)>,
}

impl Timekeeper {
    pub(crate) async fn run(&self, shutdown: Shutdown) {
        let mut found = Found::default();
        loop {
            tokio::select! {
                biased;
                () = shutdown.wait() => return,
                () = tokio::time::sleep(HELLO_INTERVAL) => {}
            }
            tokio::select! {
                biased;
                () = shutdown.wait() => return,
                () = self.look(&mut found) => {}
            }
        }
    }

    async fn look(&self, found: &mut Found) {
        let apart_ms = self.state.clocks.status().apart_ms();
        self.tell(found, apart_ms);
        found.leaderless = match self.another_leads() {
            true => None,
            false => Some(found.leaderless.unwrap_or_else(Instant::now)),
        };
        let waited = found.leaderless.map(|since| since.elapsed());
        let by_clock = apart_ms.is_none() || waited.is_some_and(|waited| waited >= PATIENCE);
        // Raft has one switch for it: who stands back for another reason must not be let in by its clock.
        let stands = by_clock && !self.state.stands_back();
        self.raft.runtime_config().elect(stands);
        if apart_ms.is_none() {
            found.hand_over = None;
            return;
        }
        let now = Instant::now();
        let (due, pause) = found.hand_over.unwrap_or((now, HAND_OVER_PAUSE));
        let leads = self.state.leadership().borrow().is_leader;
        if leads && now >= due && self.hand_over().await {
            let next = (pause * 2).min(REMIND_EVERY);
            found.hand_over = Some((Instant::now() + pause, next));
        }
    }

    /// Whether a peer that answers says that it leads.
    fn another_leads(&self) -> bool {
        let known = self.known.borrow();
        let mut peers = known.iter();
        peers.any(|(id, peer)| peer.silent_rounds == 0 && peer.status.leader == *id)
    }

    /// Whether there was somebody to hand over to.
    async fn hand_over(&self) -> bool {
        let is_right = |voter| self.state.clocks.is_right(voter);
        match change::hand_over(&self.state, is_right, HAND_OVER_MAX).await {
            Ok(Some(to)) => {
                tracing::warn!(to, "handed over the lead: this replica's clock is wrong");
            }
            // Whoever could take over is away.
            Ok(None) => return false,
            Err(error) => tracing::warn!(
                %error,
                "this replica's clock is wrong and it cannot hand over the lead, it tries again"
            ),
        }
        true
    }

    fn tell(&self, found: &mut Found, apart_ms: Option<i64>) {
        let now = Instant::now();
        match (apart_ms, found.wrong) {
            (Some(ahead_ms), wrong) => {
                let (since, said) = wrong.unwrap_or((now, now));
                let is_due = now.saturating_duration_since(said) >= REMIND_EVERY;
                if wrong.is_none() || is_due {
                    tracing::error!(
                        ahead_ms,
                        "this replica's clock is apart from what a majority of its group's clocks say: it does not lead \
                         where another can; set its clock right"
                    );
                    found.wrong = Some((since, now));
                }
            }
            // It may be that too few clocks are known for now.
            (None, Some((since, _))) => {
                let wrong_for = now.saturating_duration_since(since);
                tracing::info!(
                    ?wrong_for,
                    "this replica's clock is not known to be wrong any more"
                );
                found.wrong = None;
            }
            (None, None) => {}
        }
    }
}
