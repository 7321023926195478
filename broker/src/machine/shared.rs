//! What the machine writes and its readers read, behind one lock.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{PoisonError, RwLock};

use proto::QueueId;
use store::table::GroupQueue;
use tokio::sync::watch;

use super::arrival_registry::ArrivalRegistry;
use super::changes::Changes;
use super::state::State;
use crate::view::EntryCache;

/// The machine's state and what hangs on it.
pub(crate) struct Shared {
    state: RwLock<State>,
    pub(crate) arrivals: ArrivalRegistry<(u64, QueueId)>,
    pub(crate) retry_arrivals: ArrivalRegistry<GroupQueue>,
    pub(crate) entries: EntryCache,
    config_version: watch::Sender<u64>,
    payload_bytes: AtomicU64,
}

impl Shared {
    pub(super) fn new() -> Shared {
        Shared {
            state: RwLock::new(State::default()),
            arrivals: ArrivalRegistry::default(),
            retry_arrivals: ArrivalRegistry::default(),
            entries: EntryCache::default(),
            config_version: watch::Sender::new(0),
            payload_bytes: AtomicU64::new(0),
        }
    }

    /// Reads the state. `look` must be short: applying waits for it.
    pub(crate) fn look<T>(&self, look: impl FnOnce(&State) -> T) -> T {
        // A panic while applying marks the machine as failed; what readers find here is old or new.
        look(&self.state.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Changes the state; readers wait.
    pub(super) fn change<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        change(&mut self.state.write().unwrap_or_else(PoisonError::into_inner))
    }

    /// Tells whoever waits about changes that are committed.
    pub(super) fn publish(&self, changes: &Changes) {
        self.payload_bytes
            .fetch_add(changes.payload_bytes(), Ordering::Relaxed);
        self.arrivals.wake(changes.touched_queues());
        for topic_id in changes.removed_topics() {
            self.arrivals
                .wake_range((*topic_id, 0)..=(*topic_id, QueueId::MAX));
        }
        self.retry_arrivals.wake(changes.touched_retries());
        if changes.config_changed() {
            self.config_version.send_modify(|version| *version += 1);
        }
    }

    /// Puts another state in the place of this one.
    pub(super) fn replace(&self, state: State) {
        self.change(|present| *present = state);
        self.entries.clear();
        self.arrivals.wake_all();
        self.retry_arrivals.wake_all();
        self.config_version.send_modify(|version| *version += 1);
    }

    pub(crate) fn config_changes(&self) -> watch::Receiver<u64> {
        self.config_version.subscribe()
    }

    pub(crate) fn config_version(&self) -> u64 {
        *self.config_version.borrow()
    }

    pub(crate) fn payload_bytes(&self) -> u64 {
        self.payload_bytes.load(Ordering::Relaxed)
    }
}
