//! A client: typed calls with the headers that clients send.

use std::time::Duration;

use bytes::Bytes;
use futures::TryStreamExt;
use host::network::{self, ChannelOptions};
use prost::Message as _;
use proto::cluster::{BrokerAdminClient, PutGroupRequest, PutTopicRequest};
use proto::opaque::{self, MessagingServiceClient, pull_message_response::Content};
use proto::v2::{
    Address, AddressScheme, Code, Endpoints, FilterExpression, FilterType, GetOffsetRequest,
    GetOffsetResponse, HeartbeatRequest, HeartbeatResponse, Message, MessageQueue,
    PullMessageRequest, QueryOffsetPolicy, QueryOffsetRequest, QueryOffsetResponse,
    QueryRouteRequest, QueryRouteResponse, Resource, SendMessageResponse, Status, SystemProperties,
    UpdateOffsetRequest, UpdateOffsetResponse,
};
use tonic::{Request, Response};

/// Deadline of each call.
pub const DEADLINE: Duration = Duration::from_secs(30);

#[derive(Clone)]
pub struct Client {
    pub messaging: MessagingServiceClient,
    pub admin: BrokerAdminClient,
}

/// What a pull gave.
#[derive(Debug)]
pub struct Pulled {
    pub code: Code,
    pub text: String,
    pub messages: Vec<Message>,
    pub next_offset: Option<i64>,
}

impl Client {
    pub fn new(address: &str, admin_address: &str) -> Client {
        let channel = network::channel(address, &ChannelOptions::default()).unwrap();
        let proving = ChannelOptions {
            secret: Some(host::testing::cluster_secret()),
            ..ChannelOptions::default()
        };
        let admin = network::channel(admin_address, &proving).unwrap();
        Client {
            messaging: opaque::messaging_client(channel),
            admin: proto::cluster::broker_admin_client(admin),
        }
    }

    /// Creates a topic that takes any kind of message.
    pub async fn create_topic(&self, name: &str, queue_count: u32) {
        let request = PutTopicRequest {
            name: name.to_owned(),
            queue_count,
            ..Default::default()
        };
        let answer = self
            .admin
            .clone()
            .create_topic(Request::new(request))
            .await
            .unwrap();
        assert_eq!(answer.get_ref().code, Code::Ok as i32, "{answer:?}");
    }

    pub async fn create_group(&self, name: &str) {
        let request = PutGroupRequest {
            name: name.to_owned(),
            ..Default::default()
        };
        let answer = self
            .admin
            .clone()
            .create_group(Request::new(request))
            .await
            .unwrap();
        assert_eq!(answer.get_ref().code, Code::Ok as i32, "{answer:?}");
    }

    /// Sends encoded messages as they are.
    pub async fn send_encoded(&self, messages: Vec<Bytes>) -> Response<SendMessageResponse> {
        let request = from_client(opaque::SendMessageRequest { messages });
        self.messaging.clone().send_message(request).await.unwrap()
    }

    pub async fn send(&self, messages: &[Message]) -> SendMessageResponse {
        let encoded = messages
            .iter()
            .map(|message| message.encode_to_vec().into())
            .collect();
        self.send_encoded(encoded).await.into_inner()
    }

    /// Sends messages that must be stored; their offsets.
    pub async fn store(&self, messages: &[Message]) -> Vec<i64> {
        let response = self.send(messages).await;
        assert_eq!(code(&response.status), Code::Ok, "{response:?}");
        response.entries.iter().map(|entry| entry.offset).collect()
    }

    pub async fn pull_with(&self, request: PullMessageRequest) -> Pulled {
        let mut client = self.messaging.clone();
        let answers = client
            .pull_message(from_client(request))
            .await
            .unwrap()
            .into_inner();
        let answers: Vec<opaque::PullMessageResponse> = answers.try_collect().await.unwrap();
        let mut answers = answers.into_iter().map(|answer| answer.content.unwrap());
        let Some(Content::Status(status)) = answers.next() else {
            panic!("the status comes first");
        };
        let mut pulled = Pulled {
            code: code(&Some(status.clone())),
            text: status.message,
            messages: Vec::new(),
            next_offset: None,
        };
        for answer in answers {
            assert_eq!(pulled.next_offset, None, "the next offset comes last");
            match answer {
                Content::Message(message) => {
                    pulled.messages.push(Message::decode(message).unwrap());
                }
                Content::NextOffset(offset) => pulled.next_offset = Some(offset),
                Content::Status(_) => panic!("two statuses"),
            }
        }
        pulled
    }

    pub async fn pull(&self, topic: &str, queue: i32, offset: i64, count: i32) -> Pulled {
        self.pull_with(pull_request(topic, queue, offset, count))
            .await
    }

