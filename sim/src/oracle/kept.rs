//! What is kept by age stays for its time, whatever any clock says, and not much longer; what waits, waits.
//!
//! Ages are those of the simulated time, which no clock of the world shows.

use std::collections::BTreeMap;

use super::Model;
use crate::history::{Event, Outcome, Place, Queue};
use crate::operator::DEAD_LETTERS;
use crate::violation::Violation;

/// What a message may be late beside its time once more, in nanoseconds: nobody leads for a while, and what passed while all
/// replicas were away is not counted.
const LATE_NS: u64 = 20_000_000_000;

impl Model<'_> {
    /// Nobody is told that a queue begins behind a message that is younger than what is kept.
    pub(super) fn kept_for_its_time(&self) -> Result<(), Violation> {
        let Some(keeps_ns) = self.keeps_ns() else {
            return Ok(());
        };
        let mut begins: BTreeMap<&Queue, u64> = BTreeMap::new();
        for (at, record) in self.records.iter().enumerate() {
            let Event::Bounds {
                queue, min_offset, ..
            } = &record.event
            else {
                continue;
            };
            let before = begins.entry(queue).or_default();
            if queue.topic.starts_with(DEAD_LETTERS) || *min_offset <= *before {
                continue;
            }
            let place = |offset| Place {
                queue: queue.clone(),
                offset,
            };
            for (place, (value, _)) in self.values.range(place(*before)..place(*min_offset)) {
                let Some(send) = self.sends.get(value) else {
                    continue;
                };
                let age_ns = record.at - self.records[send.called].at;
                if age_ns < keeps_ns {
                    let what = format!(
                        "{}/{}@{} was dropped when it was at most {} ms old, {} ms are kept",
                        queue.topic,
                        queue.queue,
                        place.offset,
                        age_ns / 1_000_000,
                        keeps_ns / 1_000_000
                    );
                    let proof = self.show([send.called, send.returned.unwrap_or(at), at]);
                    return Err(Violation::new("kept-for-its-time", what).proved_by(proof));
                }
            }
            *before = *min_offset;
        }
        Ok(())
    }

    /// In the end no queue holds a message that is twice as old as what is kept.
    pub(super) fn gone_after_its_time(&self) -> Result<(), Violation> {
        let (Some(keeps_ns), Some(end)) = (self.keeps_ns(), self.end()) else {
            return Ok(());
        };
        let mut stored = Vec::new();
        let mut last: BTreeMap<&Queue, (usize, u64)> = BTreeMap::new();
        for (at, record) in self.records[..end].iter().enumerate() {
            match &record.event {
                Event::Sent {
                    outcome: Outcome::Done(place),
                    ..
                } => stored.push((at, place)),
                Event::Bounds {
                    queue, min_offset, ..
                } => drop(last.insert(queue, (at, *min_offset))),
                _ => {}
            }
        }
        for (sent, place) in stored {
            let Some((asked, begins)) = last.get(&place.queue) else {
                continue;
            };
            let age_ns =
                self.records[*asked].at - self.records[sent].at.min(self.records[*asked].at);
            if place.offset >= *begins && age_ns > 2 * keeps_ns + LATE_NS {
                let what = format!(
                    "{}/{}@{} is still there, {} ms old, {} ms are kept",
                    place.queue.topic,
                    place.queue.queue,
                    place.offset,
                    age_ns / 1_000_000,
                    keeps_ns / 1_000_000
                );
                let proof = self.show([sent, *asked]);
                return Err(Violation::new("gone-after-its-time", what).proved_by(proof));
            }
        }
        Ok(())
    }

    /// What was sent back is not delivered again before it has waited.
    pub(super) fn not_before_its_time(&self) -> Result<(), Violation> {
        // Of deliveries that failed: when the next one may be, at the earliest, and what said so.
        let mut due: BTreeMap<(&str, &Place, u32), (u64, usize)> = BTreeMap::new();
        for (at, record) in self.records.iter().enumerate() {
            match &record.event {
                Event::SendBack {
                    group,
                    place,
                    attempt,
                    delay_ms,
                    ..
                } => {
                    let until = record.at + delay_ms * 1_000_000;
                    let known = due.entry((group, place, *attempt)).or_insert((until, at));
                    *known = (until, at).min(*known);
                }
                Event::Redelivery {
                    group,
                    place,
                    attempt,
                    ..
                } => {
                    let failed = due.get(&(&**group, place, attempt.saturating_sub(1)));
                    if let Some((until, sent_back)) = failed
                        && record.at < *until
                    {
                        let early_ms = (until - record.at).div_ceil(1_000_000);
                        let what = format!("{group} got a retry {early_ms} ms early");
                        let proof = self.show([*sent_back, at]);
                        return Err(Violation::new("not-before-its-time", what).proved_by(proof));
                    }
                }
                _ => {}
            }
        }
        Ok(())
    }

    fn keeps_ns(&self) -> Option<u64> {
        self.records.iter().find_map(|record| match record.event {
            Event::KeepsFor { ms } => Some(ms * 1_000_000),
            _ => None,
        })
    }
}
