//! Who waits for which queue.
//!
//! A queue is in the registry only while somebody waits for it, so the registry is never larger than
//! the number of waiting requests, which their owner bounds. Waiters are woken in the order in which
//! they came.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::RangeInclusive;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

/// The queues that somebody waits for; `K` names one.
pub(crate) struct ArrivalRegistry<K> {
    waited: Mutex<BTreeMap<K, Waited>>,
}

impl<K> Default for ArrivalRegistry<K> {
    fn default() -> ArrivalRegistry<K> {
        let waited = Mutex::default();
        ArrivalRegistry { waited }
    }
}

struct Waited {
    notify: Arc<Notify>,
    waiters: usize,
}

impl<K: Ord + Copy> ArrivalRegistry<K> {
    /// Wakes the waiters of these queues.
    pub(crate) fn wake(&self, queues: &BTreeSet<K>) {
        let waited = self.waited();
        if waited.is_empty() {
            return;
        }
        for queue in queues {
            if let Some(waited) = waited.get(queue) {
                waited.notify.notify_waiters();
            }
        }
    }

    /// Wakes the waiters of all queues between these two.
    pub(crate) fn wake_range(&self, queues: RangeInclusive<K>) {
        for waited in self.waited().range(queues).map(|(_, waited)| waited) {
            waited.notify.notify_waiters();
        }
    }

    pub(crate) fn wake_all(&self) {
        self.waited()
            .values()
            .for_each(|waited| waited.notify.notify_waiters());
    }

    #[cfg(test)]
    pub(crate) fn is_empty(&self) -> bool {
        self.waited().is_empty()
    }

    /// Somebody waits for a queue from now on: what wakes him.
    pub(crate) fn enter(&self, queue: K) -> Arc<Notify> {
        let mut waited = self.waited();
        let entry = waited.entry(queue).or_insert_with(|| Waited {
            notify: Arc::new(Notify::new()),
            waiters: 0,
        });
        entry.waiters += 1;
        entry.notify.clone()
    }

    /// He does not any more.
    pub(crate) fn leave(&self, queue: K) {
        let mut waited = self.waited();
        if let Some(entry) = waited.get_mut(&queue) {
            entry.waiters -= 1;
            if entry.waiters == 0 {
                waited.remove(&queue);
            }
        }
    }

    /// The map is whole after every step, so a panic elsewhere in a holder does no harm.
    fn waited(&self) -> MutexGuard<'_, BTreeMap<K, Waited>> {
        self.waited.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
