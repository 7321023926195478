//! Takes back messages whose processing failed: each waits for another delivery, or is dead.
//!
//! A row points at the entry that holds the message. Where that is, the consume queue says once, when the
//! message is sent back for the first time.

use std::collections::BTreeMap;

use proto::command::command_reply::Refusal;
use proto::command::{CommandReply, Delivery, SendBack};
use proto::{QueueOffset, TimestampMs};
use store::StoreError;
use store::table::{DeliveryKey, GroupQueue, consume_queue};

use super::changes::Changes;
use super::dead_letter;
use super::entry::{Outcome, Place, refused};
use super::limits::{
    DELIVERIES_MAX, RETRIES_MAX, RETRIES_PER_GROUP_MAX, RETRIES_PER_QUEUE_MAX, Share,
};
use super::references::{Holder, Location};
use super::retries::Retry;
use super::settings::Group;
use super::settled::EVERY_ATTEMPT;
use super::state::State;

/// A message that is to be sent back.
struct Failed {
    key: DeliveryKey,
    /// Deliveries that failed.
    attempt: u32,
    location: Location,
    /// When it was stored.
    time_ms: TimestampMs,
}

/// Messages whose next delivery is to be decided.
#[derive(Default)]
struct News {
    waiting: Vec<Failed>,
    dead: Vec<Failed>,
    /// Offsets of those that are not kept any more.
    missing: Vec<QueueOffset>,
}

/// Sends back what is news; all of it or nothing, but for messages that are not kept any more. Answers
/// with how many changed.
pub(super) fn apply(
    state: &mut State,
    changes: &mut Changes,
    place: Place,
    command: &SendBack,
) -> Result<Outcome, StoreError> {
    let (group, queue) = match find(state, &command.group, command.topic_id, command.queue) {
        Ok(found) => found,
        Err(refusal) => return Ok(Err(refusal)),
    };
    let deliveries = match check(state, queue, &command.failed) {
        Ok(deliveries) => deliveries,
        Err(refusal) => return Ok(Err(refusal)),
    };
    let policy = group.retry_policy();
    let last_attempt = match command.dead {
        true => 0,
        false => policy.attempts_max(),
    };
    let news = match sort_out(state, changes, queue, deliveries, last_attempt)? {
        Ok(news) => news,
        Err(refusal) => return Ok(Err(refusal)),
    };
    let letters = command.dead_letter_queue.min(dead_letter::QUEUE_MAX);
    if let Err(refusal) = dead_letter::room(state, &group.name, news.dead.len(), letters) {
        return Ok(Err(refusal));
    }
    let value = (news.dead.len() + news.waiting.len()) as u64;
    for failed in news.waiting {
        let delay_ms = match command.delay_ms {
            0 => policy.wait_ms(failed.attempt),
            delay_ms => delay_ms,
        };
        let retry = Retry {
            location: failed.location,
            attempt: failed.attempt,
            due_ms: place.passed_ms.saturating_add(delay_ms),
            time_ms: failed.time_ms,
        };
        put(state, changes, failed.key, retry);
    }
    for failed in news.dead {
        dead_letter::bury(state, changes, place, &group.name, letters, failed.location);
        remove(state, changes, failed.key);
        let batch = &mut changes.batch;
        (state.settled).remember(batch, failed.key, EVERY_ATTEMPT, place.passed_ms);
    }
    Ok(Ok(CommandReply {
        value,
        missing: news.missing,
        ..CommandReply::default()
    }))
}

/// Finds the messages of deliveries that are news. Refused where too many would wait.
fn sort_out(
    state: &State,
    changes: &Changes,
    queue: GroupQueue,
    deliveries: BTreeMap<QueueOffset, u32>,
    last_attempt: u32,
) -> Result<Result<News, CommandReply>, StoreError> {
    let mut news = News::default();
    let mut added = 0;
    for (offset, attempt) in deliveries {
        let key = DeliveryKey { queue, offset };
        let known = state.retries.get(key);
        let newest = known.map_or(0, |retry| retry.attempt);
        if attempt <= newest.max(state.settled.attempt(key)) {
            continue;
        }
        let dies = attempt >= last_attempt;
        let found = match known {
            Some(retry) => Some((retry.location, retry.time_ms)),
            None => {
                added += usize::from(!dies);
                // Before the tables are asked, which costs far more than to say no. What dies waits for nothing.
                if !dies && let Err(refusal) = room(state, queue, added) {
                    return Ok(Err(refusal));
                }
                locate(state, changes, key)?
            }
        };
        let Some((location, time_ms)) = found else {
            added -= usize::from(!dies);
            news.missing.push(offset);
            continue;
        };
        let of_its_kind = if dies {
            &mut news.dead
        } else {
            &mut news.waiting
        };
        of_its_kind.push(Failed {
            key,
            attempt,
            location,
            time_ms,
        });
    }
    Ok(Ok(news))
}

/// The group, and the queue as that reads it.
pub(super) fn find(
    state: &State,
    group: &str,
    topic_id: u64,
    queue: u32,
) -> Result<(std::sync::Arc<Group>, GroupQueue), CommandReply> {
    let Some(topic) = state.topics.get(&topic_id) else {
        let detail = format!("topic {topic_id} does not exist");
        return Err(refused(Refusal::TopicNotFound, detail));
    };
    if topic.queues.len() <= queue as usize {
        let detail = format!("topic {} has no queue {queue}", topic.topic.name);
        return Err(refused(Refusal::QueueNotFound, detail));
    }
    let Some(found) = state.groups.get(group) else {
        let detail = format!("consumer group {group} does not exist");
        return Err(refused(Refusal::GroupNotFound, detail));
    };
    let queue = GroupQueue {
        group_id: found.group.id,
        topic_id,
        queue,
    };
    Ok((found.group.clone(), queue))
}

