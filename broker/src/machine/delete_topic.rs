//! Deletes topics, with all that was made of them: rows, places, retries and dead letters.

use proto::command::command_reply::Refusal;
use store::table::{self, consume_queue, consumer_offset, queue_bounds};

use super::changes::Changes;
use super::entry::{Outcome, done, refused};
use super::state::State;
use super::{dead_letter, send_back};

pub(super) fn apply(state: &mut State, changes: &mut Changes, name: &str) -> Outcome {
    let Some(topic_id) = state.topic_ids.remove(name) else {
        return Err(refused(
            Refusal::TopicNotFound,
            format!("topic {name} does not exist"),
        ));
    };
    let removed = state
        .topics
        .remove(&topic_id)
        .expect("topic_ids names topics that exist");
    state.queues -= removed.queues.len();
    table::topic::delete(&mut changes.batch, topic_id);
    queue_bounds::delete_topic(&mut changes.batch, topic_id);
    consume_queue::delete_topic(&mut changes.batch, topic_id);
    for (group, group_state) in &mut state.groups {
        let of_topic = (topic_id, 0)..=(topic_id, u32::MAX);
        let queues: Vec<u32> = group_state
            .offsets
            .range(of_topic)
            .map(|((_, queue), _)| *queue)
            .collect();
        for queue in queues {
            group_state.offsets.remove(&(topic_id, queue));
            state.offsets -= 1;
            consumer_offset::delete(&mut changes.batch, group, topic_id, queue);
        }
    }
    let groups = state.groups.values();
    let groups: Vec<u64> = groups.map(|group| group.group.id).collect();
    for group_id in groups {
        send_back::forget(state, changes, group_id, Some(topic_id));
    }
    dead_letter::forget(state, topic_id);
    // Its ids stay remembered until they expire: no other topic ever has its number.
    changes.remove_topic(topic_id);
    Ok(done(topic_id))
}
