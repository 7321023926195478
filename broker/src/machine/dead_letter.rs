//! Dead-letter queues: messages that a group could not process, as rows that point at where they stand.
//!
//! The queue of a group is the last one of the topic `%DLQ%<group>`, made when the first one dies; broker groups
//! that share a system have it under different numbers, and those below are empty. Its rows hold one message
//! each, and their times are those of death: what had passed then never decreases. Their log indexes follow no order, so
//! retention does not cut such a queue where it cuts others: a dead letter holds its entry, until a command of
//! its own ends it or [`keep`](super::keep) moves it.

use model::dead_letter::topic_of;
use proto::QueueId;
use proto::command::command_reply::Refusal;
use proto::command::{CommandReply, DropDeadLetters};
use store::table::consume_queue::{self, Row};

use super::changes::Changes;
use super::dead_letters::DeadLetter;
use super::entry::{Outcome, Place, done, refused};
use super::limits::{
    DEAD_LETTERS_DROPPED_AT_ONCE, DEAD_LETTERS_MAX, DEAD_LETTERS_PER_GROUP_MAX, Share,
};
use super::references::{Holder, Location};
use super::settings::Topic;
use super::state::State;
use super::topic;

/// Highest number of such a queue: what lies below it takes memory.
pub(crate) const QUEUE_MAX: QueueId = 255;

/// The queue of such a topic.
pub(super) fn queue_of(topic: &Topic) -> QueueId {
    topic.queue_count.saturating_sub(1)
}

/// Whether so many more messages of a group may die; its queue is `wanted` if it has none.
pub(super) fn room(
    state: &State,
    group: &str,
    count: usize,
    wanted: QueueId,
) -> Result<(), CommandReply> {
    if count == 0 {
        return Ok(());
    }
    let name = topic_of(group);
    let present = match state.topic(&name) {
        Some(topic) if topic.topic.dead_letters => {
            let bounds = topic.queues.last().copied().unwrap_or_default();
            bounds.next_offset - bounds.min_offset
        }
        Some(_) => {
            let detail = format!("topic {name} exists and is no dead-letter queue");
            return Err(refused(Refusal::Invalid, detail));
        }
        None => {
            topic::room(state, wanted as usize + 1)?;
            0
        }
    };
    let share = Share {
        own: present as usize,
        all: state.dead_letters.count(),
        groups: state.dead_letters.groups(),
        own_max: DEAD_LETTERS_PER_GROUP_MAX,
        all_max: DEAD_LETTERS_MAX,
    };
    if !share.has_room(count) {
        let Share { own, all, .. } = share;
        let detail = format!(
            "topic {name} holds {own} messages, all dead-letter queues {all}: no more of this group die until it is \
             emptied (at most {DEAD_LETTERS_PER_GROUP_MAX} of a group; where there are {DEAD_LETTERS_MAX}, a fair part of that)"
        );
        return Err(refused(Refusal::TooMany, detail));
    }
    Ok(())
}

/// Adds a message to the queue of a group, which is `wanted` if it has none. There must be [`room`] for it.
pub(super) fn bury(
    state: &mut State,
    changes: &mut Changes,
    place: Place,
    group: &str,
    wanted: QueueId,
    location: Location,
) {
    let name = topic_of(group);
    let topic_id = match state.topic(&name) {
        Some(topic) => topic.topic.id,
        None => topic::create_dead_letters(state, changes, place, name, wanted),
    };
    let letter = DeadLetter {
        location,
        time_ms: place.time_ms,
        passed_ms: place.passed_ms,
    };
    let topic = state.topics.get_mut(&topic_id);
    let topic = topic.expect("it was found or made");
    let queue = queue_of(&topic.topic);
    let bounds = topic.queues.last_mut().expect("a topic has a queue");
    let offset = bounds.next_offset;
    bounds.next_offset += 1;
    changes.touch(topic_id, queue);
    put(state, changes, (topic_id, offset), letter);
}

/// Writes a dead letter, new or moved.
pub(super) fn put(
    state: &mut State,
    changes: &mut Changes,
    (topic_id, offset): (u64, u64),
    letter: DeadLetter,
) {
    let row = Row {
        first_offset: offset,
        log_index: letter.location.log_index,
        command: letter.location.command,
        first: letter.location.position,
        count: 1,
        time_ms: letter.time_ms,
        passed_ms: letter.passed_ms,
    };
    let topic = &state.topics[&topic_id].topic;
    consume_queue::put(&mut changes.batch, topic_id, queue_of(topic), &row);
    hold(state, (topic_id, offset), letter);
}

/// Takes a dead letter into memory.
pub(super) fn hold(state: &mut State, (topic_id, offset): (u64, u64), letter: DeadLetter) {
    let holder = Holder::DeadLetter { topic_id, offset };
    if let Some(former) = state.dead_letters.remove(topic_id, offset) {
        state.references.remove(former.location, holder);
    }
    state.dead_letters.put(topic_id, offset, letter);
    state.references.add(letter.location, holder);
}

/// Ends the oldest dead letters, those that died before so much had passed: so many at once. Answers with how many.
pub(super) fn drop_old(
    state: &mut State,
    changes: &mut Changes,
    command: &DropDeadLetters,
) -> Outcome {
    let topics = state.topics.values();
    let topics = topics.filter(|topic| topic.topic.dead_letters);
    let topics: Vec<u64> = topics.map(|topic| topic.topic.id).collect();
    let mut dropped = 0;
    for topic_id in topics {
        let mut end = None;
        while dropped < DEAD_LETTERS_DROPPED_AT_ONCE
            && let Some((offset, letter)) = state.dead_letters.oldest_of(topic_id)
            && letter.passed_ms < command.before_passed_ms
        {
            let_go(state, topic_id, offset);
            dropped += 1;
            end = Some(offset + 1);
        }
        let Some(end) = end else {
            continue;
        };
        let topic = state.topics.get_mut(&topic_id);
        let topic = topic.expect("it is one of them");
        let queue = queue_of(&topic.topic);
        if let Some(bounds) = topic.queues.last_mut() {
            bounds.min_offset = end;
        }
        consume_queue::delete_before(&mut changes.batch, topic_id, queue, end);
        changes.touch(topic_id, queue);
    }
    Ok(done(dropped as u64))
}

/// Forgets all dead letters of a topic; the caller removes their rows.
pub(super) fn forget(state: &mut State, topic_id: u64) {
    while let Some((offset, _)) = state.dead_letters.oldest_of(topic_id) {
        let_go(state, topic_id, offset);
    }
}

fn let_go(state: &mut State, topic_id: u64, offset: u64) {
    if let Some(letter) = state.dead_letters.remove(topic_id, offset) {
        let holder = Holder::DeadLetter { topic_id, offset };
        state.references.remove(letter.location, holder);
    }
}
