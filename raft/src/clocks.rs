//! What the replicas' clocks say, and what a majority of them agrees on.
//!
//! Each replica asks the others for their time when it introduces itself, and reckons on from the answer by its own
//! monotonic clock: what its own wall clock is set to has no part in that. A time that a majority of the voters' clocks
//! agree on, its own among them or not, is the group's; else nobody knows. (The idea of Marzullo's algorithm, "Maintaining
//! the Time in a Distributed System", 1984: the interval that most sources can be right about.)
//!
//! Decides nothing, waits for nobody.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use host::Clock;
use proto::TimestampMs;
use tokio::time::Instant;

/// How far apart clocks may be that agree, in milliseconds. Far more than synchronised clocks ever are and an answer
/// takes, far less than what harms anybody.
pub(crate) const APART_MS_MAX: u64 = 5_000;

/// For how long an answer counts: many introductions, and so short that a clock's drift does not matter.
const READING_AGE_MAX: Duration = Duration::from_secs(10);

/// What a group's clocks say, to one of its replicas.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ClockStatus {
    /// What a majority agrees on, in milliseconds since the Unix epoch; none if too few are known, or they do not agree.
    pub agreed_ms: Option<TimestampMs>,
    /// This replica's own clock, in milliseconds since the Unix epoch.
    pub own_ms: TimestampMs,
    /// Voters whose clocks are known, this one among them.
    pub known: usize,
    /// All voters.
    pub voters: usize,
}

impl ClockStatus {
    /// How far this replica's clock is from what a majority agrees on, in milliseconds: positive where it is ahead. None
    /// if it agrees, or nobody knows.
    pub fn apart_ms(&self) -> Option<i64> {
        let ahead_ms = difference(self.own_ms, self.agreed_ms?);
        (ahead_ms.unsigned_abs() > APART_MS_MAX).then_some(ahead_ms)
    }
}

/// A replica's clock at an instant.
#[derive(Clone, Copy, Debug)]
struct Reading {
    clock_ms: TimestampMs,
    at: Instant,
}

/// The clocks of a group as one replica knows them.
pub(crate) struct Clocks {
    own_id: u64,
    own: Arc<dyn Clock>,
    known: Mutex<Known>,
}

#[derive(Default)]
struct Known {
    voters: Vec<u64>,
    readings: BTreeMap<u64, Reading>,
}

impl Clocks {
    pub(crate) fn new(own_id: u64, own: Arc<dyn Clock>, voters: Vec<u64>) -> Clocks {
        let known = Known {
            voters,
            readings: BTreeMap::new(),
        };
        Clocks {
            own_id,
            own,
            known: Mutex::new(known),
        }
    }

    pub(crate) fn own_ms(&self) -> TimestampMs {
        self.own.now_ms()
    }

    /// Whose clocks count from now on.
    pub(crate) fn set_voters(&self, voters: Vec<u64>) {
        let mut known = self.known();
        known.readings.retain(|id, _| voters.contains(id));
        known.voters = voters;
    }

    /// A replica answered `clock_ms`, some time between two instants.
    pub(crate) fn heard(
        &self,
        broker_id: u64,
        clock_ms: TimestampMs,
        asked: Instant,
        now: Instant,
    ) {
        let way = now.saturating_duration_since(asked);
        let too_unsure = way.as_millis() as u64 > APART_MS_MAX / 2;
        // 0: it does not say.
        if clock_ms == 0 || too_unsure {
            return;
        }
        let at = asked + way / 2;
        self.known()
            .readings
            .insert(broker_id, Reading { clock_ms, at });
    }

    /// What the clocks say now.
    pub(crate) fn status(&self) -> ClockStatus {
        self.judge(Instant::now())
    }

    /// Whether another replica's clock is near what a majority agrees on: half as far as may be, so that whoever leads
    /// because of it goes on leading.
    pub(crate) fn is_right(&self, broker_id: u64) -> bool {
        let now = Instant::now();
        let Some(agreed_ms) = self.judge(now).agreed_ms else {
            return false;
        };
        let reading = self.known().readings.get(&broker_id).copied();
        reading
            .and_then(|reading| reading.at(now))
            .is_some_and(|clock_ms| clock_ms.abs_diff(agreed_ms) <= APART_MS_MAX / 2)
    }

