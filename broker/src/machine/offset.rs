//! Moves a consumer group on in a queue.

use proto::QueueOffset;
use proto::command::CommitOffset;
use proto::command::command_reply::Refusal;
use store::table::{GroupQueue, consumer_offset};

use super::changes::Changes;
use super::entry::{Outcome, Place, done, refused};
use super::limits::OFFSETS_MAX;
use super::send_back;
use super::settled::EVERY_ATTEMPT;
use super::state::State;

/// Sets the group's place to `offset`, at most to the queue's end. A commit never goes back; an
/// operator's reset may. Answers with the place that the group has then.
pub(super) fn commit(
    state: &mut State,
    changes: &mut Changes,
    place: Place,
    command: &CommitOffset,
) -> Outcome {
    let (topic_id, queue) = (command.topic_id, command.queue);
    let Some(topic) = state.topics.get(&topic_id) else {
        let detail = format!("topic {topic_id} does not exist");
        return Err(refused(Refusal::TopicNotFound, detail));
    };
    let Some(bounds) = topic.queues.get(queue as usize) else {
        let detail = format!("topic {} has no queue {queue}", topic.topic.name);
        return Err(refused(Refusal::QueueNotFound, detail));
    };
    let Some(group) = state.groups.get(&command.group) else {
        let detail = format!("consumer group {} does not exist", command.group);
        return Err(refused(Refusal::GroupNotFound, detail));
    };
    let present = group.offsets.get(&(topic_id, queue)).copied();
    let wanted = command.offset.min(bounds.next_offset);
    let offset = if command.reset {
        wanted
    } else {
        wanted.max(present.unwrap_or(0))
    };
    if present.is_none() && state.offsets >= OFFSETS_MAX {
        let detail = format!("all groups together have at most {OFFSETS_MAX} offsets");
        return Err(refused(Refusal::TooMany, detail));
    }
    if command.reset {
        // The group is to get these anew, so it may fail them anew.
        let of_group = GroupQueue {
            group_id: group.group.id,
            topic_id,
            queue,
        };
        (state.settled).forget_from(&mut changes.batch, of_group, offset);
        if command.settle_retries {
            settle_before(state, changes, place, of_group, offset);
        }
    }
    if present == Some(offset) {
        return Ok(done(offset));
    }
    state.offsets += usize::from(present.is_none());
    if let Some(group) = state.groups.get_mut(&command.group) {
        group.offsets.insert((topic_id, queue), offset);
    }
    consumer_offset::put(&mut changes.batch, &command.group, topic_id, queue, offset);
    Ok(done(offset))
}

/// What waits for another delivery and lies before `offset` does not come again, also if a consumer that works on it fails it.
fn settle_before(
    state: &mut State,
    changes: &mut Changes,
    place: Place,
    queue: GroupQueue,
    offset: QueueOffset,
) {
    for key in state.retries.before(queue, offset) {
        send_back::remove(state, changes, key);
        let batch = &mut changes.batch;
        (state.settled).remember(batch, key, EVERY_ATTEMPT, place.passed_ms);
    }
}
