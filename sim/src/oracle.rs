//! What clients may have seen, judged from their history alone.
//!
//! A small model of its own: it knows queues of values and groups that read them, nothing of brokers, logs
//! or Raft, and shares no code with them. A send or commit whose outcome is unknown may have happened or
//! not; what is observed later decides it.
//!
//! The anomalies are those of Jepsen's queue and Kafka checkers, each with what looks for it:
//!
//! | anomaly | invariant here |
//! |---|---|
//! | lost write; `total-queue` lost; `set-full` lost | `acknowledged-is-durable` |
//! | seen once and gone (`set-full` lost; a read of what was never committed) | `seen-is-durable`, `reads-are-new` |
//! | unseen, never read | `readable`, `drains` in [`crate::liveness`]: at least once to every group |
//! | aborted read (G1a) | `refused-is-not-stored` |
//! | unexpected | `no-phantom`; in another queue than its own: `stored-where-sent` |
//! | inconsistent offsets | `one-message-per-offset` |
//! | duplicate; `unique-ids` | `stored-once`: every producer gives up long before ids are forgotten |
//! | recovered (stored, though nobody was told) | allowed: its outcome was unknown |
//! | `nonmonotonic-send`, `int-nonmonotonic-send` | `sent-order`, `one-queue-per-group`, `real-time-order` |
//! | `int-send-skip` | `batches-together` |
//! | `poll-skip`, `nonmonotonic-poll` of chosen queues | `delivered-in-order` |
//! | `poll-skip` of a group, over rebalances | `no-skips` |
//! | `int-poll-skip`, `int-nonmonotonic-poll` | `polled-in-order` |
//! | delivered again after its acknowledgement | `no-delivery-after-acknowledgement` |
//! | acknowledged and lost, of a failure; twice dead; again after it was settled | `sent-back-comes-again`, `dies-once`, `settled-stays-settled` |
//! | acknowledged and lost, of work: passed by, and neither finished nor dead | `progress-waits-for-work`, `finished-or-dead` |
//! | order within a queue, of work | `worked-in-order` |
//! | stale read (`set-full` stale): a queue's end, a group's offset | `reads-are-new`, `offsets-forward` |
//! | an offset that nobody committed | `offsets-are-earned` |
//! | the same of a consumer that keeps its own progress | `progress-waits-for-work`, `own-progress-is-kept` |
//! | a place of one topic that is taken for one of the next; queues that are nobody's, or begin in their middle | `what-is-owed-is-read` in [`crate::liveness`], `starts-where-told` |
//! | messages that vanish where nobody drops any, or before their time | `nothing-expires`, `kept-for-its-time` |
//! | dead letters that vanish before their time, or stay for ever | `letters-kept-for-their-time`, `letters-go-after-their-time` |
//! | messages that come again before their time | `not-before-its-time` |
//! | messages that stay for ever | `gone-after-its-time` |
//! | realtime lag | while one machine at a time is silent, of sends: `sends-go-on`; while one broker group is away, of what the others have: `others-go-on`; no other bound while faults last; afterwards `drains` is one |
//! | precommitted read, Elle's cycles G0 to G2 | cannot occur: there are no transactions |
//! | `counter`, `linearizable register` | cannot occur: there is nothing to count or to overwrite |

mod delays;
mod dropped;
mod ends;
mod kept;
mod letters;
#[cfg(test)]
mod letters_test;
pub mod lives;
#[cfg(test)]
mod oracle_test;
mod order;
mod others;
#[cfg(test)]
mod others_test;
mod own_progress;
mod progress;
mod pushing;
#[cfg(test)]
mod pushing_test;
mod reading;
mod redelivery;
#[cfg(test)]
mod redelivery_test;

use std::collections::BTreeMap;

use crate::history::{Event, Outcome, Place, Queue, Record, Target, Value};
use crate::oracle::dropped::Dropped;
use crate::violation::Violation;

/// One send, as far as it is known.
#[derive(Clone, Debug)]
struct Send<'a> {
    /// Place of the call in the history.
    called: usize,
    /// Place of its return, if it returned.
    returned: Option<usize>,
    outcome: Option<Outcome<Place>>,
    lane: u64,
    topic: &'a str,
    target: &'a Target,
}

impl Send<'_> {
    fn stored_at(&self) -> Option<&Place> {
        match &self.outcome {
            Some(Outcome::Done(place)) => Some(place),
            _ => None,
        }
    }

    fn was_refused(&self) -> bool {
        matches!(self.outcome, Some(Outcome::NotDone(_)))
    }
}

/// What a history says, sorted for the checks.
struct Model<'a> {
    records: &'a [Record],
    sends: BTreeMap<Value, Send<'a>>,
    /// What was seen at each place, by anybody, first.
    values: BTreeMap<Place, (Value, usize)>,
    /// Where each value was seen first. It was stored, whatever its producer was told.
    places: BTreeMap<Value, (Place, usize)>,
    dropped: Dropped<'a>,
    /// For how long brokers surely remember what was settled, in nanoseconds.
    remembered_ns: u64,
    /// How many broker groups have queues of a topic, and which: where there are several.
    shared: BTreeMap<&'a str, (u8, &'a [u32])>,
}

/// Finds what is wrong with a history. A history that does not end is judged as far as it goes.
///
/// # Errors
/// The first violation that was found.
pub fn judge(records: &[Record]) -> Result<(), Violation> {
    let model = Model::of(records)?;
    model.nothing_refused_stored()?;
    model.nothing_lost()?;
    model.lanes_in_order()?;
    model.real_time_order()?;
    model.batches_together()?;
    model.sends_go_on()?;
    model.others_go_on()?;
    model.no_skips()?;
    model.chosen_queues_in_order()?;
    model.polls_in_order()?;
    model.progress_forward()?;
    model.redelivered()?;
    model.pushed()?;
    model.own_progress_kept()?;
    model.starts_where_told()?;
    model.bounds_forward()?;
    model.kept_for_its_time()?;
    model.gone_after_its_time()?;
    model.not_before_its_time()?;
    model.letters_kept()?;
    model.letters_gone()?;
    model.ends_forward()
}