    fn judge(&self, now: Instant) -> ClockStatus {
        let own_ms = self.own.now_ms();
        let known = self.known();
        let of_voter = |voter: &u64| match *voter == self.own_id {
            true => Some(own_ms),
            false => known.readings.get(voter)?.at(now),
        };
        let mut clocks: Vec<TimestampMs> = known.voters.iter().filter_map(of_voter).collect();
        clocks.sort_unstable();
        ClockStatus {
            agreed_ms: agreed(&clocks, known.voters.len() / 2 + 1),
            own_ms,
            known: clocks.len(),
            voters: known.voters.len(),
        }
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        // Plain values: nothing is half done if a holder panicked.
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Reading {
    fn at(self, now: Instant) -> Option<TimestampMs> {
        let since = now.saturating_duration_since(self.at);
        let since = Some(since).filter(|since| *since <= READING_AGE_MAX)?;
        Some(self.clock_ms.saturating_add(since.as_millis() as u64))
    }
}

/// The middle of the closest clocks that are a majority, if those agree. `clocks` are sorted.
fn agreed(clocks: &[TimestampMs], majority: usize) -> Option<TimestampMs> {
    let closest = clocks
        .windows(majority)
        .min_by_key(|window| window[majority - 1] - window[0])?;
    let (first, last) = (closest[0], closest[majority - 1]);
    (last - first <= APART_MS_MAX).then(|| first + (last - first) / 2)
}

fn difference(left: u64, right: u64) -> i64 {
    let apart = i64::try_from(left.abs_diff(right)).unwrap_or(i64::MAX);
    if left >= right { apart } else { -apart }
}

#[cfg(test)]
mod tests {
    use host::testing::ManualClock;

    use super::*;

    const NOW_MS: u64 = 1_800_000_000_000;
    const YEAR_MS: u64 = 365 * 86_400_000;

    fn clocks(own_ms: u64, voters: u64) -> Clocks {
        let own = Arc::new(ManualClock::new(own_ms));
        Clocks::new(1, own, (1..=voters).collect())
    }

    /// Would catch one clock that moves the group's time, a minority that is believed, and a replica that takes its own
    /// clock for right against all others.
    #[tokio::test]
    async fn one_wrong_clock_moves_nothing() {
        let now = Instant::now();
        for wrong_ms in [
            0,
            NOW_MS - YEAR_MS,
            NOW_MS - 6_000,
            NOW_MS + 6_000,
            NOW_MS + YEAR_MS,
            u64::MAX,
        ] {
            let own_is_wrong = clocks(wrong_ms, 3);
            own_is_wrong.heard(2, NOW_MS, now, now);
            own_is_wrong.heard(3, NOW_MS + 40, now, now);
            let status = own_is_wrong.judge(now);
            assert_eq!(status.agreed_ms, Some(NOW_MS + 20), "{wrong_ms}");
            assert!(status.apart_ms().is_some(), "{wrong_ms}");
            assert_eq!(status.apart_ms().unwrap() > 0, wrong_ms > NOW_MS);

            let other_is_wrong = clocks(NOW_MS, 3);
            other_is_wrong.heard(2, wrong_ms, now, now);
            assert_eq!(
                other_is_wrong.judge(now).agreed_ms,
                None,
                "one of three is away"
            );
            assert_eq!(other_is_wrong.judge(now).apart_ms(), None);
            other_is_wrong.heard(3, NOW_MS + 40, now, now);
            assert_eq!(other_is_wrong.judge(now).agreed_ms, Some(NOW_MS + 20));
            assert_eq!(other_is_wrong.judge(now).apart_ms(), None);
            assert!(other_is_wrong.is_right(3) && !other_is_wrong.is_right(2));
        }
        let all_apart = clocks(NOW_MS, 3);
        all_apart.heard(2, NOW_MS + 6_000, now, now);
        all_apart.heard(3, NOW_MS - 6_000, now, now);
        assert_eq!(all_apart.judge(now).agreed_ms, None);
        assert_eq!(clocks(NOW_MS, 1).judge(now).agreed_ms, Some(NOW_MS));
    }

    /// Would catch an answer that counts for ever or does not grow older, one that took too long, and clocks of those
    /// who do not vote.
    #[tokio::test]
    async fn answers_go_on_for_a_while() {
        let begin = Instant::now();
        let known = clocks(NOW_MS + 9_000, 3);
        known.heard(2, NOW_MS, begin, begin);
        known.heard(3, NOW_MS, begin, begin + Duration::from_secs(6));
        known.heard(4, NOW_MS, begin, begin);
        assert_eq!(known.judge(begin).known, 2);
        assert_eq!(known.judge(begin).agreed_ms, None);
        let later = begin + Duration::from_secs(9);
        assert_eq!(known.judge(later).agreed_ms, Some(NOW_MS + 9_000));
        let too_late = later + Duration::from_secs(2);
        assert_eq!(known.judge(too_late).known, 1);
        known.set_voters(vec![1]);
        assert_eq!(known.judge(too_late).agreed_ms, Some(NOW_MS + 9_000));
    }
}
