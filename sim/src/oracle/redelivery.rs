//! Messages that were sent back: delivered again or dead, never lost; and gone once they are settled.
//!
//! Brokers remember what was settled for a while only, so what is said twice long after each other is not
//! judged.

use std::collections::{BTreeMap, BTreeSet};

use super::Model;
use crate::history::{Event, Outcome, Place, Record, Value};
use crate::operator::DEAD_LETTERS;
use crate::violation::Violation;

/// For how long brokers remember what was settled, in nanoseconds, where nothing else is said.
const REMEMBERED_NS: u64 = 60_000_000_000;

/// What was answered may have been settled so much earlier, and what was said may arrive so much later, in nanoseconds: calls
/// end within ten seconds, and what is on its way is held back for nine.
const LATE_NS: u64 = 20_000_000_000;

/// For how long brokers surely remember what was settled: from an answer to what is said then.
pub(super) fn remembered_ns(records: &[Record]) -> u64 {
    let told = records.iter().find_map(|record| match record.event {
        Event::RemembersFor { ms } => Some(ms * 1_000_000),
        _ => None,
    });
    told.map_or(REMEMBERED_NS, |told| told.saturating_sub(LATE_NS))
}

type Key<'a> = (&'a str, &'a Place);

/// A call that sent a message back.
#[derive(Clone, Copy)]
struct Failure {
    /// Its place.
    at: usize,
    attempt: u32,
    /// No other delivery may follow: it was asked for, or it was the last that the group allows.
    last: bool,
}

/// What a group did with a message, and got.
#[derive(Default)]
struct Lot {
    sent_back: Vec<Failure>,
    /// The latest attempt of which the answer was yes, and that answer.
    taken: Option<(u32, usize)>,
    /// Attempts that somebody wanted to settle, whatever came of it.
    settles: Vec<u32>,
    /// Settled: the answer's place, and the attempt.
    settled: Vec<(usize, u32)>,
    /// The latest delivery.
    redelivered: u32,
}

