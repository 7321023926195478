//! Which client pulled which queue last, for each consumer group.
//!
//! Consumers share a topic's queues out among themselves and tell nobody, so the leader can only say what
//! it saw: whose pull of a queue reached it last. Kept in the leader's memory, for operators only; no
//! call depends on it, and a new leader knows within one long poll. Bounded; pure but for the lock.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use proto::{QueueId, QueueOffset};
use tokio::time::Instant;

/// Queues remembered at most, all groups together.
const READINGS_MAX: usize = 1 << 18;

/// A queue as one consumer group reads it.
pub(crate) struct Reading<'a> {
    pub(crate) group: &'a str,
    pub(crate) topic_id: u64,
    pub(crate) queue: QueueId,
}

/// The last pull of a queue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Puller {
    pub(crate) client_id: Arc<str>,
    /// Where the pull began.
    pub(crate) offset: QueueOffset,
    pub(crate) at: Instant,
}

type Queues = BTreeMap<(u64, QueueId), Puller>;

/// Who pulls what.
#[derive(Debug)]
pub(crate) struct Pullers {
    groups: Mutex<BTreeMap<String, Queues>>,
    expiry: Duration,
}

impl Pullers {
    /// Forgets a puller that was not heard for `expiry`.
    pub(crate) fn new(expiry: Duration) -> Pullers {
        Pullers {
            groups: Mutex::default(),
            expiry,
        }
    }

    /// A pull of a queue arrived. A full registry remembers no further queue.
    pub(crate) fn pulled(
        &self,
        reading: &Reading<'_>,
        client_id: &str,
        offset: QueueOffset,
        now: Instant,
    ) {
        let place = (reading.topic_id, reading.queue);
        let mut groups = self.lock();
        if let Some(puller) = groups
            .get_mut(reading.group)
            .and_then(|queues| queues.get_mut(&place))
        {
            if *puller.client_id != *client_id {
                puller.client_id = client_id.into();
            }
            (puller.offset, puller.at) = (offset, now);
            return;
        }
        if groups.values().map(BTreeMap::len).sum::<usize>() >= READINGS_MAX {
            return;
        }
        let puller = Puller {
            client_id: client_id.into(),
            offset,
            at: now,
        };
        let queues = groups.entry(reading.group.to_owned()).or_default();
        queues.insert(place, puller);
    }

    /// A client said good-bye: its queues have no owner until somebody else pulls them.
    pub(crate) fn remove(&self, client_id: &str) {
        self.retain(|puller| *puller.client_id != *client_id);
    }

    /// The queues that a group pulled lately, by topic id and queue.
    pub(crate) fn of_group(&self, group: &str, now: Instant) -> Queues {
        let groups = self.lock();
        let queues = groups.get(group).into_iter().flatten();
        queues
            .filter(|(_, puller)| self.is_recent(puller, now))
            .map(|(place, puller)| (*place, puller.clone()))
            .collect()
    }

    /// Forgets those who have not been heard of; for the ticker.
    pub(crate) fn expire(&self, now: Instant) {
        self.retain(|puller| self.is_recent(puller, now));
    }

    fn retain(&self, keep: impl Fn(&Puller) -> bool) {
        self.lock().retain(|_, queues| {
            queues.retain(|_, puller| keep(puller));
            !queues.is_empty()
        });
    }

    fn is_recent(&self, puller: &Puller, now: Instant) -> bool {
        now.saturating_duration_since(puller.at) < self.expiry
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Queues>> {
        self.groups
            .lock()
            .expect("nothing panics while the pullers are locked")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EXPIRY: Duration = Duration::from_secs(60);

    fn reading(group: &str, queue: QueueId) -> Reading<'_> {
        Reading {
            group,
            topic_id: 7,
            queue,
        }
    }

    fn owners(pullers: &Pullers, now: Instant) -> Vec<(QueueId, String, QueueOffset)> {
        let queues = pullers.of_group("g", now).into_iter();
        queues
            .map(|((_, queue), puller)| (queue, puller.client_id.to_string(), puller.offset))
            .collect()
    }

    /// Catches an owner that stays when another client took the queue over, or when it left or died.
    #[test]
    fn the_last_puller_owns_a_queue_while_it_lives() {
        let (pullers, start) = (Pullers::new(EXPIRY), Instant::now());
        pullers.pulled(&reading("g", 0), "a", 1, start);
        pullers.pulled(&reading("g", 1), "a", 2, start);
        pullers.pulled(&reading("h", 0), "c", 3, start);
        pullers.pulled(&reading("g", 1), "b", 5, start + EXPIRY / 2);
        let expected = [(0, "a".to_owned(), 1), (1, "b".to_owned(), 5)];
        assert_eq!(owners(&pullers, start + EXPIRY / 2), expected);
        assert_eq!(owners(&pullers, start + EXPIRY), expected[1..]);
        pullers.remove("b");
        assert_eq!(owners(&pullers, start), expected[..1]);
        pullers.expire(start + EXPIRY);
        assert!(pullers.lock().is_empty(), "the silent were kept");
    }
}
