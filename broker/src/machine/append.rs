//! Stores messages in a queue: gives each its offset, once, however often it is sent.

use proto::QueueId;
use proto::command::command_reply::Refusal;
use proto::command::{Append, CommandReply, IdRun, PlacedRun};
use store::table::consume_queue::Row;
use store::table::dedup::{self, Run};

use super::changes::Changes;
use super::dedup::{Dedup, Found};
use super::entry::{Outcome, Place, refused};
use super::state::State;

pub(super) fn apply(
    state: &mut State,
    changes: &mut Changes,
    place: Place,
    append: &Append,
) -> Outcome {
    let count = check(append)?;
    let queue = find_queue(state, append)?;
    let ids = decode_ids(&append.ids, count)?;
    if queue.checked_add(u64::from(count)).is_none() {
        return Err(refused(Refusal::Invalid, "queue has no offsets left"));
    }
    let mut placing = Placing::new(place, queue);
    if ids.is_empty() {
        placing.store(count);
    }
    for (first, count) in ids {
        placing.place(&mut state.dedup, append.topic_id, first, count);
    }
    Ok(placing.finish(state, changes, append))
}

/// The number of messages, if the command fits itself.
fn check(append: &Append) -> Result<u32, CommandReply> {
    let invalid = |detail| Err(refused(Refusal::Invalid, detail));
    let Ok(count) = u32::try_from(append.sizes_bytes.len()) else {
        return invalid("too many messages");
    };
    let bytes: u64 = append.sizes_bytes.iter().map(|size| u64::from(*size)).sum();
    if count == 0 {
        return invalid("no messages");
    }
    if bytes != append.messages.len() as u64 {
        return invalid("sizes do not sum up to the messages");
    }
    Ok(count)
}

/// The next offset of the queue.
fn find_queue(state: &State, append: &Append) -> Result<u64, CommandReply> {
    let Some(topic) = state.topics.get(&append.topic_id) else {
        let detail = format!("topic {} does not exist", append.topic_id);
        return Err(refused(Refusal::TopicNotFound, detail));
    };
    if topic.topic.dead_letters {
        let detail = format!("topic {} takes dead letters only", topic.topic.name);
        return Err(refused(Refusal::Invalid, detail));
    }
    let Some(bounds) = topic.queues.get(append.queue as usize) else {
        let detail = format!("topic {} has no queue {}", topic.topic.name, append.queue);
        return Err(refused(Refusal::QueueNotFound, detail));
    };
    Ok(bounds.next_offset)
}

/// The ids as numbers. There is one for each message, or none at all (then nothing is recognised).
fn decode_ids(runs: &[IdRun], messages: u32) -> Result<Vec<(u128, u32)>, CommandReply> {
    let mut ids = Vec::with_capacity(runs.len());
    let mut total = 0_u64;
    for run in runs {
        let first = run.first.as_ref().try_into().map(u128::from_be_bytes);
        let Ok(first) = first else {
            return Err(refused(Refusal::Invalid, "an id is not 16 bytes long"));
        };
        if run.count == 0 || first.checked_add(u128::from(run.count)).is_none() {
            return Err(refused(Refusal::Invalid, "a run of ids has no end"));
        }
        total = total.saturating_add(u64::from(run.count));
        ids.push((first, run.count));
    }
    if !ids.is_empty() && total != u64::from(messages) {
        return Err(refused(Refusal::Invalid, "ids do not match the messages"));
    }
    Ok(ids)
}

/// Where the messages go, while their positions are walked through.
struct Placing {
    place: Place,
    next_offset: u64,
    /// Position of the next message in the command.
    position: u32,
    placed: Vec<PlacedRun>,
    rows: Vec<Row>,
    remembered: Vec<Run>,
}

impl Placing {
    fn new(place: Place, next_offset: u64) -> Placing {
        Placing {
            place,
            next_offset,
            position: 0,
            placed: Vec::with_capacity(1),
            rows: Vec::with_capacity(1),
            remembered: Vec::new(),
        }
    }

    /// The next `count` messages have the ids `first` and on: stores the new ones among them.
    fn place(&mut self, dedup: &mut Dedup, topic_id: u64, mut first: u128, mut count: u32) {
        while count > 0 {
            let taken = match dedup.find(topic_id, first, count) {
                Found::Known {
                    count,
                    first_offset,
                } => {
                    self.answer(count, first_offset, false);
                    count
                }
                Found::New { count } => {
                    let run = Run {
                        first,
                        count,
                        first_offset: self.next_offset,
                    };
                    dedup.remember(self.place, topic_id, run);
                    self.remembered.push(run);
                    self.store(count);
                    count
                }
            };
            first += u128::from(taken);
            count -= taken;
        }
    }

    /// The next `count` messages get the next offsets.
    fn store(&mut self, count: u32) {
        match self.rows.last_mut() {
            // Rows are split around duplicates only.
            Some(row) if row.first + row.count == self.position => row.count += count,
            _ => self.rows.push(Row {
                first_offset: self.next_offset,
                log_index: self.place.log_index,
                command: self.place.command,
                first: self.position,
                count,
                time_ms: self.place.time_ms,
            }),
        }
        let first_offset = self.next_offset;
        self.next_offset += u64::from(count);
        self.answer(count, first_offset, true);
    }

    fn answer(&mut self, count: u32, first_offset: u64, stored: bool) {
        let first = self.position;
        self.position += count;
        match self.placed.last_mut() {
            Some(run)
                if run.stored == stored
                    && run.first_offset + u64::from(run.count) == first_offset =>
            {
                run.count += count;
            }
            _ => self.placed.push(PlacedRun {
                first,
                count,
                first_offset,
                stored,
            }),
        }
    }

    fn finish(self, state: &mut State, changes: &mut Changes, append: &Append) -> CommandReply {
        let (topic_id, queue): (u64, QueueId) = (append.topic_id, append.queue);
        if !self.rows.is_empty() {
            let topic = state
                .topics
                .get_mut(&topic_id)
                .expect("find_queue found the topic");
            topic.queues[queue as usize].next_offset = self.next_offset;
            changes.touch(topic_id, queue);
            changes.add_payload(append.messages.len());
        }
        for row in self.rows {
            changes.add_row(topic_id, queue, row);
        }
        if !self.remembered.is_empty() {
            let row = dedup::Row {
                log_index: self.place.log_index,
                command: self.place.command,
                passed_ms: self.place.passed_ms,
                topic_id,
                queue,
                runs: self.remembered,
            };
            dedup::put(&mut changes.batch, &row);
        }
        CommandReply {
            placed: self.placed,
            ..CommandReply::default()
        }
    }
}
