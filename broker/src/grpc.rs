//! The messaging service: one method, one file below.
//!
//! Nothing here decides anything: each method hands its request to the file of its name. What is not
//! supported yet says so, in an answer of the right shape.

mod filter;
mod heartbeat;
mod notify_client_termination;
mod offset;
mod pull;
mod resource;
mod route;
mod send;
pub(crate) mod status;
mod telemetry;

use std::sync::Arc;

use futures::StreamExt;
use futures::stream::{self, BoxStream};
use gateway::Answer;
use proto::opaque::messaging_service_server::MessagingService;
use proto::opaque::{self, receive_message_response::Content};
use proto::v2;
use tonic::{Request, Response, Status, Streaming};

use self::filter::filter;
pub(crate) use self::resource::{
    check_group, check_topic, check_topic_to_read, group_name, topic_name,
};
use crate::call::{answered, lead};
use crate::service::Service;

/// The messaging service of one broker.
#[derive(Clone)]
pub(crate) struct Messaging(pub(crate) Arc<Service>);

type Answered<T> = Result<Response<T>, Status>;
type AnswerStream<T> = BoxStream<'static, Result<T, Status>>;

impl Messaging {
    fn not_implemented<A: Answer>(&self, what: &str) -> Answered<A> {
        let refusal = status::not_implemented(what);
        Ok(answered(&self.0, A::refused(refusal.code, refusal.reason)))
    }
}

#[tonic::async_trait]
impl MessagingService for Messaging {
    type ReceiveMessageStream = AnswerStream<opaque::ReceiveMessageResponse>;
    type PullMessageStream = AnswerStream<opaque::PullMessageResponse>;
    type TelemetryStream = AnswerStream<v2::TelemetryCommand>;

    async fn query_route(
        &self,
        request: Request<v2::QueryRouteRequest>,
    ) -> Answered<v2::QueryRouteResponse> {
        route::query_route(&self.0, request).await
    }

    async fn heartbeat(
        &self,
        request: Request<v2::HeartbeatRequest>,
    ) -> Answered<v2::HeartbeatResponse> {
        lead(&self.0, request).await
    }

    async fn send_message(
        &self,
        request: Request<opaque::SendMessageRequest>,
    ) -> Answered<v2::SendMessageResponse> {
        let sent = lead(&self.0, request).await?;
        Ok(sent.map(|sent| sent.response))
    }

    async fn pull_message(
        &self,
        request: Request<v2::PullMessageRequest>,
    ) -> Answered<Self::PullMessageStream> {
        lead(&self.0, request).await
    }

    async fn update_offset(
        &self,
        request: Request<v2::UpdateOffsetRequest>,
    ) -> Answered<v2::UpdateOffsetResponse> {
        lead(&self.0, request).await
    }

    async fn get_offset(
        &self,
        request: Request<v2::GetOffsetRequest>,
    ) -> Answered<v2::GetOffsetResponse> {
        lead(&self.0, request).await
    }

    async fn query_offset(
        &self,
        request: Request<v2::QueryOffsetRequest>,
    ) -> Answered<v2::QueryOffsetResponse> {
        lead(&self.0, request).await
    }

    async fn telemetry(
        &self,
        request: Request<Streaming<v2::TelemetryCommand>>,
    ) -> Answered<Self::TelemetryStream> {
        telemetry::telemetry(&self.0, request)
    }

    async fn notify_client_termination(
        &self,
        request: Request<v2::NotifyClientTerminationRequest>,
    ) -> Answered<v2::NotifyClientTerminationResponse> {
        lead(&self.0, request).await
    }

    async fn query_assignment(
        &self,
        _: Request<v2::QueryAssignmentRequest>,
    ) -> Answered<v2::QueryAssignmentResponse> {
        self.not_implemented("QueryAssignment")
    }

    async fn receive_message(
        &self,
        _: Request<v2::ReceiveMessageRequest>,
    ) -> Answered<Self::ReceiveMessageStream> {
        let refusal = status::not_implemented("ReceiveMessage");
        let answer = opaque::ReceiveMessageResponse {
            content: Some(Content::Status(refusal.into_status())),
        };
        Ok(answered(&self.0, stream::iter([Ok(answer)]).boxed()))
    }

    async fn ack_message(
        &self,
        _: Request<v2::AckMessageRequest>,
    ) -> Answered<v2::AckMessageResponse> {
        self.not_implemented("AckMessage")
    }

    async fn forward_message_to_dead_letter_queue(
        &self,
        _: Request<v2::ForwardMessageToDeadLetterQueueRequest>,
    ) -> Answered<v2::ForwardMessageToDeadLetterQueueResponse> {
        self.not_implemented("ForwardMessageToDeadLetterQueue")
    }

    async fn end_transaction(
        &self,
        _: Request<v2::EndTransactionRequest>,
    ) -> Answered<v2::EndTransactionResponse> {
        self.not_implemented("EndTransaction")
    }

    async fn change_invisible_duration(
        &self,
        _: Request<v2::ChangeInvisibleDurationRequest>,
    ) -> Answered<v2::ChangeInvisibleDurationResponse> {
        self.not_implemented("ChangeInvisibleDuration")
    }

    async fn recall_message(
        &self,
        _: Request<v2::RecallMessageRequest>,
    ) -> Answered<v2::RecallMessageResponse> {
        self.not_implemented("RecallMessage")
    }

    async fn sync_lite_subscription(
        &self,
        _: Request<v2::SyncLiteSubscriptionRequest>,
    ) -> Answered<v2::SyncLiteSubscriptionResponse> {
        self.not_implemented("SyncLiteSubscription")
    }
}
