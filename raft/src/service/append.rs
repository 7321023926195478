//! Takes a pipeline of AppendEntries from a leader.

use futures::stream::BoxStream;
use futures::{StreamExt, stream};
use proto::raft as wire;
use store::{EntryKind, Room};
use tonic::{Status, Streaming};

use super::{Service, stopped};
use crate::convert::{append_from_wire, append_result_to_wire};
use crate::types::TypeConfig;

type Request = openraft::raft::AppendEntriesRequest<TypeConfig>;

/// Reads the first request, which says who sends, and hands the whole stream to Raft. The first
/// thing that is wrong ends the stream of requests, and with it, after the answers owed, the stream
/// of answers.
pub(super) async fn stream(
    service: &Service,
    mut requests: Streaming<wire::AppendRequest>,
) -> Result<BoxStream<'static, Result<wire::AppendResponse, Status>>, Status> {
    let raft = service.raft()?;
    let Some(first) = requests.next().await else {
        return Ok(stream::empty().boxed());
    };
    let first = first?;
    service.admit(&first.cluster_id, &first.group, first.sender.as_ref())?;
    let first = convert(service, first)?;
    let service = service.clone();
    let rest = requests.map(move |request| convert(&service, request?));
    let requests = stream::once(futures::future::ready(Ok(first))).chain(rest);
    let requests = requests.scan((), |(), request: Result<Request, Status>| {
        if let Err(status) = &request {
            tracing::debug!(%status, "stream of entries ends");
        }
        futures::future::ready(request.ok())
    });
    let answers = raft.stream_append(requests.boxed());
    Ok(answers
        .map(|answer| answer.map(append_result_to_wire).map_err(stopped))
        .boxed())
}

/// Whether those of a request's entries that are not here yet fit into files that are there. A leader that looks for where two
/// logs part sends many that are. Not known while others on their way come before them.
fn has_place(service: &Service, request: &wire::AppendRequest) -> bool {
    let last = service.log.last().map(|last| last.index);
    let follows = match &request.previous {
        Some(previous) => Some(previous.index) <= last,
        None => true,
    };
    let entries = request.entries.iter();
    let new: Vec<_> = entries.filter(|entry| Some(entry.index) > last).collect();
    let rolls = new.iter().any(|entry| entry.kind == EntryKind::Roll as u32);
    let bytes = new.iter().map(|entry| entry.body.len() as u64).sum();
    follows && !rolls && service.log.has_place(new.len(), bytes)
}

/// Entries are refused once the disk has room for nothing: the leader tries again later, where a failed append would end this
/// replica. But for those that fit into files that are there: on disks that are all full, who lets older entries go must be
/// followed, and what stands before that.
#[allow(clippy::result_large_err, reason = "the transport's own error type")]
fn convert(service: &Service, request: wire::AppendRequest) -> Result<Request, Status> {
    let is_full = service.state.room() == Room::Nothing;
    if is_full && !request.entries.is_empty() && !has_place(service, &request) {
        return Err(Status::resource_exhausted("disk is full"));
    }
    let request = append_from_wire(request)?;
    service.check_append(&request)?;
    Ok(request)
}
