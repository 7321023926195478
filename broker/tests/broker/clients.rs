//! One broker: what clients need beside sending and pulling.
#![allow(
    clippy::unwrap_used,
    clippy::too_many_lines,
    reason = "a story told in one piece; what fails, panics"
)]

use std::time::Duration;

use crate::support::client::{access_point, code, from_client, pull_request, resource, tags};
use crate::support::{Cluster, PATIENCE, message, ok};
use futures::StreamExt;
use proto::cluster::{
    ListMembersRequest, ListRequest, NameRequest, PutGroupRequest, PutTopicRequest,
};
use proto::opaque::{pull_message_response, receive_message_response};
use proto::place::BROKER_GROUP;
use proto::v2::retry_policy::Strategy;
use proto::v2::settings::PubSub;
use proto::v2::telemetry_command::Command;
use proto::v2::{
    self, ClientType, Code, HeartbeatRequest, MessageType, Permission, Publishing,
    QueryRouteRequest, Settings, Subscription, TelemetryCommand,
};
use tonic::Request;

const NO_ROUTE: &str = "CODE: 17  DESC: No topic route info in name server for the topic: ";

/// Catches a call without a client id that is served, hangs, or fails as gRPC.
#[tokio::test]
async fn a_client_says_who_it_is() {
    let cluster = Cluster::single().await;
    let mut client = cluster.leader_client().await.messaging;
    macro_rules! refused {
        ($($method:ident),*) => {$(
            let answer = client.$method(Request::new(Default::default())).await.unwrap();
            assert_eq!(code(&answer.get_ref().status), Code::ClientIdRequired, stringify!($method));
        )*};
    }
    refused!(
        query_route,
        heartbeat,
        send_message,
        update_offset,
        get_offset,
        query_offset,
        notify_client_termination
    );
    let mut pulled = client
        .pull_message(Request::new(Default::default()))
        .await
        .unwrap()
        .into_inner();
    match pulled.message().await.unwrap().unwrap().content.unwrap() {
        pull_message_response::Content::Status(status) => {
            assert_eq!(code(&Some(status)), Code::ClientIdRequired);
        }
        other => panic!("{other:?}"),
    }
    let silent = futures::stream::pending::<TelemetryCommand>();
    let refused = client.telemetry(Request::new(silent)).await.unwrap_err();
    assert_eq!(refused.code(), tonic::Code::InvalidArgument);
}

/// Catches a call for another broker group's queue that is answered here, where a queue of that number is another one; and a
/// client that takes our leader for the other group's from then on.
#[tokio::test]
async fn a_call_for_another_broker_group_is_refused() {
    let cluster = Cluster::single().await;
    let mut client = cluster.leader_client().await;
    for (meant, expected) in [
        (Some("broker-b"), Code::HaNotAvailable),
        (Some("broker-a"), Code::Ok),
        (None, Code::Ok),
    ] {
        let mut heartbeat = from_client(HeartbeatRequest {
            group: resource("readers"),
            client_type: ClientType::PullConsumer.into(),
        });
        let mut listing = Request::new(ListRequest {});
        if let Some(meant) = meant {
            let header = || meant.parse().unwrap();
            heartbeat.metadata_mut().insert(BROKER_GROUP, header());
            listing.metadata_mut().insert(BROKER_GROUP, header());
        }
        let answer = client.messaging.heartbeat(heartbeat).await.unwrap();
        assert_eq!(code(&answer.get_ref().status), expected, "{meant:?}");
        let names_leader = answer.metadata().contains_key(gateway::LEADER);
        assert_eq!(names_leader, expected == Code::Ok, "{meant:?}");
        // An operator's too.
        let topics = client.admin.list_topics(listing).await.unwrap();
        assert_eq!(topics.get_ref().code, expected as i32, "{meant:?}");
    }
}

