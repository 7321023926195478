//! Who waits for which queue.
//!
//! A queue is in the registry only while somebody waits for it, so the registry is never larger than
//! the number of waiting requests, which their owner bounds. Waiters are woken in the order in which
//! they came.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::RangeInclusive;
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use proto::{QueueId, QueueOffset};
use store::table::GroupQueue;
use tokio::sync::Notify;
use tokio::sync::futures::Notified;

use crate::machine::Shared;

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

    fn enter(&self, queue: K) -> Arc<Notify> {
        let mut waited = self.waited();
        let entry = waited.entry(queue).or_insert_with(|| Waited {
            notify: Arc::new(Notify::new()),
            waiters: 0,
        });
        entry.waiters += 1;
        entry.notify.clone()
    }

    fn leave(&self, queue: K) {
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

/// Waits for messages of one queue.
pub struct Arrivals {
    shared: Arc<Shared>,
    queue: (u64, QueueId),
    notify: Arc<Notify>,
}

impl Arrivals {
    pub(super) fn new(shared: Arc<Shared>, topic_id: u64, queue: QueueId) -> Arrivals {
        let queue = (topic_id, queue);
        let notify = shared.arrivals.enter(queue);
        Arrivals {
            shared,
            queue,
            notify,
        }
    }

    /// Returns when the queue's next offset is above `next_offset`, at once if it is already; also
    /// when the queue does not exist (any more). Has no deadline of its own. May be dropped and called
    /// again without missing anything.
    pub async fn wait_past(&mut self, next_offset: QueueOffset) {
        loop {
            let mut notified = pin!(self.notify.notified());
            // Registered before looking, so that what arrives in between is not missed.
            notified.as_mut().enable();
            let (topic_id, queue) = self.queue;
            match self.shared.look(|state| state.queue(topic_id, queue)) {
                Some(bounds) if bounds.next_offset <= next_offset => notified.await,
                _ => return,
            }
        }
    }
}

impl Drop for Arrivals {
    fn drop(&mut self) {
        self.shared.arrivals.leave(self.queue);
    }
}

/// Waits for changes of one group's retries in one queue.
pub(crate) struct RetryArrivals {
    shared: Arc<Shared>,
    queue: GroupQueue,
    notify: Arc<Notify>,
}

impl RetryArrivals {
    pub(super) fn new(shared: Arc<Shared>, queue: GroupQueue) -> RetryArrivals {
        let notify = shared.retry_arrivals.enter(queue);
        RetryArrivals {
            shared,
            queue,
            notify,
        }
    }

    /// What the next change ends, from the moment on in which this is enabled.
    pub(crate) fn changed(&self) -> Notified<'_> {
        self.notify.notified()
    }
}

impl Drop for RetryArrivals {
    fn drop(&mut self) {
        self.shared.retry_arrivals.leave(self.queue);
    }
}
