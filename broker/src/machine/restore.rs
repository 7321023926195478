//! Makes the state in memory from the tables: at start, and when a snapshot took their place.

use std::collections::BTreeMap;
use std::sync::Arc;

use store::table::queue_bounds::QueueBounds;
use store::table::{self, consumer_offset, dedup, queue_bounds};
use store::{Kv, StoreError};

use super::limits::QUEUES_PER_TOPIC_MAX;
use super::record;
use super::shared::Storage;
use super::state::{GroupState, State, TopicState};

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
    dedup::scan(kv, |row| {
        state.dedup.load(&row);
        Ok(())
    })?;
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
