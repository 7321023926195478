//! Sizes and bounds of the commit log.

use crate::error::{Result, StoreError};

/// Smallest segment: tests use it; a real one is thousands of times larger.
const SEGMENT_BYTES_MIN: u64 = 1 << 10;

/// Largest segment: positions in it are `u32`, and a tail segment is scanned whole when a replica
/// starts.
const SEGMENT_BYTES_MAX: u64 = 1 << 30;

/// How a commit log uses memory and disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogConfig {
    /// Bytes of a segment file; fixed when the data directory is made. Default 128 MiB.
    pub segment_bytes: u64,
    /// Bytes of recent entries kept in memory for readers; entries that are not synced yet are kept
    /// on top of it. Default 64 MiB.
    pub cache_bytes: u64,
    /// Bytes of older entries, read one by one, that are kept in memory. Default 16 MiB.
    pub read_cache_bytes: u64,
    /// Bytes of record positions of sealed segments that are kept in memory. Default 32 MiB.
    pub index_cache_bytes: u64,
    /// Free space in bytes below which new client data shall be refused
    /// ([`crate::CommitLog::room`]). No file is made below half of it: what lies between is for
    /// the entries that make space again. Default 1 GiB.
    pub reserve_bytes: u64,
    /// Bytes that may wait to be synced before appends are refused. Default 256 MiB.
    pub pending_bytes_max: u64,
    /// Most bytes in one write and sync, a single larger entry excepted. Also how far from a torn
    /// record a valid one may stand and still be explained by the same power failure. Default 8
    /// MiB.
    pub group_bytes_max: u64,
    /// Segment files made ready ahead of need. Default 1.
    pub spare_segments: usize,
    /// Dropped segment files kept for reuse, at most. Default 4.
    pub recycled_segments_max: usize,
    /// Whether segment files made ahead of need are filled with zeros while nothing else is
    /// written, so that the first use of a block costs no change of the file system's metadata, at
    /// the price of writing twice. Default true.
    pub prefill: bool,
}

impl Default for LogConfig {
    fn default() -> LogConfig {
        LogConfig {
            segment_bytes: 128 << 20,
            cache_bytes: 64 << 20,
            read_cache_bytes: 16 << 20,
            index_cache_bytes: 32 << 20,
            reserve_bytes: 1 << 30,
            pending_bytes_max: 256 << 20,
            group_bytes_max: 8 << 20,
            spare_segments: 1,
            recycled_segments_max: 4,
            prefill: true,
        }
    }
}

impl LogConfig {
    /// Checks bounds, and values against each other.
    pub fn validate(&self) -> Result<()> {
        let refuse = |detail: String| Err(StoreError::Config { detail });
        if !(SEGMENT_BYTES_MIN..=SEGMENT_BYTES_MAX).contains(&self.segment_bytes) {
            return refuse(format!(
                "segment_bytes is {}, must be in {SEGMENT_BYTES_MIN}..={SEGMENT_BYTES_MAX}",
                self.segment_bytes
            ));
        }
        if self.group_bytes_max == 0 || self.pending_bytes_max < self.group_bytes_max {
            return refuse(format!(
                "group_bytes_max is {} and pending_bytes_max {}: the first must be above 0 and not above the second",
                self.group_bytes_max, self.pending_bytes_max
            ));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Catches defaults that the validation itself refuses, and messages that do not name the
    /// values.
    #[test]
    fn defaults_are_valid_and_refusals_name_the_pair() {
        assert!(LogConfig::default().validate().is_ok());
        let error = LogConfig {
            pending_bytes_max: 7,
            ..LogConfig::default()
        }
        .validate()
        .unwrap_err();
        assert!(error.to_string().contains("pending_bytes_max 7"), "{error}");
        assert!(
            LogConfig {
                segment_bytes: 1,
                ..LogConfig::default()
            }
            .validate()
            .is_err()
        );
    }
}
