//! Which entry of the commit log holds which messages of a queue.
//!
//! ```text
//! key    kind 4 | topic_id u64 | queue u32 | first_offset u64
//! value  log_index u64 | command u32 | first u32 | count u32 | time_ms u64 | passed_ms u64
//! ```
//!
//! One row for messages that stand together: the row says that the messages `first` to
//! `first + count - 1` of that command have the queue offsets `first_offset` and on. Within a queue
//! rows neither overlap nor leave a gap, and their log indexes and `passed_ms` never decrease. Rows go
//! from the front, when retention drops the entries that they point at, or with their topic.
//!
//! In a queue of dead letters only `passed_ms` never decreases, and rows go when they are old: see [`retry`](super::retry)
//! for what they point at.

use bytes::Bytes;

use crate::error::StoreError;
use crate::kv::{Batch, Kv, Pair};
use crate::table::{Fields, Key, Kind, for_each, key};

const VALUE_BYTES: usize = 8 + 4 + 4 + 4 + 8 + 8;

/// One row of a queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Row {
    /// Queue offset of its first message.
    pub first_offset: u64,
    /// The entry that holds the messages.
    pub log_index: u64,
    /// The command in that entry, from 0.
    pub command: u32,
    /// Place of the first message in that command, from 0.
    pub first: u32,
    /// Number of messages, at least 1.
    pub count: u32,
    /// When they were stored: the entry's time.
    pub time_ms: u64,
    /// How much had passed along the log then: their age goes by it.
    pub passed_ms: u64,
}

impl Row {
    /// The offset after its last message.
    pub fn end_offset(&self) -> u64 {
        self.first_offset.saturating_add(u64::from(self.count))
    }
}

/// Adds a row.
pub fn put(batch: &mut Batch, topic_id: u64, queue: u32, row: &Row) {
    let mut value = [0; VALUE_BYTES];
    value[0..8].copy_from_slice(&row.log_index.to_be_bytes());
    value[8..12].copy_from_slice(&row.command.to_be_bytes());
    value[12..16].copy_from_slice(&row.first.to_be_bytes());
    value[16..20].copy_from_slice(&row.count.to_be_bytes());
    value[20..28].copy_from_slice(&row.time_ms.to_be_bytes());
    value[28..36].copy_from_slice(&row.passed_ms.to_be_bytes());
    batch.put(row_key(topic_id, queue, row.first_offset), value);
}

/// The row with the greatest first offset that is at most `offset`: the one that holds `offset`, if
/// any does.
pub fn last_at_or_before(
    kv: &dyn Kv,
    topic_id: u64,
    queue: u32,
    offset: u64,
) -> Result<Option<Row>, StoreError> {
    let lower_bound = row_key(topic_id, queue, 0);
    let wanted = row_key(topic_id, queue, offset);
    match kv.last_at_or_before(wanted.as_ref(), lower_bound.as_ref())? {
        Some((row_key, value)) => decode(&row_key, &value).map(Some),
        None => Ok(None),
    }
}

/// Up to `limit` rows whose first offset is at least `from_offset`, ascending.
pub fn scan(
    kv: &dyn Kv,
    topic_id: u64,
    queue: u32,
    from_offset: u64,
    limit: usize,
) -> Result<Vec<Row>, StoreError> {
    let from = row_key(topic_id, queue, from_offset);
    let (_, to) = queue_key(topic_id, queue).prefix_range();
    let pairs = kv.scan(from.as_ref(), to.as_ref(), limit)?;
    pairs
        .iter()
        .map(|(row_key, value): &(Bytes, Bytes)| decode(row_key, value))
        .collect()
}

/// Removes the rows of a queue whose first offset is below `end_offset`.
pub fn delete_before(batch: &mut Batch, topic_id: u64, queue: u32, end_offset: u64) {
    batch.delete_range(
        row_key(topic_id, queue, 0),
        row_key(topic_id, queue, end_offset),
    );
}

/// Removes the rows of all queues of a topic.
pub fn delete_topic(batch: &mut Batch, topic_id: u64) {
    let (from, to) = Key::new(Kind::ConsumeQueue).u64(topic_id).prefix_range();
    batch.delete_range(from, to);
}

/// Calls `visit` with each row of all queues, by topic, queue and offset: for tools and tests.
pub fn scan_all(
    kv: &dyn Kv,
    mut visit: impl FnMut(u64, u32, Row) -> Result<(), StoreError>,
) -> Result<(), StoreError> {
    let (from, to) = Key::range(Kind::ConsumeQueue);
    for_each(kv, from.as_ref(), to.as_ref(), |(row_key, value): Pair| {
        let mut fields = key::fields(Kind::ConsumeQueue, &row_key)?;
        let (topic_id, queue) = (fields.u64()?, fields.u32()?);
        visit(topic_id, queue, decode(&row_key, &value)?)
    })
}

fn queue_key(topic_id: u64, queue: u32) -> Key {
    Key::new(Kind::ConsumeQueue).u64(topic_id).u32(queue)
}

fn row_key(topic_id: u64, queue: u32, first_offset: u64) -> Key {
    queue_key(topic_id, queue).u64(first_offset)
}

fn decode(row_key: &[u8], value: &[u8]) -> Result<Row, StoreError> {
    let mut of_key = key::fields(Kind::ConsumeQueue, row_key)?;
    let (_topic_id, _queue, first_offset) = (of_key.u64()?, of_key.u32()?, of_key.u64()?);
    of_key.end()?;
    let mut fields = Fields::new(Kind::ConsumeQueue, value);
    let row = Row {
        first_offset,
        log_index: fields.u64()?,
        command: fields.u32()?,
        first: fields.u32()?,
        count: fields.u32()?,
        time_ms: fields.u64()?,
        passed_ms: fields.u64()?,
    };
    fields.end()?;
    if row.count == 0 || row.first_offset.checked_add(u64::from(row.count)).is_none() {
        return Err(Kind::ConsumeQueue.corrupt(format!("a row of {} messages", row.count)));
    }
    Ok(row)
}

/// The error of rows that contradict a queue's bounds.
pub fn corrupt(detail: impl Into<String>) -> StoreError {
    Kind::ConsumeQueue.corrupt(detail)
}
