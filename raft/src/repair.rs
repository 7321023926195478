//! Getting back from peers what the disk lost.
//!
//! Only what is committed is fetched, from a peer that has applied it. Full segments are the same on
//! every replica, so a damaged one is replaced by a peer's bytes, which the store checks record by
//! record. In the segment that is still written to nothing can be replaced while the replica runs: it is told
//! that its tail is damaged, hands over and ends, and its next start repairs it ([`Repairer::tail_damage`]).

mod fetch;

use std::sync::Arc;
use std::time::Duration;

use store::{CommitLog, StoreError};
use tokio::sync::{Mutex, watch};
use tokio::time::Instant;

pub(crate) use fetch::{FetchError, Fetcher};

use crate::counters::Counters;
use crate::introductions::Acquaintances;

/// Longest wait for a damaged segment to come back from a peer.
const REPAIR_TIMEOUT: Duration = Duration::from_secs(30);

/// Pause between attempts, while no peer can help.
const RETRY_PAUSE: Duration = Duration::from_millis(200);

/// Repairs segments, one at a time. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Repairer {
    log: CommitLog,
    fetcher: Fetcher,
    known: watch::Receiver<Acquaintances>,
    counters: Arc<Counters>,
    one_at_a_time: Arc<Mutex<()>>,
    unreadable: watch::Sender<Option<u64>>,
    tail_damage: Arc<watch::Sender<Option<String>>>,
}

impl Repairer {
    pub(crate) fn new(
        log: CommitLog,
        fetcher: Fetcher,
        known: watch::Receiver<Acquaintances>,
        counters: Arc<Counters>,
    ) -> Repairer {
        Repairer {
            log,
            fetcher,
            known,
            counters,
            one_at_a_time: Arc::default(),
            unreadable: watch::channel(None).0,
            tail_damage: Arc::new(watch::channel(None).0),
        }
    }

    /// Tells when an entry of the segment that is written to turns out to be damaged, and a peer has it.
    pub(crate) fn tail_damage(&self) -> watch::Receiver<Option<String>> {
        self.tail_damage.subscribe()
    }

    /// Only where somebody can give it back: alone, one entry that cannot be read is better than none that can.
    fn note_tail_damage(&self, error: &StoreError, index: u64) {
        let given_back = self.known.borrow().values().any(|peer| {
            let status = &peer.status;
            peer.answers() && status.has_entries && status.applied >= index
        });
        if given_back && self.log.is_in_open_segment(index) {
            self.tail_damage.send_replace(Some(error.to_string()));
        }
    }

    /// The entry that a follower needs and that cannot be read here at the moment.
    pub(crate) fn unreadable(&self) -> &watch::Sender<Option<u64>> {
        &self.unreadable
    }

    /// Repairs what `error` found when entries from `index` on were read. Returns when they are
    /// readable or dropped, or with the error when no peer could help in time.
    ///
    /// Goes on when the caller goes away: a client that hangs up must not leave the log damaged.
    pub(crate) async fn repair(&self, error: &StoreError, index: u64) -> Result<(), StoreError> {
        let (repairer, error) = (self.clone(), error.clone());
        let repairing = tokio::spawn(async move { repairer.repair_now(&error, index).await });
        // The task ends early only with the runtime.
        repairing.await.unwrap_or(Err(StoreError::Closed))
    }

    async fn repair_now(&self, error: &StoreError, index: u64) -> Result<(), StoreError> {
        let damaged = match error {
            StoreError::Corrupt {
                index: Some(damaged),
                ..
            } => *damaged,
            _ => index,
        };
        tracing::warn!(%error, damaged, "repairing the log from a peer");
        Counters::add(&self.counters.damage_found, 1);
        let _turn = self.one_at_a_time.lock().await;
        let deadline = Instant::now() + REPAIR_TIMEOUT;
        loop {
            if self.replace(damaged).await? {
                return Ok(());
            }
            // Peers drop it at about the same time, so they may have been asked too late.
            if self.log.positions().dropped > damaged {
                return Ok(());
            }
            if Instant::now() >= deadline {
                tracing::error!(%error, "no peer could help to repair the log");
                return Err(error.clone());
            }
            tokio::time::sleep(RETRY_PAUSE).await;
            // After the pause: a segment that was full just now is one that can be replaced.
            self.note_tail_damage(error, damaged);
        }
    }

    /// Repairs the segment that holds `index`, unless the entry can be read.
    pub(crate) async fn repair_index(&self, index: u64) -> Result<(), StoreError> {
        match self.log.read(index, index + 1, 0).await {
            Ok(_) => Ok(()),
            Err(error) if error.is_corruption() => self.repair(&error, index).await,
            Err(error) => Err(error),
        }
    }

    /// Asks each peer that may have the segment with `index`; whether one could help. There is no
    /// deadline for that: at most as long as the peers take to answer.
    pub(crate) async fn replace(&self, index: u64) -> Result<bool, StoreError> {
        let known = self.known.borrow().clone();
        let holders = known.values().filter(|peer| {
            let status = &peer.status;
            status.has_entries && status.applied >= index && status.dropped <= index
        });
        for peer in holders {
            match self
                .fetcher
                .fetch_segment(&self.log, &peer.address, index)
                .await
            {
                Ok((staging, info)) => match self.log.replace_segment(&staging, info).await {
                    Ok(()) => {
                        Counters::add(&self.counters.segments_repaired, 1);
                        let first_index = info.first_index;
                        tracing::info!(first_index, peer = peer.address, "segment was repaired");
                        return Ok(true);
                    }
                    // What the peer sent is not the segment that was here.
                    Err(error @ StoreError::Refused { .. }) => {
                        tracing::warn!(peer = peer.address, %error, "peer's segment does not fit");
                    }
                    Err(error) => return Err(error),
                },
                Err(error) => {
                    tracing::warn!(peer = peer.address, %error, "peer could not help");
                }
            }
        }
        Ok(false)
    }
}
