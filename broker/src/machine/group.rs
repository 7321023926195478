//! Creates, changes and deletes consumer groups.

use std::collections::BTreeMap;
use std::sync::Arc;

use proto::command::PutGroup;
use proto::command::command_reply::Refusal;
use proto::command::put_group::ConsumeFrom;
use store::table::{self, consumer_offset};

use super::changes::Changes;
use super::entry::{Outcome, Place, done, refused};
use super::limits::GROUPS_MAX;
use super::record::{self, check_attributes, check_name};
use super::send_back;
use super::settings::{Group, Since};
use super::state::{GroupState, State};

pub(super) fn put(
    state: &mut State,
    changes: &mut Changes,
    place: Place,
    command: PutGroup,
) -> Outcome {
    check_name(&command.name)?;
    check_attributes(&command.attributes)?;
    if ConsumeFrom::try_from(command.consume_from).is_err() {
        return Err(refused(Refusal::Invalid, "unknown place to consume from"));
    }
    let present = state.groups.get_mut(&command.name);
    let id = match &present {
        Some(present) if command.create && command.if_absent => {
            return Ok(done(present.group.id));
        }
        Some(_) if command.create => {
            let detail = format!("consumer group {} exists", command.name);
            return Err(refused(Refusal::GroupExists, detail));
        }
        Some(present) => present.group.id,
        None => state.next_id,
    };
    let former = present.as_ref().map(|present| &*present.group);
    let since = since(former, place, &command);
    let group = describe(id, since, command);
    match present {
        Some(present) => {
            record::put_group(&mut changes.batch, &group);
            present.group = Arc::new(group);
        }
        None => create(state, changes, group)?,
    }
    changes.change_config();
    Ok(done(id))
}

pub(super) fn delete(state: &mut State, changes: &mut Changes, name: &str) -> Outcome {
    let Some(removed) = state.groups.remove(name) else {
        let detail = format!("consumer group {name} does not exist");
        return Err(refused(Refusal::GroupNotFound, detail));
    };
    state.offsets -= removed.offsets.len();
    table::group::delete(&mut changes.batch, name);
    consumer_offset::delete_group(&mut changes.batch, name);
    // Its dead letters stay: they have a topic of their own.
    send_back::forget(state, changes, removed.group.id, None);
    changes.change_config();
    Ok(done(removed.group.id))
}

fn create(
    state: &mut State,
    changes: &mut Changes,
    group: Group,
) -> Result<(), proto::command::CommandReply> {
    if state.groups.len() >= GROUPS_MAX {
        let detail = format!("there are {GROUPS_MAX} consumer groups already");
        return Err(refused(Refusal::TooMany, detail));
    }
    state.next_id += 1;
    table::next_id::put(&mut changes.batch, state.next_id);
    record::put_group(&mut changes.batch, &group);
    let name = group.name.clone();
    state.groups.insert(
        name,
        GroupState {
            group: Arc::new(group),
            offsets: BTreeMap::new(),
        },
    );
    Ok(())
}

/// A group that is altered and starts where it did keeps its age.
fn since(former: Option<&Group>, place: Place, command: &PutGroup) -> Since {
    let start = (command.consume_from, command.consume_from_ms);
    if let Some(former) =
        former.filter(|group| (group.consume_from, group.consume_from_ms) == start)
    {
        return former.since;
    }
    let elsewhere = command.since_ms > 0;
    Since {
        log_index: place.log_index,
        command: place.command,
        time_ms: match elsewhere {
            true => command.since_ms,
            false => place.time_ms,
        },
        elsewhere,
    }
}

fn describe(id: u64, since: Since, command: PutGroup) -> Group {
    Group {
        id,
        name: command.name,
        fifo: command.fifo,
        max_attempts: command.max_attempts,
        consume_from: command.consume_from,
        consume_from_ms: command.consume_from_ms,
        attributes: command.attributes.into_iter().collect(),
        since,
    }
}
