//! Which broker groups to keep away from for a while, by how long they took and whether they failed: RocketMQ's latency
//! fault tolerance. A preference only: what must go to a group goes there. Pure but for its lock.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::time::Instant;

/// Who took so many milliseconds is kept away from for so many.
const STEPS_MS: [(u64, u64); 7] = [
    (50, 0),
    (100, 0),
    (550, 2_000),
    (1_800, 5_000),
    (3_000, 6_000),
    (5_000, 10_000),
    (15_000, 30_000),
];
/// What a failure counts as.
const FAILURE: Duration = Duration::from_millis(10_000);

/// See the module's text.
#[derive(Debug)]
pub(super) struct FaultTable {
    on: bool,
    until: Mutex<BTreeMap<Arc<str>, Instant>>,
}

impl FaultTable {
    /// A table that avoids nobody unless it is `on`.
    pub(super) fn new(on: bool) -> FaultTable {
        FaultTable {
            on,
            until: Mutex::default(),
        }
    }

    pub(super) fn is_on(&self) -> bool {
        self.on
    }

    /// A request to a broker group took so long, and failed or did not.
    pub(super) fn observe(&self, group: &Arc<str>, took: Duration, failed: bool, now: Instant) {
        if !self.on {
            return;
        }
        let away = keep_away(if failed { FAILURE } else { took });
        let mut until = self.lock();
        match away.is_zero() {
            true => until.remove(group),
            false => until.insert(group.clone(), now + away),
        };
    }

    /// The broker groups to keep away from now.
    pub(super) fn avoided(&self, now: Instant) -> BTreeSet<Arc<str>> {
        let mut until = self.lock();
        until.retain(|_, until| *until > now);
        until.keys().cloned().collect()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<Arc<str>, Instant>> {
        self.until
            .lock()
            .expect("nothing panics while the table is locked")
    }
}

fn keep_away(took: Duration) -> Duration {
    let mut steps = STEPS_MS.iter().rev();
    let step = steps.find(|(from, _)| took >= Duration::from_millis(*from));
    step.map_or(Duration::ZERO, |(_, away)| Duration::from_millis(*away))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Catches another table than the one that is documented, and one that keeps away for ever.
    #[test]
    fn who_was_slow_is_avoided_for_as_long_as_the_table_says() {
        for (took_ms, away_ms) in [
            (0, 0),
            (549, 0),
            (550, 2_000),
            (4_999, 6_000),
            (60_000, 30_000),
        ] {
            let away = keep_away(Duration::from_millis(took_ms));
            assert_eq!(away, Duration::from_millis(away_ms), "{took_ms} ms");
        }
        let (table, now) = (FaultTable::new(true), Instant::now());
        let (a, b): (Arc<str>, Arc<str>) = ("a".into(), "b".into());
        table.observe(&a, Duration::ZERO, true, now);
        table.observe(&b, Duration::from_millis(600), false, now);
        assert_eq!(table.avoided(now).len(), 2);
        table.observe(&b, Duration::from_millis(10), false, now);
        assert_eq!(
            table.avoided(now),
            BTreeSet::from([a.clone()]),
            "b is well again"
        );
        assert!(table.avoided(now + Duration::from_secs(10)).is_empty());
        let off = FaultTable::new(false);
        off.observe(&a, Duration::ZERO, true, now);
        assert!(off.avoided(now).is_empty());
    }
}
