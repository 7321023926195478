//! Dropping log segments on an operator's word.

use proto::cluster::{AdminResponse, DropLogRequest};
use proto::command::{self, command::Body};
use proto::v2::Code;

use super::done;
use crate::call::Context;
use crate::grpc::status::{CallError, Refusal};
use crate::retention;
use crate::service::Service;

/// Drops sealed segments as retention by size would; the answer's value is the first index kept, 0 if
/// nothing was to be dropped.
pub(super) async fn drop_log(
    service: &Service,
    request: &DropLogRequest,
    _: &Context,
) -> Result<AdminResponse, CallError> {
    let segments = service.group.log().segments().await.map_err(|error| {
        Refusal::new(
            Code::InternalServerError,
            format!("cannot list the log segments: {error}"),
        )
    })?;
    let Some(first_index) = retention::floor_by_size(&segments, request.retain_bytes) else {
        return Ok(done(0));
    };
    // An operator's word: whatever it takes to keep what must be kept.
    if let Err(error) = retention::keep::before(service, first_index, u64::MAX).await {
        tracing::warn!(%error, "what is to be kept cannot be written once more");
    }
    let reply = service
        .propose_upkeep(Body::DropLog(command::DropLog { first_index }))
        .await?;
    if let Err(error) = service.group.drop_log().await {
        tracing::warn!(%error, "cannot drop log segments now, it is tried again");
    }
    Ok(done(first_index.min(reply.value)))
}
