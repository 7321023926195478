//! `QueryOffset`: where a queue begins, ends, or was at a time.

use std::sync::Arc;

use gateway::Answer;
use proto::TimestampMs;
use proto::v2::{Code, QueryOffsetPolicy, QueryOffsetRequest, QueryOffsetResponse};
use tonic::{Request, Response, Status};

use super::Place;
use crate::call::{Context, Effect, LeaderCall};
use crate::grpc::status::{CallError, Refusal, ok, unreadable};
use crate::service::Service;

impl LeaderCall for QueryOffsetRequest {
    type Answer = QueryOffsetResponse;

    const EFFECT: Effect = Effect::None;

    async fn serve(
        &self,
        service: &Arc<Service>,
        context: &Context,
    ) -> Result<QueryOffsetResponse, CallError> {
        let policy = QueryOffsetPolicy::try_from(self.query_offset_policy).map_err(|_| {
            let reason = format!(
                "query offset policy {} is unknown",
                self.query_offset_policy
            );
            Refusal::new(Code::BadRequest, reason)
        })?;
        service.confirm_leadership(context.left()).await?;
        let place = Place::find(service, self.message_queue.as_ref())?;
        let offset = match policy {
            QueryOffsetPolicy::Beginning => place.bounds.min_offset,
            QueryOffsetPolicy::End => place.bounds.next_offset,
            QueryOffsetPolicy::Timestamp => {
                let time_ms = self.time_ms()?;
                let found = service
                    .view
                    .offset_at_time(place.topic.id, place.queue, time_ms)
                    .await;
                found.map_err(|error| unreadable(&place.topic.name, &error))?
            }
        };
        Ok(QueryOffsetResponse {
            status: Some(ok()),
            offset: offset as i64,
        })
    }

    async fn forward(
        request: Request<Self>,
        service: &Service,
        address: &str,
    ) -> Result<Response<QueryOffsetResponse>, Status> {
        service.forwarder.query_offset(address, request).await
    }

    fn refused(refusal: Refusal) -> QueryOffsetResponse {
        QueryOffsetResponse::refused(refusal.code, refusal.reason)
    }
}

trait Time {
    /// The time that was asked for; one before 1970 is 1970.
    fn time_ms(&self) -> Result<TimestampMs, Refusal>;
}

impl Time for QueryOffsetRequest {
    fn time_ms(&self) -> Result<TimestampMs, Refusal> {
        let Some(time) = &self.timestamp else {
            return Err(Refusal::new(
                Code::BadRequest,
                "the request has no timestamp",
            ));
        };
        let of_second = i64::from(time.nanos.clamp(0, 999_999_999) / 1_000_000);
        let time_ms = time.seconds.saturating_mul(1_000).saturating_add(of_second);
        Ok(TimestampMs::try_from(time_ms).unwrap_or(0))
    }
}
