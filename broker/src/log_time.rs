//! The log's time as the leader tells it: what it stamps entries with, and what due times are compared with.
//!
//! It is the clock's time where that is ahead of the log. A clock that is behind, because it was set back or
//! a former leader's was fast, would make time stand still and everything that waits for it wait as long as
//! the clocks are apart. So time goes on at half speed there, until the clock has caught up. Never goes back.

use std::sync::{Arc, Mutex, PoisonError};

use host::Clock;
use proto::TimestampMs;
use tokio::time::Instant;

/// Tells the time. Shared by the proposer and whoever waits for a moment of the log's time.
pub(crate) struct LogTime {
    clock: Arc<dyn Clock>,
    /// A time that was told, and since when it goes on at half speed.
    behind: Mutex<Option<(TimestampMs, Instant)>>,
}

impl LogTime {
    pub(crate) fn new(clock: Arc<dyn Clock>) -> LogTime {
        LogTime {
            clock,
            behind: Mutex::default(),
        }
    }

    /// The time now, when the last applied entry carried `applied_ms`.
    pub(crate) fn now_ms(&self, applied_ms: TimestampMs) -> TimestampMs {
        self.tell(applied_ms, Instant::now())
    }

    fn tell(&self, applied_ms: TimestampMs, now: Instant) -> TimestampMs {
        let clock_ms = self.clock.now_ms();
        // The pair is replaced as a whole.
        let mut behind = self.behind.lock().unwrap_or_else(PoisonError::into_inner);
        let slow_ms = behind.map_or(0, |(since_ms, since)| {
            let passed = now.saturating_duration_since(since).as_millis() as u64;
            since_ms.saturating_add(passed / 2)
        });
        let told_ms = applied_ms.max(slow_ms).max(clock_ms);
        if told_ms != slow_ms || clock_ms == slow_ms {
            *behind = Some((told_ms, now));
        }
        told_ms
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use host::testing::ManualClock;

    use super::*;

    /// Would catch time that goes back or stands still when a clock is set back, and time that stays ahead
    /// of the clock for ever.
    #[tokio::test]
    async fn time_goes_on_at_half_speed_while_the_clock_is_behind() {
        let clock = Arc::new(ManualClock::new(1_000));
        let time = LogTime::new(clock.clone());
        let mut now = Instant::now();
        assert_eq!(time.tell(0, now), 1_000);
        assert_eq!(time.tell(5_000, now), 5_000);
        for expected in [6_000, 7_000, 8_000] {
            now += Duration::from_secs(2);
            clock.advance_ms(2_000);
            assert_eq!(time.tell(5_000, now), expected);
        }
        clock.advance_ms(4_000);
        assert_eq!(time.tell(5_000, now), 11_000);
        clock.set_ms(3_000);
        assert_eq!(time.tell(5_000, now), 11_000);
        now += Duration::from_millis(2_001);
        assert_eq!(time.tell(5_000, now), 12_000);
    }
}
