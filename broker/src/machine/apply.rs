//! One entry: decode it, move the clock on, carry out its commands in turn.

use bytes::Bytes;
use prost::Message;
use proto::command::command::Body;
use proto::command::command_reply::Refusal;
use proto::command::{Command, CommandReply, Entry, Reply};
use raft::Committed;
use store::StoreError;

use super::changes::Changes;
use super::entry::{Place, STEP_MS_MAX, refused};
use super::state::State;
use super::{
    append, dead_letter, delete_topic, drop_log, group, history, keep, offset, send_back, settle,
    topic,
};

/// Applies one entry; its encoded reply. An error means that the tables cannot be read, or that the entry is of a
/// newer version.
pub(super) fn entry(
    state: &mut State,
    changes: &mut Changes,
    committed: &Committed,
) -> Result<Bytes, StoreError> {
    state.clock.log_index = committed.index;
    let Ok(entry) = Entry::decode(committed.body.clone()) else {
        // Committed, so all replicas must do the same with it: nothing, and say so.
        return Ok(encode(vec![refused(
            Refusal::Invalid,
            "entry does not decode",
        )]));
    };
    let step_ms = entry.passed_ms.saturating_sub(state.clock.passed_ms);
    state.clock.passed_ms += step_ms.min(STEP_MS_MAX);
    state.clock.time_ms = entry.time_ms;
    state.dedup.expire(
        state.clock.passed_ms,
        entry.dedup_window_ms,
        entry.dedup_bytes_max,
        &mut changes.batch,
    );
    (state.settled).expire(
        state.clock.passed_ms,
        entry.dedup_window_ms,
        &mut changes.batch,
    );
    let mut replies = Vec::with_capacity(entry.commands.len());
    for (number, command) in entry.commands.into_iter().enumerate() {
        let place = Place {
            log_index: committed.index,
            command: u32::try_from(number).expect("an entry is far too small for 2^32 commands"),
            time_ms: state.clock.time_ms,
            passed_ms: state.clock.passed_ms,
        };
        replies.push(carry_out(state, changes, place, command)?);
    }
    Ok(encode(replies))
}

fn carry_out(
    state: &mut State,
    changes: &mut Changes,
    place: Place,
    command: Command,
) -> Result<CommandReply, StoreError> {
    let outcome = match command.body {
        Some(Body::Append(command)) => append::apply(state, changes, place, &command),
        Some(Body::PutTopic(command)) => topic::put(state, changes, place, command),
        Some(Body::DeleteTopic(command)) => delete_topic::apply(state, changes, &command.name),
        Some(Body::PutGroup(command)) => group::put(state, changes, place, command),
        Some(Body::DeleteGroup(command)) => group::delete(state, changes, &command.name),
        Some(Body::CommitOffset(command)) => offset::commit(state, changes, place, &command),
        Some(Body::DropLog(command)) => drop_log::apply(state, changes, place, &command)?,
        Some(Body::SendBack(command)) => send_back::apply(state, changes, place, &command)?,
        Some(Body::Settle(command)) => settle::apply(state, changes, place, &command),
        Some(Body::Keep(command)) => keep::apply(state, changes, place, &command),
        Some(Body::DropDeadLetters(command)) => dead_letter::drop_old(state, changes, &command),
        Some(Body::BeginHistory(command)) => history::begin(state, changes, &command),
        None => return Err(unknown(place)),
    };
    Ok(outcome.unwrap_or_else(|refusal| refusal))
}

/// Others may have carried it out: a replica that passed over it would differ from them for ever, one that stops
/// goes on where it stopped once it is upgraded.
fn unknown(place: Place) -> StoreError {
    let Place {
        log_index, command, ..
    } = place;
    let detail = format!(
        "command {command} of entry {log_index} is of a newer version than this program: upgrade this broker"
    );
    StoreError::Refused { detail }
}

fn encode(commands: Vec<CommandReply>) -> Bytes {
    Bytes::from(Reply { commands }.encode_to_vec())
}