/// Catches a queue that is read and committed here although its number is another broker group's: whoever asks the wrong group
/// finds it empty, and waits there for ever.
#[tokio::test]
async fn a_queue_below_the_first_is_another_group_s() {
    let cluster = Cluster::single().await;
    let mut client = cluster.leader_client().await;
    let topic = PutTopicRequest {
        name: "shared".to_owned(),
        queue_count: 12,
        attributes: [("queues.first".to_owned(), "10".to_owned())].into(),
        ..Default::default()
    };
    let made = client
        .admin
        .create_topic(Request::new(topic))
        .await
        .unwrap();
    assert_eq!(made.get_ref().code, Code::Ok as i32);
    for (queue, expected) in [(9, Code::BadRequest), (10, Code::MessageNotFound)] {
        let pulled = client.pull("shared", queue, 0, 1).await;
        assert_eq!(pulled.code, expected, "{queue}");
    }
    let refused = client.get_offset("g", "shared", 0).await;
    assert_eq!(code(&refused.status), Code::BadRequest);
    let words = refused.status.unwrap_or_default().message;
    assert!(words.contains("10 to 11"), "{words}");
}

/// Catches a client that waits for ever for an answer to what is not supported yet.
#[tokio::test]
async fn what_is_not_supported_says_so() {
    let cluster = Cluster::single().await;
    let mut client = cluster.leader_client().await.messaging;
    macro_rules! not_implemented {
        ($($method:ident),*) => {$(
            let answer = client.$method(from_client(Default::default())).await.unwrap();
            assert_eq!(code(&answer.get_ref().status), Code::NotImplemented, stringify!($method));
        )*};
    }
    not_implemented!(
        query_assignment,
        ack_message,
        forward_message_to_dead_letter_queue,
        end_transaction,
        change_invisible_duration,
        recall_message,
        sync_lite_subscription
    );
    let mut received = client
        .receive_message(from_client(Default::default()))
        .await
        .unwrap()
        .into_inner();
    match received.message().await.unwrap().unwrap().content.unwrap() {
        receive_message_response::Content::Status(status) => {
            assert_eq!(code(&Some(status)), Code::NotImplemented);
        }
        other => panic!("{other:?}"),
    }
}

/// Catches a route that an official client cannot use.
#[tokio::test]
async fn a_route_leads_to_the_leader() {
    let cluster = Cluster::single().await;
    let client = cluster.leader_client().await;
    client.create_topic("orders", 3).await;
    let route = client.route("orders").await;
    assert_eq!(
        route.metadata().get("x-raftmq-leader").unwrap(),
        cluster.address(0)
    );
    let route = route.into_inner();
    ok(&route.status);
    assert_eq!(
        route
            .message_queues
            .iter()
            .map(|queue| queue.id)
            .collect::<Vec<_>>(),
        [0, 1, 2]
    );
    for queue in &route.message_queues {
        assert_eq!(queue.topic, resource("orders"));
        assert_eq!(queue.permission, i32::from(Permission::ReadWrite));
        let kinds = [MessageType::Normal, MessageType::Fifo].map(i32::from);
        assert_eq!(queue.accept_message_types, kinds);
        let broker = queue.broker.as_ref().unwrap();
        assert_eq!((&*broker.name, broker.id), ("broker-a", 0));
        let endpoints = broker.endpoints.as_ref().unwrap();
        let address = &endpoints.addresses[0];
        assert_eq!(endpoints.addresses.len(), 1);
        assert_eq!(
            format!("{}:{}", address.host, address.port),
            cluster.address(0)
        );
    }
    let request = QueryRouteRequest {
        topic: resource("orders"),
        endpoints: None,
    };
    let mut messaging = client.messaging.clone();
    let refused = messaging.query_route(from_client(request)).await.unwrap();
    assert_eq!(code(&refused.get_ref().status), Code::IllegalAccessPoint);
    let bad = client.route("no good").await.into_inner();
    assert_eq!(code(&bad.status), Code::IllegalTopic);
}

/// Catches an official client that is sent to a leader, whose death it would notice only after 30 seconds or never.
#[tokio::test]
async fn a_client_that_does_not_follow_leaders_stays_at_its_access_point() {
    let cluster = Cluster::single().await;
    let client = cluster.leader_client().await;
    client.create_topic("orders", 1).await;
    let mut request = from_client(QueryRouteRequest {
        topic: resource("orders"),
        endpoints: Some(access_point()),
    });
    request.metadata_mut().remove(gateway::ROUTE);
    let route = client.messaging.clone().query_route(request).await.unwrap();
    let queue = &route.get_ref().message_queues[0];
    let broker = queue.broker.as_ref().unwrap();
    assert_eq!(broker.endpoints, Some(access_point()));
}

