//! Mutant: a send is answered before it is committed, when its followers take long to confirm it.
//!
//! The answer says where the messages will be if nothing comes between.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use host::{Mutant, mutant};
use prost::Message;
use proto::command::command::Body;
use proto::command::{CommandReply, Entry, PlacedRun, Reply};

use super::{GroupAgreement, ProposalError};
use crate::view::View;

/// How long followers are waited for.
const PATIENCE: Duration = Duration::from_millis(100);

/// Proposes an entry and answers soon; none if this is not for hasty answers.
pub(super) async fn propose(
    agreement: &GroupAgreement,
    entry: &Bytes,
) -> Option<Result<Bytes, ProposalError>> {
    if !mutant::is(Mutant::AcknowledgedBeforeCommit) {
        return None;
    }
    let foreseen = foresee(&agreement.view, entry)?;
    let proposal = agreement.group.propose(entry.clone());
    Some(match tokio::time::timeout(PATIENCE, proposal).await {
        Ok(Ok(proposed)) => Ok(proposed.reply),
        Ok(Err(error)) => Err(error.into()),
        Err(_) => Ok(foreseen),
    })
}

/// What the entry will be answered if it is applied next; none if it does not only store messages.
fn foresee(view: &View, entry: &Bytes) -> Option<Bytes> {
    let entry = Entry::decode(entry.clone()).ok()?;
    let mut ends = BTreeMap::new();
    let mut commands = Vec::new();
    for command in &entry.commands {
        let Some(Body::Append(append)) = &command.body else {
            return None;
        };
        let bounds = view.queue(append.topic_id, append.queue)?;
        let place = (append.topic_id, append.queue);
        let end = ends.entry(place).or_insert(bounds.next_offset);
        let run = PlacedRun {
            first: 0,
            count: append.sizes_bytes.len() as u32,
            first_offset: *end,
            stored: true,
            queue: append.queue,
            too_late: false,
        };
        *end += u64::from(run.count);
        commands.push(CommandReply {
            placed: vec![run],
            ..CommandReply::default()
        });
    }
    Some(Bytes::from(Reply { commands }.encode_to_vec()))
}
