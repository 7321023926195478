//! Clients that were given a name server as their access point.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use crate::owner::Owner;
use crate::support::{LONG_LEASE_MS, Running, config, soon, topic};
use bytes::Bytes;
use futures::StreamExt;
use gateway::{Answer, CLIENT_ID, HOPS, LEADER};
use host::network::{self, ChannelOptions};
use prost::Message as _;
use proto::cluster::{Registration, Replica};
use proto::opaque::{self, MessagingServiceClient, SendMessageRequest};
use proto::v2::*;
use tokio::sync::mpsc;
use tonic::Request;

/// A group led by the first of `owners`, with the given topics.
fn group(name: &str, epoch: u64, owners: &[&Owner], topics: &[&str]) -> Registration {
    let replica = |(place, owner): (usize, &&Owner)| Replica {
        broker_id: place as u64 + 1,
        client_address: owner.address.clone(),
        peer_address: String::new(),
    };
    Registration {
        group: name.into(),
        epoch,
        version: 1,
        leader: 1,
        replicas: owners.iter().enumerate().map(replica).collect(),
        topics: topics.iter().map(|name| topic(name)).collect(),
        cluster_id: "c".into(),
    }
}

fn client(server: &Running) -> MessagingServiceClient {
    let address = server.server.address().to_string();
    opaque::messaging_client(network::channel(&address, &ChannelOptions::default()).unwrap())
}

fn asked<Q>(message: Q) -> Request<Q> {
    let mut request = Request::new(message);
    request
        .metadata_mut()
        .insert(CLIENT_ID, "client-1".parse().unwrap());
    request
}

fn resource(name: &str) -> Option<Resource> {
    Some(Resource {
        resource_namespace: String::new(),
        name: name.into(),
    })
}

fn queue(topic: &str, group: &str) -> Option<MessageQueue> {
    let broker = Some(Broker {
        name: group.into(),
        id: 0,
        endpoints: None,
    });
    Some(MessageQueue {
        topic: resource(topic),
        broker,
        ..Default::default()
    })
}

fn route_of(topic: &str) -> QueryRouteRequest {
    let addresses = vec![Address {
        host: "127.0.0.1".into(),
        port: 9876,
    }];
    let endpoints = Some(Endpoints {
        scheme: AddressScheme::IPv4.into(),
        addresses,
    });
    QueryRouteRequest {
        topic: resource(topic),
        endpoints,
    }
}

fn send_to(topic: &str) -> SendMessageRequest {
    let message = Message {
        topic: resource(topic),
        body: Bytes::from("body"),
        ..Default::default()
    };
    SendMessageRequest {
        messages: vec![message.encode_to_vec().into()],
    }
}

fn code(answer: &impl Answer) -> Code {
    answer.status().expect("every answer has a status").code()
}

fn said(answer: &impl Answer) -> &str {
    &answer.status().expect("every answer has a status").message
}

/// Catches a route with which an official client cannot work.
#[tokio::test]
async fn the_route_of_a_known_topic_comes_from_the_table() {
    let (server, owner) = (Running::start(config()).await, Owner::start("a").await);
    server
        .register(group("a", 1, &[&owner], &["t"]), LONG_LEASE_MS)
        .await;
    let mut request = asked(route_of("t"));
    request
        .metadata_mut()
        .insert(gateway::ROUTE, gateway::ROUTE_LEADER.parse().unwrap());
    let answer = soon(client(&server).query_route(request)).await.unwrap();
    assert_eq!(
        answer.metadata().get(LEADER).unwrap(),
        owner.address.as_str()
    );
    let route = answer.into_inner();
    assert_eq!(code(&route), Code::Ok);
    assert_eq!(route.message_queues.len(), 2);
    for (place, queue) in route.message_queues.iter().enumerate() {
        let broker = queue.broker.as_ref().unwrap();
        let endpoints = broker.endpoints.as_ref().unwrap();
        assert_eq!(
            (queue.id, broker.id, broker.name.as_str()),
            (place as i32, 0, "a")
        );
        assert_eq!(endpoints.scheme(), AddressScheme::IPv4);
        let at = &endpoints.addresses[0];
        assert_eq!(format!("{}:{}", at.host, at.port), owner.address);
    }
    let answer = soon(client(&server).query_route(asked(route_of("t"))))
        .await
        .unwrap();
    let broker = answer.get_ref().message_queues[0].broker.as_ref().unwrap();
    assert_eq!(
        broker.endpoints,
        route_of("t").endpoints,
        "others stay at their access point"
    );
    assert!(owner.calls().is_empty(), "nobody had to be asked");
}

