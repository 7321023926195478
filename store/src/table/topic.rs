//! Settings of the topics.
//!
//! ```text
//! key    kind 2 | topic_id u64
//! value  the broker's record (command.proto TopicRecord)
//! ```
//!
//! Lives from the topic's creation to its deletion.

use bytes::Bytes;

use crate::error::StoreError;
use crate::kv::{Batch, Kv};
use crate::table::{Key, Kind, for_each, key};

/// Calls `visit` with each topic's id and record, by ascending id.
pub fn scan(
    kv: &dyn Kv,
    mut visit: impl FnMut(u64, Bytes) -> Result<(), StoreError>,
) -> Result<(), StoreError> {
    let (from, to) = Key::range(Kind::Topic);
    for_each(kv, from.as_ref(), to.as_ref(), |(row_key, record)| {
        let mut fields = key::fields(Kind::Topic, &row_key)?;
        let topic_id = fields.u64()?;
        fields.end()?;
        visit(topic_id, record)
    })
}

/// Creates or replaces a topic's record.
pub fn put(batch: &mut Batch, topic_id: u64, record: &[u8]) {
    batch.put(row_key(topic_id), record);
}

/// Removes a topic's record; its other rows have tables of their own.
pub fn delete(batch: &mut Batch, topic_id: u64) {
    batch.delete(row_key(topic_id));
}

/// The error of a record that its owner cannot read.
pub fn corrupt(detail: impl Into<String>) -> StoreError {
    Kind::Topic.corrupt(detail)
}

fn row_key(topic_id: u64) -> Key {
    Key::new(Kind::Topic).u64(topic_id)
}
