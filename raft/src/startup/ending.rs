//! The end of a replica that has to start again, because a start repairs what it cannot while it runs.
//!
//! Must never end a replica that the others need and whose next start could not repair anything: one block that cannot be
//! read is better than a replica that waits for peers for ever.

use std::time::Duration;

use host::Shutdown;
use store::LogId;
use tokio::sync::watch;

use super::Startup;
use crate::error::RaftError;
use crate::group::hand_over;
use crate::introductions::Acquaintances;
use crate::storage::give_up_tables;

/// Longest wait for another replica to lead in the place of one that has to end.
const HAND_OVER_TIMEOUT: Duration = Duration::from_secs(3);

/// Pause between looks whether this replica can be spared. There is no deadline: it serves meanwhile.
const LOOK_PAUSE: Duration = Duration::from_millis(500);

impl Startup {
    /// Ends the replica in order when its tables turn out to be damaged: the next start makes them again. Not before there
    /// is something to make them of.
    pub(super) async fn watch_tables(&self, shutdown: Shutdown) {
        let mut damage = self.tables.lock().await.damage();
        tokio::select! {
            biased;
            () = shutdown.wait() => {}
            () = async {
                let reason = reason_of(&mut damage).await;
                self.end_for_tables(reason).await;
            } => {}
        }
    }

    async fn end_for_tables(&self, reason: String) {
        let own = self.log_makes_tables().await.unwrap_or_else(|error| {
            tracing::warn!(%error, "cannot tell whether the tables can be made again of what is here");
            false
        });
        if !own && !self.peer_gives_tables() {
            tracing::error!(
                reason,
                "the tables are damaged, and nobody can give others: they are used as they are until a peer can"
            );
            while !self.peer_gives_tables() {
                tokio::time::sleep(LOOK_PAUSE).await;
            }
        }
        self.wait_until_spared(true).await;
        if let Err(error) = give_up_tables(&self.data_dir).await {
            return self.state.fail(error.to_string());
        }
        (self.state).fail(format!(
            "{reason}; the tables are made again at the next start"
        ));
    }

    /// Has the next start make the tables again, if there is something to make them of.
    pub(super) async fn give_up_tables(&self) -> Result<(), RaftError> {
        if self.peer_gives_tables() || self.log_makes_tables().await? {
            give_up_tables(&self.data_dir).await?;
        }
        Ok(())
    }

    /// Whether a peer can give tables that the log here continues.
    fn peer_gives_tables(&self) -> bool {
        let index = self.first_entry().saturating_sub(1);
        let known = self.known.borrow();
        known.values().any(|peer| {
            let status = &peer.status;
            peer.answers() && status.has_entries && status.applied >= index
        })
    }

    /// Whether the tables can be made again of what is here: the log, and the newest checkpoint if it is whole.
    async fn log_makes_tables(&self) -> Result<bool, RaftError> {
        let first = self.first_entry();
        let whole = self.snapshots.whole_upto().await?;
        Ok(whole.map_or(0, |index| index + 1) >= first)
    }

    /// Ends the replica in order when the segment that it writes to turns out to be damaged: the next start finds that below
    /// the mark, and repairs it from peers before it takes part.
    pub(super) async fn watch_tail(&self, shutdown: Shutdown) {
        let mut damage = self.repairer.tail_damage();
        tokio::select! {
            biased;
            () = shutdown.wait() => {}
            () = async {
                let reason = reason_of(&mut damage).await;
                self.wait_until_spared(false).await;
                (self.state).fail(format!("{reason}; it is repaired from the peers at the next start"));
            } => {}
        }
    }

    /// Returns when this replica does not lead, and a peer that answers has come at least as far as it had when this was
    /// called: whoever takes over can read what this replica cannot, nobody waits for an election, and the next start finds
    /// somebody who gives back what it lacks. `alone`: whether a replica without other voters may end by itself.
    async fn wait_until_spared(&self, alone: bool) {
        let end = self.log.last();
        let mut warned = false;
        loop {
            let handed_over = hand_over(&self.state, |_| true, HAND_OVER_TIMEOUT).await;
            let spared = !self.state.leadership().borrow().is_leader
                && a_peer_reaches(&self.known.borrow(), end);
            if spared || (alone && self.has_no_other_voter()) {
                return;
            }
            if !std::mem::replace(&mut warned, true) {
                tracing::warn!(
                    ?handed_over,
                    "this replica is damaged, and the others cannot spare it: it goes on"
                );
            }
            tokio::time::sleep(LOOK_PAUSE).await;
        }
    }

    fn has_no_other_voter(&self) -> bool {
        let own = self.peers.identity().broker_id;
        let membership = self.state.membership();
        membership.voter_ids().all(|voter| voter == own)
    }
}

/// Returns when something is damaged, with what is wrong.
async fn reason_of(damage: &mut watch::Receiver<Option<String>>) -> String {
    let damaged = damage.wait_for(Option::is_some).await.ok();
    let reason = damaged.and_then(|reason| reason.clone());
    match reason {
        Some(reason) => reason,
        // Nobody is left who would tell: the replica ends.
        None => std::future::pending().await,
    }
}

/// Whether a peer that answered just now has a log that ends at least there.
fn a_peer_reaches(known: &Acquaintances, end: Option<LogId>) -> bool {
    known.values().any(|peer| {
        let last = peer.status.last.as_ref().map(|last| LogId {
            term: last.term,
            index: last.index,
        });
        peer.silent_rounds == 0 && last >= end
    })
}

#[cfg(test)]
mod tests {
    use proto::raft as wire;

    use super::*;
    use crate::introductions::Acquaintance;

    /// Catches a replica that ends, for damage that its next start is to repair, while nobody is there who could.
    #[test]
    fn nobody_is_spared_for_a_peer_that_is_silent_or_behind() {
        let peer = |term, index, silent_rounds| {
            let status = wire::StatusResponse {
                last: Some(wire::LogId { term, index }),
                ..Default::default()
            };
            let address = String::new();
            Acquaintance {
                address,
                status,
                silent_rounds,
            }
        };
        let spared = |peers: Vec<Acquaintance>| {
            let known: Acquaintances = (2..).zip(peers).collect();
            a_peer_reaches(&known, Some(LogId { term: 3, index: 9 }))
        };
        assert!(!spared(vec![]));
        assert!(!spared(vec![peer(3, 8, 0), peer(2, 100, 0)]), "behind");
        assert!(!spared(vec![peer(3, 9, 1)]), "silent");
        assert!(spared(vec![peer(3, 8, 0), peer(3, 9, 0)]));
        assert!(spared(vec![peer(4, 9, 0)]));
    }
}
