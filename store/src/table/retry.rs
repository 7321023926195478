//! Messages that a consumer group handed back, until their next delivery was settled.
//!
//! ```text
//! key    kind 11 | group_id u64 | topic_id u64 | queue u32 | offset u64
//! value  log_index u64 | command u32 | position u32 | attempt u32 | due_ms u64 | time_ms u64
//! ```
//!
//! A row points at the entry that holds the message and never holds a byte of it. There is no index by
//! `due_ms`: the rows of a queue are bounded and mirrored in memory, where they are sorted by it.

use crate::error::StoreError;
use crate::kv::{Batch, Kv};
use crate::table::{Fields, Key, Kind, for_each, key};

const VALUE_BYTES: usize = 8 + 4 + 4 + 4 + 8 + 8;

/// One message that waits for its next delivery to one group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Row {
    /// The consumer group's number.
    pub group_id: u64,
    /// The topic.
    pub topic_id: u64,
    /// The queue.
    pub queue: u32,
    /// The message's place in the queue.
    pub offset: u64,
    /// The entry that holds it.
    pub log_index: u64,
    /// The command in that entry, from 0.
    pub command: u32,
    /// Its place in that command, from 0.
    pub position: u32,
    /// Deliveries that failed, at least 1.
    pub attempt: u32,
    /// When it may be delivered again, by the log's time.
    pub due_ms: u64,
    /// When the message was stored.
    pub time_ms: u64,
}

/// Calls `visit` with each row, by group, topic, queue and offset.
pub fn scan(
    kv: &dyn Kv,
    mut visit: impl FnMut(Row) -> Result<(), StoreError>,
) -> Result<(), StoreError> {
    let (from, to) = Key::range(Kind::Retry);
    for_each(kv, from.as_ref(), to.as_ref(), |(row_key, value)| {
        visit(decode(&row_key, &value)?)
    })
}

/// Adds a row, or changes the one of that message.
pub fn put(batch: &mut Batch, row: &Row) {
    let mut value = Vec::with_capacity(VALUE_BYTES);
    value.extend_from_slice(&row.log_index.to_be_bytes());
    value.extend_from_slice(&row.command.to_be_bytes());
    value.extend_from_slice(&row.position.to_be_bytes());
    value.extend_from_slice(&row.attempt.to_be_bytes());
    value.extend_from_slice(&row.due_ms.to_be_bytes());
    value.extend_from_slice(&row.time_ms.to_be_bytes());
    let key = row_key(row.group_id, row.topic_id, row.queue, row.offset);
    batch.put(key, value);
}

/// Removes a row.
pub fn delete(batch: &mut Batch, group_id: u64, topic_id: u64, queue: u32, offset: u64) {
    batch.delete(row_key(group_id, topic_id, queue, offset));
}

/// The error of rows that contradict others.
pub fn corrupt(detail: impl Into<String>) -> StoreError {
    Kind::Retry.corrupt(detail)
}

fn row_key(group_id: u64, topic_id: u64, queue: u32, offset: u64) -> Key {
    let of_queue = Key::new(Kind::Retry).u64(group_id).u64(topic_id).u32(queue);
    of_queue.u64(offset)
}

fn decode(row_key: &[u8], value: &[u8]) -> Result<Row, StoreError> {
    let mut of_key = key::fields(Kind::Retry, row_key)?;
    let mut fields = Fields::new(Kind::Retry, value);
    let row = Row {
        group_id: of_key.u64()?,
        topic_id: of_key.u64()?,
        queue: of_key.u32()?,
        offset: of_key.u64()?,
        log_index: fields.u64()?,
        command: fields.u32()?,
        position: fields.u32()?,
        attempt: fields.u32()?,
        due_ms: fields.u64()?,
        time_ms: fields.u64()?,
    };
    of_key.end()?;
    fields.end()?;
    if row.attempt == 0 {
        return Err(corrupt("a retry of a message that was never delivered"));
    }
    Ok(row)
}
