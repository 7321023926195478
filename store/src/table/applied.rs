//! How far the entries have been applied, in the words of whoever applies them.
//!
//! ```text
//! key    kind 1
//! value  opaque (raft: log id and membership)
//! ```
//!
//! Written in every batch, so that a crash leaves tables that say themselves which entries made
//! them. A missing row means that nothing has been applied.

use bytes::Bytes;

use crate::error::StoreError;
use crate::kv::{Batch, Kv};
use crate::table::{Key, Kind};

/// The bytes of the last batch.
pub fn get(kv: &dyn Kv) -> Result<Option<Bytes>, StoreError> {
    kv.get(&key())
}

/// The key of the one row.
pub fn key() -> Bytes {
    Bytes::copy_from_slice(Key::new(Kind::Applied).as_ref())
}

/// States that with this batch everything up to `applied` is in the tables.
pub fn put(batch: &mut Batch, applied: &[u8]) {
    batch.put(Key::new(Kind::Applied), applied);
}
