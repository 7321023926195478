//! Retention: removes the rows that point at entries which are no longer kept.
//!
//! Retries and dead letters do not go: no entry that one of them points at is given up. The leader has moved
//! them to newer entries before; what it overlooked, or what came since, holds the floor down.
//!
//! The segments themselves go later, and elsewhere: only when no row points at them any more.

use proto::QueueId;
use proto::command::DropLog;
use store::table::queue_bounds::QueueBounds;
use store::table::{consume_queue, log_floor};
use store::{Kv, StoreError};

use super::changes::Changes;
use super::entry::{Outcome, Place, done};
use super::state::State;

/// Raises the floor to `first_index`, at most to this entry and to the lowest that is pointed at, and cuts every queue there. Answers with
/// the floor that holds then.
pub(super) fn apply(
    state: &mut State,
    changes: &mut Changes,
    place: Place,
    command: &DropLog,
) -> Result<Outcome, StoreError> {
    let floor = command.first_index.min(place.log_index);
    let floor = floor.min(state.references.lowest().unwrap_or(u64::MAX));
    if floor <= state.log_floor {
        return Ok(Ok(done(state.log_floor)));
    }
    let storage = state.storage.clone().ok_or(StoreError::Closed)?;
    for (topic_id, topic) in &mut state.topics {
        if topic.topic.dead_letters {
            continue;
        }
        for (queue, bounds) in topic.queues.iter_mut().enumerate() {
            let queue = queue as QueueId;
            let min_offset = cut(&*storage.kv, changes, (*topic_id, queue), *bounds, floor)?;
            if min_offset > bounds.min_offset {
                bounds.min_offset = min_offset;
                consume_queue::delete_before(&mut changes.batch, *topic_id, queue, min_offset);
                changes.touch(*topic_id, queue);
            }
        }
    }
    state.log_floor = floor;
    log_floor::put(&mut changes.batch, floor);
    Ok(Ok(done(floor)))
}

/// The first offset of a queue whose entry is at or above `floor`.
fn cut(
    kv: &dyn Kv,
    changes: &Changes,
    (topic_id, queue): (u64, QueueId),
    bounds: QueueBounds,
    floor: u64,
) -> Result<u64, StoreError> {
    // Rows that this call added are not in the tables yet.
    let mut added = changes.rows_of(topic_id, queue).peekable();
    let stored_end = added
        .peek()
        .map_or(bounds.next_offset, |row| row.first_offset);
    let (mut low, mut high) = (bounds.min_offset, stored_end.max(bounds.min_offset));
    // Everything below `low` goes, everything from `high` on stays; log indexes grow with offsets.
    let mut middle = low;
    while low < high {
        let row = consume_queue::last_at_or_before(kv, topic_id, queue, middle)?;
        let Some(row) = row.filter(|row| row.end_offset() > middle) else {
            let detail = format!("no row holds offset {middle} of queue {topic_id}/{queue}");
            return Err(consume_queue::corrupt(detail));
        };
        if row.log_index < floor {
            low = row.end_offset();
        } else {
            high = row.first_offset;
        }
        middle = low + (high.saturating_sub(low)) / 2;
    }
    if low < stored_end {
        return Ok(low);
    }
    let dropped = added.filter(|row| row.log_index < floor).last();
    Ok(dropped.map_or(low, |row| row.end_offset().max(low)))
}
