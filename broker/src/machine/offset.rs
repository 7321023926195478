//! Moves a consumer group on in a queue.

use host::{Mutant, mutant};
use proto::command::CommitOffset;
use proto::command::command_reply::Refusal;
use store::table::{GroupQueue, consumer_offset};

use super::changes::Changes;
use super::entry::{Outcome, done, refused};
use super::limits::OFFSETS_MAX;
use super::state::State;

/// Sets the group's place to `offset`, at most to the queue's end. A commit never goes back; an
/// operator's reset may. Answers with the place that the group has then.
pub(super) fn commit(state: &mut State, changes: &mut Changes, command: &CommitOffset) -> Outcome {
    let (topic_id, queue) = (command.topic_id, command.queue);
    let Some(topic) = state.topics.get(&topic_id) else {
        let detail = format!("topic {topic_id} does not exist");
        return Err(refused(Refusal::TopicNotFound, detail));
    };
    let Some(bounds) = topic.queues.get(queue as usize) else {
        let detail = format!("topic {} has no queue {queue}", topic.topic.name);
        return Err(refused(Refusal::QueueNotFound, detail));
    };
    let Some(group) = state.groups.get_mut(&command.group) else {
        let detail = format!("consumer group {} does not exist", command.group);
        return Err(refused(Refusal::GroupNotFound, detail));
    };
    let present = group.offsets.get(&(topic_id, queue)).copied();
    let wanted = command.offset.min(bounds.next_offset);
    // Mutant: the last word counts, however late it comes.
    let offset = if command.reset || mutant::is(Mutant::StaleOffsetCommit) {
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
    }
    if present == Some(offset) {
        return Ok(done(offset));
    }
    state.offsets += usize::from(present.is_none());
    group.offsets.insert((topic_id, queue), offset);
    consumer_offset::put(&mut changes.batch, &command.group, topic_id, queue, offset);
    Ok(done(offset))
}
