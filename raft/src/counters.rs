//! What a replica counts, for operators and metrics. Decides nothing.

use std::sync::atomic::{AtomicU64, Ordering};

/// Counts since the process started.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) segments_repaired: AtomicU64,
    pub(crate) entries_repaired: AtomicU64,
    pub(crate) segments_scrubbed: AtomicU64,
    pub(crate) damage_found: AtomicU64,
    pub(crate) snapshots_sent: AtomicU64,
    pub(crate) snapshots_installed: AtomicU64,
    pub(crate) checkpoints_made: AtomicU64,
}

impl Counters {
    pub(crate) fn add(counter: &AtomicU64, count: u64) {
        counter.fetch_add(count, Ordering::Relaxed);
    }
}
