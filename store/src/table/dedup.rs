//! Which messages were stored lately, and where: what makes a send that is sent twice one message.
//!
//! ```text
//! key    kind 7 | topic_id u64 | owner u8 | owner_number u64 | log_index u64 | command u32
//! value  passed_ms u64 | queue u32 | runs u32 | run* | digest u64*
//! run    first u128 | count u32 | first_offset u64
//! owner  0: a client, by a hash of its id; 1: a sequenced sender, by the upper half of its ids
//! ```
//!
//! A run says that the ids `first` to `first + count - 1` have the queue offsets `first_offset` and on. One digest for
//! each id, in the order of the runs. One row for what a command stored of one owner; it goes as a whole, the owner's
//! oldest one first.

use crate::error::StoreError;
use crate::kv::{Batch, Kv};
use crate::table::{Fields, Key, Kind, for_each, key};

const HEAD_BYTES: usize = 8 + 4 + 4;
const RUN_BYTES: usize = 16 + 4 + 8;
const DIGEST_BYTES: usize = 8;

/// At whose expense messages are remembered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Owner {
    /// A client, by a hash of its id.
    Client(u64),
    /// A sequenced sender, by the upper half of its ids.
    Sequenced(u64),
}

/// Names a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct RowKey {
    /// The topic that the messages went to.
    pub topic_id: u64,
    /// Whose they are.
    pub owner: Owner,
    /// The entry.
    pub log_index: u64,
    /// The command in it, from 0.
    pub command: u32,
}

/// What one command stored of one owner.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    /// How much time had passed along the log.
    pub passed_ms: u64,
    /// The queue that the messages went to.
    pub queue: u32,
    /// The ids, in the order in which they were stored.
    pub runs: Vec<Run>,
    /// What the messages say, one digest for each id.
    pub digests: Vec<u64>,
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

/// Calls `visit` with each row in the order of their keys: an owner's rows in log order.
pub fn scan(
    kv: &dyn Kv,
    mut visit: impl FnMut(RowKey, Row) -> Result<(), StoreError>,
) -> Result<(), StoreError> {
    let (from, to) = Key::range(Kind::Dedup);
    for_each(kv, from.as_ref(), to.as_ref(), |(row_key, value)| {
        visit(decode_key(&row_key)?, decode(&value)?)
    })
}

/// Adds a row, or replaces it.
pub fn put(batch: &mut Batch, key: RowKey, row: &Row) {
    let (runs, digests) = (row.runs.len(), row.digests.len());
    let mut value = Vec::with_capacity(HEAD_BYTES + runs * RUN_BYTES + digests * DIGEST_BYTES);
    value.extend_from_slice(&row.passed_ms.to_be_bytes());
    value.extend_from_slice(&row.queue.to_be_bytes());
    value.extend_from_slice(&(runs as u32).to_be_bytes());
    for run in &row.runs {
        value.extend_from_slice(&run.first.to_be_bytes());
        value.extend_from_slice(&run.count.to_be_bytes());
        value.extend_from_slice(&run.first_offset.to_be_bytes());
    }
    for digest in &row.digests {
        value.extend_from_slice(&digest.to_be_bytes());
    }
    batch.put(encode_key(key), value);
}

/// Removes a row.
pub fn delete(batch: &mut Batch, key: RowKey) {
    batch.delete(encode_key(key));
}

/// A row that contradicts others.
pub fn corrupt(detail: impl Into<String>) -> StoreError {
    Kind::Dedup.corrupt(detail)
}

fn encode_key(key: RowKey) -> Key {
    let (kind, number) = match key.owner {
        Owner::Client(number) => (0, number),
        Owner::Sequenced(number) => (1, number),
    };
    Key::new(Kind::Dedup)
        .u64(key.topic_id)
        .u8(kind)
        .u64(number)
        .u64(key.log_index)
        .u32(key.command)
}

fn decode_key(row_key: &[u8]) -> Result<RowKey, StoreError> {
    let mut fields = key::fields(Kind::Dedup, row_key)?;
    let topic_id = fields.u64()?;
    let (kind, number) = (fields.u8()?, fields.u64()?);
    let owner = match kind {
        0 => Owner::Client(number),
        1 => Owner::Sequenced(number),
        _ => return Err(corrupt(format!("an owner of kind {kind}"))),
    };
    let key = RowKey {
        topic_id,
        owner,
        log_index: fields.u64()?,
        command: fields.u32()?,
    };
    fields.end()?;
    Ok(key)
}

fn decode(value: &[u8]) -> Result<Row, StoreError> {
    let mut fields = Fields::new(Kind::Dedup, value);
    let (passed_ms, queue, runs) = (fields.u64()?, fields.u32()?, fields.u32()?);
    let mut row = Row {
        passed_ms,
        queue,
        runs: Vec::new(),
        digests: Vec::new(),
    };
    let mut ids = 0_u64;
    for _ in 0..runs {
        let run = Run {
            first: fields.u128()?,
            count: fields.u32()?,
            first_offset: fields.u64()?,
        };
        let last_id = run.first.checked_add(u128::from(run.count));
        let last_offset = run.first_offset.checked_add(u64::from(run.count));
        if run.count == 0 || last_id.is_none() || last_offset.is_none() {
            return Err(corrupt(format!("a run of {} ids", run.count)));
        }
        ids = ids.saturating_add(u64::from(run.count));
        row.runs.push(run);
    }
    while !fields.is_empty() {
        row.digests.push(fields.u64()?);
    }
    if row.runs.is_empty() || row.digests.len() as u64 != ids {
        let digests = row.digests.len();
        return Err(corrupt(format!("{digests} digests for {ids} ids")));
    }
    Ok(row)
}
