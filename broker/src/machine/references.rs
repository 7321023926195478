//! What retries and dead letters point at, by where it stands in the log: what retention must not drop.
//!
//! A mirror of rows that others write; knows of each message who points at it, and answers at once how low
//! the lowest stands.

use std::collections::BTreeSet;

use store::table::DeliveryKey;

/// Where a message stands in the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Location {
    /// The entry.
    pub(crate) log_index: u64,
    /// The command in it, from 0.
    pub(crate) command: u32,
    /// The message in that, from 0.
    pub(crate) position: u32,
}

/// What points at a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Holder {
    /// A row of `retry`.
    Retry(DeliveryKey),
    /// A row of a dead-letter queue.
    DeadLetter {
        /// The queue's topic.
        topic_id: u64,
        /// The place in it.
        offset: u64,
    },
}

/// All of them.
#[derive(Default)]
pub(crate) struct References {
    held: BTreeSet<(Location, Holder)>,
}

impl References {
    pub(super) fn add(&mut self, location: Location, holder: Holder) {
        self.held.insert((location, holder));
    }

    pub(super) fn remove(&mut self, location: Location, holder: Holder) {
        self.held.remove(&(location, holder));
    }

    /// The lowest entry that something points at.
    pub(crate) fn lowest(&self) -> Option<u64> {
        self.held.first().map(|(location, _)| location.log_index)
    }

    /// Who points at this message.
    pub(super) fn holders(&self, location: Location) -> Vec<Holder> {
        let held = self.held.range((location, Holder::MIN)..);
        let of_location = held.take_while(|(at, _)| *at == location);
        of_location.map(|(_, holder)| *holder).collect()
    }

    /// Messages in the entries before `log_index` that something points at, each once, in the log's
    /// order, the first `limit` of them.
    pub(crate) fn below(&self, log_index: u64, limit: usize) -> Vec<Location> {
        let mut found: Vec<Location> = Vec::new();
        let mut held = self.held.iter();
        while let Some((location, _)) = held.next().filter(|(at, _)| at.log_index < log_index) {
            if found.last() == Some(location) {
                continue;
            }
            if found.len() == limit {
                break;
            }
            found.push(*location);
        }
        found
    }
}

impl Holder {
    /// Sorts before every other.
    const MIN: Holder = Holder::Retry(DeliveryKey::MIN);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(log_index: u64, position: u32) -> Location {
        Location {
            log_index,
            command: 0,
            position,
        }
    }

    fn letter(offset: u64) -> Holder {
        Holder::DeadLetter {
            topic_id: 7,
            offset,
        }
    }

    /// Would catch a message that is kept twice because two point at it, or not at all because it stands
    /// between two others; and a floor above what is still pointed at.
    #[test]
    fn messages_are_listed_once_in_the_order_of_the_log() {
        let mut references = References::default();
        for (location, offset) in [(at(9, 0), 4), (at(5, 1), 1), (at(5, 0), 2), (at(5, 1), 3)] {
            references.add(location, letter(offset));
        }
        assert_eq!(references.lowest(), Some(5));
        assert_eq!(references.holders(at(5, 1)), [letter(1), letter(3)]);
        assert_eq!(references.below(9, 8), [at(5, 0), at(5, 1)]);
        assert_eq!(references.below(10, 8), [at(5, 0), at(5, 1), at(9, 0)]);
        assert_eq!(references.below(10, 1), [at(5, 0)]);
        references.remove(at(5, 0), letter(2));
        references.remove(at(5, 1), letter(1));
        assert_eq!(references.lowest(), Some(5));
        references.remove(at(5, 1), letter(3));
        assert_eq!(references.lowest(), Some(9));
    }
}
