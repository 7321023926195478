//! Stores messages in a queue: gives each its offset, once, however often it is sent.

use std::collections::BTreeSet;

use proto::QueueId;
use proto::command::command_reply::Refusal;
use proto::command::{Append, CommandReply, IdRun, PlacedRun};
use store::table::consume_queue::Row;
use store::table::dedup::{Owner, Run};

use super::changes::Changes;
use super::dedup::{self, Dedup, Found, OwnerKey, Sent};
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
    let runs = decode_ids(append, count)?;
    if queue.checked_add(u64::from(count)).is_none() {
        return Err(refused(Refusal::Invalid, "queue has no offsets left"));
    }
    let mut placing = Placing::new(place, append, queue);
    if runs.is_empty() {
        placing.store(count);
    }
    for run in runs {
        placing.place(&mut state.dedup, run);
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

/// Messages under ids that follow each other.
struct IdsOf {
    owner: Owner,
    first: u128,
    count: u32,
}

/// The ids. There is one for each message, or none at all (then nothing is recognised).
fn decode_ids(append: &Append, messages: u32) -> Result<Vec<IdsOf>, CommandReply> {
    let invalid = |detail| Err(refused(Refusal::Invalid, detail));
    let mut ids = Vec::with_capacity(append.ids.len());
    let mut total = 0_u64;
    for run in &append.ids {
        let run = decode_run(run)?;
        total = total.saturating_add(u64::from(run.count));
        ids.push(run);
    }
    if !ids.is_empty() && total != u64::from(messages) {
        return invalid("ids do not match the messages");
    }
    if append.digests.len() as u64 != total {
        return invalid("digests do not match the ids");
    }
    Ok(ids)
}

fn decode_run(run: &IdRun) -> Result<IdsOf, CommandReply> {
    let invalid = |detail| Err(refused(Refusal::Invalid, detail));
    let first = run.first.as_ref().try_into().map(u128::from_be_bytes);
    let Ok(first) = first else {
        return invalid("an id is not 16 bytes long");
    };
    let count = run.count;
    if count == 0 || first.checked_add(u128::from(count)).is_none() {
        return invalid("a run of ids has no end");
    }
    let owner = match run.sequenced {
        true => Owner::Sequenced((first >> 64) as u64),
        false => Owner::Client(run.client),
    };
    let ids = Run {
        first,
        count,
        first_offset: 0,
    };
    if !dedup::is_of(owner, &ids) {
        return invalid("a run of ids is of two senders");
    }
    Ok(IdsOf {
        owner,
        first,
        count,
    })
}

/// Where the messages go, while their positions are walked through.
struct Placing<'a> {
    place: Place,
    append: &'a Append,
    next_offset: u64,
    /// Position of the next message in the command.
    position: u32,
    placed: Vec<PlacedRun>,
    rows: Vec<Row>,
    /// Whose rows of remembered messages changed.
    owners: BTreeSet<OwnerKey>,
}

impl<'a> Placing<'a> {
    fn new(place: Place, append: &'a Append, next_offset: u64) -> Placing<'a> {
        Placing {
            place,
            append,
            next_offset,
            position: 0,
            placed: Vec::with_capacity(1),
            rows: Vec::with_capacity(1),
            owners: BTreeSet::new(),
        }
    }

    /// The next messages have these ids: stores the new ones among them.
    fn place(&mut self, dedup: &mut Dedup, ids: IdsOf) {
        let (append, begin) = (self.append, self.position as usize);
        let mut digests = &append.digests[begin..begin + ids.count as usize];
        let mut first = ids.first;
        while !digests.is_empty() {
            let sent = Sent {
                topic_id: self.append.topic_id,
                queue: self.append.queue,
                owner: ids.owner,
                first,
                digests,
            };
            let taken = match dedup.find(sent) {
                Found::Known {
                    count,
                    queue,
                    first_offset,
                } => {
                    self.answer(PlacedRun {
                        count: count as u32,
                        first_offset,
                        queue,
                        ..PlacedRun::default()
                    });
                    count
                }
                Found::New { count, owner } => {
                    let new = Sent {
                        owner,
                        digests: &digests[..count],
                        ..sent
                    };
                    dedup.remember(self.place, new, self.next_offset);
                    self.owners.insert((sent.topic_id, owner));
                    self.store(count as u32);
                    count
                }
                Found::TooLate => {
                    self.answer(PlacedRun {
                        count: 1,
                        queue: self.append.queue,
                        too_late: true,
                        ..PlacedRun::default()
                    });
                    1
                }
            };
            first += taken as u128;
            digests = &digests[taken..];
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
                passed_ms: self.place.passed_ms,
            }),
        }
        let first_offset = self.next_offset;
        self.next_offset += u64::from(count);
        self.answer(PlacedRun {
            count,
            first_offset,
            queue: self.append.queue,
            stored: true,
            ..PlacedRun::default()
        });
    }

    /// What is said of the next messages.
    fn answer(&mut self, run: PlacedRun) {
        let first = self.position;
        self.position += run.count;
        let kind = |run: &PlacedRun| (run.stored, run.too_late, run.queue);
        match self.placed.last_mut() {
            Some(last) if kind(last) == kind(&run) && is_next(last, &run) => {
                last.count += run.count;
            }
            _ => self.placed.push(PlacedRun { first, ..run }),
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
        for owner in self.owners {
            state.dedup.write(self.place, owner, &mut changes.batch);
        }
        CommandReply {
            placed: self.placed,
            ..CommandReply::default()
        }
    }
}

/// Whether a run goes on where another ends; those that have no place always do.
fn is_next(last: &PlacedRun, run: &PlacedRun) -> bool {
    run.too_late || last.first_offset + u64::from(last.count) == run.first_offset
}
