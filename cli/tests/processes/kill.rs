//! SIGKILL: of the leader, of a follower, of all three at once, of the name server. And a leader that is asked to stop.

use cli::process::{Ending, Member};

use super::cluster::{Cluster, LEADER_PATIENCE, PATIENCE};
use super::traffic::{Writer, expect_nothing_lost};

/// Catches an acknowledgement that only the dead leader knew of.
#[tokio::test(flavor = "multi_thread")]
async fn killing_the_leader_loses_nothing() {
    let mut cluster = Cluster::start().await;
    cluster.topic("orders").await;
    let writer = Writer::start(&cluster, "orders", 100).await;
    for _ in 0..2 {
        writer.wait_for_acks(200).await;
        let led = cluster.led().await;
        cluster.kill(led.broker_id).await;
        cluster
            .wait_for_leader_after(led.term, LEADER_PATIENCE)
            .await
            .unwrap();
        writer.wait_for_acks(200).await;
        cluster.start_broker(led.broker_id).unwrap();
        cluster.wait_until_caught_up(led.broker_id).await;
    }
    let acked = writer.finish().await;
    expect_nothing_lost(&cluster, "orders", &acked).await;
}

/// Catches a leader that leaves its clients to an election although it was asked to stop.
#[tokio::test(flavor = "multi_thread")]
async fn a_leader_that_is_asked_to_stop_hands_over() {
    let mut cluster = Cluster::start().await;
    cluster.topic("orders").await;
    let writer = Writer::start(&cluster, "orders", 100).await;
    for _ in 0..2 {
        writer.wait_for_acks(200).await;
        let led = cluster.led().await;
        let leader = cluster.broker(led.broker_id);
        assert_eq!(leader.end(PATIENCE).await, Ending::Clean);
        let last_words = leader.last_words(20);
        assert!(last_words.contains("handed over"), "{last_words}");
        writer.wait_for_acks(200).await;
        cluster.start_broker(led.broker_id).unwrap();
        cluster.wait_until_caught_up(led.broker_id).await;
    }
    let acked = writer.finish().await;
    expect_nothing_lost(&cluster, "orders", &acked).await;
}

/// Catches a leader that stops for one missing follower, and a follower that comes back with a gap.
#[tokio::test(flavor = "multi_thread")]
async fn killing_a_follower_stops_nobody_and_it_catches_up() {
    let mut cluster = Cluster::start().await;
    cluster.topic("orders").await;
    let writer = Writer::start(&cluster, "orders", 100).await;
    writer.wait_for_acks(100).await;
    let led = cluster.led().await;
    let followers = cluster.followers().await;
    cluster.kill(followers[0]).await;
    writer.wait_for_acks(300).await;
    cluster.start_broker(followers[0]).unwrap();
    cluster.wait_until_caught_up(followers[0]).await;
    // What it has now must be enough: it and the other follower are the majority from here on.
    cluster.kill(led.broker_id).await;
    cluster
        .wait_for_leader_after(led.term, LEADER_PATIENCE)
        .await
        .unwrap();
    writer.wait_for_acks(100).await;
    let acked = writer.finish().await;
    expect_nothing_lost(&cluster, "orders", &acked).await;
}

/// Catches acknowledgements that were only in memory.
#[tokio::test(flavor = "multi_thread")]
async fn killing_all_three_at_once_loses_nothing() {
    let mut cluster = Cluster::start().await;
    cluster.topic("orders").await;
    let writer = Writer::start(&cluster, "orders", 100).await;
    for _ in 0..2 {
        writer.wait_for_acks(200).await;
        for id in cluster.ids() {
            cluster.broker(id).kill();
        }
        for id in cluster.ids() {
            cluster.kill(id).await;
            cluster.start_broker(id).unwrap();
        }
        cluster.led().await;
    }
    writer.wait_for_acks(100).await;
    let acked = writer.finish().await;
    expect_nothing_lost(&cluster, "orders", &acked).await;
}

/// Catches clients that cannot work, and brokers that cannot register, because a name server was away.
#[tokio::test(flavor = "multi_thread")]
async fn killing_the_name_server_disturbs_nobody() {
    let mut cluster = Cluster::start().await;
    cluster.topic("orders").await;
    let writer = Writer::start(&cluster, "orders", 100).await;
    writer.wait_for_acks(100).await;
    cluster.member(Member::NameServer).destroy().await;
    writer.wait_for_acks(200).await;
    cluster.start_member(Member::NameServer).unwrap();
    writer.wait_for_acks(100).await;
    let acked = writer.finish().await;
    expect_nothing_lost(&cluster, "orders", &acked).await;
}
