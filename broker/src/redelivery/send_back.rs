//! `SendBack`: deliveries that failed.

use std::sync::Arc;

use proto::command::{self, command::Body};
use proto::redelivery::{RedeliveryResponse, SendBackRequest};
use proto::v2::Code;
use tonic::{Request, Response, Status};

use super::{Target, deliveries, done, forward, refused};
use crate::call::{Context, Effect, LeaderCall};
use crate::grpc::status::{CallError, Refusal};
use crate::service::Service;

/// The longest wait until the next delivery.
const DELAY_MS_MAX: u64 = 30 * 24 * 3_600_000;

impl LeaderCall for SendBackRequest {
    type Answer = RedeliveryResponse;

    const EFFECT: Effect = Effect::Repeatable;

    async fn serve(
        &self,
        service: &Arc<Service>,
        context: &Context,
    ) -> Result<RedeliveryResponse, CallError> {
        let failed = deliveries(&self.failed)?;
        if self.delay_ms > DELAY_MS_MAX {
            let reason = format!("a wait of {} ms is longer than 30 days", self.delay_ms);
            return Err(Refusal::new(Code::BadRequest, reason).into());
        }
        let target = Target::find(service, context, (&self.group, &self.topic, self.queue)).await?;
        let body = Body::SendBack(command::SendBack {
            group: target.group.name.clone(),
            topic_id: target.topic.id,
            queue: target.queue,
            failed,
            delay_ms: self.delay_ms,
            dead: self.dead,
            dead_letter_queue: service.config.dead_letter_queue,
        });
        let reply = service.propose(body).await?;
        if reply.missing.is_empty() {
            return Ok(done());
        }
        let missing: Vec<String> = reply.missing.iter().map(u64::to_string).collect();
        let reason = format!(
            "not kept any more in queue {} of topic {}: {}",
            target.queue,
            target.topic.name,
            missing.join(", ")
        );
        Ok(refused(Refusal::new(Code::OffsetNotFound, reason)))
    }

    async fn forward(
        request: Request<Self>,
        service: &Service,
        address: &str,
    ) -> Result<Response<RedeliveryResponse>, Status> {
        forward!(send_back, request, service, address)
    }

    fn refused(refusal: Refusal) -> RedeliveryResponse {
        refused(refusal)
    }
}
