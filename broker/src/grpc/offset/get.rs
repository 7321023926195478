//! `GetOffset`: how far a consumer group has come in a queue.

use std::sync::Arc;

use gateway::Answer;
use proto::v2::{Code, GetOffsetRequest, GetOffsetResponse};
use tonic::{Request, Response, Status};

use super::Place;
use crate::call::{Context, Effect, LeaderCall};
use crate::grpc::group_name;
use crate::grpc::status::{CallError, Refusal, ok};
use crate::service::Service;

impl LeaderCall for GetOffsetRequest {
    type Answer = GetOffsetResponse;

    const EFFECT: Effect = Effect::None;

    async fn serve(
        &self,
        service: &Arc<Service>,
        context: &Context,
    ) -> Result<GetOffsetResponse, CallError> {
        let group = group_name(self.group.as_ref())?;
        service.confirm_leadership(context.left()).await?;
        let place = Place::find(service, self.message_queue.as_ref())?;
        match service
            .view
            .committed_offset(&group, place.topic.id, place.queue)
        {
            Some(offset) => Ok(GetOffsetResponse {
                status: Some(ok()),
                offset: offset as i64,
            }),
            None => Err(Refusal::new(
                Code::OffsetNotFound,
                format!(
                    "consumer group {group} has no offset in queue {} of topic {}",
                    place.queue, place.topic.name
                ),
            )
            .into()),
        }
    }

    async fn forward(
        request: Request<Self>,
        service: &Service,
        address: &str,
    ) -> Result<Response<GetOffsetResponse>, Status> {
        service.forwarder.get_offset(address, request).await
    }

    fn refused(refusal: Refusal) -> GetOffsetResponse {
        GetOffsetResponse::refused(refusal.code, refusal.reason)
    }
}
