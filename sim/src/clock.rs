//! A machine's clock: simulated time with an offset and a drift of its own.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, UNIX_EPOCH};

use host::Clock;
use madsim::time::TimeHandle;

use crate::trace::now;

/// Tells a machine what time it is.
#[derive(Debug, Default)]
pub struct SimClock {
    skew: Mutex<Skew>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Skew {
    offset_ms: i64,
    /// Gained in a million milliseconds.
    drift_ppm: i64,
    /// When it began to drift.
    since: Duration,
}

impl Skew {
    fn ms(self) -> i64 {
        let drifting = now().saturating_sub(self.since).as_millis() as i64;
        self.offset_ms + drifting * self.drift_ppm / 1_000_000
    }
}

/// What time it is, in milliseconds since the Unix epoch: no clock of the world says so.
pub fn right_ms() -> u64 {
    let time = TimeHandle::current().now_time();
    let right = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    right.as_millis() as u64
}

impl SimClock {
    /// Sets it to so much more than the right time.
    pub fn set_ms(&self, ahead_ms: i64) {
        *self.skew() = Skew {
            offset_ms: ahead_ms,
            ..Skew::default()
        };
    }

    /// Sets the clock forward or back.
    pub fn jump_ms(&self, by_ms: i64) {
        self.skew().offset_ms += by_ms;
    }

    /// Lets it run fast or slow from now on.
    pub fn drift_ppm(&self, drift_ppm: i64) {
        let mut skew = self.skew();
        *skew = Skew {
            offset_ms: skew.ms(),
            drift_ppm,
            since: now(),
        };
    }

    /// Sets it right.
    pub fn heal(&self) {
        *self.skew() = Skew::default();
    }

    fn skew(&self) -> MutexGuard<'_, Skew> {
        self.skew.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Clock for SimClock {
    fn now_ms(&self) -> u64 {
        let skew = *self.skew();
        right_ms().saturating_add_signed(skew.ms())
    }
}
