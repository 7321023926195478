//! The number that the next topic or consumer group gets.
//!
//! ```text
//! key    kind 9
//! value  next id u64
//! ```
//!
//! Numbers are never used twice, so that whatever still names a deleted topic cannot mean a new one.
//! A missing row means 1.

use crate::error::StoreError;
use crate::kv::{Batch, Kv};
use crate::table::{Fields, Key, Kind};

/// The number that comes next.
pub fn get(kv: &dyn Kv) -> Result<u64, StoreError> {
    let Some(value) = kv.get(Key::new(Kind::NextId).as_ref())? else {
        return Ok(1);
    };
    let mut fields = Fields::new(Kind::NextId, &value);
    let next = fields.u64()?;
    fields.end()?;
    Ok(next)
}

/// Sets the number that comes next.
pub fn put(batch: &mut Batch, next: u64) {
    batch.put(Key::new(Kind::NextId), next.to_be_bytes());
}