impl<'a> Model<'a> {
    fn of(records: &'a [Record]) -> Result<Model<'a>, Violation> {
        let mut model = Model {
            records,
            sends: BTreeMap::new(),
            values: BTreeMap::new(),
            places: BTreeMap::new(),
            dropped: Dropped::of(records),
            remembered_ns: redelivery::remembered_ns(records),
            shared: BTreeMap::new(),
        };
        for (at, record) in records.iter().enumerate() {
            match &record.event {
                Event::Send {
                    value,
                    topic,
                    target,
                    lane,
                } => {
                    let send = Send {
                        called: at,
                        returned: None,
                        outcome: None,
                        lane: *lane,
                        topic,
                        target,
                    };
                    model.sends.insert(*value, send);
                }
                Event::Sent { value, outcome } => {
                    if let Some(send) = model.sends.get_mut(value) {
                        send.returned = Some(at);
                        send.outcome = Some(outcome.clone());
                    }
                    if let Outcome::Done(place) = outcome {
                        model.observe(at, *value, place)?;
                    }
                }
                Event::Shared {
                    topic,
                    groups,
                    queues,
                } => drop(model.shared.insert(topic, (*groups, queues.as_slice()))),
                Event::Delivery { place, value, .. }
                | Event::Redelivery { place, value, .. }
                | Event::Handed { place, value, .. } => {
                    model.delivered(at, place, *value)?;
                }
                _ => {}
            }
        }
        Ok(model)
    }

    fn delivered(
        &mut self,
        at: usize,
        place: &Place,
        value: Option<Value>,
    ) -> Result<(), Violation> {
        let detail = || {
            format!(
                "at {}/{}@{}",
                place.queue.topic, place.queue.queue, place.offset
            )
        };
        let Some(value) = value else {
            let what = format!("bytes that nobody sent {}", detail());
            return Err(Violation::new("no-phantom", what).proved_by(self.show([at])));
        };
        let Some(send) = self.sends.get(&value) else {
            let what = format!("a message that nobody sent {}", detail());
            return Err(Violation::new("no-phantom", what).proved_by(self.show([at])));
        };
        let elsewhere = match send.target {
            Target::Queue(queue) => place.queue.queue != *queue,
            Target::Any | Target::Group(_) => false,
        };
        if elsewhere || *place.queue.topic != *send.topic {
            let what = format!("a message that was not sent there {}", detail());
            let proof = self.show([send.called, at]);
            return Err(Violation::new("stored-where-sent", what).proved_by(proof));
        }
        self.observe(at, value, place)
    }

    /// Somebody says that `value` is at `place`.
    fn observe(&mut self, at: usize, value: Value, place: &Place) -> Result<(), Violation> {
        let (seen, first) = *self.values.entry(place.clone()).or_insert((value, at));
        if seen != value {
            let what = format!(
                "two messages at {}/{}@{}",
                place.queue.topic, place.queue.queue, place.offset
            );
            let proof = self.show([first, at]);
            return Err(Violation::new("one-message-per-offset", what).proved_by(proof));
        }
        let (other, first) = self
            .places
            .entry(value)
            .or_insert((place.clone(), at))
            .clone();
        if other != *place {
            // Every producer gives up long before the brokers forget a message's id.
            let what = format!("message {value:x} is stored twice");
            let proof = self.show([first, at]);
            return Err(Violation::new("stored-once", what).proved_by(proof));
        }
        Ok(())
    }

    /// A refusal is for good, whether the message is seen before or after it.
    fn nothing_refused_stored(&self) -> Result<(), Violation> {
        for (value, (place, seen)) in &self.places {
            let Some(send) = self.sends.get(value).filter(|send| send.was_refused()) else {
                continue;
            };
            let what = format!(
                "a message that was refused for good at {}/{}@{}",
                place.queue.topic, place.queue.queue, place.offset
            );
            let proof = self.show([send.called, send.returned.unwrap_or(*seen), *seen]);
            return Err(Violation::new("refused-is-not-stored", what).proved_by(proof));
        }
        Ok(())
    }

    /// The records at these places, in words.
    fn show(&self, places: impl IntoIterator<Item = usize>) -> Vec<String> {
        let line = |place: usize| {
            let record = &self.records[place];
            let seconds = record.at as f64 / 1e9;
            format!("{seconds:10.3} s  {} {:?}", record.machine, record.event)
        };
        places.into_iter().map(line).collect()
    }

    /// When the faults ended and everything had been read; none if the history does not come to that.
    fn end(&self) -> Option<usize> {
        self.records
            .iter()
            .rposition(|record| record.event == Event::End)
    }

    /// How far each queue is known to begin and to end. Answers may overtake each other, queues only grow.
    fn final_bounds(&self) -> BTreeMap<&'a Queue, (u64, u64)> {
        let mut bounds: BTreeMap<_, (u64, u64)> = BTreeMap::new();
        for record in self.records {
            if let Event::Bounds {
                queue,
                min_offset,
                max_offset,
                ..
            } = &record.event
            {
                let (min, max) = bounds.entry(queue).or_default();
                (*min, *max) = ((*min).max(*min_offset), (*max).max(*max_offset));
            }
        }
        bounds
    }
}
