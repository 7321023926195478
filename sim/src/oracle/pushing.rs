//! Messages that push consumers work on: each is finished or dead, in order where order is promised, and progress
//! passes none that nobody is done with.

use std::collections::{BTreeMap, BTreeSet};

use super::Model;
use crate::history::{Event, Place, Queue, Value};
use crate::violation::Violation;

type Key<'a> = (&'a str, &'a Queue);

/// Offsets of one queue, of which nearly all below some offset are there.
#[derive(Default)]
struct Offsets {
    there: BTreeSet<u64>,
    all_below: u64,
}

impl Offsets {
    fn insert(&mut self, offset: u64) {
        self.there.insert(offset);
    }

    /// The lowest offset from `floor` on that is missing.
    fn first_missing(&mut self, floor: u64) -> u64 {
        self.all_below = self.all_below.max(floor);
        while self.there.contains(&self.all_below) {
            self.all_below += 1;
        }
        self.all_below
    }
}

/// What a group did in a queue.
#[derive(Default)]
struct Work {
    finished: BTreeSet<u64>,
    failed_for_good: BTreeSet<u64>,
    /// Finished or failed for good: the next one may be worked on.
    over: Offsets,
    /// Finished or failed: progress may pass.
    done: Offsets,
}

/// What a group is like.
#[derive(Clone, Copy)]
struct Group {
    /// Deliveries of a message that it allows.
    attempts_max: u32,
    /// Whether it works on one message of a queue after the other.
    in_order: bool,
    /// Whether it is one consumer, which gives up what failed for good.
    alone: bool,
}

/// What a walk through a history knows so far.
#[derive(Default)]
struct Walk<'a> {
    groups: BTreeMap<&'a str, Group>,
    work: BTreeMap<Key<'a>, Work>,
    asked: BTreeMap<u64, Key<'a>>,
    letters: BTreeSet<(&'a str, Value)>,
    /// Members and queues of which they got something.
    began: BTreeSet<(u64, &'a Queue)>,
}

impl<'a> Walk<'a> {
    fn step(&mut self, event: &'a Event) {
        match event {
            Event::GroupMade {
                group,
                attempts_max,
                in_order,
                alone,
            } => {
                let made = Group {
                    attempts_max: *attempts_max,
                    in_order: *in_order,
                    alone: *alone,
                };
                self.groups.insert(group, made);
            }
            Event::Finished { member, place, .. } => {
                let work = self.of(&member.group, place);
                work.finished.insert(place.offset);
                work.over.insert(place.offset);
                work.done.insert(place.offset);
            }
            Event::Failed {
                member,
                place,
                attempt,
                dead,
            } => {
                let group = self.groups.get(&*member.group);
                let last = *dead || group.is_some_and(|group| *attempt >= group.attempts_max);
                let work = self.of(&member.group, place);
                work.done.insert(place.offset);
                if last {
                    work.failed_for_good.insert(place.offset);
                    work.over.insert(place.offset);
                }
            }
            Event::AskCommitted { call, group, queue } => {
                self.asked.insert(*call, (group, queue));
            }
            Event::DeadLetter {
                group,
                value: Some(value),
                ..
            } => drop(self.letters.insert((group, *value))),
            _ => {}
        }
    }

    fn of(&mut self, group: &'a str, place: &'a Place) -> &mut Work {
        self.work.entry((group, &place.queue)).or_default()
    }
}

impl<'a> Model<'a> {
    /// Everything that is promised to those who work on messages.
    pub(super) fn pushed(&self) -> Result<(), Violation> {
        let mut walk = Walk::default();
        for (at, record) in self.records.iter().enumerate() {
            match &record.event {
                Event::Handed {
                    member,
                    place,
                    attempt,
                    ..
                } => {
                    let group = walk.groups.get(&*member.group).copied();
                    let begins = *attempt == 1 && walk.began.insert((member.member, &place.queue));
                    let dropped = self.dropped.by(&place.queue, at);
                    let work = walk.of(&member.group, place);
                    let over = work.over.first_missing(dropped);
                    let done = work.done.first_missing(dropped);
                    if group.is_some_and(|group| group.in_order) && place.offset > over {
                        return Err(self.too_early(at, place, over));
                    }
                    let alone = group.is_some_and(|group| group.alone);
                    let next = if alone { over } else { done };
                    if begins && place.offset > next {
                        return Err(self.passed_by(at, (&member.group, &place.queue), next));
                    }
                }
                Event::ToldCommitted { call, offset } => {
                    let Some(key) = walk.asked.remove(call) else {
                        continue;
                    };
                    let Some(work) = walk.work.get_mut(&key) else {
                        continue;
                    };
                    let next = work.done.first_missing(self.dropped.by(key.1, at));
                    if offset.unwrap_or(0) > next {
                        return Err(self.passed_by(at, key, next));
                    }
                }
                event => walk.step(event),
            }
        }
        match self.end() {
            Some(_) => self.finished_or_dead(&walk),
            None => Ok(()),
        }
    }

    fn too_early(&self, at: usize, place: &Place, next: u64) -> Violation {
        let Place { queue, offset } = place;
        let what = format!(
            "{}/{}@{offset} is worked on before {next} is over",
            queue.topic, queue.queue
        );
        Violation::new("worked-in-order", what).proved_by(self.show([at]))
    }

    fn passed_by(&self, at: usize, (group, queue): Key<'a>, next: u64) -> Violation {
        let what = format!(
            "the progress of {group} in {}/{} has passed {next}, with which nobody is done",
            queue.topic, queue.queue
        );
        Violation::new("progress-waits-for-work", what).proved_by(self.show([at]))
    }

    /// After everything was healed and read: each message that is there was finished, or is a dead letter.
    fn finished_or_dead(&self, walk: &Walk<'a>) -> Result<(), Violation> {
        let bounds = self.final_bounds();
        let with_dropped = self.with_dropped_letters();
        for ((group, queue), work) in &walk.work {
            let keeps_no_letters = with_dropped.contains(group)
                || walk.groups.get(group).is_some_and(|group| group.alone);
            let from = Place {
                queue: (*queue).clone(),
                offset: bounds.get(queue).map_or(0, |(min, _)| *min),
            };
            let there = self.values.range(from..);
            for (place, (value, seen)) in there.take_while(|(place, _)| place.queue == **queue) {
                let may_have_died =
                    keeps_no_letters && work.failed_for_good.contains(&place.offset);
                let is_dead = walk.letters.contains(&(*group, *value));
                if work.finished.contains(&place.offset) || is_dead || may_have_died {
                    continue;
                }
                let what = format!(
                    "{}/{}@{} was neither finished by {group}, nor is it dead",
                    queue.topic, queue.queue, place.offset
                );
                let proof = self.show([*seen]);
                return Err(Violation::new("finished-or-dead", what).proved_by(proof));
            }
        }
        Ok(())
    }
}
