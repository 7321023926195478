//! Three brokers: whoever is asked, the leader answers; what was acknowledged outlives its leader.
#![allow(
    clippy::unwrap_used,
    clippy::too_many_lines,
    reason = "a story told in one piece; what fails, panics"
)]

use std::time::Duration;

use crate::support::client::{code, from_client, pull_request, resource};
use crate::support::{Client, Cluster, PATIENCE, message, ok};
use proto::cluster::{BrokerStatusRequest, ListRequest, TransferLeadershipRequest};
use proto::v2::{Code, HeartbeatRequest, Message, QueryOffsetPolicy};
use tonic::Request;

async fn three() -> (Cluster, Client) {
    let cluster = Cluster::start(3, |_| {}).await;
    let client = cluster.leader_client().await;
    client.create_topic("orders", 2).await;
    (cluster, client)
}

/// Catches a follower that answers by itself, refuses, or keeps the leader to itself.
#[tokio::test]
async fn a_follower_passes_calls_on_and_names_the_leader() {
    let (cluster, _) = three().await;
    let leader = cluster.leader().await;
    let address = cluster.address(leader).to_owned();
    let follower = cluster.client(cluster.follower().await);

    let encoded = prost::Message::encode_to_vec(&message("orders", 1, 1)).into();
    let sent = follower.send_encoded(vec![encoded]).await;
    assert_eq!(sent.metadata().get("x-raftmq-leader").unwrap(), &*address);
    ok(&sent.get_ref().status);
    let pulled = follower.pull("orders", 1, 0, 8).await;
    assert_eq!((pulled.code, pulled.messages.len()), (Code::Ok, 1));
    ok(&follower.update_offset("g", "orders", 1, 1).await.status);
    assert_eq!(follower.get_offset("g", "orders", 1).await.offset, 1);
    let end = follower
        .query_offset("orders", 1, QueryOffsetPolicy::End, None)
        .await;
    assert_eq!((code(&end.status), end.offset), (Code::Ok, 1));
    let beat = HeartbeatRequest {
        group: resource("g"),
        client_type: 2,
    };
    ok(&follower.heartbeat("c", beat).await.status);
    let refused = follower.send(&[message("ghost", 0, 2)]).await;
    assert_eq!(code(&refused.status), Code::TopicNotFound);

    // Operators too.
    follower.create_topic("more", 1).await;
    let topics = follower
        .admin
        .clone()
        .list_topics(Request::new(ListRequest {}))
        .await
        .unwrap();
    assert_eq!(topics.get_ref().topics.len(), 2);
    let members = Request::new(proto::cluster::ListMembersRequest {
        name: "g".to_owned(),
        subscriptions: None,
    });
    let members = follower
        .admin
        .clone()
        .list_members(members)
        .await
        .unwrap()
        .into_inner();
    assert_eq!(members.client_ids, ["c"]);

    let route = follower.route("more").await;
    assert_eq!(route.metadata().get("x-raftmq-leader").unwrap(), &*address);
    let queue = &route.get_ref().message_queues[0];
    let endpoints = queue.broker.as_ref().unwrap().endpoints.as_ref().unwrap();
    assert_eq!(
        format!("127.0.0.1:{}", endpoints.addresses[0].port),
        address
    );
}

/// Catches acknowledged messages that go with their leader, and a group that stays without one.
#[tokio::test]
async fn what_was_acknowledged_outlives_its_leader() {
    let (mut cluster, client) = three().await;
    let before: Vec<Message> = (0..20).map(|id| message("orders", 0, id)).collect();
    client.store(&before).await;
    ok(&client.update_offset("g", "orders", 0, 7).await.status);
    let old = cluster.leader().await;
    cluster.stop(old).await;
    let new = cluster.leader().await;
    assert_ne!(old, new);
    let client = cluster.client(new);
    // A retry of the last send, as a client makes it that did not hear the answer.
    assert_eq!(client.store(&before[19..]).await, [19]);
    assert_eq!(client.store(&[message("orders", 0, 100)]).await, [20]);
    let pulled = client.pull("orders", 0, 0, 100).await;
    assert_eq!(pulled.messages.len(), 21);
    for (got, sent) in pulled.messages.iter().zip(&before) {
        assert_eq!(got.body, sent.body);
    }
    assert_eq!(client.get_offset("g", "orders", 0).await.offset, 7);
    // The old leader comes back and follows.
    cluster.restart(old).await;
    let back = cluster.client(old);
    assert_eq!(back.pull("orders", 0, 20, 8).await.messages.len(), 1);
}

