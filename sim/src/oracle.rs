//! What clients may have seen, judged from their history alone.
//!
//! A small model of its own: it knows queues of values and groups that read them, nothing of brokers, logs
//! or Raft, and shares no code with them. A send or commit whose outcome is unknown may have happened or
//! not; what is observed later decides it. The anomalies are those of Jepsen's queue and Kafka checkers
//! (lost, unexpected, duplicate, inconsistent offsets, non-monotonic sends and polls, skips, aborted reads),
//! as far as a queue with committed offsets can have them.

mod ends;
mod order;
mod progress;
mod reading;

use std::collections::BTreeMap;

use crate::history::{Event, Outcome, Place, Queue, Record, Target, Value};
use crate::violation::Violation;

/// One send, as far as it is known.
#[derive(Clone, Debug)]
struct Send {
    /// Place of the call in the history.
    called: usize,
    /// Place of its return, if it returned.
    returned: Option<usize>,
    outcome: Option<Outcome<Place>>,
    lane: u64,
    target: Target,
}

impl Send {
    fn stored_at(&self) -> Option<&Place> {
        match &self.outcome {
            Some(Outcome::Done(place)) => Some(place),
            _ => None,
        }
    }
}

/// What a history says, sorted for the checks.
struct Model<'a> {
    records: &'a [Record],
    sends: BTreeMap<Value, Send>,
    /// What was seen at each place, by anybody, first.
    values: BTreeMap<Place, (Value, usize)>,
    /// Where each value was seen first.
    places: BTreeMap<Value, (Place, usize)>,
}

/// Finds what is wrong with a history. A history that does not end is judged as far as it goes.
///
/// # Errors
/// The first violation that was found.
pub fn judge(records: &[Record]) -> Result<(), Violation> {
    let model = Model::of(records)?;
    model.nothing_lost()?;
    model.lanes_in_order()?;
    model.real_time_order()?;
    model.no_skips()?;
    model.chosen_queues_in_order()?;
    model.progress_forward()?;
    model.ends_forward()
}

impl<'a> Model<'a> {
    fn of(records: &'a [Record]) -> Result<Model<'a>, Violation> {
        let mut model = Model {
            records,
            sends: BTreeMap::new(),
            values: BTreeMap::new(),
            places: BTreeMap::new(),
        };
        for (at, record) in records.iter().enumerate() {
            match &record.event {
                Event::Send {
                    value,
                    target,
                    lane,
                    ..
                } => {
                    let send = Send {
                        called: at,
                        returned: None,
                        outcome: None,
                        lane: *lane,
                        target: target.clone(),
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
                Event::Delivery { place, value, .. } => model.delivered(at, place, *value)?,
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
        if let Some(Outcome::NotDone(_)) = send.outcome {
            let what = format!("a message that was refused for good {}", detail());
            let proof = self.show([send.called, send.returned.unwrap_or(at), at]);
            return Err(Violation::new("refused-is-not-stored", what).proved_by(proof));
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

    /// The last word on where each queue begins and ends.
    fn final_bounds(&self) -> BTreeMap<&'a Queue, (u64, u64)> {
        let mut bounds = BTreeMap::new();
        for record in self.records {
            if let Event::Bounds {
                queue,
                min_offset,
                max_offset,
            } = &record.event
            {
                bounds.insert(queue, (*min_offset, *max_offset));
            }
        }
        bounds
    }
}