/// Catches requests that are answered although they are none.
#[tokio::test]
async fn a_route_request_without_access_point_or_topic_is_refused() {
    let server = Running::start(config()).await;
    let mut client = client(&server);
    for (request, wanted) in [
        (
            QueryRouteRequest {
                topic: resource("t"),
                endpoints: None,
            },
            Code::IllegalAccessPoint,
        ),
        (
            QueryRouteRequest {
                topic: resource("t"),
                endpoints: Some(Endpoints::default()),
            },
            Code::IllegalAccessPoint,
        ),
        (
            QueryRouteRequest {
                topic: None,
                ..route_of("t")
            },
            Code::IllegalTopic,
        ),
        (route_of("no spaces"), Code::IllegalTopic),
    ] {
        let answer = soon(client.query_route(asked(request)))
            .await
            .unwrap()
            .into_inner();
        assert_eq!(code(&answer), wanted, "{answer:?}");
    }
}

/// Catches a topic that brokers would create, or know already, being denied by a table that does not have it.
#[tokio::test]
async fn an_unknown_topic_is_for_a_leader_to_decide() {
    let (server, owner) = (Running::start(config()).await, Owner::start("a").await);
    server
        .register(group("a", 1, &[&owner], &[]), LONG_LEASE_MS)
        .await;
    let mut client = client(&server);
    let route = soon(client.query_route(asked(route_of("new"))))
        .await
        .unwrap();
    assert_eq!(said(route.get_ref()), "a");
    assert_eq!(
        route.metadata().get(LEADER).unwrap(),
        owner.address.as_str()
    );
    let sent = soon(client.send_message(asked(send_to("new"))))
        .await
        .unwrap();
    assert_eq!(said(sent.get_ref()), "a");
    assert_eq!(owner.calls(), ["query_route", "send_message"]);
}

/// Catches a call that reaches a broker which does not have its topic.
#[tokio::test]
async fn each_call_goes_to_the_group_that_has_its_topic() {
    let server = Running::start(config()).await;
    let (a, b) = (Owner::start("a").await, Owner::start("b").await);
    server
        .register(group("a", 1, &[&a], &["t"]), LONG_LEASE_MS)
        .await;
    server
        .register(group("b", 1, &[&b], &["t", "u"]), LONG_LEASE_MS)
        .await;
    let mut client = client(&server);
    macro_rules! ask {
        ($($method:ident: $request:expr;)*) => {$(
            let answer = soon(client.$method(asked($request))).await.unwrap();
            assert_eq!(said(answer.get_ref()), "b", stringify!($method));
            assert_eq!(answer.metadata().get(LEADER).unwrap(), b.address.as_str());
        )*};
    }
    ask! {
        send_message: send_to("u");
        query_assignment: QueryAssignmentRequest { topic: resource("u"), ..Default::default() };
        ack_message: AckMessageRequest { topic: resource("u"), ..Default::default() };
        forward_message_to_dead_letter_queue: ForwardMessageToDeadLetterQueueRequest {
            topic: resource("u"), ..Default::default()
        };
        update_offset: UpdateOffsetRequest { message_queue: queue("u", ""), ..Default::default() };
        query_offset: QueryOffsetRequest { message_queue: queue("t", "b"), ..Default::default() };
        end_transaction: EndTransactionRequest { topic: resource("u"), ..Default::default() };
        change_invisible_duration: ChangeInvisibleDurationRequest {
            topic: resource("u"), ..Default::default()
        };
        recall_message: RecallMessageRequest { topic: resource("u"), ..Default::default() };
        sync_lite_subscription: SyncLiteSubscriptionRequest {
            topic: resource("u"), ..Default::default()
        };
    }
    let receive = ReceiveMessageRequest {
        message_queue: queue("t", "b"),
        ..Default::default()
    };
    let received = soon(client.receive_message(asked(receive)))
        .await
        .unwrap()
        .into_inner();
    let received: Vec<_> = soon(received.collect()).await;
    assert_eq!(said(received[0].as_ref().unwrap()), "b");
    let pull = PullMessageRequest {
        message_queue: queue("u", ""),
        ..Default::default()
    };
    let pulled = soon(client.pull_message(asked(pull)))
        .await
        .unwrap()
        .into_inner();
    assert_eq!(soon(pulled.collect::<Vec<_>>()).await.len(), 3);
    assert!(a.calls().is_empty(), "{:?}", a.calls());
    for seen in b.seen() {
        assert_eq!(seen.metadata.get(CLIENT_ID).unwrap(), "client-1");
        assert_eq!(seen.metadata.get(HOPS).unwrap(), "1");
    }
    // What has no topic goes to any leader.
    soon(client.heartbeat(asked(HeartbeatRequest::default())))
        .await
        .unwrap();
    soon(client.notify_client_termination(asked(Default::default())))
        .await
        .unwrap();
    assert_eq!(a.calls(), ["heartbeat", "notify_client_termination"]);
}

