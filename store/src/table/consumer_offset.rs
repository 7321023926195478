//! How far each consumer group has come in each queue.
//!
//! ```text
//! key    kind 6 | group text | topic_id u64 | queue u32
//! value  offset u64: the next one to consume
//! ```
//!
//! A missing row means that the group has not started in that queue. Never goes back, except by an
//! operator's reset.

use crate::error::StoreError;
use crate::kv::{Batch, Kv};
use crate::table::{Fields, Key, Kind, for_each, key};

/// Calls `visit` with group, topic, queue and offset of each row, in that order.
pub fn scan(
    kv: &dyn Kv,
    mut visit: impl FnMut(&str, u64, u32, u64) -> Result<(), StoreError>,
) -> Result<(), StoreError> {
    let (from, to) = Key::range(Kind::ConsumerOffset);
    for_each(kv, from.as_ref(), to.as_ref(), |(row_key, value)| {
        let mut of_key = key::fields(Kind::ConsumerOffset, &row_key)?;
        let (group, topic_id, queue) = (of_key.text()?, of_key.u64()?, of_key.u32()?);
        of_key.end()?;
        let mut fields = Fields::new(Kind::ConsumerOffset, &value);
        let offset = fields.u64()?;
        fields.end()?;
        visit(group, topic_id, queue, offset)
    })
}

/// Sets a group's place in a queue.
pub fn put(batch: &mut Batch, group: &str, topic_id: u64, queue: u32, offset: u64) {
    batch.put(row_key(group, topic_id, queue), offset.to_be_bytes());
}

/// Forgets a group's place in a queue.
pub fn delete(batch: &mut Batch, group: &str, topic_id: u64, queue: u32) {
    batch.delete(row_key(group, topic_id, queue));
}

/// Forgets all places of a group.
pub fn delete_group(batch: &mut Batch, group: &str) {
    let (from, to) = Key::new(Kind::ConsumerOffset).text(group).prefix_range();
    batch.delete_range(from, to);
}

fn row_key(group: &str, topic_id: u64, queue: u32) -> Key {
    Key::new(Kind::ConsumerOffset)
        .text(group)
        .u64(topic_id)
        .u32(queue)
}
