//! Who takes how much, and whose turn it is to forget when that is too much.
//!
//! No owner may take more than an eighth, no topic more than a half of the whole. And where the whole or a topic is full,
//! the owner that takes most forgets: so one that takes less than its fair share, by topic and within it, loses nothing,
//! whatever others do.

use std::collections::{BTreeMap, BTreeSet};

use store::table::dedup::Owner;

use super::OwnerKey;

/// One owner may take this part of the whole.
const OWNER_PART: u64 = 8;
/// One topic may take this part of the whole.
const TOPIC_PART: u64 = 2;

/// See the module's text.
#[derive(Default)]
pub(super) struct Shares {
    total: u64,
    topics: BTreeMap<u64, u64>,
    /// Bytes and topic.
    largest_topics: BTreeSet<(u64, u64)>,
    /// Bytes and owner.
    largest_owners: BTreeSet<(u64, OwnerKey)>,
    /// Topic, bytes and owner.
    largest_of_topic: BTreeSet<(u64, u64, Owner)>,
}

impl Shares {
    /// An owner takes `after` bytes instead of `before`.
    pub(super) fn change(&mut self, key: OwnerKey, before: u64, after: u64) {
        let (topic_id, owner) = key;
        self.largest_owners.remove(&(before, key));
        self.largest_of_topic.remove(&(topic_id, before, owner));
        if after > 0 {
            self.largest_owners.insert((after, key));
            self.largest_of_topic.insert((topic_id, after, owner));
        }
        let of_topic = self.topics.get(&topic_id).copied().unwrap_or(0);
        let topic_after = of_topic + after - before;
        self.largest_topics.remove(&(of_topic, topic_id));
        if topic_after > 0 {
            self.largest_topics.insert((topic_after, topic_id));
            self.topics.insert(topic_id, topic_after);
        } else {
            self.topics.remove(&topic_id);
        }
        self.total = self.total + after - before;
    }

    /// Who must forget something, if so many bytes are the whole.
    pub(super) fn too_much(&self, bytes_max: u64) -> Option<OwnerKey> {
        if let Some((bytes, key)) = self.largest_owners.last()
            && *bytes > bytes_max / OWNER_PART
        {
            return Some(*key);
        }
        let (bytes, topic_id) = *self.largest_topics.last()?;
        if bytes <= bytes_max / TOPIC_PART && self.total <= bytes_max {
            return None;
        }
        let of_topic =
            (topic_id, 0, Owner::Client(0))..=(topic_id, u64::MAX, Owner::Sequenced(u64::MAX));
        let largest = self.largest_of_topic.range(of_topic).next_back();
        largest.map(|(topic_id, _, owner)| (*topic_id, *owner))
    }

    pub(super) fn total(&self) -> u64 {
        self.total
    }
}
