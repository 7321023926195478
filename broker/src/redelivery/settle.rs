//! `Settle`: deliveries that succeeded.

use std::sync::Arc;

use proto::command::{self, command::Body};
use proto::redelivery::{RedeliveryResponse, SettleRequest};
use tonic::{Request, Response, Status};

use super::{Target, deliveries, done, forward, refused};
use crate::call::{Context, Effect, LeaderCall};
use crate::grpc::status::{CallError, Refusal};
use crate::service::Service;

impl LeaderCall for SettleRequest {
    type Answer = RedeliveryResponse;

    const EFFECT: Effect = Effect::Repeatable;

    async fn serve(
        &self,
        service: &Arc<Service>,
        context: &Context,
    ) -> Result<RedeliveryResponse, CallError> {
        let settled = deliveries(&self.settled)?;
        let target = Target::find(service, context, (&self.group, &self.topic, self.queue)).await?;
        service
            .propose(Body::Settle(command::Settle {
                group: target.group.name.clone(),
                topic_id: target.topic.id,
                queue: target.queue,
                settled,
            }))
            .await?;
        Ok(done())
    }

    async fn forward(
        request: Request<Self>,
        service: &Service,
        address: &str,
    ) -> Result<Response<RedeliveryResponse>, Status> {
        forward!(settle, request, service, address)
    }

    fn refused(refusal: Refusal) -> RedeliveryResponse {
        refused(refusal)
    }
}
