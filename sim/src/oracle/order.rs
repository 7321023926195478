//! Messages of one lane are stored in the order in which they were handed over; a message that was
//! acknowledged before another one was handed over stands before it; and nothing stands between the messages
//! of a batch.
//!
//! One whose outcome is unknown may come late, behind those that were handed over after it: its producer
//! gave up, and the network did not. It never stands before one that was acknowledged before it was sent.

use std::collections::{BTreeMap, BTreeSet};

use super::{Model, Send};
use crate::history::{Event, Place, Queue, Target, Value};
use crate::violation::Violation;

impl Model<'_> {
    /// For messages to one queue or of one message group.
    pub(super) fn lanes_in_order(&self) -> Result<(), Violation> {
        let mut first: BTreeMap<(u64, &Target), (&Send<'_>, &Queue)> = BTreeMap::new();
        let mut last: BTreeMap<(u64, &Target, &Queue), (&Send<'_>, u64)> = BTreeMap::new();
        // Values of a lane grow.
        for (value, send) in &self.sends {
            let Some((place, _)) = self.places.get(value) else {
                continue;
            };
            if *send.target == Target::Any {
                continue;
            }
            let lane = (send.lane, send.target);
            let (before, queue) = *first.entry(lane).or_insert((send, &place.queue));
            if *queue != place.queue && !self.may_move(send) {
                // A topic that got more queues moves message groups; none does here.
                let what = format!("{:?} went to two queues", send.target);
                return Err(self.out_of_order("one-queue-per-group", what, before, send));
            }
            if send.stored_at().is_none() {
                continue;
            }
            let (number, target) = lane;
            let lane = (number, target, &place.queue);
            if let Some((before, offset)) = last.insert(lane, (send, place.offset))
                && offset >= place.offset
            {
                let what = format!("messages to {:?} changed places", send.target);
                return Err(self.out_of_order("sent-order", what, before, send));
            }
        }
        Ok(())
    }

    /// Message groups do, in a topic that several broker groups share: while the route leaves one out they are in other
    /// queues.
    fn may_move(&self, send: &Send<'_>) -> bool {
        let shared = self.shared.get(send.topic);
        matches!(send.target, Target::Group(_)) && shared.is_some_and(|(groups, _)| *groups > 1)
    }

    /// For all messages of one queue that are known to be stored.
    pub(super) fn real_time_order(&self) -> Result<(), Violation> {
        let mut queues: BTreeMap<&Queue, Vec<(&Send<'_>, u64)>> = BTreeMap::new();
        for (value, (place, _)) in &self.places {
            if let Some(send) = self.sends.get(value) {
                let sends = queues.entry(&place.queue).or_default();
                sends.push((send, place.offset));
            }
        }
        for sends in queues.values_mut() {
            sends.sort_by_key(|(_, offset)| std::cmp::Reverse(*offset));
            // The earliest acknowledgement among the messages behind this one.
            let mut earliest: Option<(usize, &Send<'_>)> = None;
            for (send, _) in sends.iter() {
                if let Some((acknowledged, later)) = earliest
                    && acknowledged < send.called
                {
                    let what = "a message stands before one that was stored when it was sent";
                    return Err(self.out_of_order("real-time-order", what.to_owned(), later, send));
                }
                if let (Some(returned), Some(_)) = (send.returned, send.stored_at())
                    && earliest.is_none_or(|(acknowledged, _)| returned < acknowledged)
                {
                    earliest = Some((returned, send));
                }
            }
        }
        Ok(())
    }

    /// What was handed over together and acknowledged stands together in its queue, as it was handed over; if
    /// nobody chose one, all of it in the same.
    pub(super) fn batches_together(&self) -> Result<(), Violation> {
        for record in self.records {
            let Event::Batch { values } = &record.event else {
                continue;
            };
            let mut queues: BTreeMap<&Queue, BTreeMap<u64, &Send<'_>>> = BTreeMap::new();
            for send in values.iter().filter_map(|value| self.sends.get(value)) {
                if let Some(place) = send.stored_at() {
                    let stored = queues.entry(&place.queue).or_default();
                    stored.insert(place.offset, send);
                }
            }
            self.in_one_queue(&queues)?;
            self.as_handed_over(&queues)?;
            let batch = values.iter().copied().collect();
            for (queue, stored) in queues {
                self.nothing_between(&batch, queue, &stored)?;
            }
        }
        Ok(())
    }

    fn in_one_queue(
        &self,
        queues: &BTreeMap<&Queue, BTreeMap<u64, &Send<'_>>>,
    ) -> Result<(), Violation> {
        let mut firsts = queues.values().filter_map(|stored| stored.values().next());
        if let (Some(first), Some(second)) = (firsts.next(), firsts.next())
            && *first.target == Target::Any
        {
            let what = "a batch is spread over two queues".to_owned();
            return Err(self.out_of_order("batches-together", what, first, second));
        }
        Ok(())
    }

    fn as_handed_over(
        &self,
        queues: &BTreeMap<&Queue, BTreeMap<u64, &Send<'_>>>,
    ) -> Result<(), Violation> {
        for stored in queues.values() {
            for (before, after) in stored.values().zip(stored.values().skip(1)) {
                // Message groups of one queue may come in any order: a broker puts each where it always puts it.
                if before.called > after.called && before.target == after.target {
                    let what = "messages of a batch changed places".to_owned();
                    return Err(self.out_of_order("batches-together", what, before, after));
                }
            }
        }
        Ok(())
    }

    fn nothing_between(
        &self,
        batch: &BTreeSet<Value>,
        queue: &Queue,
        stored: &BTreeMap<u64, &Send<'_>>,
    ) -> Result<(), Violation> {
        let ends = stored.first_key_value().zip(stored.last_key_value());
        let Some(((first, begin), (last, end))) = ends else {
            return Ok(());
        };
        let from = |offset| Place {
            queue: queue.clone(),
            offset,
        };
        let mut between = self.values.range(from(*first)..=from(*last));
        let stranger = between.find(|(_, (value, _))| !batch.contains(value));
        stranger.map_or(Ok(()), |(place, (_, seen))| {
            let what = format!(
                "somebody else's message at {}/{}@{} inside of a batch from {first} to {last}",
                queue.topic, queue.queue, place.offset
            );
            let proof = self.show([begin.called, *seen, end.called]);
            Err(Violation::new("batches-together", what).proved_by(proof))
        })
    }

    fn out_of_order(
        &self,
        invariant: &'static str,
        what: String,
        first: &Send<'_>,
        second: &Send<'_>,
    ) -> Violation {
        let places = [
            first.called,
            first.returned.unwrap_or(first.called),
            second.called,
            second.returned.unwrap_or(second.called),
        ];
        Violation::new(invariant, what).proved_by(self.show(places))
    }
}
