//! The dead letters in memory: a mirror of the rows of all dead-letter queues.

use std::collections::BTreeMap;

use proto::TimestampMs;

use super::references::Location;

/// A message that nobody tries to process any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct DeadLetter {
    pub(crate) location: Location,
    /// When it died.
    pub(crate) time_ms: TimestampMs,
    /// How much had passed along the log then: its age goes by it.
    pub(crate) passed_ms: u64,
}

/// A mirror of the rows of all dead-letter queues.
#[derive(Default)]
pub(crate) struct DeadLetters {
    /// By topic and offset.
    letters: BTreeMap<(u64, u64), DeadLetter>,
    /// How many of each topic.
    topics: BTreeMap<u64, usize>,
}

impl DeadLetters {
    pub(crate) fn get(&self, topic_id: u64, offset: u64) -> Option<DeadLetter> {
        self.letters.get(&(topic_id, offset)).copied()
    }

    /// The one that died first, and where it lies.
    pub(crate) fn oldest_of(&self, topic_id: u64) -> Option<(u64, DeadLetter)> {
        let of_topic = (topic_id, 0)..=(topic_id, u64::MAX);
        let ((_, offset), letter) = self.letters.range(of_topic).next()?;
        Some((*offset, *letter))
    }

    pub(super) fn count(&self) -> usize {
        self.letters.len()
    }

    /// Topics that have any.
    pub(super) fn groups(&self) -> usize {
        self.topics.len()
    }

    pub(super) fn put(&mut self, topic_id: u64, offset: u64, letter: DeadLetter) {
        if self.letters.insert((topic_id, offset), letter).is_none() {
            *self.topics.entry(topic_id).or_default() += 1;
        }
    }

    pub(super) fn remove(&mut self, topic_id: u64, offset: u64) -> Option<DeadLetter> {
        let removed = self.letters.remove(&(topic_id, offset))?;
        if let Some(count) = self.topics.get_mut(&topic_id) {
            *count -= 1;
            if *count == 0 {
                self.topics.remove(&topic_id);
            }
        }
        Some(removed)
    }
}
