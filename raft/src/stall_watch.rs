//! A leader that cannot go on hands over to a replica that can.
//!
//! A disk that hangs, or tables that wait for it, stop the leader's answers and not its heartbeats: nobody
//! would elect another one. So a leader looks at itself. It hands over when it has not synced, or not
//! applied, anything for longer than an election while there was something to sync or to apply, and a voter has come
//! further meanwhile. Where all disks are slow nobody has come further, and the lead stays where it is.
//!
//! Must never: take the lead from a replica that is merely as slow as the others, or ask again and again.

use std::sync::Arc;
use std::time::Duration;

use host::Shutdown;
use store::CommitLog;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::group::transfer_leader;
use crate::introductions::Acquaintances;
use crate::state::State;

/// Longest wait for the successor to lead.
const HAND_OVER_TIMEOUT: Duration = Duration::from_secs(1);

/// Pause after an attempt to hand over, successful or not.
const PAUSE_AFTER_ATTEMPT: Duration = Duration::from_secs(5);

/// Looks whether this replica's disk and tables keep up while it leads.
pub(crate) struct StallWatch {
    pub(crate) state: Arc<State>,
    pub(crate) log: CommitLog,
    /// What peers say of themselves.
    pub(crate) known: watch::Receiver<Acquaintances>,
    /// How long a leader may stand still: the longest election timeout.
    pub(crate) patience: Duration,
    /// Time between looks.
    pub(crate) interval: Duration,
}

/// Something that should move on, and when it did last.
#[derive(Clone, Copy, Debug)]
struct Advance {
    index: Option<u64>,
    since: Instant,
}

impl Advance {
    fn new(now: Instant) -> Advance {
        Advance {
            index: None,
            since: now,
        }
    }

    /// How long it has stood at `index` although `target` is further.
    fn stands(&mut self, index: Option<u64>, target: Option<u64>, now: Instant) -> Duration {
        if index != self.index || index >= target {
            *self = Advance { index, since: now };
        }
        now.duration_since(self.since)
    }
}

impl StallWatch {
    /// Watches until shutdown.
    pub(crate) async fn run(&self, shutdown: Shutdown) {
        let watching = async {
            let (mut synced, mut applied) =
                (Advance::new(Instant::now()), Advance::new(Instant::now()));
            loop {
                tokio::time::sleep(self.interval).await;
                if let Some(successor) = self.look(&mut synced, &mut applied) {
                    self.hand_over(successor).await;
                    tokio::time::sleep(PAUSE_AFTER_ATTEMPT).await;
                }
            }
        };
        tokio::select! {
            biased;
            () = shutdown.wait() => {}
            () = watching => {}
        }
    }

    /// The voter to hand over to, if this replica leads, has stood still for too long, and that one has not.
    fn look(&self, synced: &mut Advance, applied: &mut Advance) -> Option<u64> {
        let now = Instant::now();
        let index = |log_id: Option<store::LogId>| log_id.map(|log_id| log_id.index);
        let positions = self.log.positions();
        let (appended, flushed) = (index(positions.appended), index(positions.flushed));
        let applied_index = self.state.applied_index();
        let disk_stands = synced.stands(flushed, appended, now);
        // What is synced here and on a majority is committed; what is not is no reason to apply.
        let further = self.furthest(|peer| Some(peer.applied));
        let tables_stand = applied.stands(applied_index, further.map(|(_, applied)| applied), now);
        if !self.state.leadership().borrow().is_leader {
            return None;
        }
        let (what, stands, successor) = if disk_stands > self.patience {
            let further = self.furthest(|peer| Some(peer.last.as_ref()?.index));
            let ahead = further.filter(|(_, last)| Some(*last) > flushed);
            ("its disk has synced nothing", disk_stands, ahead)
        } else if tables_stand > self.patience {
            ("its tables have taken nothing", tables_stand, further)
        } else {
            return None;
        };
        let (successor, _) = successor?;
        let stands_ms = stands.as_millis() as u64;
        tracing::warn!(
            successor,
            stands_ms,
            "this leader stands still, {what}: handing over"
        );
        Some(successor)
    }

    /// The voter that answers and has come furthest, by what it said of itself.
    fn furthest(
        &self,
        position: impl Fn(&proto::raft::StatusResponse) -> Option<u64>,
    ) -> Option<(u64, u64)> {
        let voters: Vec<u64> = self.state.membership().voter_ids().collect();
        let known = self.known.borrow();
        let peers = known
            .iter()
            .filter(|(broker_id, peer)| voters.contains(broker_id) && peer.answers());
        let positions =
            peers.filter_map(|(broker_id, peer)| Some((*broker_id, position(&peer.status)?)));
        positions.max_by_key(|(_, position)| *position)
    }

    async fn hand_over(&self, successor: u64) {
        match transfer_leader(&self.state, successor, HAND_OVER_TIMEOUT).await {
            Ok(()) => tracing::info!(successor, "handed over, because this replica stood still"),
            Err(error) => {
                tracing::warn!(successor, %error, "could not hand over; this replica goes on leading");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Catches a stall that is counted from a moment at which there was nothing to do, and one that is forgotten while
    /// there is more and more to do.
    #[test]
    fn standing_still_is_counted_from_the_last_advance_on() {
        let second = Duration::from_secs(1);
        let start = Instant::now();
        let mut advance = Advance::new(start);
        let mut at =
            |seconds, index, target| advance.stands(index, target, start + seconds * second);
        assert_eq!(at(1, Some(7), Some(7)), Duration::ZERO);
        assert_eq!(at(2, Some(7), Some(7)), Duration::ZERO);
        assert_eq!(at(3, Some(7), Some(8)), second);
        assert_eq!(at(4, Some(7), Some(9)), 2 * second);
        assert_eq!(at(4, Some(8), Some(9)), Duration::ZERO);
        assert_eq!(at(5, Some(8), None), Duration::ZERO);
    }
}
