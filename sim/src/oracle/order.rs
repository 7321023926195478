//! Messages of one lane are stored in the order in which they were handed over; and a message that was
//! acknowledged before another one was handed over stands before it.

use std::collections::BTreeMap;

use super::{Model, Send};
use crate::history::{Queue, Target};
use crate::violation::Violation;

impl Model<'_> {
    /// For messages to one queue or of one message group.
    pub(super) fn lanes_in_order(&self) -> Result<(), Violation> {
        let mut last: BTreeMap<(u64, &Target), &Send> = BTreeMap::new();
        // Values of a lane grow.
        for send in self.sends.values() {
            if send.target == Target::Any {
                continue;
            }
            let Some(place) = send.stored_at() else {
                continue;
            };
            let before = last.insert((send.lane, &send.target), send);
            let Some((before, before_place)) =
                before.and_then(|send| Some((send, send.stored_at()?)))
            else {
                continue;
            };
            if before_place.queue != place.queue {
                // A topic that got more queues moves message groups; none does here.
                let what = format!("{:?} went to two queues", send.target);
                return Err(self.out_of_order("one-queue-per-group", what, before, send));
            }
            if before_place.offset >= place.offset {
                let what = format!("messages to {:?} changed places", send.target);
                return Err(self.out_of_order("sent-order", what, before, send));
            }
        }
        Ok(())
    }

    /// For all messages of one queue.
    pub(super) fn real_time_order(&self) -> Result<(), Violation> {
        let mut queues: BTreeMap<&Queue, Vec<(&Send, u64)>> = BTreeMap::new();
        for send in self.sends.values() {
            if let Some(place) = send.stored_at() {
                let sends = queues.entry(&place.queue).or_default();
                sends.push((send, place.offset));
            }
        }
        for sends in queues.values_mut() {
            sends.sort_by_key(|(_, offset)| std::cmp::Reverse(*offset));
            // The earliest return among the messages behind this one.
            let mut earliest: Option<&Send> = None;
            for (send, _) in sends.iter() {
                if let Some(later) = earliest
                    && later.returned < Some(send.called)
                {
                    let what = "a message stands behind one that was sent after it".to_owned();
                    return Err(self.out_of_order("real-time-order", what, later, send));
                }
                if earliest.is_none_or(|earliest| send.returned < earliest.returned) {
                    earliest = Some(send);
                }
            }
        }
        Ok(())
    }

    fn out_of_order(
        &self,
        invariant: &'static str,
        what: String,
        first: &Send,
        second: &Send,
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
