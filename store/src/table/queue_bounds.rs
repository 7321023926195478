//! The first and the next offset of every queue.
//!
//! ```text
//! key    kind 5 | topic_id u64 | queue u32
//! value  min_offset u64 | next_offset u64
//! ```
//!
//! `min_offset` is the first message that can still be read, `next_offset` the offset that the next
//! message gets; they are equal where nothing can be read. A missing row means that nothing was ever
//! stored there: both are 0.

use crate::error::StoreError;
use crate::kv::{Batch, Kv};
use crate::table::{Fields, Key, Kind, for_each, key};

/// The offsets `min_offset .. next_offset` can be read.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct QueueBounds {
    /// First offset that can be read.
    pub min_offset: u64,
    /// Offset of the next message.
    pub next_offset: u64,
}

/// Calls `visit` with each queue's bounds, by topic and queue.
pub fn scan(
    kv: &dyn Kv,
    mut visit: impl FnMut(u64, u32, QueueBounds) -> Result<(), StoreError>,
) -> Result<(), StoreError> {
    let (from, to) = Key::range(Kind::QueueBounds);
    for_each(kv, from.as_ref(), to.as_ref(), |(row_key, value)| {
        let mut of_key = key::fields(Kind::QueueBounds, &row_key)?;
        let (topic_id, queue) = (of_key.u64()?, of_key.u32()?);
        of_key.end()?;
        visit(topic_id, queue, decode(&value)?)
    })
}

/// Sets a queue's bounds.
pub fn put(batch: &mut Batch, topic_id: u64, queue: u32, bounds: QueueBounds) {
    let mut value = [0; 16];
    value[..8].copy_from_slice(&bounds.min_offset.to_be_bytes());
    value[8..].copy_from_slice(&bounds.next_offset.to_be_bytes());
    batch.put(Key::new(Kind::QueueBounds).u64(topic_id).u32(queue), value);
}

/// Removes the rows of all queues of a topic.
pub fn delete_topic(batch: &mut Batch, topic_id: u64) {
    let (from, to) = Key::new(Kind::QueueBounds).u64(topic_id).prefix_range();
    batch.delete_range(from, to);
}

fn decode(value: &[u8]) -> Result<QueueBounds, StoreError> {
    let mut fields = Fields::new(Kind::QueueBounds, value);
    let bounds = QueueBounds {
        min_offset: fields.u64()?,
        next_offset: fields.u64()?,
    };
    fields.end()?;
    if bounds.min_offset > bounds.next_offset {
        return Err(Kind::QueueBounds.corrupt(format!("{bounds:?} is upside down")));
    }
    Ok(bounds)
}
