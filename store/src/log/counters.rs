//! What the log has done since it was opened.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Buckets of [`LogCounters::sync_time_us`]: bucket `n` counts syncs of less than `2^n`
/// microseconds that are in no bucket before it; the last one counts all that were longer.
pub const SYNC_TIME_BUCKETS: usize = 24;

/// What the log has done since it was opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LogCounters {
    /// Entries synced.
    pub entries: u64,
    /// Bytes written to segments.
    pub bytes_written: u64,
    /// Groups written and synced.
    pub syncs: u64,
    /// How long they took, in microseconds.
    pub sync_time_us: [u64; SYNC_TIME_BUCKETS],
    /// Segments begun.
    pub segments_begun: u64,
    /// Segments whose file was not ready when it was needed.
    pub segments_late: u64,
    /// Segment files reused.
    pub segments_recycled: u64,
    /// Entries read from memory.
    pub reads_from_memory: u64,
    /// Entries read from the disk.
    pub reads_from_disk: u64,
    /// Index files that had to be rebuilt.
    pub indexes_rebuilt: u64,
}

#[derive(Default)]
pub(crate) struct Counters {
    pub(crate) entries: AtomicU64,
    pub(crate) bytes_written: AtomicU64,
    pub(crate) syncs: AtomicU64,
    sync_time_us: [AtomicU64; SYNC_TIME_BUCKETS],
    pub(crate) segments_begun: AtomicU64,
    pub(crate) segments_late: AtomicU64,
    pub(crate) segments_recycled: AtomicU64,
    pub(crate) reads_from_memory: AtomicU64,
    pub(crate) reads_from_disk: AtomicU64,
    pub(crate) indexes_rebuilt: AtomicU64,
}

impl Counters {
    pub(crate) fn add(counter: &AtomicU64, by: u64) {
        counter.fetch_add(by, Ordering::Relaxed);
    }

    pub(crate) fn sync_took(&self, elapsed: Duration) {
        let micros = u64::try_from(elapsed.as_micros()).unwrap_or(u64::MAX);
        let bucket = (u64::BITS - micros.leading_zeros()) as usize;
        Self::add(&self.sync_time_us[bucket.min(SYNC_TIME_BUCKETS - 1)], 1);
    }

    pub(crate) fn snapshot(&self) -> LogCounters {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        LogCounters {
            entries: read(&self.entries),
            bytes_written: read(&self.bytes_written),
            syncs: read(&self.syncs),
            sync_time_us: std::array::from_fn(|bucket| read(&self.sync_time_us[bucket])),
            segments_begun: read(&self.segments_begun),
            segments_late: read(&self.segments_late),
            segments_recycled: read(&self.segments_recycled),
            reads_from_memory: read(&self.reads_from_memory),
            reads_from_disk: read(&self.reads_from_disk),
            indexes_rebuilt: read(&self.indexes_rebuilt),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Catches a long sync that falls out of the histogram.
    #[test]
    fn every_sync_falls_into_a_bucket() {
        let counters = Counters::default();
        for micros in [0, 1, 2, 3, 100, u64::MAX] {
            counters.sync_took(Duration::from_micros(micros));
        }
        let buckets = counters.snapshot().sync_time_us;
        assert_eq!(
            (buckets[0], buckets[1], buckets[2], buckets[7]),
            (1, 1, 2, 1)
        );
        assert_eq!(buckets[SYNC_TIME_BUCKETS - 1], 1);
    }
}
