//! A leader that cannot read what it would have to send leaves the lead to others.
//!
//! Rot may hit entries that nobody else has yet. A replica with such a log is elected because its log is the longest, and
//! then can neither send those entries nor have them given back: without this it would lead for ever, and nothing would be
//! written. So it falls silent, and the others elect one of themselves, whose log takes the place of the damaged end. That is
//! safe by Raft's own rules, which this does not touch: whoever a majority elects has all that was agreed on, also where
//! this leader did not know yet that it was.
//!
//! Must never: give up the lead over an entry that it knows to be committed (a peer has that one, and gives it back), or
//! drop an entry itself.

use std::sync::Arc;
use std::time::Duration;

use host::Shutdown;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::state::State;
use crate::state_machine::Raft;

/// How many of the longest election timeouts a leader waits for the entry to come back; peers tell once a second what they
/// have.
const ELECTIONS_BEFORE: u32 = 4;

/// For how many it stays silent, if the others elect nobody.
const ELECTIONS_SILENT: u32 = 10;

/// Looks whether this replica leads and cannot.
pub(crate) struct Abdication {
    pub(crate) raft: Raft,
    pub(crate) state: Arc<State>,
    /// The entry that a follower needs and that cannot be read here.
    pub(crate) unreadable: watch::Sender<Option<u64>>,
    /// The longest election timeout.
    pub(crate) election_timeout: Duration,
    /// Time between looks.
    pub(crate) interval: Duration,
}

impl Abdication {
    /// Watches until shutdown.
    pub(crate) async fn run(&self, shutdown: Shutdown) {
        tokio::select! {
            biased;
            () = shutdown.wait() => {}
            () = self.watch() => {}
        }
    }

    async fn watch(&self) {
        let mut since = None;
        loop {
            tokio::time::sleep(self.interval).await;
            let Some(index) = self.stuck_at() else {
                since = None;
                continue;
            };
            let stuck = *since.get_or_insert_with(Instant::now);
            if stuck.elapsed() >= self.election_timeout * ELECTIONS_BEFORE {
                self.leave(index).await;
                since = None;
            }
        }
    }

    /// The entry that keeps this leader from getting anything agreed on.
    fn stuck_at(&self) -> Option<u64> {
        if !self.state.leadership().borrow().is_leader {
            // What was found is of a log that another leader may have replaced meanwhile.
            self.unreadable.send_replace(None);
            return None;
        }
        let index = (*self.unreadable.borrow())?;
        let committed = self.state.raft_metrics()?.cluster_committed;
        let is_committed = committed.is_some_and(|log_id| log_id.index >= index);
        (!is_committed).then_some(index)
    }

    /// Sends no heartbeats and does not stand for election until another leads, or for a while.
    async fn leave(&self, index: u64) {
        tracing::error!(
            index,
            "this leader cannot read an entry that it does not know to be agreed on, and no peer gave it back: it leaves the lead to \
             others"
        );
        let config = self.raft.runtime_config();
        self.state.stand_back(true);
        config.elect(false);
        config.heartbeat(false);
        let mut leadership = self.state.leadership().subscribe();
        let deposed = leadership.wait_for(|leadership| !leadership.is_leader);
        let silent = self.election_timeout * ELECTIONS_SILENT;
        let deposed = tokio::time::timeout(silent, deposed).await.is_ok();
        config.heartbeat(true);
        // The timekeeper, who has a say in it too, lets it stand again.
        self.state.stand_back(false);
        if deposed {
            tracing::info!(index, "another replica leads");
        } else {
            tracing::warn!(
                index,
                "no other replica could be elected; this one leads on"
            );
        }
    }
}
