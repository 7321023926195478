//! Who waits for which queue.
//!
//! A queue is in the registry only while somebody waits for it, so the registry is never larger than
//! the number of waiting requests, which their owner bounds. Waiters are woken in the order in which
//! they came.

use std::collections::{BTreeMap, BTreeSet};
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use proto::{QueueId, QueueOffset};
use tokio::sync::Notify;

use crate::machine::Shared;

type QueueKey = (u64, QueueId);

/// The queues that somebody waits for.
#[derive(Default)]
pub(crate) struct ArrivalRegistry {
    waited: Mutex<BTreeMap<QueueKey, Waited>>,
}

struct Waited {
    notify: Arc<Notify>,
    waiters: usize,
}

impl ArrivalRegistry {
    /// Wakes the waiters of these queues, and of all queues of these topics.
    pub(crate) fn wake(&self, queues: &BTreeSet<QueueKey>, topics: &[u64]) {
        let waited = self.waited();
        if waited.is_empty() {
            return;
        }
        for queue in queues {
            if let Some(waited) = waited.get(queue) {
                waited.notify.notify_waiters();
            }
        }
        for topic_id in topics {
            for (_, waited) in waited.range((*topic_id, 0)..=(*topic_id, QueueId::MAX)) {
                waited.notify.notify_waiters();
            }
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

    fn enter(&self, queue: QueueKey) -> Arc<Notify> {
        let mut waited = self.waited();
        let entry = waited.entry(queue).or_insert_with(|| Waited {
            notify: Arc::new(Notify::new()),
            waiters: 0,
        });
        entry.waiters += 1;
        entry.notify.clone()
    }

    fn leave(&self, queue: QueueKey) {
        let mut waited = self.waited();
        if let Some(entry) = waited.get_mut(&queue) {
            entry.waiters -= 1;
            if entry.waiters == 0 {
                waited.remove(&queue);
            }
        }
    }

    /// The map is whole after every step, so a panic elsewhere in a holder does no harm.
    fn waited(&self) -> MutexGuard<'_, BTreeMap<QueueKey, Waited>> {
        self.waited.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Waits for messages of one queue.
pub struct Arrivals {
    shared: Arc<Shared>,
    queue: QueueKey,
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
