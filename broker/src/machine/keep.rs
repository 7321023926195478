//! Holds on to messages that retries and dead letters point at, when the entries that hold them are to go.
//!
//! The command carries the messages once more; whatever pointed at the old place points here afterwards.

use proto::command::Keep;
use proto::command::command_reply::Refusal;

use super::changes::Changes;
use super::dead_letter;
use super::dead_letters::DeadLetter;
use super::entry::{Outcome, Place, done, refused};
use super::references::{Holder, Location};
use super::retries::Retry;
use super::send_back;
use super::state::State;

/// Moves what points at each message. Answers with how many rows moved; a message that nothing points at
/// any more moves none.
pub(super) fn apply(
    state: &mut State,
    changes: &mut Changes,
    place: Place,
    command: &Keep,
) -> Outcome {
    let sizes = command.sizes_bytes.iter();
    let bytes: u64 = sizes.map(|size| u64::from(*size)).sum();
    if command.from.len() != command.sizes_bytes.len() || bytes != command.messages.len() as u64 {
        let detail = "sizes do not fit the messages";
        return Err(refused(Refusal::Invalid, detail));
    }
    let mut moved = 0;
    for (position, from) in (0_u32..).zip(&command.from) {
        let from = Location {
            log_index: from.log_index,
            command: from.command,
            position: from.position,
        };
        let to = Location {
            log_index: place.log_index,
            command: place.command,
            position,
        };
        for holder in state.references.holders(from) {
            shift(state, changes, holder, to);
            moved += 1;
        }
    }
    Ok(done(moved))
}

fn shift(state: &mut State, changes: &mut Changes, holder: Holder, to: Location) {
    match holder {
        Holder::Retry(key) => {
            if let Some(retry) = state.retries.get(key) {
                let moved = Retry {
                    location: to,
                    ..retry
                };
                send_back::put(state, changes, key, moved);
            }
        }
        Holder::DeadLetter { topic_id, offset } => {
            if let Some(letter) = state.dead_letters.get(topic_id, offset) {
                let moved = DeadLetter {
                    location: to,
                    ..letter
                };
                dead_letter::put(state, changes, (topic_id, offset), moved);
            }
        }
    }
}
