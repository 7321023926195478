//! Which message ids were stored lately, and where: what makes a send that is sent twice one message.
//!
//! ```text
//! key    kind 7 | log_index u64 | command u32
//! value  passed_ms u64 | topic_id u64 | queue u32 | run*
//! run    first u128 | count u32 | first_offset u64
//! ```
//!
//! A run says that the ids `first` to `first + count - 1` have the queue offsets `first_offset` and
//! on. One row per command that stored something under an id; it goes as a whole when it is older
//! than the window or too many ids are remembered.

use crate::error::StoreError;
use crate::kv::{Batch, Kv};
use crate::table::{Fields, Key, Kind, for_each, key};

const HEAD_BYTES: usize = 8 + 8 + 4;
const RUN_BYTES: usize = 16 + 4 + 8;

/// The ids that one command stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    /// The entry.
    pub log_index: u64,
    /// The command in it, from 0.
    pub command: u32,
    /// How much time had passed along the log.
    pub passed_ms: u64,
    /// The topic that the messages went to.
    pub topic_id: u64,
    /// The queue that the messages went to.
    pub queue: u32,
    /// The ids, in the order in which they were stored.
    pub runs: Vec<Run>,
}

/// Ids that follow each other and were stored one after the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Run {
    /// The first id.
    pub first: u128,
    /// How many there are.
    pub count: u32,
    /// Queue offset of the first.
    pub first_offset: u64,
}

/// Calls `visit` with each row in log order.
pub fn scan(
    kv: &dyn Kv,
    mut visit: impl FnMut(Row) -> Result<(), StoreError>,
) -> Result<(), StoreError> {
    let (from, to) = Key::range(Kind::Dedup);
    for_each(kv, from.as_ref(), to.as_ref(), |(row_key, value)| {
        let mut of_key = key::fields(Kind::Dedup, &row_key)?;
        let (log_index, command) = (of_key.u64()?, of_key.u32()?);
        of_key.end()?;
        visit(decode(log_index, command, &value)?)
    })
}

/// Adds a row.
pub fn put(batch: &mut Batch, row: &Row) {
    let mut value = Vec::with_capacity(HEAD_BYTES + row.runs.len() * RUN_BYTES);
    value.extend_from_slice(&row.passed_ms.to_be_bytes());
    value.extend_from_slice(&row.topic_id.to_be_bytes());
    value.extend_from_slice(&row.queue.to_be_bytes());
    for run in &row.runs {
        value.extend_from_slice(&run.first.to_be_bytes());
        value.extend_from_slice(&run.count.to_be_bytes());
        value.extend_from_slice(&run.first_offset.to_be_bytes());
    }
    batch.put(row_key(row.log_index, row.command), value);
}

/// Removes a row.
pub fn delete(batch: &mut Batch, log_index: u64, command: u32) {
    batch.delete(row_key(log_index, command));
}

fn row_key(log_index: u64, command: u32) -> Key {
    Key::new(Kind::Dedup).u64(log_index).u32(command)
}

fn decode(log_index: u64, command: u32, value: &[u8]) -> Result<Row, StoreError> {
    let mut fields = Fields::new(Kind::Dedup, value);
    let mut row = Row {
        log_index,
        command,
        passed_ms: fields.u64()?,
        topic_id: fields.u64()?,
        queue: fields.u32()?,
        runs: Vec::with_capacity(value.len().saturating_sub(HEAD_BYTES) / RUN_BYTES),
    };
    while !fields.is_empty() {
        let run = Run {
            first: fields.u128()?,
            count: fields.u32()?,
            first_offset: fields.u64()?,
        };
        let ids = run.first.checked_add(u128::from(run.count));
        let offsets = run.first_offset.checked_add(u64::from(run.count));
        if run.count == 0 || ids.is_none() || offsets.is_none() {
            return Err(Kind::Dedup.corrupt(format!("a run of {} ids", run.count)));
        }
        row.runs.push(run);
    }
    Ok(row)
}
