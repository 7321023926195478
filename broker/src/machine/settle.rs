//! Ends retries whose delivery succeeded.

use proto::command::Settle;
use store::table::DeliveryKey;

use super::changes::Changes;
use super::entry::{Outcome, Place, done};
use super::send_back;
use super::state::State;

/// Removes the retries, whichever delivery they wait for: one success is enough. Remembers each, so that a
/// failure of this delivery or of an earlier one that is told late changes nothing. Answers with how many
/// went.
pub(super) fn apply(
    state: &mut State,
    changes: &mut Changes,
    place: Place,
    command: &Settle,
) -> Outcome {
    let (_, queue) = send_back::find(state, &command.group, command.topic_id, command.queue)?;
    let deliveries = send_back::check(state, queue, &command.settled)?;
    let mut removed = 0;
    for (offset, attempt) in deliveries {
        let key = DeliveryKey { queue, offset };
        let former = send_back::remove(state, changes, key);
        removed += u64::from(former.is_some());
        let attempt = former.map_or(attempt, |retry| retry.attempt.max(attempt));
        let batch = &mut changes.batch;
        (state.settled).remember(batch, key, attempt, place.passed_ms);
    }
    Ok(done(removed))
}
