//! Whose turn it is to commit in a queue: one after the other, so that an older offset never follows a newer one. Each queue
//! for itself: a commit that waits for a broker group that is away holds up no other group's queues.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, Weak};

use tokio::sync::{OwnedMutexGuard, OwnedSemaphorePermit, Semaphore};

use crate::consumer::delivery::TopicQueue;

/// Commits on their way at once to one broker group. Brokers gather them, so a few are enough.
const COMMITS_AT_ONCE: usize = 16;

/// The right to commit in a queue, until it is dropped.
pub(crate) type Turn = OwnedMutexGuard<()>;

/// The commits of one consumer, under way or waiting.
#[derive(Default)]
pub(crate) struct Turns(Mutex<Inner>);

#[derive(Default)]
struct Inner {
    /// For as long as somebody has or awaits the turn, which may be longer than the queue is held.
    queues: BTreeMap<TopicQueue, Weak<tokio::sync::Mutex<()>>>,
    groups: BTreeMap<Arc<str>, Arc<Semaphore>>,
}

impl Turns {
    /// Waits until nobody else commits in the queue.
    pub(crate) async fn wait(&self, queue: &TopicQueue) -> Turn {
        self.queue(queue).lock_owned().await
    }

    /// A turn in the queue, if nobody has it now.
    pub(crate) fn now(&self, queue: &TopicQueue) -> Option<Turn> {
        self.queue(queue).try_lock_owned().ok()
    }

    /// Waits until few enough commits are on their way to a broker group.
    pub(crate) async fn room(&self, broker_group: Arc<str>) -> OwnedSemaphorePermit {
        let room = {
            let mut inner = self.inner();
            let room = inner.groups.entry(broker_group);
            room.or_insert_with(|| Arc::new(Semaphore::new(COMMITS_AT_ONCE)))
                .clone()
        };
        room.acquire_owned().await.expect("is never closed")
    }

    fn queue(&self, queue: &TopicQueue) -> Arc<tokio::sync::Mutex<()>> {
        let queues = &mut self.inner().queues;
        if let Some(turn) = queues.get(queue).and_then(Weak::upgrade) {
            return turn;
        }
        queues.retain(|_, turn| turn.strong_count() > 0);
        let turn = Arc::default();
        queues.insert(queue.clone(), Arc::downgrade(&turn));
        turn
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().expect("nothing panics while it is locked")
    }
}

#[cfg(test)]
mod tests {
    use futures::poll;

    use super::*;

    fn queue(number: u32) -> TopicQueue {
        TopicQueue::new("t", number)
    }

    /// Catches two commits of one queue at a time, queues that wait for each other, and turns that are kept for ever.
    #[tokio::test]
    async fn a_queue_has_one_turn_at_a_time() {
        let turns = Turns::default();
        let turn = turns.wait(&queue(0)).await;
        assert!(turns.now(&queue(0)).is_none(), "it is somebody's");
        assert!(turns.now(&queue(1)).is_some(), "another queue's is free");
        drop(turn);
        let again = turns.now(&queue(0)).expect("it is free again");
        drop(turns.now(&queue(2)));
        let kept = turns.inner().queues.len();
        assert_eq!(kept, 2, "those that are over go when others come");
        drop(again);
    }

    /// Catches a broker group that is away and takes up the room of another one.
    #[tokio::test]
    async fn each_broker_group_has_room_of_its_own() {
        let turns = Turns::default();
        let mut away = Vec::new();
        for _ in 0..COMMITS_AT_ONCE {
            away.push(turns.room("a".into()).await);
        }
        let mut more = Box::pin(turns.room("a".into()));
        assert!(poll!(more.as_mut()).is_pending(), "a has no more room");
        let _other = turns.room("b".into()).await;
        away.pop();
        drop(more.await);
    }
}
