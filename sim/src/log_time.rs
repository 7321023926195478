//! The time that a log tells people, beside the right one: whether all clocks together led it astray, and whether it came back.
//!
//! Only time that is ahead counts: what is behind follows at once.

use std::sync::{Arc, Mutex, PoisonError};

use crate::clock::right_ms;
use crate::effect::Effect;
use crate::trace::Trace;

/// What a log may be ahead: as much as brokers let it be, and what their clocks may differ by and agree.
const AHEAD_MS_MAX: u64 = 15_000;

/// Of one broker group.
pub struct LogTime {
    trace: Arc<Trace>,
    /// By how much the newest entry is ahead, in milliseconds, where that is too much.
    ahead_ms: Mutex<Option<u64>>,
}

impl LogTime {
    /// Right, until it is seen.
    pub fn new(trace: Arc<Trace>) -> LogTime {
        LogTime {
            trace,
            ahead_ms: Mutex::default(),
        }
    }

    /// The newest entry says that it was that late.
    pub fn seen(&self, time_ms: u64) {
        let ahead_ms = time_ms.saturating_sub(right_ms());
        let ahead_ms = Some(ahead_ms).filter(|ms| *ms > AHEAD_MS_MAX);
        let mut known = self.ahead_ms.lock().unwrap_or_else(PoisonError::into_inner);
        match (*known, ahead_ms) {
            (None, Some(_)) => self.trace.happened(Effect::LogTimeAhead),
            (Some(_), None) => self.trace.happened(Effect::LogTimeLedBack),
            _ => {}
        }
        *known = ahead_ms;
    }

    /// By how much it is ahead.
    ///
    /// # Errors
    /// It is ahead by more than it may be.
    pub fn is_right(&self) -> Result<(), String> {
        let known = *self.ahead_ms.lock().unwrap_or_else(PoisonError::into_inner);
        match known {
            None => Ok(()),
            Some(ms) => Err(format!("a log's time is {ms} ms ahead")),
        }
    }
}
