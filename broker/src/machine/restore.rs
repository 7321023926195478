//! Makes the state in memory from the tables: at start, and when a snapshot took their place.

use std::collections::BTreeMap;
use std::sync::Arc;

use store::table::queue_bounds::QueueBounds;
use store::table::{self, consume_queue, consumer_offset, dedup, queue_bounds, retry, settled};
use store::{Kv, StoreError};

use super::dead_letter;
use super::dead_letters::DeadLetter;
use super::limits::QUEUES_PER_TOPIC_MAX;
use super::record;
use super::references::{Holder, Location};
use super::retries::Retry;
use super::settings::Topic;
use super::state::{GroupState, State, Storage, TopicState};

/// Rows of a dead-letter queue that are read at once.
const DEAD_LETTERS_PER_SCAN: usize = 1_024;

/// The state that the tables hold. `Corrupt` if rows contradict each other.
pub(super) fn load(kv: &dyn Kv, storage: Storage) -> Result<State, StoreError> {
    let mut state = State {
        clock: table::clock::get(kv)?,
        next_id: table::next_id::get(kv)?,
        log_floor: table::log_floor::get(kv)?,
        storage: Some(storage),
        ..State::default()
    };
    load_topics(kv, &mut state)?;
    load_groups(kv, &mut state)?;
    dedup::scan(kv, |key, row| state.dedup.load(key, row))?;
    load_retries(kv, &mut state)?;
    load_dead_letters(kv, &mut state)?;
    Ok(state)
}

fn load_topics(kv: &dyn Kv, state: &mut State) -> Result<(), StoreError> {
    table::topic::scan(kv, |id, record| {
        let topic = record::read_topic(id, record)?;
        if topic.queue_count > QUEUES_PER_TOPIC_MAX {
            let detail = format!("topic {id} has {} queues", topic.queue_count);
            return Err(table::topic::corrupt(detail));
        }
        let queues = vec![QueueBounds::default(); topic.queue_count as usize];
        state.queues += queues.len();
        state.topic_ids.insert(topic.name.clone(), id);
        state.topics.insert(
            id,
            TopicState {
                topic: Arc::new(topic),
                queues,
            },
        );
        Ok(())
    })?;
    queue_bounds::scan(kv, |topic_id, queue, bounds| {
        let topic = state.topics.get_mut(&topic_id);
        match topic.and_then(|topic| topic.queues.get_mut(queue as usize)) {
            Some(present) => *present = bounds,
            None => {
                let detail = format!("bounds of queue {topic_id}/{queue}, which does not exist");
                return Err(table::topic::corrupt(detail));
            }
        }
        Ok(())
    })
}

fn load_groups(kv: &dyn Kv, state: &mut State) -> Result<(), StoreError> {
    table::group::scan(kv, |name, record| {
        let group = Arc::new(record::read_group(name, record)?);
        state.groups.insert(
            name.to_owned(),
            GroupState {
                group,
                offsets: BTreeMap::new(),
            },
        );
        Ok(())
    })?;
    consumer_offset::scan(kv, |name, topic_id, queue, offset| {
        let Some(group) = state.groups.get_mut(name) else {
            let detail = format!("an offset of group {name}, which does not exist");
            return Err(table::group::corrupt(detail));
        };
        group.offsets.insert((topic_id, queue), offset);
        state.offsets += 1;
        Ok(())
    })
}

fn load_retries(kv: &dyn Kv, state: &mut State) -> Result<(), StoreError> {
    retry::scan(kv, |row| {
        let (topic_id, queue) = (row.key.queue.topic_id, row.key.queue.queue);
        if state.queue(topic_id, queue).is_none() {
            let detail = format!("a retry in queue {topic_id}/{queue}, which does not exist");
            return Err(retry::corrupt(detail));
        }
        let (key, retry) = Retry::of(&row);
        state.retries.put(key, retry);
        state.references.add(retry.location, Holder::Retry(key));
        Ok(())
    })?;
    settled::scan(kv, |row| {
        state.settled.load(&row);
        Ok(())
    })
}

fn load_dead_letters(kv: &dyn Kv, state: &mut State) -> Result<(), StoreError> {
    let topics = state.topics.values();
    let topics = topics.filter(|topic| topic.topic.dead_letters);
    let topics: Vec<Arc<Topic>> = topics.map(|topic| topic.topic.clone()).collect();
    for topic in topics {
        let (topic_id, queue, mut next) = (topic.id, dead_letter::queue_of(&topic), 0);
        loop {
            let rows = consume_queue::scan(kv, topic_id, queue, next, DEAD_LETTERS_PER_SCAN)?;
            let full = rows.len() == DEAD_LETTERS_PER_SCAN;
            for row in rows {
                if row.count != 1 {
                    let detail = format!("a row of {} dead letters", row.count);
                    return Err(consume_queue::corrupt(detail));
                }
                let location = Location {
                    log_index: row.log_index,
                    command: row.command,
                    position: row.first,
                };
                let letter = DeadLetter {
                    location,
                    time_ms: row.time_ms,
                    passed_ms: row.passed_ms,
                };
                dead_letter::hold(state, (topic_id, row.first_offset), letter);
                next = row.end_offset();
            }
            if !full {
                break;
            }
        }
    }
    Ok(())
}
