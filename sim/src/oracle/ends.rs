//! Whoever asks where a queue ends is told of everything that was stored, or that anybody saw, before.

use std::collections::BTreeMap;

use super::Model;
use crate::history::{Event, Outcome, Queue};
use crate::violation::Violation;

/// The end that is known of each queue, and the record that told it.
type Ends<'a> = BTreeMap<&'a Queue, (u64, usize)>;

impl<'a> Model<'a> {
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
                Event::Delivery { place, .. } => {
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
