//! A ring of hashes, so that little moves when members come and go.

use std::collections::BTreeMap;
use std::hash::Hasher;
use std::num::NonZeroU32;

use siphasher::sip::SipHasher24;

use super::{Allocation, SharedQueue};
use crate::consumer::delivery::TopicQueue;

/// Points of each member on the ring unless told otherwise, as RocketMQ has it.
const VIRTUAL_NODES_DEFAULT: NonZeroU32 = NonZeroU32::new(10).expect("10 is not 0");

/// Members stand on a ring of hashes, each at several points; a queue belongs to the first member at or after its own
/// hash. When a member leaves only its queues move; when one comes only those that it takes. Shares are uneven.
#[derive(Clone, Copy, Debug)]
pub struct ConsistentHash {
    virtual_nodes: NonZeroU32,
}

impl ConsistentHash {
    /// With so many points for each member: the more, the more even the shares.
    pub fn new(virtual_nodes: NonZeroU32) -> ConsistentHash {
        ConsistentHash { virtual_nodes }
    }
}

impl Default for ConsistentHash {
    /// 10 points for each member.
    fn default() -> ConsistentHash {
        ConsistentHash::new(VIRTUAL_NODES_DEFAULT)
    }
}

impl Allocation for ConsistentHash {
    fn share(&self, queues: &[SharedQueue], members: &[String], own: &str) -> Vec<TopicQueue> {
        let mut ring: BTreeMap<u64, &str> = BTreeMap::new();
        for member in members {
            for point in 0..self.virtual_nodes.get() {
                // Where two members meet, the one with the smaller id stands: members are sorted.
                ring.entry(hash(member, point)).or_insert(member);
            }
        }
        let owner = |queue: &TopicQueue| {
            let own_hash = hash(&queue.topic, queue.queue);
            let next = ring.range(own_hash..).next().or(ring.first_key_value());
            next.map(|(_, member)| *member)
        };
        let all = queues.iter().map(|shared| &shared.queue);
        all.filter(|queue| owner(queue) == Some(own))
            .cloned()
            .collect()
    }
}

/// The same in every process: SipHash-2-4 with the key 0.
fn hash(name: &str, number: u32) -> u64 {
    let mut hasher = SipHasher24::new();
    hasher.write(name.as_bytes());
    hasher.write(&number.to_be_bytes());
    hasher.finish()
}
