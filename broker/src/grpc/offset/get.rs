//! `GetOffset`: how far a consumer group has come in a queue; and, for those who ask (`proto::place::START`), where to start
//! if it has not begun.

use std::sync::Arc;

use gateway::Answer;
use proto::place::{COMMITTED, LIFE, START, StartOf};
use proto::v2::{Code, GetOffsetRequest, GetOffsetResponse};
use tonic::{Request, Response, Status};

use super::Place;
use crate::call::{Context, Effect, LeaderCall};
use crate::grpc::group_name;
use crate::grpc::status::{CallError, Refusal, ok, unreadable};
use crate::service::Service;

impl LeaderCall for GetOffsetRequest {
    type Answer = GetOffsetResponse;

    const EFFECT: Effect = Effect::None;

    async fn serve(
        &self,
        service: &Arc<Service>,
        context: &Context,
    ) -> Result<GetOffsetResponse, CallError> {
        let name = group_name(self.group.as_ref())?;
        let start_of: Option<StartOf> = context.header(START)?;
        let group = match start_of {
            // From here on it is certain where it starts.
            Some(_) => Some(service.group_or_create(&name, context).await?),
            None => None,
        };
        service.confirm_leadership(context.left()).await?;
        let place = Place::find(service, self.message_queue.as_ref())?;
        context.remark(LIFE, place.topic.life());
        let committed = (service.view).committed_offset(&name, place.topic.id, place.queue);
        let member_since_ms = match start_of {
            Some(StartOf::Member { since_ms }) => Some(since_ms),
            Some(StartOf::Group) | None => None,
        };
        let offset = match (committed.filter(|_| member_since_ms.is_none()), group) {
            (Some(offset), _) => {
                context.remark(START, COMMITTED);
                offset
            }
            (None, Some(group)) => {
                let (view, topic) = (&service.view, &place.topic);
                let start = view.start_of(&group, topic, place.queue, member_since_ms);
                let start = start
                    .await
                    .map_err(|error| unreadable(&topic.name, &error))?;
                context.remark(START, group.start());
                start
            }
            (None, None) => return Err(not_committed(&name, &place).into()),
        };
        Ok(GetOffsetResponse {
            status: Some(ok()),
            offset: offset as i64,
        })
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

fn not_committed(group: &str, place: &Place) -> Refusal {
    let (queue, topic) = (place.queue, &place.topic.name);
    let reason = format!("consumer group {group} has no offset in queue {queue} of topic {topic}");
    Refusal::new(Code::OffsetNotFound, reason)
}
