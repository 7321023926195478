//! A replica that was away while the log that it lacks was purged: only a snapshot can help it.

use super::cluster::{Cluster, LEADER_PATIENCE};
use super::traffic::{Writer, expect_nothing_lost, read_all, send};

const BODY_BYTES: usize = 8 << 10;
/// Less than what is sent while the replica is away, more than a few segments.
const RETAIN_BYTES: u64 = 4 << 20;

/// Catches a snapshot without the unread messages, or a replica that can never come back.
#[tokio::test(flavor = "multi_thread")]
async fn a_replica_whose_missing_log_was_purged_gets_a_snapshot() {
    let mut cluster = Cluster::start_small().await;
    cluster.topic("orders").await;
    let client = cluster.client().await;
    let away = cluster.followers().await[0];
    cluster.kill(away).await;
    let behind = cluster
        .status(cluster.led().await.broker_id)
        .await
        .unwrap()
        .appended;
    send(&client, "orders", 0..2_000, BODY_BYTES).await;
    let led = cluster.led().await;
    for id in cluster.ids().into_iter().filter(|id| *id != away) {
        let address = cluster.plan().client_address(id);
        client.admin().checkpoint(&address).await.unwrap();
    }
    client.admin().drop_log(RETAIN_BYTES).await.unwrap();
    cluster
        .wait_for_status(
            led.broker_id,
            "dropped what the absent replica lacks",
            |status| status.dropped > behind,
        )
        .await;
    let kept = read_all(&client, "orders").await;
    assert!(
        kept.values().flatten().count() > 100,
        "too little is left to show anything"
    );

    cluster.start_broker(away).unwrap();
    cluster
        .wait_for_status(away, "installed a snapshot", |status| {
            status.snapshots_installed > 0
        })
        .await;
    cluster.wait_until_caught_up(away).await;

    // It must be able to lead with what the snapshot brought.
    cluster.topic("later").await;
    let writer = Writer::start(&cluster, "later", 100).await;
    for id in cluster.ids().into_iter().filter(|id| *id != away) {
        let led = cluster.led().await;
        if led.broker_id != away && led.broker_id == id {
            client.admin().transfer_leader(away).await.unwrap();
            cluster
                .wait_for_leader_after(led.term, LEADER_PATIENCE)
                .await
                .unwrap();
        }
    }
    writer.wait_for_acks(100).await;
    let later = writer.finish().await;
    assert_eq!(read_all(&client, "orders").await, kept);
    expect_nothing_lost(&cluster, "later", &later).await;
}