/// Catches an unknown topic that appears unasked, or does not appear when it should.
#[tokio::test]
async fn unknown_topics_are_refused_or_created_as_configured() {
    let cluster = Cluster::start(1, |config| config.auto_create_groups = false).await;
    let client = cluster.leader_client().await;
    let status = client.route("ghost").await.into_inner().status;
    assert_eq!(code(&status), Code::TopicNotFound);
    assert_eq!(status.unwrap().message, format!("{NO_ROUTE}ghost"));
    let status = client.send(&[message("ghost", 0, 1)]).await.status;
    assert_eq!(code(&status), Code::TopicNotFound);
    assert_eq!(status.unwrap().message, format!("{NO_ROUTE}ghost"));
    client.create_topic("orders", 1).await;
    let pulled = client.pull("orders", 0, 0, 1).await;
    assert_eq!(pulled.code, Code::ConsumerGroupNotFound);
    client.create_group("readers").await;
    assert_eq!(
        client.pull("orders", 0, 0, 1).await.code,
        Code::MessageNotFound
    );

    let cluster = Cluster::start(1, |config| {
        config.auto_create_topics = true;
        config.auto_create_queue_count = 3;
    })
    .await;
    let client = cluster.leader_client().await;
    let route = client.route("asked").await.into_inner();
    assert_eq!(
        (code(&route.status), route.message_queues.len()),
        (Code::Ok, 3)
    );
    assert_eq!(client.store(&[message("sent", 2, 1)]).await, [0]);
    assert_eq!(client.route("sent").await.get_ref().message_queues.len(), 3);
}

