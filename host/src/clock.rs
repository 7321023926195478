//! Wall time, for stamps and leases. Waiting is `tokio::time`'s business, not this trait's.

use std::time::{SystemTime, UNIX_EPOCH};

/// Tells what time it is.
pub trait Clock: Send + Sync + 'static {
    /// Milliseconds since the Unix epoch. May go backwards: whoever stamps must not trust it to be
    /// monotonic.
    fn now_ms(&self) -> u64;
}

/// The operating system's clock.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    #[expect(
        clippy::disallowed_methods,
        reason = "this is the seam that others must ask"
    )]
    fn now_ms(&self) -> u64 {
        // A clock set before 1970 reads as 0 rather than stopping the process.
        SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |elapsed| {
                u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX)
            })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Catches a clock in seconds or microseconds.
    #[test]
    fn the_system_clock_counts_milliseconds() {
        let year_2020_ms = 1_577_836_800_000;
        let year_2200_ms = 7_258_118_400_000;
        assert!((year_2020_ms..year_2200_ms).contains(&SystemClock.now_ms()));
    }
}