/// Catches a send that fails because the leader changes under it though there is time to wait.
#[tokio::test]
async fn a_change_of_leader_is_waited_out() {
    let (cluster, _) = three().await;
    let old = cluster.leader().await;
    let follower = cluster.follower().await;
    let client = cluster.client(follower);
    let sends = tokio::spawn({
        let client = client.clone();
        async move {
            for id in 0..50 {
                client.store(&[message("orders", 0, id)]).await;
            }
        }
    });
    let to = cluster.configs[follower].broker_id;
    let transfer = Request::new(TransferLeadershipRequest { to });
    let answer = cluster
        .client(old)
        .admin
        .clone()
        .transfer_leader(transfer)
        .await
        .unwrap();
    assert_eq!(answer.get_ref().code, Code::Ok as i32, "{answer:?}");
    tokio::time::timeout(PATIENCE, sends)
        .await
        .unwrap()
        .unwrap();
    let pulled = client.pull("orders", 0, 0, 100).await;
    assert_eq!(pulled.messages.len(), 50, "each is stored once");
}

/// Catches a pull that waits at a deposed leader for what never comes.
#[tokio::test]
async fn a_waiting_pull_follows_the_leader() {
    let (cluster, _) = three().await;
    let old = cluster.leader().await;
    let follower = cluster.follower().await;
    let mut request = pull_request("orders", 0, 0, 8);
    request.long_polling_timeout = Some(prost_types::Duration {
        seconds: 25,
        nanos: 0,
    });
    let waiting = tokio::spawn({
        let client = cluster.client(old);
        async move { client.pull_with(request).await }
    });
    let to = cluster.configs[follower].broker_id;
    let transfer = Request::new(TransferLeadershipRequest { to });
    cluster
        .client(old)
        .admin
        .clone()
        .transfer_leader(transfer)
        .await
        .unwrap();
    cluster
        .client(follower)
        .store(&[message("orders", 0, 1)])
        .await;
    let pulled = tokio::time::timeout(PATIENCE, waiting)
        .await
        .unwrap()
        .unwrap();
    assert_eq!((pulled.code, pulled.messages.len()), (Code::Ok, 1));
}

/// Catches a minority that acknowledges, or lets its callers wait for ever.
#[tokio::test]
async fn without_a_majority_nothing_is_acknowledged() {
    let (mut cluster, _) = three().await;
    let survivor = cluster.leader().await;
    for place in (0..3).filter(|place| *place != survivor) {
        cluster.stop(place).await;
    }
    let mut messaging = cluster.client(survivor).messaging;
    let messages = vec![prost::Message::encode_to_vec(&message("orders", 0, 1)).into()];
    let mut request = from_client(proto::opaque::SendMessageRequest { messages });
    request.set_timeout(std::time::Duration::from_secs(3));
    let answer = messaging.send_message(request).await.unwrap().into_inner();
    let code = code(&answer.status);
    let expected = [Code::HaNotAvailable, Code::MasterPersistenceTimeout];
    assert!(expected.contains(&code), "{answer:?}");
}

/// Catches a status that says something else than what is.
#[tokio::test]
async fn each_broker_tells_its_own_status() {
    let (cluster, client) = three().await;
    client.store(&[message("orders", 0, 1)]).await;
    let leader = cluster.leader().await;
    let leader_id = cluster.configs[leader].broker_id;
    for place in 0..3 {
        let request = Request::new(BrokerStatusRequest {});
        let status = cluster
            .client(place)
            .admin
            .clone()
            .status(request)
            .await
            .unwrap()
            .into_inner();
        assert_eq!(status.broker_id, cluster.configs[place].broker_id);
        assert_eq!(
            (status.leader, status.serving),
            (leader_id, place == leader)
        );
        assert_eq!(
            status.state,
            if place == leader {
                "leader"
            } else {
                "follower"
            }
        );
        assert_eq!((status.voters, status.replicas.len()), (vec![1, 2, 3], 3));
        assert!(status.appended > 0 && status.term > 0 && status.log_syncs > 0);
    }
}

/// Catches a broker that stops and keeps its callers waiting for a leader that it will not hear of any more: during an
/// upgrade, producers would stand still for as long as that.
#[tokio::test]
async fn a_broker_that_stops_keeps_nobody_waiting() {
    let mut cluster = Cluster::start(3, |config| {
        config.leader_wait_ms = 25_000;
        config.request_timeout_ms = 30_000;
    })
    .await;
    cluster
        .leader_client()
        .await
        .create_topic("orders", 1)
        .await;
    let last = cluster.follower().await;
    for place in (0..3).filter(|place| *place != last) {
        cluster.stop(place).await;
    }
    let client = cluster.client(last);
    let mut sending = tokio::spawn(async move { client.send(&[message("orders", 0, 1)]).await });
    let moment = Duration::from_millis(500);
    let answered = tokio::time::timeout(moment, &mut sending).await;
    assert!(
        answered.is_err(),
        "it did not wait for a leader: {answered:?}"
    );
    let stopping = tokio::time::Instant::now();
    cluster.stop(last).await;
    let refused = sending.await.unwrap();
    assert_ne!(code(&refused.status), Code::Ok, "{refused:?}");
    let took = stopping.elapsed();
    assert!(took < Duration::from_secs(10), "it took {took:?}");
}
