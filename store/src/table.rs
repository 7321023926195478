//! The tables: what the commit log's entries have made of the world so far.
//!
//! A table is a range of keys that share their first byte, the [`Kind`]. One file per kind holds its
//! layout, its typed reads and its typed writes; `docs/formats/tables.md` is the table of them all.
//! All rows are written while entries are applied, in the same atomic batch as the `applied` row, and
//! can be made again from a checkpoint and the entries after it.
//!
//! Must never: hold a message body (those stay in the log), or decide anything. Numbers are
//! big-endian, so that the order of keys is the order of what they mean.

pub mod applied;
pub mod clock;
pub mod consume_queue;
pub mod consumer_offset;
pub mod dedup;
mod delivery_key;
pub mod group;
mod key;
pub mod log_floor;
pub mod next_id;
pub mod queue_bounds;
pub mod retry;
pub mod settled;
#[cfg(test)]
mod table_test;
pub mod topic;
mod value;

use std::path::Path;

pub use self::delivery_key::{DeliveryKey, GroupQueue};
use self::key::Key;
use self::value::Fields;
use crate::error::StoreError;
use crate::kv::{Kv, Pair};

/// Rows read at once where a whole table is walked.
const SCAN_ROWS: usize = 1024;

/// The tables and the first byte of their keys. Written to disk: numbers are never used again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Kind {
    /// How far the entries have been applied.
    Applied = 1,
    /// Settings of a topic.
    Topic = 2,
    /// Settings of a consumer group.
    Group = 3,
    /// Which entry holds which messages of a queue.
    ConsumeQueue = 4,
    /// First and next offset of a queue.
    QueueBounds = 5,
    /// How far a consumer group has come in a queue.
    ConsumerOffset = 6,
    /// Message ids that were stored lately.
    Dedup = 7,
    /// Time as the log tells it.
    Clock = 8,
    /// The next number for a topic or group.
    NextId = 9,
    /// First log entry that is still needed.
    LogFloor = 10,
    /// Messages that consumer groups handed back.
    Retry = 11,
    /// Deliveries that were settled lately.
    Settled = 12,
}

impl Kind {
    /// All kinds in the order of their numbers.
    pub const ALL: [Kind; 12] = [
        Kind::Applied,
        Kind::Topic,
        Kind::Group,
        Kind::ConsumeQueue,
        Kind::QueueBounds,
        Kind::ConsumerOffset,
        Kind::Dedup,
        Kind::Clock,
        Kind::NextId,
        Kind::LogFloor,
        Kind::Retry,
        Kind::Settled,
    ];

    /// First byte of its keys.
    pub const fn tag(self) -> u8 {
        self as u8
    }

    /// The kind with this first byte.
    pub fn from_tag(tag: u8) -> Option<Kind> {
        Kind::ALL.into_iter().find(|kind| kind.tag() == tag)
    }

    /// Name for people: in error messages and dumps.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Applied => "applied",
            Kind::Topic => "topic",
            Kind::Group => "group",
            Kind::ConsumeQueue => "consume_queue",
            Kind::QueueBounds => "queue_bounds",
            Kind::ConsumerOffset => "consumer_offset",
            Kind::Dedup => "dedup",
            Kind::Clock => "clock",
            Kind::NextId => "next_id",
            Kind::LogFloor => "log_floor",
            Kind::Retry => "retry",
            Kind::Settled => "settled",
        }
    }

    /// A row that cannot be what was written.
    fn corrupt(self, detail: impl Into<String>) -> StoreError {
        StoreError::corrupt(Path::new(&format!("table {}", self.name())), detail)
    }
}

/// Calls `visit` for each pair with `from <= key < to`, ascending, reading [`SCAN_ROWS`] at a time
/// so that a table of any size needs little memory.
fn for_each(
    kv: &dyn Kv,
    from: &[u8],
    to: &[u8],
    mut visit: impl FnMut(Pair) -> Result<(), StoreError>,
) -> Result<(), StoreError> {
    let mut next = from.to_vec();
    loop {
        let pairs = kv.scan(&next, to, SCAN_ROWS)?;
        let full = pairs.len() == SCAN_ROWS;
        for pair in pairs {
            next.clear();
            next.extend_from_slice(&pair.0);
            visit(pair)?;
        }
        if !full {
            return Ok(());
        }
        // The first key after one is that key and a zero byte.
        next.push(0);
    }
}

/// Every row of every table, but not `applied`'s: for tests and tools that compare replicas.
/// (Two replicas may word `applied` differently where they learned the membership differently.)
pub fn dump(kv: &dyn Kv) -> Result<Vec<Pair>, StoreError> {
    let mut rows = Vec::new();
    for kind in Kind::ALL.into_iter().filter(|kind| *kind != Kind::Applied) {
        let (from, to) = Key::range(kind);
        for_each(kv, from.as_ref(), to.as_ref(), |pair| {
            rows.push(pair);
            Ok(())
        })?;
    }
    Ok(rows)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Would catch a number that is used twice or a kind that `ALL` forgets in the middle.
    #[test]
    fn kinds_are_numbered_from_one_without_a_gap() {
        for (place, kind) in Kind::ALL.into_iter().enumerate() {
            assert_eq!(usize::from(kind.tag()), place + 1);
            assert_eq!(Kind::from_tag(kind.tag()), Some(kind));
        }
        assert_eq!(Kind::from_tag(0), None);
        assert_eq!(Kind::from_tag(13), None);
    }
}
