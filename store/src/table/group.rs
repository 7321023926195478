//! Settings of the consumer groups.
//!
//! ```text
//! key    kind 3 | name text
//! value  the broker's record (command.proto GroupRecord)
//! ```
//!
//! Lives from the group's creation to its deletion.

use bytes::Bytes;

use crate::error::StoreError;
use crate::kv::{Batch, Kv};
use crate::table::{Key, Kind, for_each, key};

/// Calls `visit` with each group's name and record.
pub fn scan(
    kv: &dyn Kv,
    mut visit: impl FnMut(&str, Bytes) -> Result<(), StoreError>,
) -> Result<(), StoreError> {
    let (from, to) = Key::range(Kind::Group);
    for_each(kv, from.as_ref(), to.as_ref(), |(row_key, record)| {
        let mut fields = key::fields(Kind::Group, &row_key)?;
        let name = fields.text()?;
        fields.end()?;
        visit(name, record)
    })
}

/// Creates or replaces a group's record.
pub fn put(batch: &mut Batch, name: &str, record: &[u8]) {
    batch.put(row_key(name), record);
}

/// Removes a group's record; its offsets have a table of their own.
pub fn delete(batch: &mut Batch, name: &str) {
    batch.delete(row_key(name));
}

/// The error of a record that its owner cannot read.
pub fn corrupt(detail: impl Into<String>) -> StoreError {
    Kind::Group.corrupt(detail)
}

fn row_key(name: &str) -> Key {
    Key::new(Kind::Group).text(name)
}
