//! `UpdateOffset`: a consumer group has come this far in a queue.
//!
//! An offset before the group's own is accepted and changes nothing: going back is an operator's reset.

use std::sync::Arc;

use gateway::Answer;
use proto::command::{self, command::Body};
use proto::v2::{UpdateOffsetRequest, UpdateOffsetResponse};
use tonic::{Request, Response, Status};

use super::Place;
use crate::call::{Context, Effect, LeaderCall};
use crate::grpc::group_name;
use crate::grpc::status::{CallError, Refusal, ok};
use crate::service::Service;

impl LeaderCall for UpdateOffsetRequest {
    type Answer = UpdateOffsetResponse;

    const EFFECT: Effect = Effect::Repeatable;

    async fn serve(
        &self,
        service: &Arc<Service>,
        context: &Context,
    ) -> Result<UpdateOffsetResponse, CallError> {
        let group = group_name(self.group.as_ref())?;
        let place = Place::of_life(service, context, self.message_queue.as_ref()).await?;
        let offset = u64::try_from(self.offset)
            .ok()
            .filter(|offset| *offset <= place.bounds.next_offset)
            .ok_or_else(|| place.illegal_offset(self.offset))?;
        service.group_or_create(&group, context).await?;
        service
            .propose(Body::CommitOffset(command::CommitOffset {
                group: group.into_owned(),
                topic_id: place.topic.id,
                queue: place.queue,
                offset,
                reset: false,
                settle_retries: false,
            }))
            .await?;
        Ok(UpdateOffsetResponse { status: Some(ok()) })
    }

    async fn forward(
        request: Request<Self>,
        service: &Service,
        address: &str,
    ) -> Result<Response<UpdateOffsetResponse>, Status> {
        service.forwarder.update_offset(address, request).await
    }

    fn refused(refusal: Refusal) -> UpdateOffsetResponse {
        UpdateOffsetResponse::refused(refusal.code, refusal.reason)
    }
}
