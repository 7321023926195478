//! The messaging service, for clients that were given a name server as their access point.
//!
//! Routes are answered from the table; everything else goes to a leader ([`Relay`]).

use gateway::{
    Answer, AnswerStream, Forwarder, follows_leader, is_access_point, route_room, set_leader,
};
use host::network::AnswerBudget;
use proto::message::View;
use proto::opaque::messaging_service_server::MessagingService;
use proto::opaque::{PullMessageResponse, ReceiveMessageResponse, SendMessageRequest};
use proto::v2::{
    AckMessageRequest, AckMessageResponse, ChangeInvisibleDurationRequest,
    ChangeInvisibleDurationResponse, Code, EndTransactionRequest, EndTransactionResponse,
    ForwardMessageToDeadLetterQueueRequest, ForwardMessageToDeadLetterQueueResponse,
    GetOffsetRequest, GetOffsetResponse, HeartbeatRequest, HeartbeatResponse,
    NotifyClientTerminationRequest, NotifyClientTerminationResponse, PullMessageRequest,
    QueryAssignmentRequest, QueryAssignmentResponse, QueryOffsetRequest, QueryOffsetResponse,
    QueryRouteRequest, QueryRouteResponse, RecallMessageRequest, RecallMessageResponse,
    ReceiveMessageRequest, Resource, SendMessageResponse, Status as Outcome,
    SyncLiteSubscriptionRequest, SyncLiteSubscriptionResponse, TelemetryCommand,
    UpdateOffsetRequest, UpdateOffsetResponse,
};
use tonic::{Request, Response, Status, Streaming};

use crate::relay::{NO_CLIENT_ID, Relay, Target, full_name, names_client, one};
use crate::route_table::{leader, message_queues};
use crate::telemetry::Session;

pub(crate) struct Messaging {
    relay: Relay,
}

impl Messaging {
    pub(crate) fn new(relay: Relay) -> Self {
        Messaging { relay }
    }

    /// How many queues the table knows of a topic.
    fn queues(&self, request: &QueryRouteRequest) -> u64 {
        let Some(topic) = request.topic.as_ref() else {
            return 0;
        };
        let table = self.relay.directory.table();
        let shares = table.shares(&full_name(topic));
        shares
            .iter()
            .map(|share| u64::from(share.queue_count))
            .sum()
    }

    /// The route of a topic that the table knows.
    fn route(&self, request: &Request<QueryRouteRequest>) -> Option<Response<QueryRouteResponse>> {
        let topic = request.get_ref().topic.as_ref()?;
        let access_point = request.get_ref().endpoints.as_ref();
        let access_point = access_point.filter(|_| !follows_leader(request.metadata()));
        let table = self.relay.directory.table();
        let shares = table.shares(&full_name(topic));
        let message_queues = message_queues(topic, &shares, access_point);
        let first = shares.first()?;
        if message_queues.is_empty() {
            return None;
        }
        let status = Some(Outcome {
            code: Code::Ok.into(),
            message: "OK".to_owned(),
        });
        let mut answer = Response::new(QueryRouteResponse {
            status,
            message_queues,
        });
        if let Some(leader) = leader(first.registration) {
            set_leader(answer.metadata_mut(), &leader.client_address);
        }
        Some(answer)
    }
}

/// Why a route is not even looked up.
fn unroutable(request: &Request<QueryRouteRequest>) -> Option<(Code, String)> {
    if !names_client(request.metadata()) {
        return Some((Code::ClientIdRequired, NO_CLIENT_ID.to_owned()));
    }
    let request = request.get_ref();
    if request
        .endpoints
        .as_ref()
        .is_none_or(|endpoints| endpoints.addresses.is_empty() || !is_access_point(endpoints))
    {
        return Some((
            Code::IllegalAccessPoint,
            "the request has no endpoints, or too many".to_owned(),
        ));
    }
    let topic = request
        .topic
        .as_ref()
        .map_or("", |topic| topic.name.as_str());
    let error = model::TopicName::check(topic).err()?;
    Some((Code::IllegalTopic, error.to_string()))
}

/// The topic of a send is that of its first message; that all have the same is for the broker to check.
fn topic_of(request: &SendMessageRequest) -> Result<Target, String> {
    let first = request
        .messages
        .first()
        .ok_or("the request has no message")?;
    let view = View::parse(first).map_err(|error| error.to_string())?;
    let topic = Resource {
        resource_namespace: view.topic_namespace.to_owned(),
        name: view.topic.to_owned(),
    };
    Ok(Target::topic(Some(&topic)))
}

/// Forwards `$request` by the forwarder's method of the same name.
macro_rules! forward {
    ($self:ident.$shape:ident($method:ident, $target:expr, $request:ident)) => {{
        let target = $target;
        let call = async |forwarder: Forwarder, address: String, request| {
            forwarder.$method(&address, request).await
        };
        $self.relay.$shape(target, $request, call).await
    }};
}

#[tonic::async_trait]
impl MessagingService for Messaging {
    async fn query_route(
        &self,
        request: Request<QueryRouteRequest>,
    ) -> Result<Response<QueryRouteResponse>, Status> {
        if let Some((code, reason)) = unroutable(&request) {
            return Ok(Response::new(QueryRouteResponse::refused(code, reason)));
        }
        self.relay.directory.filled().await;
        let (budget, queues) = (
            AnswerBudget::of(request.extensions()),
            self.queues(request.get_ref()),
        );
        let Some(hold) = route_room(request.get_ref(), &budget, queues).await else {
            let reason = "too many bytes of answers have not been read yet";
            return Ok(Response::new(QueryRouteResponse::refused(
                Code::TooManyRequests,
                reason,
            )));
        };
        match self.route(&request) {
            Some(mut answer) => {
                hold.attach(answer.extensions_mut());
                Ok(answer)
            }
            // The brokers may know a topic that the table does not know yet, or create it.
            None => {
                forward!(self.unary(
                    query_route,
                    Target::topic(request.get_ref().topic.as_ref()),
                    request
                ))
            }
        }
    }

