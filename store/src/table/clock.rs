//! Time as the log tells it: the time of the last applied entry, and how much has passed.
//!
//! ```text
//! key    kind 8
//! value  time_ms u64 | log_index u64 | passed_ms u64
//! ```
//!
//! `log_index` is the last entry that carried commands; blank and membership entries leave the row
//! alone. A missing row means that no such entry has been applied.

use crate::error::StoreError;
use crate::kv::{Batch, Kv};
use crate::table::{Fields, Key, Kind};

/// The table's only row.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Clock {
    /// What time it was, milliseconds since the Unix epoch. Nothing may be decided by it: it can go back.
    pub time_ms: u64,
    /// The last entry with commands.
    pub log_index: u64,
    /// Milliseconds that have passed along the log; never decreases. It follows no clock that can be set.
    pub passed_ms: u64,
}

/// The clock; zero before the first entry.
pub fn get(kv: &dyn Kv) -> Result<Clock, StoreError> {
    let Some(value) = kv.get(Key::new(Kind::Clock).as_ref())? else {
        return Ok(Clock::default());
    };
    let mut fields = Fields::new(Kind::Clock, &value);
    let clock = Clock {
        time_ms: fields.u64()?,
        log_index: fields.u64()?,
        passed_ms: fields.u64()?,
    };
    fields.end()?;
    Ok(clock)
}

/// Sets the clock.
pub fn put(batch: &mut Batch, clock: Clock) {
    let mut value = [0; 24];
    value[..8].copy_from_slice(&clock.time_ms.to_be_bytes());
    value[8..16].copy_from_slice(&clock.log_index.to_be_bytes());
    value[16..].copy_from_slice(&clock.passed_ms.to_be_bytes());
    batch.put(Key::new(Kind::Clock), value);
}
