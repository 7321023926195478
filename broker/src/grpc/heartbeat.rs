//! `Heartbeat`: a client lives.
//!
//! Needs nothing but the request: a client that this broker has never heard of is as welcome as any
//! other, because clients do not repeat their settings after a change of leader.

use std::sync::Arc;

use gateway::Answer;
use proto::place;
use proto::v2::{ClientType, HeartbeatRequest, HeartbeatResponse};
use tokio::time::Instant;
use tonic::{Request, Response, Status};

use super::group_name;
use super::status::{CallError, Refusal, ok};
use crate::call::{Context, Effect, LeaderCall};
use crate::clients::NotTaken;
use crate::service::Service;

impl LeaderCall for HeartbeatRequest {
    type Answer = HeartbeatResponse;

    const EFFECT: Effect = Effect::Repeatable;

    async fn serve(
        &self,
        service: &Arc<Service>,
        context: &Context,
    ) -> Result<HeartbeatResponse, CallError> {
        let group = match consumer_group(self)? {
            Some(name) => {
                let group = service.group_or_create(&name, context).await?;
                context.remark(place::CONSUME_FROM, group.start());
                if context.metadata.contains_key(place::LOG_TIME) {
                    // An entry that changes nothing: what was stored before has an earlier time, hardly ever the same.
                    service.put_group(&name, context).await?;
                    context.remark(place::LOG_TIME, service.view.last_time_ms());
                }
                Some(group.name.clone())
            }
            None => None,
        };
        let client_id = context.client_id()?;
        let process = context.process();
        let beat = (service.clients).beat(client_id, group.clone(), process, Instant::now());
        if let Err(NotTaken::Taken { news: true, .. }) = beat {
            tracing::warn!(
                client_id,
                group,
                "two living processes are consumers with one client id: the later one is refused"
            );
        }
        beat.map_err(Refusal::from)?;
        Ok(HeartbeatResponse { status: Some(ok()) })
    }

    async fn forward(
        request: Request<Self>,
        service: &Service,
        address: &str,
    ) -> Result<Response<HeartbeatResponse>, Status> {
        service.forwarder.heartbeat(address, request).await
    }

    fn refused(refusal: Refusal) -> HeartbeatResponse {
        HeartbeatResponse::refused(refusal.code, refusal.reason)
    }
}

/// The group that the client consumes for. Producers have none, and some clients send an empty request.
fn consumer_group(request: &HeartbeatRequest) -> Result<Option<String>, Refusal> {
    let named = request
        .group
        .as_ref()
        .filter(|group| !group.name.is_empty());
    match named {
        Some(group) if request.client_type() != ClientType::Producer => {
            Ok(Some(group_name(Some(group))?.into_owned()))
        }
        _ => Ok(None),
    }
}