    async fn heartbeat(
        &self,
        request: Request<HeartbeatRequest>,
    ) -> Result<Response<HeartbeatResponse>, Status> {
        forward!(self.unary(heartbeat, Target::Any, request))
    }

    async fn send_message(
        &self,
        request: Request<SendMessageRequest>,
    ) -> Result<Response<SendMessageResponse>, Status> {
        match topic_of(request.get_ref()) {
            Ok(target) => forward!(self.unary(send_message, target, request)),
            Err(_) if !names_client(request.metadata()) => Ok(Response::new(
                SendMessageResponse::refused(Code::ClientIdRequired, NO_CLIENT_ID),
            )),
            Err(reason) => Ok(Response::new(SendMessageResponse::refused(
                Code::MessageCorrupted,
                reason,
            ))),
        }
    }

    async fn query_assignment(
        &self,
        request: Request<QueryAssignmentRequest>,
    ) -> Result<Response<QueryAssignmentResponse>, Status> {
        forward!(self.unary(
            query_assignment,
            Target::topic(request.get_ref().topic.as_ref()),
            request
        ))
    }

    type ReceiveMessageStream = AnswerStream<ReceiveMessageResponse>;

    async fn receive_message(
        &self,
        request: Request<ReceiveMessageRequest>,
    ) -> Result<Response<Self::ReceiveMessageStream>, Status> {
        let target = Target::queue(request.get_ref().message_queue.as_ref());
        forward!(self.server_stream(receive_message, target, request))
    }

    async fn ack_message(
        &self,
        request: Request<AckMessageRequest>,
    ) -> Result<Response<AckMessageResponse>, Status> {
        forward!(self.unary(
            ack_message,
            Target::topic(request.get_ref().topic.as_ref()),
            request
        ))
    }

    async fn forward_message_to_dead_letter_queue(
        &self,
        request: Request<ForwardMessageToDeadLetterQueueRequest>,
    ) -> Result<Response<ForwardMessageToDeadLetterQueueResponse>, Status> {
        let target = Target::topic(request.get_ref().topic.as_ref());
        forward!(self.unary(forward_message_to_dead_letter_queue, target, request))
    }

    type PullMessageStream = AnswerStream<PullMessageResponse>;

    async fn pull_message(
        &self,
        request: Request<PullMessageRequest>,
    ) -> Result<Response<Self::PullMessageStream>, Status> {
        let target = Target::queue(request.get_ref().message_queue.as_ref());
        forward!(self.server_stream(pull_message, target, request))
    }

    async fn update_offset(
        &self,
        request: Request<UpdateOffsetRequest>,
    ) -> Result<Response<UpdateOffsetResponse>, Status> {
        let target = Target::queue(request.get_ref().message_queue.as_ref());
        forward!(self.unary(update_offset, target, request))
    }

    async fn get_offset(
        &self,
        request: Request<GetOffsetRequest>,
    ) -> Result<Response<GetOffsetResponse>, Status> {
        let target = Target::queue(request.get_ref().message_queue.as_ref());
        forward!(self.unary(get_offset, target, request))
    }

    async fn query_offset(
        &self,
        request: Request<QueryOffsetRequest>,
    ) -> Result<Response<QueryOffsetResponse>, Status> {
        let target = Target::queue(request.get_ref().message_queue.as_ref());
        forward!(self.unary(query_offset, target, request))
    }

    async fn end_transaction(
        &self,
        request: Request<EndTransactionRequest>,
    ) -> Result<Response<EndTransactionResponse>, Status> {
        forward!(self.unary(
            end_transaction,
            Target::topic(request.get_ref().topic.as_ref()),
            request
        ))
    }

    type TelemetryStream = AnswerStream<TelemetryCommand>;

    async fn telemetry(
        &self,
        request: Request<Streaming<TelemetryCommand>>,
    ) -> Result<Response<Self::TelemetryStream>, Status> {
        if !names_client(request.metadata()) {
            let refusal = TelemetryCommand::refused(Code::ClientIdRequired, NO_CLIENT_ID);
            return Ok(Response::new(one(refusal)));
        }
        Ok(Response::new(Session::start(self.relay.clone(), request)))
    }

    async fn notify_client_termination(
        &self,
        request: Request<NotifyClientTerminationRequest>,
    ) -> Result<Response<NotifyClientTerminationResponse>, Status> {
        forward!(self.unary(notify_client_termination, Target::Any, request))
    }

    async fn change_invisible_duration(
        &self,
        request: Request<ChangeInvisibleDurationRequest>,
    ) -> Result<Response<ChangeInvisibleDurationResponse>, Status> {
        let target = Target::topic(request.get_ref().topic.as_ref());
        forward!(self.unary(change_invisible_duration, target, request))
    }

    async fn recall_message(
        &self,
        request: Request<RecallMessageRequest>,
    ) -> Result<Response<RecallMessageResponse>, Status> {
        forward!(self.unary(
            recall_message,
            Target::topic(request.get_ref().topic.as_ref()),
            request
        ))
    }

    async fn sync_lite_subscription(
        &self,
        request: Request<SyncLiteSubscriptionRequest>,
    ) -> Result<Response<SyncLiteSubscriptionResponse>, Status> {
        let target = Target::topic(request.get_ref().topic.as_ref());
        forward!(self.unary(sync_lite_subscription, target, request))
    }
}
