//! Waits for what comes into a queue, or changes among a group's retries. Must never hold the machine's lock meanwhile.

use std::pin::pin;
use std::sync::Arc;

use proto::{QueueId, QueueOffset};
use store::table::GroupQueue;
use tokio::sync::Notify;
use tokio::sync::futures::Notified;

use crate::machine::Shared;

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
