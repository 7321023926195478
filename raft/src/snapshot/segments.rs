//! The log's part of a snapshot, in the store's words and in the peers'.

use proto::raft as wire;
use store::{CommitLog, SegmentInfo, StoreError};

/// Where segments go, by name only: the store has its own place for them.
pub(super) const LOG_DIR: &str = "log";

/// The name that a segment has among a snapshot's files.
pub(crate) fn segment_to_wire(info: &SegmentInfo) -> wire::SnapshotFile {
    wire::SnapshotFile {
        name: format!("{}/{:020}.seg", LOG_DIR, info.first_index),
        size_bytes: info.len,
        crc32c: info.crc32c,
        segment: true,
        first_index: info.first_index,
        last_index: info.last_index,
        sealed: info.sealed,
    }
}

pub(crate) fn segment_from_wire(file: &wire::SnapshotFile) -> SegmentInfo {
    SegmentInfo {
        first_index: file.first_index,
        last_index: file.last_index,
        len: file.size_bytes,
        crc32c: file.crc32c,
        sealed: file.sealed,
    }
}

/// Whether the log stays when a snapshot that ends with `last` is installed: it has exactly this entry,
/// and is whole.
pub(super) async fn keeps_log(log: &CommitLog, last: store::LogId) -> Result<bool, StoreError> {
    if log.damage().is_some() {
        return Ok(false);
    }
    match log.term_at(last.index).await {
        Ok(term) => Ok(term == last.term),
        Err(StoreError::OutOfRange { .. }) => Ok(false),
        Err(error) => Err(error),
    }
}
