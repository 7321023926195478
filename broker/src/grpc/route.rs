//! `QueryRoute`: the queues of a topic, and where its leader is.
//!
//! Any replica answers from what it has applied; one that does not know the topic asks the leader, which
//! creates it if the configuration says so. Clients that follow leaders are sent to the leader's own address,
//! the others to where they came from.

use std::sync::Arc;

use gateway::Answer;
use host::network::AnswerBudget;
use proto::place::BROKER_GROUP;
use proto::v2::{
    Address, Broker, Code, Endpoints, MessageQueue, Permission, QueryRouteRequest,
    QueryRouteResponse, Resource,
};
use proto::{accepted_types, endpoints};
use tonic::metadata::MetadataMap;
use tonic::{Request, Response, Status};

use super::status::{CallError, Refusal, ok, too_many_requests};
use super::topic_name;
use crate::call::{Context, Effect, LeaderCall, answered, lead};
use crate::service::Service;
use crate::view::Topic;

/// In a route, the leader: clients take no other number.
const LEADER_ID: i32 = 0;

const NO_ROOM: &str = "too many bytes of answers have not been read yet";

/// Answers from this replica if it can.
pub(super) async fn query_route(
    service: &Arc<Service>,
    request: Request<QueryRouteRequest>,
) -> Result<Response<QueryRouteResponse>, Status> {
    let leader = service.leadership.leader();
    let from_client = request
        .metadata()
        .get(gateway::CLIENT_ID)
        .is_some_and(|id| !id.is_empty());
    if from_client
        && let Some(leader) = leader
        && let Ok(name) = check(request.get_ref())
        && let Some(topic) = service.view.topic(&name)
    {
        let endpoints = reached_at(
            request.get_ref(),
            request.metadata(),
            &leader.client_address,
        );
        let queues = topic.queue_count.into();
        let budget = AnswerBudget::of(request.extensions());
        let room = gateway::route_room(request.get_ref(), &budget, queues).await;
        let Some(hold) = room else {
            let refusal = too_many_requests(NO_ROOM);
            return Ok(answered(service, QueryRouteRequest::refused(refusal)));
        };
        let mut response = answered(
            service,
            route(service, request.get_ref(), &topic, endpoints),
        );
        hold.attach(response.extensions_mut());
        return Ok(of_this_group(service, response));
    }
    let answered = lead(service, request).await?;
    Ok(of_this_group(service, answered))
}

/// Says that an answer knows no queues but those of one broker group: a topic may have others in others.
fn of_this_group<R>(service: &Service, mut response: Response<R>) -> Response<R> {
    if let Ok(group) = service.config.group.parse() {
        response.metadata_mut().insert(BROKER_GROUP, group);
    }
    response
}

impl LeaderCall for QueryRouteRequest {
    type Answer = QueryRouteResponse;

    const EFFECT: Effect = Effect::None;

    async fn serve(
        &self,
        service: &Arc<Service>,
        context: &Context,
    ) -> Result<QueryRouteResponse, CallError> {
        let topic = service.topic_or_create(&check(self)?).await?;
        let endpoints = reached_at(self, &context.metadata, &service.own.client_address);
        let room = context.route_room(self, topic.queue_count.into()).await;
        context.keep(room.ok_or_else(|| too_many_requests(NO_ROOM))?);
        Ok(route(service, self, &topic, endpoints))
    }

    async fn forward(
        request: Request<Self>,
        service: &Service,
        address: &str,
    ) -> Result<Response<QueryRouteResponse>, Status> {
        service.forwarder.query_route(address, request).await
    }

    fn refused(refusal: Refusal) -> QueryRouteResponse {
        QueryRouteResponse::refused(refusal.code, refusal.reason)
    }
}

/// The stored name of the topic.
fn check(request: &QueryRouteRequest) -> Result<std::borrow::Cow<'_, str>, Refusal> {
    let name = topic_name(request.topic.as_ref())?;
    let reached = request.endpoints.as_ref().is_some_and(|access_point| {
        let valid =
            |address: &Address| !address.host.is_empty() && (1..=65_535).contains(&address.port);
        !access_point.addresses.is_empty()
            && access_point.addresses.iter().all(valid)
            && gateway::is_access_point(access_point)
    });
    if reached {
        return Ok(name);
    }
    Err(Refusal::new(
        Code::IllegalAccessPoint,
        "the request's access point has no valid address, or too many",
    ))
}

/// Where the client finds the queues: at the leader if it follows leaders by itself, else at the access point
/// that it called, which forwards (see `gateway::ROUTE`).
fn reached_at(
    request: &QueryRouteRequest,
    metadata: &MetadataMap,
    leader_address: &str,
) -> Endpoints {
    match &request.endpoints {
        Some(access_point) if !gateway::follows_leader(metadata) => access_point.clone(),
        _ => endpoints(leader_address).unwrap_or_default(),
    }
}

fn route(
    service: &Service,
    request: &QueryRouteRequest,
    topic: &Topic,
    endpoints: Endpoints,
) -> QueryRouteResponse {
    let resource = request.topic.clone().unwrap_or_default();
    let broker = Broker {
        name: service.config.group.clone(),
        id: LEADER_ID,
        endpoints: Some(endpoints),
    };
    let message_queues = (topic.first_queue()..topic.queue_count)
        .map(|queue| message_queue(queue, &resource, &broker, topic))
        .collect();
    QueryRouteResponse {
        status: Some(ok()),
        message_queues,
    }
}

fn message_queue(queue: u32, resource: &Resource, broker: &Broker, topic: &Topic) -> MessageQueue {
    MessageQueue {
        topic: Some(resource.clone()),
        id: queue as i32,
        permission: Permission::ReadWrite.into(),
        broker: Some(broker.clone()),
        accept_message_types: accepted_types(topic.message_type),
    }
}