/// Catches a refusal on the level of gRPC that is hidden from the client, or that makes the name server ask around.
#[tokio::test]
async fn a_refusal_reaches_the_client() {
    let server = Running::start(config()).await;
    let (a, b) = (Owner::start("a").await, Owner::start("b").await);
    server
        .register(group("g", 1, &[&a, &b], &["t"]), LONG_LEASE_MS)
        .await;
    let ask = GetOffsetRequest {
        message_queue: queue("t", "g"),
        ..Default::default()
    };
    let status = soon(client(&server).get_offset(asked(ask)))
        .await
        .unwrap_err();
    assert_eq!(
        (status.code(), status.message()),
        (tonic::Code::InvalidArgument, "no such offset")
    );
    assert!(b.calls().is_empty());
}

/// Catches calls that fail, or hang, while a dead leader is still in the table, although its group has another one.
#[tokio::test]
async fn a_dead_leader_s_group_is_asked_elsewhere() {
    let server = Running::start(config()).await;
    let (dead, alive) = (Owner::start("dead").await, Owner::start("alive").await);
    server
        .register(group("g", 1, &[&dead, &alive], &["t"]), LONG_LEASE_MS)
        .await;
    dead.stop().await;
    let sent = soon(client(&server).send_message(asked(send_to("t"))))
        .await
        .unwrap();
    assert_eq!(said(sent.get_ref()), "alive");
}

/// Catches a client that hangs, or that takes the name server for dead, while there is no leader.
#[tokio::test]
async fn without_a_leader_every_call_gets_a_status_it_may_try_again_on() {
    let server = Running::start(config()).await;
    let mut client = client(&server);
    let sent = soon(client.send_message(asked(send_to("t"))))
        .await
        .unwrap()
        .into_inner();
    assert_eq!(code(&sent), Code::HaNotAvailable);
    let beat = soon(client.heartbeat(asked(HeartbeatRequest::default())))
        .await
        .unwrap();
    assert_eq!(code(beat.get_ref()), Code::HaNotAvailable);
    let route = soon(client.query_route(asked(route_of("t"))))
        .await
        .unwrap();
    assert_eq!(code(route.get_ref()), Code::HaNotAvailable);
    let pull = PullMessageRequest {
        message_queue: queue("t", "g"),
        ..Default::default()
    };
    let pulled = soon(client.pull_message(asked(pull)))
        .await
        .unwrap()
        .into_inner();
    let pulled: Vec<_> = soon(pulled.collect()).await;
    assert_eq!(code(pulled[0].as_ref().unwrap()), Code::HaNotAvailable);
}

/// Catches an outcome that is unknown being called a failure: the leader may have stored what it did not confirm.
#[tokio::test]
async fn a_leader_that_cannot_be_reached_is_another_status_than_none() {
    let (server, owner) = (Running::start(config()).await, Owner::start("a").await);
    server
        .register(group("a", 1, &[&owner], &["t"]), LONG_LEASE_MS)
        .await;
    owner.fall_silent();
    let mut request = asked(send_to("t"));
    request
        .metadata_mut()
        .insert("grpc-timeout", "300m".parse().unwrap());
    let status = soon(client(&server).send_message(request)).await;
    // The client's own timer may be the first to end.
    if let Ok(sent) = status {
        assert_eq!(code(sent.get_ref()), Code::ProxyTimeout);
    }
    let address = owner.address.clone();
    owner.stop().await;
    let answer = soon(client(&server).send_message(asked(send_to("t"))))
        .await
        .unwrap();
    assert_eq!(code(answer.get_ref()), Code::ProxyTimeout);
    assert_eq!(answer.metadata().get(LEADER).unwrap(), address.as_str());
}