/// The latest delivery of each message, by offset, if all of them can be.
pub(super) fn check(
    state: &State,
    queue: GroupQueue,
    deliveries: &[Delivery],
) -> Result<BTreeMap<QueueOffset, u32>, CommandReply> {
    if deliveries.is_empty() || deliveries.len() > DELIVERIES_MAX {
        let detail = format!("{} deliveries, not 1 to {DELIVERIES_MAX}", deliveries.len());
        return Err(refused(Refusal::Invalid, detail));
    }
    let bounds = state.queue(queue.topic_id, queue.queue).unwrap_or_default();
    let mut latest = BTreeMap::new();
    for delivery in deliveries {
        if delivery.attempt == 0 {
            return Err(refused(Refusal::Invalid, "deliveries are counted from 1"));
        }
        if delivery.offset >= bounds.next_offset {
            let detail = format!("nothing is stored at offset {}", delivery.offset);
            return Err(refused(Refusal::Invalid, detail));
        }
        let attempt = latest.entry(delivery.offset).or_insert(0);
        *attempt = delivery.attempt.max(*attempt);
    }
    Ok(latest)
}

/// Adds a retry or changes it.
pub(super) fn put(state: &mut State, changes: &mut Changes, key: DeliveryKey, retry: Retry) {
    remove(state, changes, key);
    state.retries.put(key, retry);
    state.references.add(retry.location, Holder::Retry(key));
    store::table::retry::put(&mut changes.batch, &retry.row(key));
    changes.touch_retries(key.queue);
}

/// Removes a retry, if there is one.
pub(super) fn remove(state: &mut State, changes: &mut Changes, key: DeliveryKey) -> Option<Retry> {
    let removed = state.retries.remove(key)?;
    (state.references).remove(removed.location, Holder::Retry(key));
    store::table::retry::delete(&mut changes.batch, key);
    changes.touch_retries(key.queue);
    Some(removed)
}

/// Removes what a group has sent back and settled; in one topic, or in all.
pub(super) fn forget(
    state: &mut State,
    changes: &mut Changes,
    group_id: u64,
    topic_id: Option<u64>,
) {
    for key in state.retries.of_group(group_id, topic_id) {
        remove(state, changes, key);
    }
    let batch = &mut changes.batch;
    state.settled.forget_group(batch, group_id, topic_id);
}

fn room(state: &State, queue: GroupQueue, added: usize) -> Result<(), CommandReply> {
    if state.retries.count_of(queue) + added > RETRIES_PER_QUEUE_MAX {
        let detail = format!(
            "at most {RETRIES_PER_QUEUE_MAX} messages of a queue wait for another delivery to a group"
        );
        return Err(refused(Refusal::TooMany, detail));
    }
    let share = Share {
        own: state.retries.count_of_group(queue.group_id),
        all: state.retries.count(),
        groups: state.retries.groups(),
        own_max: RETRIES_PER_GROUP_MAX,
        all_max: RETRIES_MAX,
    };
    if !share.has_room(added) {
        let Share { own, all, .. } = share;
        let detail = format!(
            "{own} messages wait for another delivery to this group, {all} to all: no more of this group do until some are \
             settled (at most {RETRIES_PER_GROUP_MAX} of a group; where {RETRIES_MAX} wait, a fair part of that)"
        );
        return Err(refused(Refusal::TooMany, detail));
    }
    Ok(())
}

/// Where a message stands, and when it was stored; none if it is not kept any more.
fn locate(
    state: &State,
    changes: &Changes,
    key: DeliveryKey,
) -> Result<Option<(Location, TimestampMs)>, StoreError> {
    let (topic_id, queue, offset) = (key.queue.topic_id, key.queue.queue, key.offset);
    if let Some(letter) = state.dead_letters.get(topic_id, offset) {
        return Ok(Some((letter.location, letter.time_ms)));
    }
    let bounds = state.queue(topic_id, queue).unwrap_or_default();
    if !(bounds.min_offset..bounds.next_offset).contains(&offset) {
        return Ok(None);
    }
    // Rows that this call added are not in the tables yet.
    let mut added = changes.rows_of(topic_id, queue);
    let holds = |row: &consume_queue::Row| (row.first_offset..row.end_offset()).contains(&offset);
    let row = match added.find(|row| holds(row)) {
        Some(row) => *row,
        None => {
            let storage = state.storage.as_ref().ok_or(StoreError::Closed)?;
            let kv = &*storage.kv;
            let row = consume_queue::last_at_or_before(kv, topic_id, queue, offset)?;
            row.filter(holds).ok_or_else(|| {
                let detail = format!("no row holds offset {offset} of queue {topic_id}/{queue}");
                consume_queue::corrupt(detail)
            })?
        }
    };
    let position = u32::try_from(offset - row.first_offset)
        .ok()
        .and_then(|place| row.first.checked_add(place))
        .ok_or_else(|| consume_queue::corrupt("a row is longer than an entry can be"))?;
    let location = Location {
        log_index: row.log_index,
        command: row.command,
        position,
    };
    Ok(Some((location, row.time_ms)))
}
