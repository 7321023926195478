//! `NotifyClientTermination`: a client says good-bye.

use std::sync::Arc;

use gateway::Answer;
use proto::v2::{NotifyClientTerminationRequest, NotifyClientTerminationResponse};
use tonic::{Request, Response, Status};

use super::group_name;
use super::status::{CallError, Refusal, ok};
use crate::call::{Context, Effect, LeaderCall};
use crate::service::Service;

impl LeaderCall for NotifyClientTerminationRequest {
    type Answer = NotifyClientTerminationResponse;

    const EFFECT: Effect = Effect::Repeatable;

    async fn serve(
        &self,
        service: &Arc<Service>,
        context: &Context,
    ) -> Result<NotifyClientTerminationResponse, CallError> {
        // Producers name no group, or one with an empty name.
        if let Some(group) = self.group.as_ref().filter(|group| !group.name.is_empty()) {
            group_name(Some(group))?;
        }
        let client_id = context.client_id()?;
        if service.clients.remove(client_id, context.process()) {
            service.pullers.remove(client_id);
        }
        Ok(NotifyClientTerminationResponse { status: Some(ok()) })
    }

    async fn forward(
        request: Request<Self>,
        service: &Service,
        address: &str,
    ) -> Result<Response<NotifyClientTerminationResponse>, Status> {
        service
            .forwarder
            .notify_client_termination(address, request)
            .await
    }

    fn refused(refusal: Refusal) -> NotifyClientTerminationResponse {
        NotifyClientTerminationResponse::refused(refusal.code, refusal.reason)
    }
}
