//! A disk that hangs instead of failing: the group must not hang with it.

use super::cluster::{Cluster, LEADER_PATIENCE, PATIENCE, eventually};
use super::disk_trouble::{cluster, faults};
use super::traffic::{Writer, expect_nothing_lost};

/// Messages that a writer gets through in a moment while nothing hangs.
const SOME: usize = 100;

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