#[derive(Default)]
struct Walk<'a> {
    /// What calls were about.
    calls: BTreeMap<u64, (Key<'a>, u32)>,
    /// Where the calls stand that ask for retries.
    asked: BTreeMap<u64, usize>,
    lots: BTreeMap<Key<'a>, Lot>,
    /// Deliveries that a group allows.
    attempts_max: BTreeMap<&'a str, u32>,
    /// Group and value, and where it was seen.
    letters: BTreeMap<(&'a str, Value), usize>,
}

impl<'a> Model<'a> {
    /// Every message that was sent back, and every dead letter.
    pub(super) fn redelivered(&self) -> Result<(), Violation> {
        let mut walk = Walk::default();
        for (at, record) in self.records.iter().enumerate() {
            match &record.event {
                Event::Redelivery {
                    call,
                    group,
                    place,
                    attempt,
                    ..
                } => {
                    let asked = walk.asked.get(call).copied().unwrap_or(at);
                    let lot = walk.lots.entry((group, place)).or_default();
                    self.is_earned(at, lot, *attempt)?;
                    self.is_not_settled(at, asked, lot)?;
                    lot.redelivered = lot.redelivered.max(*attempt);
                }
                Event::Handed {
                    member,
                    place,
                    attempt: attempt @ 2..,
                    ..
                } => {
                    let lot = walk.lots.entry((&member.group, place)).or_default();
                    self.is_earned(at, lot, *attempt)?;
                }
                Event::DeadLetter {
                    group,
                    place,
                    origin,
                    value,
                } => self.dead_letter(&mut walk, at, (group, place), origin, *value)?,
                event => walk.step(at, event),
            }
        }
        match self.end() {
            Some(_) => self.none_lost(&walk),
            None => Ok(()),
        }
    }

    /// A delivery follows a failure of the one before.
    fn is_earned(&self, at: usize, lot: &Lot, attempt: u32) -> Result<(), Violation> {
        let mut failures = lot.sent_back.iter();
        if failures.any(|failed| failed.attempt.checked_add(1) == Some(attempt) && !failed.last) {
            return Ok(());
        }
        let what =
            format!("delivery {attempt}, and nobody failed the one before, but not for good");
        Err(Violation::new("redelivery-is-earned", what).proved_by(self.show([at])))
    }

    /// What was settled before somebody asked is not among the answers, unless a later delivery failed.
    fn is_not_settled(&self, at: usize, asked: usize, lot: &Lot) -> Result<(), Violation> {
        for (answered, settled) in &lot.settled {
            let long_ago = self.records[asked].at - self.records[(*answered).min(asked)].at
                > self.remembered_ns;
            if *answered > asked || long_ago {
                continue;
            }
            let mut failures = lot.sent_back.iter();
            if !failures.any(|failed| failed.attempt > *settled) {
                let what = format!("delivered again after delivery {settled} was settled");
                let proof = self.show([*answered, asked, at]);
                return Err(Violation::new("settled-stays-settled", what).proved_by(proof));
            }
        }
        Ok(())
    }

    fn dead_letter(
        &self,
        walk: &mut Walk<'a>,
        at: usize,
        (group, place): Key<'a>,
        origin: &str,
        value: Option<Value>,
    ) -> Result<(), Violation> {
        let queue = &place.queue;
        let where_ = format!("at {}/{}@{}", queue.topic, queue.queue, place.offset);
        let seen = value.and_then(|value| Some((value, self.places.get(&value)?)));
        let Some((value, (stored, _))) = seen else {
            let what = format!("a dead letter that nobody sent {where_}");
            return Err(Violation::new("no-phantom", what).proved_by(self.show([at])));
        };
        let lot = walk.lots.get(&(group, stored));
        let sent_back = lot.map(|lot| lot.sent_back.as_slice()).unwrap_or_default();
        if !sent_back.iter().any(|failed| failed.last) || *stored.queue.topic != *origin {
            let what =
                format!("a dead letter of {origin:?} that did not fail there for good {where_}");
            return Err(Violation::new("dead-letters-are-earned", what).proved_by(self.show([at])));
        }
        let moments = sent_back.iter().map(|failed| self.records[failed.at].at);
        let (first, last) = (moments.clone().min(), moments.max());
        let soon = last
            .zip(first)
            .is_some_and(|(last, first)| last - first < self.remembered_ns);
        if let Some(before) = walk.letters.insert((group, value), at)
            && soon
        {
            let what = format!("a message that died twice {where_}");
            let proof = self.show([before, at]);
            return Err(Violation::new("dies-once", what).proved_by(proof));
        }
        Ok(())
    }

    /// Groups of whose dead letters some are dropped.
    pub(super) fn with_dropped_letters(&self) -> BTreeSet<&'a str> {
        let bounds = self.final_bounds().into_iter();
        let dropped = bounds.filter(|(_, (min, _))| *min > 0);
        let groups = dropped.map(|(queue, _)| queue.topic.strip_prefix(DEAD_LETTERS));
        groups.flatten().collect()
    }

    /// After everything was healed and read: what was taken back was delivered later, or is dead.
    fn none_lost(&self, walk: &Walk<'a>) -> Result<(), Violation> {
        let with_dropped = self.with_dropped_letters();
        for ((group, place), lot) in &walk.lots {
            let Some((attempt, answered)) = lot.taken else {
                continue;
            };
            let value = self.values.get(*place).map(|(value, _)| *value);
            let is_dead = value.is_some_and(|value| walk.letters.contains_key(&(*group, value)));
            let is_settled = lot.settles.iter().any(|settled| *settled >= attempt);
            let may_have_died =
                lot.sent_back.iter().any(|failed| failed.last) && with_dropped.contains(group);
            if lot.redelivered > attempt || is_settled || is_dead || may_have_died {
                continue;
            }
            let what = format!(
                "{group} sent {}/{}@{} back after delivery {attempt}, and it neither came again nor is dead",
                place.queue.topic, place.queue.queue, place.offset
            );
            let proof = self.show([answered]);
            return Err(Violation::new("sent-back-comes-again", what).proved_by(proof));
        }
        Ok(())
    }
}

impl<'a> Walk<'a> {
    fn failed(&mut self, at: usize, key: Key<'a>, attempt: u32, dead: bool) {
        let allowed = self.attempts_max.get(key.0);
        let last = dead || allowed.is_some_and(|allowed| attempt >= *allowed);
        let lot = self.lots.entry(key).or_default();
        lot.sent_back.push(Failure { at, attempt, last });
    }

    fn step(&mut self, at: usize, event: &'a Event) {
        match event {
            Event::SendBack {
                call,
                group,
                place,
                attempt,
                dead,
                ..
            } => {
                let key = (&**group, place);
                self.failed(at, key, *attempt, *dead);
                self.calls.insert(*call, (key, *attempt));
            }
            Event::Failed {
                member,
                place,
                attempt,
                dead,
            } => self.failed(at, (&member.group, place), *attempt, *dead),
            Event::GroupMade {
                group,
                attempts_max,
                ..
            } => drop(self.attempts_max.insert(group, *attempts_max)),
            Event::SentBack {
                call,
                outcome: Outcome::Done(()),
            } => {
                if let Some((key, attempt)) = self.calls.get(call) {
                    let lot = self.lots.entry(*key).or_default();
                    lot.taken = lot.taken.max(Some((*attempt, at)));
                }
            }
            Event::AskRetries { call, .. } => drop(self.asked.insert(*call, at)),
            Event::Settle {
                call,
                group,
                place,
                attempt,
            } => {
                let key = (&**group, place);
                self.lots.entry(key).or_default().settles.push(*attempt);
                self.calls.insert(*call, (key, *attempt));
            }
            Event::Settled {
                call,
                outcome: Outcome::Done(()),
            } => {
                if let Some((key, attempt)) = self.calls.get(call) {
                    let lot = self.lots.entry(*key).or_default();
                    lot.settled.push((at, *attempt));
                }
            }
            _ => {}
        }
    }
}
