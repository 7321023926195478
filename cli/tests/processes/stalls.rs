//! What hangs instead of failing, a disk or a whole machine: nobody must hang with it.

use std::time::Duration;

use raftmq_client::{Message, Producer};
use tokio::time::Instant;

use super::cluster::{Cluster, LEADER_PATIENCE, PATIENCE, eventually};
use super::disk_trouble::{cluster, faults};
use super::traffic::{Writer, expect_nothing_lost};

/// Messages that a writer gets through in a moment while nothing hangs.
const SOME: usize = 100;
/// Longest that one send may take here whatever one machine does: twice what is promised, since this machine may be busy.
const GAP_MAX: Duration = Duration::from_secs(3);

async fn written_to() -> (Cluster, Writer) {
    let cluster = cluster().await;
    cluster.topic("orders").await;
    let writer = Writer::start(&cluster, "orders", SOME).await;
    writer.wait_for_acks(SOME).await;
    (cluster, writer)
}

/// Catches a leader whose disk hangs and that keeps the lead all the same, since its heartbeats go on.
#[tokio::test(flavor = "multi_thread")]
async fn a_leader_whose_disk_hangs_hands_over() {
    let (cluster, writer) = written_to().await;
    let led = cluster.led().await;
    let id = led.broker_id;
    std::fs::write(faults(&cluster, id), "sync log- delay_ms=5000\n").unwrap();
    let next = cluster
        .wait_for_leader_after(led.term, LEADER_PATIENCE)
        .await
        .unwrap();
    assert_ne!(next.broker_id, id, "the one that hangs was elected again");
    writer.wait_for_acks(SOME).await;
    std::fs::remove_file(faults(&cluster, id)).unwrap();
    let acked = writer.finish().await;
    expect_nothing_lost(&cluster, "orders", &acked).await;
}

/// Catches a checkpoint that keeps entries from being applied until its files are synced: nobody would take the lead from a
/// leader whose heartbeats go on, and all sends would wait.
#[tokio::test(flavor = "multi_thread")]
async fn sends_go_on_while_a_checkpoint_waits_for_the_disk() {
    let (cluster, writer) = written_to().await;
    let id = cluster.led().await.broker_id;
    std::fs::write(faults(&cluster, id), "sync checkpoints delay_ms=3000\n").unwrap();
    let (client, address) = (cluster.client().await, cluster.plan().client_address(id));
    let checkpoint = tokio::spawn(async move { client.admin().checkpoint(&address).await });
    let checkpoints = cluster.plan().broker_directory(id).join("checkpoints");
    let begun = eventually(PATIENCE, || async {
        let mut entries = std::fs::read_dir(&checkpoints).ok()?.flatten();
        entries.find(|entry| {
            entry
                .path()
                .extension()
                .is_some_and(|end| end == "building")
        })
    });
    begun.await.expect("a checkpoint is being made");
    writer.wait_for_acks(3 * SOME).await;
    assert!(
        !checkpoint.is_finished(),
        "the sends waited for the checkpoint"
    );
    assert_eq!(cluster.led().await.broker_id, id, "and nobody else leads");

    std::fs::remove_file(faults(&cluster, id)).unwrap();
    checkpoint.await.unwrap().unwrap();
    let acked = writer.finish().await;
    expect_nothing_lost(&cluster, "orders", &acked).await;
}

/// The longest that one of so many sends took, one after the other.
async fn longest_send(producer: &Producer, count: usize) -> Duration {
    let mut longest = Duration::ZERO;
    for _ in 0..count {
        let message = Message::builder("orders")
            .body("one by one")
            .build()
            .unwrap();
        let began = Instant::now();
        producer.send(message).await.unwrap();
        longest = longest.max(began.elapsed());
    }
    longest
}

/// Catches a producer that waits for a leader which says nothing, not even that it is gone, when the others have long elected
/// the next one. A process that stands still is such a leader: its connections stay, and nobody answers.
///
/// What is promised is checked where time is exact, in the simulator.
#[tokio::test(flavor = "multi_thread")]
async fn a_producer_is_not_held_up_by_a_leader_that_falls_silent() {
    let mut cluster = Cluster::start().await;
    cluster.topic("orders").await;
    let client = cluster.client().await;
    let producer = client.producer().send_timeout(PATIENCE).build().unwrap();
    let mut gaps = Vec::new();
    for _ in 0..5 {
        longest_send(&producer, SOME).await;
        let silent = cluster.led().await.broker_id;
        cluster.broker(silent).pause();
        gaps.push(longest_send(&producer, SOME).await);
        cluster.broker(silent).resume();
        cluster.wait_until_caught_up(silent).await;
    }
    gaps.sort();
    assert!(gaps[gaps.len() - 1] < GAP_MAX, "{gaps:?}");
}
