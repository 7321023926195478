//! The key of the tables that have a row for a message and the consumer group that got it.
//!
//! ```text
//! key    kind | group_id u64 | topic_id u64 | queue u32 | offset u64
//! ```

use std::ops::RangeInclusive;

use crate::error::StoreError;
use crate::table::{Key, Kind, key};

/// A queue as one consumer group reads it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct GroupQueue {
    /// The consumer group's number.
    pub group_id: u64,
    /// The topic.
    pub topic_id: u64,
    /// The queue.
    pub queue: u32,
}

impl GroupQueue {
    /// All queues of a group; of one topic, or of all.
    pub fn of_group(group_id: u64, topic_id: Option<u64>) -> RangeInclusive<GroupQueue> {
        let queue = |topic_id, queue| GroupQueue {
            group_id,
            topic_id,
            queue,
        };
        queue(topic_id.unwrap_or(0), 0)..=queue(topic_id.unwrap_or(u64::MAX), u32::MAX)
    }
}

/// One message of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct DeliveryKey {
    /// The group and the queue.
    pub queue: GroupQueue,
    /// The message's place in the queue.
    pub offset: u64,
}

impl DeliveryKey {
    /// The lowest.
    pub const MIN: DeliveryKey = DeliveryKey {
        queue: GroupQueue {
            group_id: 0,
            topic_id: 0,
            queue: 0,
        },
        offset: 0,
    };

    pub(super) fn encode(self, kind: Kind) -> Key {
        let GroupQueue {
            group_id,
            topic_id,
            queue,
        } = self.queue;
        let of_queue = Key::new(kind).u64(group_id).u64(topic_id).u32(queue);
        of_queue.u64(self.offset)
    }

    pub(super) fn decode(kind: Kind, key: &[u8]) -> Result<DeliveryKey, StoreError> {
        let mut fields = key::fields(kind, key)?;
        let queue = GroupQueue {
            group_id: fields.u64()?,
            topic_id: fields.u64()?,
            queue: fields.u32()?,
        };
        let offset = fields.u64()?;
        fields.end()?;
        Ok(DeliveryKey { queue, offset })
    }
}
