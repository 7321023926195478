//! First log entry that is still needed: no row of any table points below it.
//!
//! ```text
//! key    kind 10
//! value  log index u64
//! ```
//!
//! Raised by retention's command only. A missing row means 0: every entry is needed.

use crate::error::StoreError;
use crate::kv::{Batch, Kv};
use crate::table::{Fields, Key, Kind};

/// The floor.
pub fn get(kv: &dyn Kv) -> Result<u64, StoreError> {
    let Some(value) = kv.get(Key::new(Kind::LogFloor).as_ref())? else {
        return Ok(0);
    };
    let mut fields = Fields::new(Kind::LogFloor, &value);
    let floor = fields.u64()?;
    fields.end()?;
    Ok(floor)
}

/// Sets the floor.
pub fn put(batch: &mut Batch, floor: u64) {
    batch.put(Key::new(Kind::LogFloor), floor.to_be_bytes());
}
