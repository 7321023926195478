//! Which queue a message goes to. Pure but for the turn counter.

use std::hash::Hasher;
use std::sync::atomic::{AtomicU32, Ordering};

use proto::QueueId;
use siphasher::sip::SipHasher24;

use crate::view::Topic;

/// The key that clients in most languages use: the bytes 00 to 0f.
const KEY: [u8; 16] = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15];

/// What decides about the queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Choice {
    /// Hash of the message group: the same group always has the same queue, whatever queue its client
    /// chose, because clients in different languages hash differently.
    Group(u64),
    /// The client's wish.
    Wish(i32),
}

impl Choice {
    pub(super) fn group(name: &str) -> Choice {
        let mut hasher = SipHasher24::new_with_key(&KEY);
        hasher.write(name.as_bytes());
        Choice::Group(hasher.finish())
    }
}

/// A queue of the topic. A wish that cannot be met, as by a client whose route is older than a change
/// of the topic, is no reason to lose the message: it goes to the next queue in turn. `turn` is shared by
/// all topics: only evenness matters.
pub(super) fn choose(choice: &Choice, topic: &Topic, turn: &AtomicU32) -> QueueId {
    let count = topic.queue_count.max(1);
    match *choice {
        Choice::Group(hash) => (hash % u64::from(count)) as QueueId,
        Choice::Wish(wish) => match QueueId::try_from(wish) {
            Ok(queue) if queue < count => queue,
            _ => turn.fetch_add(1, Ordering::Relaxed) % count,
        },
    }
}