/// Catches an anonymous client being served, on any kind of call.
#[tokio::test]
async fn a_client_without_a_name_is_refused() {
    let (server, owner) = (Running::start(config()).await, Owner::start("a").await);
    server
        .register(group("a", 1, &[&owner], &["t"]), LONG_LEASE_MS)
        .await;
    let mut client = client(&server);
    let wanted = Code::ClientIdRequired;
    let route = soon(client.query_route(Request::new(route_of("t"))))
        .await
        .unwrap();
    assert_eq!(code(route.get_ref()), wanted);
    for send in [send_to("t"), SendMessageRequest::default()] {
        let sent = soon(client.send_message(Request::new(send))).await.unwrap();
        assert_eq!(code(sent.get_ref()), wanted);
    }
    let pulled = soon(client.pull_message(Request::new(Default::default())))
        .await
        .unwrap();
    let pulled: Vec<_> = soon(pulled.into_inner().collect()).await;
    assert_eq!(code(pulled[0].as_ref().unwrap()), wanted);
    let commands = futures::stream::pending::<TelemetryCommand>();
    let told = soon(client.telemetry(Request::new(commands)))
        .await
        .unwrap();
    let told: Vec<_> = soon(told.into_inner().collect()).await;
    assert_eq!(code(told[0].as_ref().unwrap()), wanted);
    assert!(owner.calls().is_empty());
}

/// Catches a message that cannot be read crashing the name server or being sent at random.
#[tokio::test]
async fn a_send_without_a_readable_message_is_refused() {
    let server = Running::start(config()).await;
    for messages in [vec![], vec![Bytes::from_static(b"\xff\xff\xff")]] {
        let send = asked(SendMessageRequest { messages });
        let sent = soon(client(&server).send_message(send)).await.unwrap();
        assert_eq!(code(sent.get_ref()), Code::MessageCorrupted);
    }
}

fn settings(text: &str) -> TelemetryCommand {
    let user_agent = Some(Ua {
        hostname: text.into(),
        ..Default::default()
    });
    let settings = Settings {
        user_agent,
        ..Default::default()
    };
    TelemetryCommand {
        status: None,
        command: Some(telemetry_command::Command::Settings(settings)),
    }
}

/// A client's telemetry stream.
struct Telemetry {
    commands: mpsc::Sender<TelemetryCommand>,
    answers: tonic::Streaming<TelemetryCommand>,
}

impl Telemetry {
    async fn open(server: &Running) -> Telemetry {
        let (commands, receiver) = mpsc::channel(8);
        let stream = futures::stream::unfold(receiver, |mut receiver| async move {
            Some((receiver.recv().await?, receiver))
        });
        let answers = soon(client(server).telemetry(asked(stream)))
            .await
            .unwrap()
            .into_inner();
        Telemetry { commands, answers }
    }

    async fn say(&self, command: TelemetryCommand) {
        self.commands.send(command).await.unwrap();
    }

    async fn hear(&mut self) -> TelemetryCommand {
        crate::support::next(&mut self.answers).await
    }
}

/// Catches a client left without its stream, or without settings, after a change of the leader.
#[tokio::test]
async fn a_telemetry_stream_outlives_a_leader() {
    let server = Running::start(config()).await;
    let (old, new) = (Owner::start("old").await, Owner::start("new").await);
    server
        .register(group("g", 1, &[&old, &new], &["t"]), LONG_LEASE_MS)
        .await;
    let mut telemetry = Telemetry::open(&server).await;
    telemetry.say(settings("host-1")).await;
    let answer = telemetry.hear().await;
    assert_eq!(said(&answer), "old");
    assert_eq!(answer.command, settings("host-1").command);
    server
        .register(group("g", 2, &[&new], &["t"]), LONG_LEASE_MS)
        .await;
    old.stop().await;
    // The client says nothing; the new leader is told its settings all the same.
    let answer = telemetry.hear().await;
    assert_eq!(said(&answer), "new");
    assert_eq!(answer.command, settings("host-1").command);
    telemetry.say(settings("host-2")).await;
    assert_eq!(telemetry.hear().await.command, settings("host-2").command);
    new.open_streams(1).await;
    drop(telemetry);
    new.open_streams(0).await;
}

/// Catches a client that waits for its first settings for ever (the Python client sets no deadline).
#[tokio::test]
async fn telemetry_without_a_leader_waits_for_one_and_then_says_so() {
    let server = Running::start(config()).await;
    let mut patient = Telemetry::open(&server).await;
    patient.say(settings("host-1")).await;
    let owner = Owner::start("late").await;
    server
        .register(group("g", 1, &[&owner], &[]), LONG_LEASE_MS)
        .await;
    assert_eq!(said(&patient.hear().await), "late");
    // Nobody comes: a status, and the end.
    let lonely = Running::start(config()).await;
    let mut telemetry = Telemetry::open(&lonely).await;
    telemetry.say(settings("host-1")).await;
    assert_eq!(code(&telemetry.hear().await), Code::HaNotAvailable);
    assert!(soon(telemetry.answers.next()).await.is_none());
}
