//! The log's time: what entries are stamped with, and what everything that expires or waits goes by.
//!
//! Two numbers. `passed_ms` is how much time has passed along the log. Each replica knows it from the entries that it
//! applies, and goes on from there by its own monotonic clock: nobody can set that, and it cannot be ahead of what
//! really passed. All that is dropped, forgotten or released goes by it. `time_ms` says what time it was, for people:
//! that of a majority of the replicas' clocks; while they do not agree, or are not known, the last entry's time and
//! what has passed since.
//!
//! Must never delete, expire or release by a clock that can be set.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use host::Clock;
use proto::TimestampMs;
use tokio::time::Instant;

use crate::machine::entry::STEP_MS_MAX;

/// How far the log may be ahead of the clocks without being set back: until they have caught up its time goes on at
/// half speed.
const AHEAD_MS_MAX: u64 = 10_000;

/// How long the log must have been further ahead than that: clocks that were set wrong by mistake are often set right
/// again.
const AHEAD_DURATION: Duration = Duration::from_secs(60);

/// A moment as the log tells it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Moment {
    /// Milliseconds since the Unix epoch. May go back; decides nothing.
    pub(crate) time_ms: TimestampMs,
    /// Milliseconds that have passed along the log. Never decreases.
    pub(crate) passed_ms: u64,
}

/// What time a majority of the replicas' clocks say it is, in milliseconds since the Unix epoch; none while that is
/// not known.
pub(crate) type AgreedTime = Box<dyn Fn() -> Option<TimestampMs> + Send + Sync>;

/// The term in which this replica serves as the leader, if it does.
pub(crate) type Leads = Box<dyn Fn() -> Option<u64> + Send + Sync>;

/// Tells the time. Shared by the proposer and whoever waits for a moment of the log's time.
pub(crate) struct LogTime {
    clock: Arc<dyn Clock>,
    agreed: AgreedTime,
    leads: Leads,
    memory: Mutex<Memory>,
}

#[derive(Default)]
struct Memory {
    /// What had passed at an instant: it goes on from there.
    passed: Option<(u64, Instant)>,
    /// What the last entry said that was heard of.
    applied_ms: Option<u64>,
    /// The term in which this replica led then.
    term: Option<u64>,
    /// Since when the log is too far ahead of the clocks.
    ahead: Option<Instant>,
    told_ms: TimestampMs,
}

impl LogTime {
    /// `clock` is this replica's: believed only for the first entry of a group whose clocks do not agree.
    pub(crate) fn new(clock: Arc<dyn Clock>, agreed: AgreedTime, leads: Leads) -> LogTime {
        LogTime {
            clock,
            agreed,
            leads,
            memory: Mutex::default(),
        }
    }

    /// The moment that it is, when the last applied entry said `applied`. Asked regularly on every replica: what
    /// passes without an entry is known only to who was there.
    pub(crate) fn now(&self, applied: Moment) -> Moment {
        self.tell(applied, Instant::now())
    }

    fn tell(&self, applied: Moment, now: Instant) -> Moment {
        let agreed_ms = match (self.agreed)() {
            None if applied.time_ms == 0 => Some(self.clock.now_ms()),
            agreed_ms => agreed_ms,
        };
        // Each of the parts is replaced as a whole.
        let mut memory = self.memory.lock().unwrap_or_else(PoisonError::into_inner);
        let passed_ms = memory.pass(applied, now, (self.leads)());
        let since_ms = passed_ms - applied.passed_ms;
        let expected_ms = applied.time_ms.saturating_add(since_ms);
        let agreed_ms = agreed_ms.unwrap_or(expected_ms);
        let set_back = memory.is_set_back(expected_ms, agreed_ms, now);
        let mut time_ms = agreed_ms;
        if agreed_ms < expected_ms && !set_back {
            time_ms = agreed_ms.max(applied.time_ms.saturating_add(since_ms / 2));
        }
        // Entries under way are not applied yet: none stands behind them because of a rounding.
        if !set_back && memory.told_ms <= time_ms.saturating_add(AHEAD_MS_MAX) {
            time_ms = time_ms.max(memory.told_ms);
        }
        memory.told_ms = time_ms;
        Moment { time_ms, passed_ms }
    }
}

