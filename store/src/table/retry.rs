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
use crate::table::{DeliveryKey, Fields, Key, Kind, for_each};

const VALUE_BYTES: usize = 8 + 4 + 4 + 4 + 8 + 8;

/// One message that waits for its next delivery to one group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Row {
    /// The group, the queue and the message.
    pub key: DeliveryKey,
    /// The entry that holds it.
    pub log_index: u64,
    /// The command in that entry, from 0.
    pub command: u32,
    /// Its place in that command, from 0.
    pub position: u32,
    /// Deliveries that failed, at least 1.
    pub attempt: u32,
    /// When it may be delivered again: when so much has passed along the log, in milliseconds.
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
    for_each(kv, from.as_ref(), to.as_ref(), |(key, value)| {
        visit(decode(&key, &value)?)
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
    batch.put(row.key.encode(Kind::Retry), value);
}

/// Removes a row.
pub fn delete(batch: &mut Batch, key: DeliveryKey) {
    batch.delete(key.encode(Kind::Retry));
}

/// The error of rows that contradict others.
pub fn corrupt(detail: impl Into<String>) -> StoreError {
    Kind::Retry.corrupt(detail)
}

fn decode(key: &[u8], value: &[u8]) -> Result<Row, StoreError> {
    let mut fields = Fields::new(Kind::Retry, value);
    let row = Row {
        key: DeliveryKey::decode(Kind::Retry, key)?,
        log_index: fields.u64()?,
        command: fields.u32()?,
        position: fields.u32()?,
        attempt: fields.u32()?,
        due_ms: fields.u64()?,
        time_ms: fields.u64()?,
    };
    fields.end()?;
    if row.attempt == 0 {
        return Err(corrupt("a retry of a message that was never delivered"));
    }
    Ok(row)
}
