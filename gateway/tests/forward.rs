//! Calls through a forwarder to an owner, over loopback.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

extern crate raftmq_gateway as gateway;

mod support;

use bytes::Bytes;
use futures::{StreamExt, stream};
use gateway::{Answer, CLIENT_ID, Forwarder, HOPS, LEADER, is_unreachable};
use proto::opaque::{SendMessageRequest, pull_message_response::Content};
use proto::v2::{GetOffsetRequest, HeartbeatRequest, PullMessageRequest, TelemetryCommand};
use support::{Owner, soon};
use tonic::{Code, Request};

fn asked<Q: Default>() -> Request<Q> {
    request(Q::default())
}

fn request<Q>(message: Q) -> Request<Q> {
    let mut request = Request::new(message);
    request
        .metadata_mut()
        .insert(CLIENT_ID, "client-1".parse().unwrap());
    request
}

fn with_timeout<Q>(message: Q, timeout: &str) -> Request<Q> {
    let mut request = request(message);
    request
        .metadata_mut()
        .insert("grpc-timeout", timeout.parse().unwrap());
    request
}

/// An address at which nobody listens: the port was given away and given back.
async fn nobody() -> String {
    let owner = Owner::start("gone").await;
    let address = owner.address.clone();
    owner.stop().await;
    address
}

/// Catches a call that is forwarded under another's name, loses the client's identity, or loses the leader's address on
/// the way back.
#[tokio::test]
async fn every_call_arrives_with_its_metadata_and_comes_back_with_the_owner_s() {
    let owner = Owner::start("owner").await;
    let (forwarder, to) = (Forwarder::new(), owner.address.as_str());
    macro_rules! call {
        ($($method:ident)*) => {$(
            let answer = soon(forwarder.$method(to, asked())).await.unwrap();
            assert_eq!(answer.get_ref().status().unwrap().message, "owner");
            assert_eq!(answer.metadata().get(LEADER).unwrap(), to);
        )*};
    }
    call!(
        query_route heartbeat send_message query_assignment ack_message
        forward_message_to_dead_letter_queue update_offset query_offset end_transaction
        notify_client_termination change_invisible_duration recall_message sync_lite_subscription
    );
    let received = soon(forwarder.receive_message(to, asked())).await.unwrap();
    assert_eq!(received.metadata().get(LEADER).unwrap(), to);
    assert_eq!(received.into_inner().count().await, 1);
    let pulled = soon(forwarder.pull_message(to, asked())).await.unwrap();
    assert_eq!(pulled.into_inner().count().await, 3);
    let commands = request(stream::iter([Ok(TelemetryCommand::default())]));
    let told = soon(forwarder.telemetry(to, commands)).await.unwrap();
    assert_eq!(told.metadata().get(LEADER).unwrap(), to);
    let told: Vec<_> = told.into_inner().collect().await;
    assert_eq!(told.len(), 1);
    let seen = owner.seen();
    assert_eq!(seen.len(), 16, "{seen:?}");
    for seen in seen {
        assert_eq!(
            seen.metadata.get(CLIENT_ID).unwrap(),
            "client-1",
            "{}",
            seen.call
        );
        assert_eq!(seen.metadata.get(HOPS).unwrap(), "1", "{}", seen.call);
    }
}

/// Catches a message that is decoded and encoded again on the way, or taken for something it is not.
#[tokio::test]
async fn messages_pass_byte_for_byte() {
    let owner = Owner::start("owner").await;
    let messages = vec![
        Bytes::from_static(b"\xff no message at all"),
        Bytes::from(vec![7; 5 << 20]),
    ];
    let send = request(SendMessageRequest {
        messages: messages.clone(),
    });
    soon(Forwarder::new().send_message(&owner.address, send))
        .await
        .unwrap();
    assert_eq!(owner.bodies(), messages);
}

/// Catches a call into the void that hangs, or that looks like the owner's refusal.
#[tokio::test]
async fn nobody_there_is_unavailable() {
    let forwarder = Forwarder::new();
    for address in [nobody().await.as_str(), "no address"] {
        let status = soon(forwarder.heartbeat(address, asked()))
            .await
            .unwrap_err();
        assert_eq!(status.code(), Code::Unavailable, "{status:?}");
        assert!(status.message().contains(address), "{status:?}");
    }
}

