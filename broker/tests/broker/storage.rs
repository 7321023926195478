//! One broker over time: restarts, retention, a disk that fills up.
#![allow(
    clippy::unwrap_used,
    clippy::too_many_lines,
    reason = "a story told in one piece; what fails, panics"
)]

use std::sync::Arc;
use std::time::Duration;

use crate::support::client::code;
use crate::support::{Client, Cluster, PATIENCE, message, ok};
use host::Host;
use host::testing::{FaultyDisk, ManualClock};
use proto::cluster::{BrokerStatusRequest, DropLogRequest};
use proto::v2::{Code, Message};
use tonic::Request;

/// Tries again until a condition holds; what it waits for has no event.
async fn until<T>(what: &str, mut attempt: impl AsyncFnMut() -> Option<T>) -> T {
    let tried = async {
        loop {
            if let Some(result) = attempt().await {
                return result;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(PATIENCE, tried)
        .await
        .unwrap_or_else(|_| panic!("{what} in time"))
}

/// Fills several of the smallest segments.
async fn fill(client: &Client, first_id: u32) {
    let messages: Vec<Message> = (0..40)
        .map(|id| {
            let mut one = message("orders", 0, first_id + id);
            one.body = vec![b'x'; 60 << 10].into();
            one
        })
        .collect();
    for one in &messages {
        client.store(std::slice::from_ref(one)).await;
    }
}

/// Where the queue begins once retention has cut it.
async fn begin_after_retention(client: &Client) -> i64 {
    until("retention cuts the queue", async || {
        let pulled = client.pull("orders", 0, 0, 1).await;
        (pulled.code == Code::IllegalOffset).then(|| pulled.next_offset.unwrap())
    })
    .await
}

/// For how long messages are kept where that is tried.
const RETAIN: Duration = Duration::from_secs(3);

fn small_segments(config: &mut broker::BrokerConfig) {
    config.message_bytes_max = 64 << 10;
    config.request_bytes_max = 192 << 10;
    config.segment_bytes = 512 << 10;
    config.retention_interval_ms = 20;
    config.checkpoint_log_bytes = 256 << 10;
}

/// Catches anything that does not survive a restart.
#[tokio::test]
async fn a_restarted_broker_knows_everything() {
    let mut cluster = Cluster::single().await;
    let client = cluster.leader_client().await;
    client.create_topic("orders", 1).await;
    let sent: Vec<Message> = (0..10).map(|id| message("orders", 0, id)).collect();
    client.store(&sent).await;
    ok(&client.update_offset("g", "orders", 0, 4).await.status);
    cluster.stop(0).await;
    cluster.restart(0).await;
    let client = cluster.leader_client().await;
    let pulled = client.pull("orders", 0, 0, 32).await;
    assert_eq!(pulled.messages.len(), 10);
    assert_eq!(client.get_offset("g", "orders", 0).await.offset, 4);
    // Also the ids of what was sent before.
    assert_eq!(client.store(&sent[9..]).await, [9]);
    assert_eq!(client.store(&[message("orders", 0, 10)]).await, [10]);
}

/// Catches retention that drops what it should keep, keeps what it should drop, or leaves consumers
/// without a way on.
#[tokio::test]
async fn retention_by_size_drops_the_oldest_segments() {
    let cluster = Cluster::start(1, |config| {
        small_segments(config);
        config.log_retain_bytes = 1 << 20;
    })
    .await;
    let client = cluster.leader_client().await;
    client.create_topic("orders", 1).await;
    fill(&client, 0).await;
    let next = begin_after_retention(&client).await;
    assert!((1..40).contains(&next), "{next}");
    assert_eq!(client.pull("orders", 0, next, 1).await.code, Code::Ok);
    assert_eq!(
        client.pull("orders", 0, 39, 1).await.code,
        Code::Ok,
        "the newest is kept"
    );
    until("the segments are dropped", async || {
        let status = client
            .admin
            .clone()
            .status(Request::new(BrokerStatusRequest {}))
            .await;
        (status.unwrap().into_inner().dropped > 1).then_some(())
    })
    .await;
}

/// Catches messages that are kept for ever or go because a clock was set, and ages taken from the wrong entry.
#[tokio::test]
async fn retention_by_age_drops_old_segments_only() {
    let clock = Arc::new(ManualClock::new(1_000_000));
    let host = Host {
        clock: clock.clone(),
        ..Host::real()
    };
    let cluster = Cluster::start_on(host, 1, |config| {
        small_segments(config);
        config.log_retain_ms = RETAIN.as_millis() as u64;
    })
    .await;
    let client = cluster.leader_client().await;
    client.create_topic("orders", 1).await;
    let begin = std::time::Instant::now();
    fill(&client, 0).await;
    // Years ahead, and then behind: neither makes anything old, or young.
    clock.advance_ms(3 * 365 * 86_400_000);
    tokio::time::sleep(RETAIN / 2).await;
    clock.set_ms(1_000);
    fill(&client, 100).await;
    let first = client.pull("orders", 0, 0, 1).await.code;
    assert!(
        first == Code::Ok || begin.elapsed() > RETAIN,
        "young enough"
    );
    let second = std::time::Instant::now();
    let next = begin_after_retention(&client).await;
    assert!(begin.elapsed() > RETAIN, "{:?}", begin.elapsed());
    assert!(next >= 1, "{next}");
    assert!(
        next <= 41 || second.elapsed() > RETAIN,
        "the young ones are kept"
    );
}

/// Catches the last messages of a topic that nobody sends to any more: the segment that they are in is never full.
#[tokio::test]
async fn retention_by_age_drops_the_last_messages_too() {
    let cluster = Cluster::start(1, |config| {
        small_segments(config);
        config.log_retain_ms = RETAIN.as_millis() as u64;
    })
    .await;
    let client = cluster.leader_client().await;
    client.create_topic("orders", 1).await;
    let begin = std::time::Instant::now();
    for id in 0..10 {
        client.store(&[message("orders", 0, id)]).await;
    }
    let next = begin_after_retention(&client).await;
    assert!(begin.elapsed() > RETAIN, "{:?}", begin.elapsed());
    assert_eq!(next, 10, "all of them are gone");
    assert_eq!(client.store(&[message("orders", 0, 10)]).await, [10]);
}

/// Catches an operator's word that is not heard.
#[tokio::test]
async fn an_operator_drops_the_log() {
    let cluster = Cluster::start(1, small_segments).await;
    let client = cluster.leader_client().await;
    client.create_topic("orders", 1).await;
    fill(&client, 0).await;
    let request = Request::new(DropLogRequest {
        retain_bytes: 600 << 10,
    });
    let answer = client
        .admin
        .clone()
        .drop_log(request)
        .await
        .unwrap()
        .into_inner();
    assert_eq!(answer.code, Code::Ok as i32, "{answer:?}");
    assert!(answer.value > 1);
    assert_eq!(
        client.pull("orders", 0, 0, 1).await.code,
        Code::IllegalOffset
    );
}

/// Catches a broker that fills its disk to the last byte, and one that never serves again after.
#[tokio::test]
async fn a_nearly_full_disk_refuses_sends_and_nothing_else() {
    let disk = Arc::new(FaultyDisk::new(Host::real().disk));
    let host = Host {
        disk: disk.clone(),
        ..Host::real()
    };
    let cluster = Cluster::start_on(host, 1, |config| {
        small_segments(config);
        config.disk_reserve_bytes = 1 << 20;
    })
    .await;
    let client = cluster.leader_client().await;
    client.create_topic("orders", 1).await;
    client.store(&[message("orders", 0, 0)]).await;
    // More than the reserve, less than the reserve and one segment.
    disk.set_free_bytes(Some((1 << 20) + (256 << 10)));
    let refused = until("sends are refused", async || {
        let response = client.send(&[message("orders", 0, 1)]).await;
        (code(&response.status) != Code::Ok).then_some(response)
    })
    .await;
    assert_eq!(code(&refused.status), Code::TooManyRequests);
    assert!(refused.status.unwrap().message.contains("nearly full"));
    assert_eq!(client.pull("orders", 0, 0, 1).await.code, Code::Ok);
    ok(&client.update_offset("g", "orders", 0, 1).await.status);
    disk.set_free_bytes(None);
    until("sends are accepted again", async || {
        let response = client.send(&[message("orders", 0, 2)]).await;
        (code(&response.status) == Code::Ok).then_some(())
    })
    .await;
}

/// Catches a broker that goes on after its disk failed.
#[tokio::test]
async fn a_failed_disk_ends_the_broker() {
    use host::testing::{Fault, Operation};
    let disk = Arc::new(FaultyDisk::new(Host::real().disk));
    let host = Host {
        disk: disk.clone(),
        ..Host::real()
    };
    let mut cluster = Cluster::start_on(host, 1, |_| {}).await;
    let client = cluster.leader_client().await;
    client.create_topic("orders", 1).await;
    disk.inject(Fault::always(
        Operation::Sync,
        "",
        std::io::ErrorKind::Other,
    ));
    let mut broker = cluster.brokers[0].take().unwrap();
    let sending = tokio::spawn(async move { client.send(&[message("orders", 0, 1)]).await });
    let failure = tokio::time::timeout(PATIENCE, broker.failed()).await;
    let failure = failure.expect("a failed disk is noticed");
    assert!(matches!(failure, broker::BrokerError::Raft(_)), "{failure}");
    broker.stop().await;
    if let Ok(response) = sending.await {
        assert_ne!(code(&response.status), Code::Ok);
    }
}