    pub async fn update_offset(
        &self,
        group: &str,
        topic: &str,
        queue: i32,
        offset: i64,
    ) -> UpdateOffsetResponse {
        let request = UpdateOffsetRequest {
            group: resource(group),
            message_queue: Some(message_queue(topic, queue)),
            offset,
        };
        self.messaging
            .clone()
            .update_offset(from_client(request))
            .await
            .unwrap()
            .into_inner()
    }

    pub async fn get_offset(&self, group: &str, topic: &str, queue: i32) -> GetOffsetResponse {
        let request = GetOffsetRequest {
            group: resource(group),
            message_queue: Some(message_queue(topic, queue)),
        };
        self.messaging
            .clone()
            .get_offset(from_client(request))
            .await
            .unwrap()
            .into_inner()
    }

    pub async fn query_offset(
        &self,
        topic: &str,
        queue: i32,
        policy: QueryOffsetPolicy,
        time_ms: Option<u64>,
    ) -> QueryOffsetResponse {
        let request = QueryOffsetRequest {
            message_queue: Some(message_queue(topic, queue)),
            query_offset_policy: policy.into(),
            timestamp: time_ms.map(|time_ms| prost_types::Timestamp {
                seconds: (time_ms / 1_000) as i64,
                nanos: (time_ms % 1_000 * 1_000_000) as i32,
            }),
        };
        self.messaging
            .clone()
            .query_offset(from_client(request))
            .await
            .unwrap()
            .into_inner()
    }

    pub async fn route(&self, topic: &str) -> Response<QueryRouteResponse> {
        let request = QueryRouteRequest {
            topic: resource(topic),
            endpoints: Some(access_point()),
        };
        self.messaging
            .clone()
            .query_route(from_client(request))
            .await
            .unwrap()
    }

    pub async fn heartbeat(&self, client_id: &str, request: HeartbeatRequest) -> HeartbeatResponse {
        let mut request = from_client(request);
        request
            .metadata_mut()
            .insert("x-mq-client-id", client_id.parse().unwrap());
        self.messaging
            .clone()
            .heartbeat(request)
            .await
            .unwrap()
            .into_inner()
    }
}

/// A request with a client's headers.
pub fn from_client<T>(message: T) -> Request<T> {
    let mut request = Request::new(message);
    request
        .metadata_mut()
        .insert("x-mq-client-id", "test-client".parse().unwrap());
    request
        .metadata_mut()
        .insert(gateway::ROUTE, gateway::ROUTE_LEADER.parse().unwrap());
    request.set_timeout(DEADLINE);
    request
}

pub fn resource(name: &str) -> Option<Resource> {
    Some(Resource {
        resource_namespace: String::new(),
        name: name.to_owned(),
    })
}

pub fn message_queue(topic: &str, queue: i32) -> MessageQueue {
    MessageQueue {
        topic: resource(topic),
        id: queue,
        ..Default::default()
    }
}

pub fn access_point() -> Endpoints {
    Endpoints {
        scheme: AddressScheme::IPv4.into(),
        addresses: vec![Address {
            host: "127.0.0.1".to_owned(),
            port: 8081,
        }],
    }
}

pub fn pull_request(topic: &str, queue: i32, offset: i64, count: i32) -> PullMessageRequest {
    PullMessageRequest {
        group: resource("readers"),
        message_queue: Some(message_queue(topic, queue)),
        offset,
        batch_size: count,
        filter_expression: None,
        long_polling_timeout: None,
    }
}

pub fn tags(expression: &str) -> Option<FilterExpression> {
    Some(FilterExpression {
        r#type: FilterType::Tag.into(),
        expression: expression.to_owned(),
    })
}

/// A normal message with a v1 id.
pub fn message(topic: &str, queue: i32, id: u32) -> Message {
    Message {
        topic: resource(topic),
        user_properties: [("n".to_owned(), id.to_string())].into(),
        system_properties: Some(SystemProperties {
            message_id: format!("01AABBCCDDEEFF001100000001{id:08X}"),
            queue_id: queue,
            body_encoding: proto::v2::Encoding::Identity.into(),
            message_type: proto::v2::MessageType::Normal.into(),
            born_host: "here".to_owned(),
            ..Default::default()
        }),
        body: Bytes::from(format!("body {id}")),
    }
}

pub fn properties(message: &Message) -> &SystemProperties {
    message.system_properties.as_ref().unwrap()
}

pub fn code(status: &Option<Status>) -> Code {
    Code::try_from(status.as_ref().expect("every answer has a status").code).unwrap()
}

pub fn ok(status: &Option<Status>) {
    assert_eq!(code(status), Code::Ok, "{status:?}");
}