/// Catches telemetry that leaves a client waiting, and settings that a client chokes on.
#[tokio::test]
async fn each_settings_gets_a_reply_with_the_server_s_fields() {
    let cluster = Cluster::single().await;
    let client = cluster.leader_client().await;
    let group = PutGroupRequest {
        name: "ordered".to_owned(),
        fifo: true,
        max_attempts: 5,
        attributes: [("retry.backoff".to_owned(), "250ms,5s".to_owned())].into(),
        ..Default::default()
    };
    client
        .admin
        .clone()
        .create_group(Request::new(group))
        .await
        .unwrap();
    let producer = Settings {
        client_type: Some(ClientType::Producer.into()),
        access_point: Some(access_point()),
        pub_sub: Some(PubSub::Publishing(Publishing {
            topics: resource("orders").into_iter().collect(),
            ..Default::default()
        })),
        ..Default::default()
    };
    let consumer = |group: &str| Settings {
        client_type: Some(ClientType::PushConsumer.into()),
        pub_sub: Some(PubSub::Subscription(Subscription {
            group: resource(group),
            subscriptions: vec![v2::SubscriptionEntry {
                topic: resource("orders"),
                expression: tags("*"),
            }],
            ..Default::default()
        })),
        ..Default::default()
    };
    let sent = [
        producer.clone(),
        consumer("ordered"),
        consumer("fresh"),
        producer.clone(),
    ];
    let commands = sent.map(|settings| TelemetryCommand {
        status: None,
        command: Some(Command::Settings(settings)),
    });
    let open = futures::stream::iter(commands).chain(futures::stream::pending());
    let mut messaging = client.messaging.clone();
    let mut request = from_client(open);
    request.metadata_mut().remove("grpc-timeout");
    let mut replies = messaging.telemetry(request).await.unwrap().into_inner();
    let mut got = Vec::new();
    for _ in 0..4 {
        let reply = tokio::time::timeout(PATIENCE, replies.message())
            .await
            .unwrap()
            .unwrap();
        let reply = reply.unwrap();
        ok(&reply.status);
        match reply.command.unwrap() {
            Command::Settings(settings) => got.push(settings),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(got[0], got[3]);
    assert_eq!(
        (got[0].client_type, &got[0].access_point),
        (producer.client_type, &producer.access_point)
    );
    let Some(PubSub::Publishing(publishing)) = &got[0].pub_sub else {
        panic!()
    };
    assert_eq!(
        (publishing.max_body_size, publishing.validate_message_type),
        (256 << 10, true)
    );
    assert_eq!(publishing.topics.len(), 1);
    let policy = got[0].backoff_policy.as_ref().unwrap();
    assert_eq!(policy.max_attempts, 3);
    assert!(matches!(
        policy.strategy,
        Some(Strategy::ExponentialBackoff(_))
    ));
    let own: &[i64] = &[1, 5];
    let expected = [
        (&got[1], true, 5, own),
        (&got[2], false, 17, &[1, 5, 10, 30]),
    ];
    for (settings, fifo, attempts, waits) in expected {
        let Some(PubSub::Subscription(subscription)) = &settings.pub_sub else {
            panic!()
        };
        assert_eq!(subscription.fifo, Some(fifo));
        assert!(subscription.receive_batch_size.unwrap() > 0);
        assert!(subscription.long_polling_timeout.unwrap().seconds > 0);
        let policy = settings.backoff_policy.as_ref().unwrap();
        assert_eq!(policy.max_attempts, attempts);
        let Some(Strategy::CustomizedBackoff(backoff)) = &policy.strategy else {
            panic!("{policy:?}")
        };
        // One client reads whole seconds only.
        let seconds = backoff.next.iter().map(|wait| (wait.seconds, wait.nanos));
        let seconds: Vec<(i64, i32)> = seconds.take(waits.len()).collect();
        let waits: Vec<(i64, i32)> = waits.iter().map(|wait| (*wait, 0)).collect();
        assert_eq!(seconds, waits);
    }
}

/// Catches bad settings that are accepted, and a stream that stays open after them.
#[tokio::test]
async fn bad_settings_end_the_stream() {
    let cluster = Cluster::single().await;
    let client = cluster.leader_client().await;
    let neither = Settings::default();
    let bad_topic = Settings {
        pub_sub: Some(PubSub::Publishing(Publishing {
            topics: resource("no good").into_iter().collect(),
            ..Default::default()
        })),
        ..Default::default()
    };
    let bad_group = Settings {
        pub_sub: Some(PubSub::Subscription(Subscription::default())),
        ..Default::default()
    };
    let bad_properties = Settings {
        client_properties: [("1".to_owned(), String::new())].into(),
        pub_sub: Some(PubSub::Publishing(Publishing::default())),
        ..Default::default()
    };
    for settings in [neither, bad_topic, bad_group, bad_properties] {
        let command = TelemetryCommand {
            status: None,
            command: Some(Command::Settings(settings)),
        };
        let open = futures::stream::iter([command]).chain(futures::stream::pending());
        let mut messaging = client.messaging.clone();
        let mut replies = messaging
            .telemetry(from_client(open))
            .await
            .unwrap()
            .into_inner();
        let refused = replies.message().await.unwrap_err();
        assert_eq!(refused.code(), tonic::Code::InvalidArgument, "{refused}");
    }
}

/// Catches members that are not seen, or not forgotten.
#[tokio::test]
async fn heartbeats_make_members() {
    let cluster = Cluster::single().await;
    let client = cluster.leader_client().await;
    let consumer = HeartbeatRequest {
        group: resource("readers"),
        client_type: ClientType::PushConsumer.into(),
    };
    for id in ["b", "a"] {
        ok(&client.heartbeat(id, consumer.clone()).await.status);
    }
    ok(&client
        .heartbeat("empty", HeartbeatRequest::default())
        .await
        .status);
    let members = || {
        let request = Request::new(ListMembersRequest {
            name: "readers".to_owned(),
            subscriptions: None,
        });
        let mut admin = client.admin.clone();
        async move {
            admin
                .list_members(request)
                .await
                .unwrap()
                .into_inner()
                .client_ids
        }
    };
    assert_eq!(members().await, ["a", "b"]);
    let mut goodbye = from_client(v2::NotifyClientTerminationRequest {
        group: resource(""),
    });
    goodbye
        .metadata_mut()
        .insert("x-mq-client-id", "a".parse().unwrap());
    let answer = client
        .messaging
        .clone()
        .notify_client_termination(goodbye)
        .await
        .unwrap();
    ok(&answer.get_ref().status);
    assert_eq!(members().await, ["b"]);
}

/// Catches operators' commands that do something else than they say.
#[tokio::test]
async fn topics_and_groups_are_administered() {
    let cluster = Cluster::single().await;
    let client = cluster.leader_client().await;
    let mut admin = client.admin.clone();
    let topic = |queue_count, if_absent| {
        let name = "orders".to_owned();
        Request::new(PutTopicRequest {
            name,
            queue_count,
            if_absent,
            ..Default::default()
        })
    };
    let created = admin
        .create_topic(topic(2, false))
        .await
        .unwrap()
        .into_inner();
    assert_eq!(created.code, Code::Ok as i32);
    let again = admin
        .create_topic(topic(2, false))
        .await
        .unwrap()
        .into_inner();
    assert_eq!(again.code, Code::PreconditionFailed as i32, "{again:?}");
    let same = admin
        .create_topic(topic(2, true))
        .await
        .unwrap()
        .into_inner();
    assert_eq!((same.code, same.value), (Code::Ok as i32, created.value));
    let fewer = admin
        .alter_topic(topic(1, false))
        .await
        .unwrap()
        .into_inner();
    assert_eq!(fewer.code, Code::BadRequest as i32);
    admin.alter_topic(topic(5, false)).await.unwrap();
    client.store(&[message("orders", 4, 1)]).await;
    let topics = admin
        .list_topics(Request::new(ListRequest {}))
        .await
        .unwrap()
        .into_inner()
        .topics;
    assert_eq!(
        (
            topics.len(),
            topics[0].queue_count,
            topics[0].queues[4].max_offset
        ),
        (1, 5, 1)
    );

    ok(&client.update_offset("readers", "orders", 4, 1).await.status);
    let groups = admin
        .list_groups(Request::new(ListRequest {}))
        .await
        .unwrap()
        .into_inner()
        .groups;
    assert_eq!((groups.len(), &*groups[0].name), (1, "readers"));
    assert_eq!(
        (groups[0].offsets[0].offset, groups[0].offsets[0].max_offset),
        (1, 1)
    );
    let name = |name: &str| {
        Request::new(NameRequest {
            name: name.to_owned(),
        })
    };
    assert_eq!(
        admin
            .delete_topic(name("orders"))
            .await
            .unwrap()
            .get_ref()
            .code,
        Code::Ok as i32
    );
    let gone = admin.delete_topic(name("orders")).await.unwrap();
    assert_eq!(gone.get_ref().code, Code::TopicNotFound as i32);
    assert_eq!(
        admin
            .delete_group(name("readers"))
            .await
            .unwrap()
            .get_ref()
            .code,
        Code::Ok as i32
    );
    let gone = admin.delete_group(name("readers")).await.unwrap();
    assert_eq!(gone.get_ref().code, Code::ConsumerGroupNotFound as i32);
    assert_eq!(
        client.pull("orders", 0, 0, 1).await.code,
        Code::TopicNotFound
    );

    let status = admin
        .status(Request::new(Default::default()))
        .await
        .unwrap()
        .into_inner();
    assert!(status.serving);
    assert_eq!(
        (&*status.group, status.broker_id, &*status.state),
        ("broker-a", 1, "leader")
    );
}

/// Catches a broker that does not end while clients hold streams and polls open.
#[tokio::test]
async fn stopping_ends_what_waits() {
    let mut cluster = Cluster::single().await;
    let client = cluster.leader_client().await;
    client.create_topic("orders", 1).await;
    let mut request = pull_request("orders", 0, 0, 1);
    request.long_polling_timeout = Some(prost_types::Duration {
        seconds: 25,
        nanos: 0,
    });
    let waiting = tokio::spawn({
        let client = client.clone();
        async move { client.pull_with(request).await.code }
    });
    let open = futures::stream::pending::<TelemetryCommand>();
    let mut messaging = client.messaging.clone();
    let mut replies = messaging
        .telemetry(from_client(open))
        .await
        .unwrap()
        .into_inner();
    let stopped = tokio::time::timeout(Duration::from_secs(20), cluster.stop(0)).await;
    stopped.expect("a broker stops while clients wait");
    assert!(!matches!(replies.message().await, Ok(Some(_))));
    // The pull may not have arrived before the end: then its connection breaks.
    if let Ok(code) = waiting.await {
        assert_eq!(code, Code::HaNotAvailable);
    }
}