impl Memory {
    /// How much has passed by now, when the last applied entry said `applied`. Nothing passes before the first entry: a
    /// replica that was there earlier than the first leader would be ahead of it.
    ///
    /// Whoever does not lead begins anew with each entry, and so is behind whoever does, by the entry's way here: if it leads
    /// next, what waits may wait that much longer. Had it gone on with a count of its own that is ahead, as one that led
    /// before has, what waits would be released that much too early.
    fn pass(&mut self, applied: Moment, now: Instant, leads: Option<u64>) -> u64 {
        let applied_ms = applied.passed_ms;
        let goes_on = leads.is_some() && leads == self.term;
        let led_before = self.term.is_some() && leads.is_some();
        let heard = self.applied_ms.replace(applied_ms) != Some(applied_ms);
        self.term = leads;
        if applied.time_ms == 0 {
            self.passed = None;
            return applied_ms;
        }
        if !goes_on && (heard || led_before) {
            self.passed = Some((applied_ms, now));
        }
        let line_ms = self.passed.map(|(passed_ms, at)| {
            let since = now.saturating_duration_since(at).as_millis();
            passed_ms.saturating_add(u64::try_from(since).unwrap_or(u64::MAX))
        });
        // A step that no entry could make is forgotten, not saved up for the entries after it.
        let most_ms = applied_ms.saturating_add(STEP_MS_MAX);
        let passed_ms = line_ms.unwrap_or(applied_ms).clamp(applied_ms, most_ms);
        if line_ms != Some(passed_ms) {
            self.passed = Some((passed_ms, now));
        }
        passed_ms
    }

