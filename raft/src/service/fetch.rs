//! Gives committed entries, or a whole segment of them, to a peer that found its own copy damaged.

use futures::stream::BoxStream;
use futures::{StreamExt, stream};
use proto::raft as wire;
use store::StoreError;
use tonic::Status;

use super::Service;
use crate::config::APPEND_BYTES_MAX;
use crate::convert::store_entry_to_wire;
use crate::snapshot::{Chunks, segment_to_wire};

/// Entries in pieces. Only what is applied here is given: it is committed. A leader gives what it has to whoever means it.
#[allow(clippy::result_large_err, reason = "the transport's own error type")]
pub(super) fn entries(
    service: &Service,
    request: &wire::FetchEntriesRequest,
) -> Result<BoxStream<'static, Result<wire::FetchEntriesResponse, Status>>, Status> {
    let (first, last) = (request.first_index, request.last_index);
    // Before the question who leads: what is read is of one log, and that log held all that its leader had.
    let epoch = service.log.epoch();
    let applied = service.state.applied_index();
    let is_applied = applied.is_some_and(|applied| last <= applied);
    let leads = {
        let leadership = service.state.leadership().borrow();
        leadership.is_leader && leadership.term == request.leader_term
    };
    if first > last || last == u64::MAX || !(is_applied || leads) {
        let error = format!("entries {first}..={last} are not applied here ({applied:?})");
        return Err(Status::out_of_range(error));
    }
    let log = service.log.clone();
    let pieces = stream::try_unfold((log, first), move |(log, next)| async move {
        if next > last {
            return Ok(None);
        }
        let entries = log.read(next, last + 1, APPEND_BYTES_MAX).await;
        let entries = entries.map_err(|error| Status::data_loss(error.to_string()))?;
        if !is_applied && log.epoch() != epoch {
            return Err(Status::aborted("entries were taken back meanwhile"));
        }
        let Some(end) = entries.last().map(|entry| entry.index + 1) else {
            return Err(Status::out_of_range(format!("entry {next} is not here")));
        };
        let entries = entries.into_iter().map(store_entry_to_wire).collect();
        Ok(Some((wire::FetchEntriesResponse { entries }, (log, end))))
    });
    Ok(pieces.boxed())
}

/// The full segment that holds an index, if all of it is applied here, from where the peer has it already. The first piece
/// says what it is, and where it begins.
pub(super) async fn segment(
    service: &Service,
    request: wire::FetchSegmentRequest,
) -> Result<BoxStream<'static, Result<wire::SegmentPiece, Status>>, Status> {
    let damaged = |error: StoreError| Status::data_loss(error.to_string());
    let index = request.index;
    let Some(applied) = service.state.applied_index() else {
        return Err(Status::out_of_range("nothing is applied here"));
    };
    let flushed = service
        .log
        .positions()
        .flushed
        .map_or(0, |flushed| flushed.index);
    let exports = service
        .log
        .export(applied.min(flushed))
        .await
        .map_err(damaged)?;
    let export = exports.into_iter().find(|export| {
        let info = export.info();
        info.sealed && (info.first_index..=info.last_index).contains(&index)
    });
    let Some(export) = export else {
        return Err(Status::out_of_range(format!(
            "no full segment with entry {index} is here"
        )));
    };
    let file = segment_to_wire(&export.info());
    let position = match request.part == Some(file.clone()) {
        true => request.position.min(file.size_bytes),
        false => 0,
    };
    let mut file = Some(file);
    let pieces = stream::try_unfold(Chunks::of_segment(export, position), Chunks::next);
    let pieces = pieces.map(move |piece| {
        let (position, data) = piece.map_err(damaged)?;
        Ok(wire::SegmentPiece {
            file: file.take(),
            data,
            position,
        })
    });
    Ok(pieces.boxed())
}
