//! Committed offsets go forward, are never lost, and nobody begins before them. And none comes from nowhere.

use std::collections::{BTreeMap, BTreeSet};

use super::Model;
use crate::history::{Event, Outcome, Queue};
use crate::violation::Violation;

type Key<'a> = (&'a str, &'a Queue);

/// What is known of one group in one queue.
#[derive(Clone, Copy, Default)]
struct Floor {
    /// At least this was committed, and the record that says so.
    at_least: u64,
    said_by: usize,
}

/// What the walk through a history knows so far.
#[derive(Default)]
struct Walk<'a> {
    floors: BTreeMap<Key<'a>, Floor>,
    commits: BTreeMap<u64, (Key<'a>, u64)>,
    resets: BTreeMap<u64, Key<'a>>,
    /// Groups and queues that a reset may strike at any moment.
    uncertain: BTreeSet<Key<'a>>,
    /// What was known when a question was asked.
    asked: BTreeMap<u64, (Key<'a>, Floor)>,
    /// What was known when a consumer was made; and of queues that it did not hold later, what was known then.
    joined: BTreeMap<u64, BTreeMap<Key<'a>, Floor>>,
    /// The most that a group can have committed: behind the last message that it got, or that it was set to.
    most: BTreeMap<Key<'a>, u64>,
}

impl<'a> Walk<'a> {
    fn raise(&mut self, key: Key<'a>, offset: u64, said_by: usize) {
        let floor = self.floors.entry(key).or_default();
        if !self.uncertain.contains(&key) && offset > floor.at_least {
            *floor = Floor {
                at_least: offset,
                said_by,
            };
        }
    }

    fn may_commit(&mut self, key: Key<'a>, offset: u64) {
        let most = self.most.entry(key).or_default();
        *most = (*most).max(offset);
    }

    /// Nothing is certain any more, nor of what is under way.
    fn forget(&mut self, key: Key<'a>) {
        self.floors.remove(&key);
        self.asked.retain(|_, (asked, _)| *asked != key);
        self.commits.retain(|_, (committed, _)| *committed != key);
        for floors in self.joined.values_mut() {
            floors.remove(&key);
        }
    }

    fn joins(&mut self, group: &str, member: u64) {
        let known = self.floors.iter().filter(|((of, _), _)| *of == group);
        let known = known.map(|(key, floor)| (*key, *floor)).collect();
        self.joined.insert(member, known);
    }

    /// Whatever it gets of other queues it gets after it has taken them over, later.
    fn holds(&mut self, group: &str, member: u64, queues: &[Queue]) {
        let others = self.floors.iter();
        let others = others.filter(|((of, queue), _)| *of == group && !queues.contains(queue));
        let others = others.map(|(key, floor)| (*key, *floor));
        self.joined.entry(member).or_default().extend(others);
    }
}

impl<'a> Walk<'a> {
    fn step(&mut self, at: usize, event: &'a Event) {
        match event {
            Event::Commit {
                call,
                member,
                place,
            } => {
                let key = (&*member.group, &place.queue);
                self.commits.insert(*call, (key, place.offset));
                self.may_commit(key, place.offset);
            }
            Event::Committed {
                call,
                outcome: Outcome::Done(()),
            } => {
                if let Some((key, offset)) = self.commits.remove(call) {
                    self.raise(key, offset, at);
                }
            }
            Event::AskCommitted { call, group, queue } => {
                let key = (&**group, queue);
                let floor = self.floors.get(&key).copied().unwrap_or_default();
                self.asked.insert(*call, (key, floor));
            }
            Event::Join { member, .. } => self.joins(&member.group, member.member),
            Event::Holds { member, queues } => self.holds(&member.group, member.member, queues),
            Event::Reset { call, group, place } => {
                let key = (&**group, &place.queue);
                self.may_commit(key, place.offset);
                self.resets.insert(*call, key);
                self.uncertain.insert(key);
                self.forget(key);
            }
            // A reset whose outcome is unknown may strike for ever.
            Event::WasReset {
                call,
                outcome: Outcome::Done(()) | Outcome::NotDone(_),
            } => {
                if let Some(key) = self.resets.remove(call) {
                    self.forget(key);
                    if !self.resets.values().any(|other| *other == key) {
                        self.uncertain.remove(&key);
                    }
                }
            }
            _ => {}
        }
    }
}

impl<'a> Model<'a> {
    /// An offset whose commit was answered stays: later questions tell at least it, and whoever is made, or takes a queue
    /// over, later begins no earlier. An operator's reset lifts that.
    pub(super) fn progress_forward(&self) -> Result<(), Violation> {
        let mut walk = Walk::default();
        for (at, record) in self.records.iter().enumerate() {
            match &record.event {
                // A later delivery is one that progress may have passed.
                Event::Delivery { member, place, .. }
                | Event::Handed {
                    member,
                    place,
                    attempt: 1,
                    ..
                } => {
                    let key = (&*member.group, &place.queue);
                    let floors = walk.joined.get(&member.member);
                    if let Some(floor) = floors.and_then(|floors| floors.get(&key)) {
                        self.begins(at, key, floor, place.offset)?;
                    }
                    walk.may_commit(key, place.offset + 1);
                }
                Event::ToldCommitted { call, offset } => {
                    if let Some((key, floor)) = walk.asked.remove(call) {
                        self.told(at, key, &floor, offset.unwrap_or(0))?;
                        // Whoever is behind what retention dropped goes on there.
                        let kept_from = self.dropped.by(key.1, at);
                        let most = walk.most.get(&key).copied().unwrap_or(0);
                        self.earned(at, key, offset.unwrap_or(0), most.max(kept_from))?;
                        walk.raise(key, offset.unwrap_or(0), at);
                    }
                }
                event => walk.step(at, event),
            }
        }
        Ok(())
    }

    fn told(
        &self,
        at: usize,
        (group, queue): Key<'a>,
        floor: &Floor,
        offset: u64,
    ) -> Result<(), Violation> {
        if offset >= floor.at_least {
            return Ok(());
        }
        let what = format!(
            "{group} had committed {} in {}/{}, and is told {offset}",
            floor.at_least, queue.topic, queue.queue
        );
        Err(Violation::new("offsets-forward", what).proved_by(self.show([floor.said_by, at])))
    }

    fn earned(
        &self,
        at: usize,
        (group, queue): Key<'a>,
        offset: u64,
        most: u64,
    ) -> Result<(), Violation> {
        if offset <= most {
            return Ok(());
        }
        let what = format!(
            "{group} is told {offset} in {}/{}, and never came further than {most}",
            queue.topic, queue.queue
        );
        Err(Violation::new("offsets-are-earned", what).proved_by(self.show([at])))
    }

    fn begins(
        &self,
        at: usize,
        (group, queue): Key<'a>,
        floor: &Floor,
        offset: u64,
    ) -> Result<(), Violation> {
        if offset >= floor.at_least {
            return Ok(());
        }
        let what = format!(
            "{group} had committed {} in {}/{} before this consumer had the queue, and it gets {offset}",
            floor.at_least, queue.topic, queue.queue
        );
        let invariant = "no-delivery-after-acknowledgement";
        Err(Violation::new(invariant, what).proved_by(self.show([floor.said_by, at])))
    }
}