    /// Whether the log takes over a time that lies behind its own: it was too far ahead for long enough.
    fn is_set_back(&mut self, expected_ms: u64, agreed_ms: u64, now: Instant) -> bool {
        if expected_ms <= agreed_ms.saturating_add(AHEAD_MS_MAX) {
            self.ahead = None;
            return false;
        }
        let since = *self.ahead.get_or_insert(now);
        now.saturating_duration_since(since) >= AHEAD_DURATION
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use host::testing::ManualClock;

    use super::*;

    const DAY_MS: u64 = 86_400_000;

    /// What the clocks say, 0 for nothing.
    fn log_time(own_ms: u64) -> (LogTime, Arc<AtomicU64>) {
        let agreed = Arc::new(AtomicU64::new(0));
        let of_time = agreed.clone();
        let told = move || Some(of_time.load(Ordering::SeqCst)).filter(|ms| *ms > 0);
        let clock = Arc::new(ManualClock::new(own_ms));
        (
            LogTime::new(clock, Box::new(told), Box::new(|| Some(1))),
            agreed,
        )
    }

    fn moment(time_ms: u64, passed_ms: u64) -> Moment {
        Moment { time_ms, passed_ms }
    }

    /// Would catch time that passes because a clock says so, that stands still because it was set back, and a replica
    /// that counts what others have counted already.
    #[tokio::test]
    async fn what_passes_is_measured_by_nobodys_clock() {
        let (time, agreed) = log_time(5);
        let mut now = Instant::now();
        for (agreed_ms, expected_ms) in [(DAY_MS, 0), (2_000 * DAY_MS, 1_000), (1, 2_000)] {
            agreed.store(agreed_ms, Ordering::SeqCst);
            assert_eq!(time.tell(moment(DAY_MS, 0), now).passed_ms, expected_ms);
            now += Duration::from_millis(1_000);
        }
        let ahead = moment(DAY_MS, 10_000);
        assert_eq!(time.tell(ahead, now).passed_ms, 10_000);
        now += Duration::from_millis(300);
        assert_eq!(time.tell(ahead, now).passed_ms, 10_300);
        // Of a monotonic clock that leaps, one step counts, and once.
        now += Duration::from_secs(400 * 86_400);
        assert_eq!(time.tell(ahead, now).passed_ms, 10_000 + STEP_MS_MAX);
        let applied = moment(DAY_MS, 10_000 + STEP_MS_MAX);
        now += Duration::from_millis(7);
        assert_eq!(time.tell(applied, now).passed_ms, 10_007 + STEP_MS_MAX);
    }

    /// Would catch a retry that comes early because the next leader counted from an earlier moment than the one that said
    /// when it is due, and time that stands still while somebody leads.
    #[test]
    fn whoever_leads_next_is_never_ahead() {
        let mut memory = Memory::default();
        let start = Instant::now();
        let mut pass = |applied_ms, after_ms, leads| {
            let at = start + Duration::from_millis(after_ms);
            memory.pass(moment(DAY_MS, applied_ms), at, leads)
        };
        assert_eq!(pass(0, 0, Some(5)), 0);
        assert_eq!(pass(0, 100, Some(5)), 100);
        assert_eq!(
            pass(90, 110, Some(5)),
            110,
            "its own entry takes nothing back"
        );
        // Another leader's, whose count is 15 ms behind, and whose entries take 5 ms to arrive.
        assert_eq!(pass(90, 120, None), 120, "nothing new was heard");
        assert_eq!(pass(180, 200, None), 180);
        assert_eq!(pass(180, 260, None), 240, "it was there meanwhile");
        assert_eq!(pass(280, 300, None), 280);
        assert_eq!(pass(280, 310, Some(6)), 290, "and goes on from there");
        assert_eq!(pass(290, 320, Some(6)), 300);
        // It lost the lead and has it again, and nobody asked in between.
        assert_eq!(pass(380, 420, Some(8)), 380);
        assert_eq!(pass(380, 430, Some(8)), 390);
    }

    /// Would catch stamps by one replica's clock, and time that stands still or leaps while the clocks do not agree.
    #[tokio::test]
    async fn stamps_say_what_a_majority_says() {
        let (time, agreed) = log_time(5);
        let mut now = Instant::now();
        assert_eq!(time.tell(Moment::default(), now).time_ms, 5);
        // Whoever waited for the first entry is not ahead of who wrote it.
        now += Duration::from_secs(9);
        assert_eq!(time.tell(Moment::default(), now), moment(5, 0));
        assert_eq!(time.tell(moment(5, 0), now), moment(5, 0));
        now += Duration::from_millis(100);
        assert_eq!(time.tell(moment(5, 0), now), moment(105, 100));
        agreed.store(DAY_MS, Ordering::SeqCst);
        assert_eq!(time.tell(moment(5, 0), now).time_ms, DAY_MS);
        agreed.store(0, Ordering::SeqCst);
        now += Duration::from_millis(50);
        assert_eq!(
            time.tell(moment(DAY_MS, 100), now),
            moment(DAY_MS + 50, 150)
        );
    }

    /// Would catch time that goes back for a small difference, and a log that stays a year ahead for a year.
    #[tokio::test]
    async fn a_log_that_is_ahead_is_led_back() {
        let (time, agreed) = log_time(5);
        let mut now = Instant::now();
        let mut applied = moment(20_000, 0);
        agreed.store(15_000, Ordering::SeqCst);
        for (agreed_ms, expected_ms) in [(15_000, 20_000), (19_000, 22_000), (30_000, 30_000)] {
            agreed.store(agreed_ms, Ordering::SeqCst);
            applied = time.tell(applied, now);
            assert_eq!(applied.time_ms, expected_ms);
            now += Duration::from_millis(4_000);
        }
        let mut applied = moment(400 * DAY_MS, applied.passed_ms);
        let begin = now;
        for second in 0..=60 {
            now = begin + Duration::from_secs(second);
            agreed.store(DAY_MS + second, Ordering::SeqCst);
            let told = time.tell(applied, now);
            assert_eq!(told.time_ms < 400 * DAY_MS, second == 60, "{second}");
            applied = told;
        }
        assert_eq!(applied.time_ms, DAY_MS + 60);
        now += Duration::from_millis(10);
        agreed.store(DAY_MS + 70, Ordering::SeqCst);
        assert_eq!(time.tell(applied, now).time_ms, DAY_MS + 70);
    }
}
