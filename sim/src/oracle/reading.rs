//! Nothing acknowledged is lost; no group skips a message.

use std::collections::{BTreeMap, BTreeSet};

use super::{Model, Send};
use crate::history::{Event, Outcome, Queue};
use crate::operator::READER;
use crate::violation::Violation;

impl Model<'_> {
    /// After everything was healed and read: each message that was acknowledged, or that anybody saw, and
    /// that retention has not dropped was read at its place.
    pub(super) fn nothing_lost(&self) -> Result<(), Violation> {
        if self.end().is_none() {
            return Ok(());
        }
        let bounds = self.final_bounds();
        let read: BTreeSet<_> = self
            .records
            .iter()
            .filter_map(|record| match &record.event {
                Event::Delivery { member, place, .. } if &*member.group == READER => Some(place),
                _ => None,
            })
            .collect();
        for (place, (value, seen)) in &self.values {
            let kept = match bounds.get(&place.queue) {
                Some((min, _)) => place.offset >= *min,
                None => true,
            };
            if !kept || read.contains(place) {
                continue;
            }
            let send = self.sends.get(value);
            let (invariant, what) = match send.and_then(Send::stored_at) {
                Some(_) => ("acknowledged-is-durable", "an acknowledged message"),
                None => ("seen-is-durable", "a message that was seen"),
            };
            let what = format!(
                "{what} is not at {}/{}@{}: the queue holds {:?}",
                place.queue.topic,
                place.queue.queue,
                place.offset,
                bounds.get(&place.queue)
            );
            let called = send.map_or(*seen, |send| send.called);
            return Err(Violation::new(invariant, what).proved_by(self.show([called, *seen])));
        }
        Ok(())
    }

    /// When a group gets a message, it has got all earlier ones of the queue, but for those that retention
    /// dropped and those that an operator skipped.
    pub(super) fn no_skips(&self) -> Result<(), Violation> {
        // The first offset that a group has not got yet, and the record that moved it there.
        let mut next: BTreeMap<(&str, &Queue), (u64, usize)> = BTreeMap::new();
        let refused: BTreeSet<u64> = self.refused_resets().collect();
        for (at, record) in self.records.iter().enumerate() {
            match &record.event {
                Event::Delivery { member, place, .. } | Event::Handed { member, place, .. } => {
                    let (next, moved) =
                        next.entry((&member.group, &place.queue)).or_insert((0, at));
                    let floor = self.dropped.by(&place.queue, at);
                    if place.offset > (*next).max(floor) {
                        let what = format!(
                            "{} got {}/{}@{} and nobody of it got {next}",
                            member.group, place.queue.topic, place.queue.queue, place.offset
                        );
                        let proof = self.show([*moved, at]);
                        return Err(Violation::new("no-skips", what).proved_by(proof));
                    }
                    if place.offset >= *next {
                        (*next, *moved) = (place.offset + 1, at);
                    }
                }
                // It may take effect from the call on, for ever if nobody knows.
                Event::Reset { call, group, place } if !refused.contains(call) => {
                    let (next, _) = next.entry((&**group, &place.queue)).or_insert((0, at));
                    *next = (*next).max(place.offset);
                }
                _ => {}
            }
        }
        Ok(())
    }

    fn refused_resets(&self) -> impl Iterator<Item = u64> {
        self.records
            .iter()
            .filter_map(|record| match &record.event {
                Event::WasReset {
                    call,
                    outcome: Outcome::NotDone(_),
                } => Some(*call),
                _ => None,
            })
    }

    /// A consumer that reads queues which were chosen for it gets each message of a queue once, in order. When a broker group goes
    /// on from a copy, it starts each of its queues again, once, and not behind what it got: also one whose first messages it
    /// fetched before and hands out after.
    pub(super) fn chosen_queues_in_order(&self) -> Result<(), Violation> {
        let mut alone = BTreeSet::new();
        let mut last: BTreeMap<(u64, &Queue), (u64, usize)> = BTreeMap::new();
        // Who was there when a broker group went on from a copy, and which of their queues began again since.
        let mut may_start_again: BTreeSet<u64> = BTreeSet::new();
        let mut started_again: BTreeSet<(u64, &Queue)> = BTreeSet::new();
        for (at, record) in self.records.iter().enumerate() {
            match &record.event {
                Event::Join {
                    member,
                    assigned: true,
                    ..
                } => drop(alone.insert(member.member)),
                Event::Restored => {
                    may_start_again.clone_from(&alone);
                    started_again.clear();
                }
                Event::Delivery { member, place, .. } if alone.contains(&member.member) => {
                    let key = (member.member, &place.queue);
                    let Some((offset, before)) = last.insert(key, (place.offset, at)) else {
                        continue;
                    };
                    let again = place.offset <= offset && may_start_again.contains(&key.0);
                    if again && started_again.insert(key) {
                        continue;
                    }
                    let floor = self.dropped.by(&place.queue, at);
                    if place.offset <= offset || place.offset > (offset + 1).max(floor) {
                        let what = format!("{} came after {offset}", place.offset);
                        let proof = self.show([before, at]);
                        return Err(Violation::new("delivered-in-order", what).proved_by(proof));
                    }
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// One poll brings messages of a queue in order, each once, and none is missing between them: also to
    /// those who share queues, and whose queues come and go between polls.
    pub(super) fn polls_in_order(&self) -> Result<(), Violation> {
        // A poll is written down in one moment, in which nobody else does anything.
        let mut last: BTreeMap<(u64, &Queue), (u64, u64, usize)> = BTreeMap::new();
        for (at, record) in self.records.iter().enumerate() {
            let Event::Delivery { member, place, .. } = &record.event else {
                continue;
            };
            let this = (record.at, place.offset, at);
            let Some((moment, offset, before)) = last.insert((member.member, &place.queue), this)
            else {
                continue;
            };
            let floor = self.dropped.by(&place.queue, at);
            let follows = place.offset > offset && place.offset <= (offset + 1).max(floor);
            if moment == record.at && !follows {
                let what = format!("{} came after {offset} in one poll", place.offset);
                let proof = self.show([before, at]);
                return Err(Violation::new("polled-in-order", what).proved_by(proof));
            }
        }
        Ok(())
    }
}
