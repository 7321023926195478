//! Whoever asks where a queue ends is told of everything that was stored, or that anybody saw, before. Where it begins
//! only rises, and not at all where nothing is dropped.

use std::collections::{BTreeMap, BTreeSet};

use super::Model;
use crate::history::{Event, Outcome, Queue};
use crate::operator::DEAD_LETTERS;
use crate::violation::Violation;

/// The end that is known of each queue, and the record that told it.
type Ends<'a> = BTreeMap<&'a Queue, (u64, usize)>;

/// What was known when somebody asked for all queues, and which of them the answer named.
struct Question<'a> {
    ends: Ends<'a>,
    begins: Ends<'a>,
    told: BTreeSet<&'a Queue>,
}

impl<'a> Model<'a> {
    /// Answers about all queues name all that are known, and none goes back.
    pub(super) fn bounds_forward(&self) -> Result<(), Violation> {
        let mut begins = Ends::new();
        let mut ends = Ends::new();
        let mut asked: BTreeMap<u64, Question<'_>> = BTreeMap::new();
        let mut keeps_all = false;
        for (at, record) in self.records.iter().enumerate() {
            match &record.event {
                Event::KeepsAll => keeps_all = true,
                Event::Sent {
                    outcome: Outcome::Done(place),
                    ..
                } => raise(&mut ends, &place.queue, place.offset + 1, at),
                Event::AskBounds { call } => {
                    let question = Question {
                        ends: ends.clone(),
                        begins: begins.clone(),
                        told: BTreeSet::new(),
                    };
                    asked.insert(*call, question);
                }
                Event::Bounds {
                    call,
                    queue,
                    min_offset,
                    ..
                } => {
                    if let Some(question) = asked.get_mut(call) {
                        question.told.insert(queue);
                        if let Some(begin) = question.begins.get(queue) {
                            self.is_new(at, queue, *min_offset, *begin)?;
                        }
                    }
                    if keeps_all && *min_offset > 0 && !queue.topic.starts_with(DEAD_LETTERS) {
                        return Err(self.vanished(at, queue));
                    }
                    raise(&mut begins, queue, *min_offset, at);
                }
                Event::ToldBounds { call } => {
                    let question = asked.remove(call);
                    let missing = question.and_then(|question| {
                        let mut known = question.ends.into_iter();
                        known.find(|(queue, _)| !question.told.contains(queue))
                    });
                    if let Some((queue, end)) = missing {
                        self.is_new(at, queue, 0, end)?;
                    }
                }
                _ => {}
            }
        }
        Ok(())
    }

    fn vanished(&self, at: usize, queue: &Queue) -> Violation {
        let what = format!(
            "messages of {}/{} are dropped where nobody drops any",
            queue.topic, queue.queue
        );
        Violation::new("nothing-expires", what).proved_by(self.show([at]))
    }

    /// An answer covers all messages whose sends had returned, all that had been delivered, and all answers
    /// that had been given, when the question was asked: only who still leads may answer, and only what is
    /// committed may be seen.
    pub(super) fn ends_forward(&self) -> Result<(), Violation> {
        let mut known = Ends::new();
        let mut asked: BTreeMap<u64, (&Queue, (u64, usize))> = BTreeMap::new();
        let mut asked_all: BTreeMap<u64, Ends<'_>> = BTreeMap::new();
        for (at, record) in self.records.iter().enumerate() {
            match &record.event {
                Event::Sent {
                    outcome: Outcome::Done(place),
                    ..
                } => raise(&mut known, &place.queue, place.offset + 1, at),
                Event::Delivery { place, .. }
                | Event::Handed { place, .. }
                | Event::Redelivery { place, .. } => {
                    raise(&mut known, &place.queue, place.offset + 1, at);
                }
                Event::AskEnd { call, queue } => {
                    let end = known.get(queue).copied().unwrap_or((0, at));
                    asked.insert(*call, (queue, end));
                }
                Event::ToldEnd { call, offset } => {
                    let Some((queue, (end, told_by))) = asked.remove(call) else {
                        continue;
                    };
                    self.is_new(at, queue, *offset, (end, told_by))?;
                    raise(&mut known, queue, *offset, at);
                }
                Event::AskBounds { call } => drop(asked_all.insert(*call, known.clone())),
                Event::Bounds {
                    call,
                    queue,
                    max_offset,
                    ..
                } => {
                    let ends = asked_all.get(call);
                    if let Some(end) = ends.and_then(|ends| ends.get(queue)) {
                        self.is_new(at, queue, *max_offset, *end)?;
                    }
                    raise(&mut known, queue, *max_offset, at);
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// An answer does not fall behind what was known when it was asked for.
    fn is_new(
        &self,
        at: usize,
        queue: &Queue,
        told: u64,
        (end, told_by): (u64, usize),
    ) -> Result<(), Violation> {
        if told >= end {
            return Ok(());
        }
        let what = format!(
            "{}/{} ended at {end} or later, and {told} was told",
            queue.topic, queue.queue
        );
        let proof = self.show([told_by, at]);
        Err(Violation::new("reads-are-new", what).proved_by(proof))
    }
}

fn raise<'a>(known: &mut Ends<'a>, queue: &'a Queue, end: u64, at: usize) {
    let place = known.entry(queue).or_insert((0, at));
    if end > place.0 {
        *place = (end, at);
    }
}
