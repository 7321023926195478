//! Whether there is room for more messages. Measured by the ticker, asked by every send.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::grpc::status::{Refusal, disk_nearly_full};

/// Free space of the data directory's disk, as last seen.
#[derive(Debug)]
pub(crate) struct DiskSpace {
    free_bytes: AtomicU64,
    needed_bytes: u64,
}

impl DiskSpace {
    /// Full enough to refuse once less than `needed_bytes` are free.
    pub(crate) fn new(needed_bytes: u64) -> DiskSpace {
        DiskSpace {
            free_bytes: AtomicU64::new(u64::MAX),
            needed_bytes,
        }
    }

    /// Remembers a measurement.
    pub(crate) fn measured(&self, free_bytes: u64) {
        let before = self.free_bytes.swap(free_bytes, Ordering::Relaxed);
        if (before < self.needed_bytes) != (free_bytes < self.needed_bytes) {
            tracing::warn!(
                free_bytes,
                needed_bytes = self.needed_bytes,
                refusing = free_bytes < self.needed_bytes,
                "free space of the disk crossed the bound for sends"
            );
        }
    }

    /// Bytes that were free when last measured; `None` before that.
    pub(crate) fn free_bytes(&self) -> Option<u64> {
        let free_bytes = self.free_bytes.load(Ordering::Relaxed);
        (free_bytes != u64::MAX).then_some(free_bytes)
    }

    /// Bytes that must be free for sends to be taken.
    pub(crate) fn needed_bytes(&self) -> u64 {
        self.needed_bytes
    }

    /// Refuses when the disk is nearly full.
    pub(crate) fn check(&self) -> Result<(), Refusal> {
        let free_bytes = self.free_bytes.load(Ordering::Relaxed);
        if free_bytes >= self.needed_bytes {
            return Ok(());
        }
        Err(disk_nearly_full(format!(
            "the disk of the broker is nearly full: {free_bytes} bytes are free, {} are needed",
            self.needed_bytes
        )))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Catches a broker that goes on refusing after room was made.
    #[test]
    fn the_bound_is_crossed_both_ways() {
        let space = DiskSpace::new(100);
        assert!(space.check().is_ok());
        space.measured(99);
        assert!(space.check().unwrap_err().reason.contains("nearly full"));
        space.measured(100);
        assert!(space.check().is_ok());
    }
}
