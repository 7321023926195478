//! Creates and changes topics.

use std::sync::Arc;

use proto::QueueId;
use proto::command::command_reply::Refusal;
use proto::command::{CommandReply, PutTopic};
use store::table;
use store::table::queue_bounds::QueueBounds;

use super::changes::Changes;
use super::entry::{Outcome, Place, done, refused};
use super::limits::{QUEUES_MAX, QUEUES_PER_TOPIC_MAX, TOPICS_MAX};
use super::record::{self, check_attributes, check_name};
use super::settings::{FIRST_QUEUE, Topic};
use super::state::{State, TopicState};

pub(super) fn put(
    state: &mut State,
    changes: &mut Changes,
    place: Place,
    command: PutTopic,
) -> Outcome {
    check_name(&command.name)?;
    check_attributes(&command.attributes)?;
    if command.queue_count == 0 {
        return Err(refused(Refusal::Invalid, "a topic has at least one queue"));
    }
    if command.queue_count > QUEUES_PER_TOPIC_MAX {
        let detail = format!("a topic has at most {QUEUES_PER_TOPIC_MAX} queues");
        return Err(refused(Refusal::TooMany, detail));
    }
    match state.topic(&command.name) {
        None => create(state, changes, place, command),
        Some(present) if command.create && command.if_absent => Ok(done(present.topic.id)),
        Some(_) if command.create => {
            let detail = format!("topic {} exists", command.name);
            Err(refused(Refusal::TopicExists, detail))
        }
        Some(present) => {
            let id = present.topic.id;
            change(state, changes, id, command)
        }
    }
}

/// Makes the topic of a dead-letter queue of this number; the topic's number. There must be [`room`] for it.
pub(super) fn create_dead_letters(
    state: &mut State,
    changes: &mut Changes,
    place: Place,
    name: String,
    queue: QueueId,
) -> u64 {
    let first = (queue > 0).then(|| (FIRST_QUEUE.to_owned(), queue.to_string()));
    let topic = Topic {
        id: state.next_id,
        name,
        queue_count: queue + 1,
        message_type: 0,
        attributes: first.into_iter().collect(),
        dead_letters: true,
        mark: place.time_ms,
    };
    insert(state, changes, topic)
}

/// Whether another topic with so many queues may be made.
pub(super) fn room(state: &State, queues: usize) -> Result<(), CommandReply> {
    if state.topics.len() >= TOPICS_MAX {
        let detail = format!("there are {TOPICS_MAX} topics already");
        return Err(refused(Refusal::TooMany, detail));
    }
    if state.queues + queues > QUEUES_MAX {
        let detail = format!("all topics together have at most {QUEUES_MAX} queues");
        return Err(refused(Refusal::TooMany, detail));
    }
    Ok(())
}

fn create(state: &mut State, changes: &mut Changes, place: Place, command: PutTopic) -> Outcome {
    room(state, command.queue_count as usize)?;
    let topic = describe(state.next_id, place.time_ms, command);
    Ok(done(insert(state, changes, topic)))
}

fn insert(state: &mut State, changes: &mut Changes, topic: Topic) -> u64 {
    let id = topic.id;
    let queues = vec![QueueBounds::default(); topic.queue_count as usize];
    state.queues += queues.len();
    state.next_id += 1;
    table::next_id::put(&mut changes.batch, state.next_id);
    state.topic_ids.insert(topic.name.clone(), id);
    record::put_topic(&mut changes.batch, &topic);
    let topic = Arc::new(topic);
    state.topics.insert(id, TopicState { topic, queues });
    changes.change_config();
    id
}

fn change(state: &mut State, changes: &mut Changes, id: u64, command: PutTopic) -> Outcome {
    let queues = command.queue_count as usize;
    if state.topics[&id].topic.dead_letters {
        let detail = format!("topic {} is a dead-letter queue", command.name);
        return Err(refused(Refusal::Invalid, detail));
    }
    let present = state.topics[&id].queues.len();
    if queues < present {
        let detail = format!(
            "topic {} has {present} queues; it cannot have fewer",
            command.name
        );
        return Err(refused(Refusal::Invalid, detail));
    }
    reserve_queues(state, queues - present)?;
    let topic = describe(id, state.topics[&id].topic.mark, command);
    record::put_topic(&mut changes.batch, &topic);
    let present = state
        .topics
        .get_mut(&id)
        .expect("the caller found the topic");
    present.topic = Arc::new(topic);
    present.queues.resize(queues, QueueBounds::default());
    changes.change_config();
    Ok(done(id))
}

fn reserve_queues(state: &mut State, queues: usize) -> Result<(), CommandReply> {
    if state.queues + queues > QUEUES_MAX {
        let detail = format!("all topics together have at most {QUEUES_MAX} queues");
        return Err(refused(Refusal::TooMany, detail));
    }
    state.queues += queues;
    Ok(())
}

fn describe(id: u64, mark: u64, command: PutTopic) -> Topic {
    Topic {
        id,
        name: command.name,
        queue_count: command.queue_count,
        message_type: command.message_type,
        attributes: command.attributes.into_iter().collect(),
        dead_letters: false,
        mark,
    }
}
