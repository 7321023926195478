//! Deliveries that were settled, or were the last ones, lately: so that a call that arrives late does not
//! bring a message back.
//!
//! ```text
//! key    kind 12 | group_id u64 | topic_id u64 | queue u32 | offset u64
//! value  attempt u32 | passed_ms u64
//! ```
//!
//! `passed_ms` says how much time had passed along the log ([`clock`](super::clock)); a row goes when that
//! is longer ago than the dedup window, or too many are remembered.

use crate::error::StoreError;
use crate::kv::{Batch, Kv};
use crate::table::{DeliveryKey, Fields, Key, Kind, for_each};

/// One message that one group is done with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Row {
    /// The group, the queue and the message.
    pub key: DeliveryKey,
    /// The delivery that settled it, or that was the last one.
    pub attempt: u32,
    /// How much time had passed along the log.
    pub passed_ms: u64,
}

/// Calls `visit` with each row, by group, topic, queue and offset.
pub fn scan(
    kv: &dyn Kv,
    mut visit: impl FnMut(Row) -> Result<(), StoreError>,
) -> Result<(), StoreError> {
    let (from, to) = Key::range(Kind::Settled);
    for_each(kv, from.as_ref(), to.as_ref(), |(key, value)| {
        let mut fields = Fields::new(Kind::Settled, &value);
        let row = Row {
            key: DeliveryKey::decode(Kind::Settled, &key)?,
            attempt: fields.u32()?,
            passed_ms: fields.u64()?,
        };
        fields.end()?;
        visit(row)
    })
}

/// Adds a row, or changes the one of that message.
pub fn put(batch: &mut Batch, row: &Row) {
    let mut value = [0; 12];
    value[..4].copy_from_slice(&row.attempt.to_be_bytes());
    value[4..].copy_from_slice(&row.passed_ms.to_be_bytes());
    batch.put(row.key.encode(Kind::Settled), value);
}

/// Removes a row.
pub fn delete(batch: &mut Batch, key: DeliveryKey) {
    batch.delete(key.encode(Kind::Settled));
}