/// Catches an owner that never answers holding its caller longer than the caller was willing to wait.
#[tokio::test]
async fn a_silent_owner_costs_no_more_than_the_deadline() {
    let owner = Owner::start("owner").await;
    owner.fall_silent();
    let beat = with_timeout(HeartbeatRequest::default(), "50m");
    let status = soon(Forwarder::new().heartbeat(&owner.address, beat))
        .await
        .unwrap_err();
    assert_eq!(status.code(), Code::DeadlineExceeded, "{status:?}");
    assert!(is_unreachable(&status));
    let told = owner.seen()[0].metadata.get("grpc-timeout").cloned();
    assert!(told.is_some(), "the owner is told the deadline");
}

/// Catches a refusal that is taken for a failure and tried elsewhere.
#[tokio::test]
async fn a_refusal_passes_unchanged() {
    let owner = Owner::start("owner").await;
    let ask = request(GetOffsetRequest::default());
    let status = soon(Forwarder::new().get_offset(&owner.address, ask))
        .await
        .unwrap_err();
    assert_eq!(
        (status.code(), status.message()),
        (Code::InvalidArgument, "no such offset")
    );
    assert_eq!(
        status.metadata().get(LEADER).unwrap(),
        owner.address.as_str()
    );
}

/// Catches a stream that hangs when its owner stops sending, or that ends as if it were complete.
#[tokio::test]
async fn a_stream_that_stalls_ends_with_the_deadline() {
    let owner = Owner::start("owner").await;
    let pull = with_timeout(
        PullMessageRequest {
            offset: -1,
            ..Default::default()
        },
        "200m",
    );
    let pulled = soon(Forwarder::new().pull_message(&owner.address, pull))
        .await
        .unwrap();
    let items: Vec<_> = soon(pulled.into_inner().collect()).await;
    assert!(matches!(
        &items[0].as_ref().unwrap().content,
        Some(Content::Message(_))
    ));
    assert_eq!(
        items[1].as_ref().unwrap_err().code(),
        Code::DeadlineExceeded
    );
    assert_eq!(items.len(), 2, "nothing follows an error");
}

/// Catches what an owner holds for a stream being held for as long as its client does not read.
#[tokio::test]
async fn a_stream_that_nobody_reads_ends_at_its_owner_with_the_deadline() {
    let owner = Owner::start("owner").await;
    let pull = PullMessageRequest {
        offset: -1,
        ..Default::default()
    };
    let pull = with_timeout(pull, "300m");
    let unread = soon(Forwarder::new().pull_message(&owner.address, pull))
        .await
        .unwrap();
    owner.open_streams(1).await;
    owner.open_streams(0).await;
    let read: Vec<_> = soon(unread.into_inner().collect()).await;
    let last = read.last().unwrap().as_ref().unwrap_err();
    assert_eq!(last.code(), Code::DeadlineExceeded, "{last:?}");
}

/// Catches a broken connection in the middle of a stream being passed on as its regular end.
#[tokio::test]
async fn a_stream_whose_owner_dies_ends_with_an_error() {
    let owner = Owner::start("owner").await;
    let pull = request(PullMessageRequest {
        offset: -1,
        ..Default::default()
    });
    let pulled = soon(Forwarder::new().pull_message(&owner.address, pull))
        .await
        .unwrap();
    let mut items = pulled.into_inner();
    soon(items.next()).await.unwrap().unwrap();
    owner.stop().await;
    let status = soon(items.next()).await.unwrap().unwrap_err();
    assert!(is_unreachable(&status), "{status:?}");
}

/// Catches telemetry streams that pile up at the leader after their clients went away.
#[tokio::test]
async fn dropping_the_answers_ends_the_stream_at_the_owner() {
    let owner = Owner::start("owner").await;
    let commands = stream::iter([Ok(TelemetryCommand::default())]).chain(stream::pending());
    let told = soon(Forwarder::new().telemetry(&owner.address, request(commands)))
        .await
        .unwrap();
    let mut told = told.into_inner();
    soon(told.next()).await.unwrap().unwrap();
    owner.open_streams(1).await;
    drop(told);
    owner.open_streams(0).await;
}

/// Catches an owner that came back at its address and is not asked again.
#[tokio::test]
async fn a_channel_recovers_when_its_owner_is_back() {
    let owner = Owner::start("first").await;
    let (forwarder, address) = (Forwarder::new(), owner.address.clone());
    soon(forwarder.heartbeat(&address, asked())).await.unwrap();
    owner.stop().await;
    assert!(soon(forwarder.heartbeat(&address, asked())).await.is_err());
    let owner = Owner::start_at("second", &address).await;
    let answer = soon(async {
        loop {
            if let Ok(answer) = forwarder.heartbeat(&address, asked()).await {
                return answer;
            }
        }
    });
    assert_eq!(answer.await.get_ref().status().unwrap().message, "second");
    owner.stop().await;
}
