//! SIGSTOP: a leader that stands still and then goes on as if nothing had happened.

use std::time::Duration;

use super::cluster::{Cluster, LEADER_PATIENCE};
use super::traffic::{Writer, expect_nothing_lost};

const PAUSE: Duration = Duration::from_secs(10);

/// Catches a leader that, waking up, answers sends or reads by what it believed before it slept.
#[tokio::test(flavor = "multi_thread")]
async fn a_leader_that_slept_ten_seconds_has_lost_the_lead_and_nothing_else() {
    let mut cluster = Cluster::start().await;
    cluster.topic("orders").await;
    let writer = Writer::start(&cluster, "orders", 100).await;
    writer.wait_for_acks(200).await;
    let led = cluster.led().await;
    cluster.broker(led.broker_id).pause();
    let slept = tokio::time::Instant::now();
    let new = cluster
        .wait_for_leader_after(led.term, LEADER_PATIENCE)
        .await
        .unwrap();
    assert_ne!(new.broker_id, led.broker_id);
    writer.wait_for_acks(200).await;
    tokio::time::sleep(PAUSE.saturating_sub(slept.elapsed())).await;
    cluster.broker(led.broker_id).resume();
    cluster
        .wait_for_status(led.broker_id, "follows the new leader", |status| {
            !status.serving && status.term >= new.term && status.leader != led.broker_id
        })
        .await;
    cluster.wait_until_caught_up(led.broker_id).await;
    writer.wait_for_acks(100).await;
    let acked = writer.finish().await;
    expect_nothing_lost(&cluster, "orders", &acked).await;
}
