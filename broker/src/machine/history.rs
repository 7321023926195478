//! The log goes on from a copy: every topic begins another life, so that places which were told by the lost group are
//! recognised as such.

use std::sync::Arc;

use bytes::Bytes;
use prost::Message;
use proto::command::command::Body;
use proto::command::{BeginHistory, Command, Entry};

use super::changes::Changes;
use super::entry::{Outcome, done};
use super::record;
use super::settings::Topic;
use super::state::State;

/// The entry that begins a history of this number at this time of a clock. No time passes along the log with it.
pub fn history_begins(number: u64, now_ms: u64) -> Bytes {
    let begins = BeginHistory { mark: number };
    let command = Command {
        body: Some(Body::BeginHistory(begins)),
    };
    let entry = Entry {
        time_ms: now_ms,
        commands: vec![command],
        ..Entry::default()
    };
    entry.encode_to_vec().into()
}

pub(super) fn begin(state: &mut State, changes: &mut Changes, command: &BeginHistory) -> Outcome {
    for present in state.topics.values_mut() {
        let topic = Topic {
            mark: command.mark,
            ..(*present.topic).clone()
        };
        record::put_topic(&mut changes.batch, &topic);
        present.topic = Arc::new(topic);
    }
    changes.change_config();
    Ok(done(command.mark))
}
