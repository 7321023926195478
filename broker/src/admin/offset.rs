//! An operator's reset of a group's offset: the one way back.

use proto::cluster::{AdminResponse, ResetOffsetRequest};
use proto::command::{self, command::Body};
use proto::v2::Code;

use super::done;
use crate::call::Context;
use crate::grpc::status::{CallError, Refusal, group_not_found, queue_not_found};
use crate::service::Service;

pub(super) async fn reset(
    service: &Service,
    request: &ResetOffsetRequest,
    _: &Context,
) -> Result<AdminResponse, CallError> {
    if service.view.group(&request.group).is_none() {
        return Err(group_not_found(&request.group).into());
    }
    let topic = service.topic(&request.topic)?;
    let Some(bounds) = service.view.queue(topic.id, request.queue) else {
        let queue = i32::try_from(request.queue).unwrap_or(i32::MAX);
        return Err(queue_not_found(&topic, queue).into());
    };
    let valid = bounds.min_offset..=bounds.next_offset;
    if !valid.contains(&request.offset) {
        return Err(Refusal::new(
            Code::IllegalOffset,
            format!(
                "offset {} is not in the valid range {} to {}",
                request.offset, bounds.min_offset, bounds.next_offset
            ),
        )
        .into());
    }
    let reply = service
        .propose(Body::CommitOffset(command::CommitOffset {
            group: request.group.clone(),
            topic_id: topic.id,
            queue: request.queue,
            offset: request.offset,
            reset: true,
            settle_retries: request.settle_retries,
        }))
        .await?;
    Ok(done(reply.value))
}
