//! Several name servers: what one hears, all know.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::time::Duration;

use crate::support::{
    LONG_LEASE_MS, PATIENCE, Running, config, leaders, led, nodes, registration, soon, started,
};
use nameserver::NameServerConfig;

/// Catches news that stays where it arrived.
#[tokio::test]
async fn registrations_at_any_name_server_reach_all() {
    let (nodes, _cuts) = started(3).await;
    for (number, node) in nodes.iter().enumerate() {
        let group = format!("g{number}");
        assert!(
            node.run()
                .register(registration(&group, 1, 1, 1), LONG_LEASE_MS)
                .await
                .accepted
        );
    }
    for node in &nodes {
        let wanted = [led("g0", 1, 1), led("g1", 1, 1), led("g2", 1, 1)];
        node.run()
            .until("complete", |table| leaders(table) == wanted)
            .await;
    }
}

/// Catches two views that stay apart after a cut, and a table that does not grow on either side of it.
#[tokio::test]
async fn after_a_cut_everybody_agrees_again() {
    let (nodes, cuts) = started(3).await;
    cuts.cut(&nodes[0], &nodes[1]);
    cuts.cut(&nodes[0], &nodes[2]);
    nodes[0]
        .run()
        .register(registration("left", 1, 1, 1), LONG_LEASE_MS)
        .await;
    nodes[1]
        .run()
        .register(registration("right", 1, 1, 1), LONG_LEASE_MS)
        .await;
    nodes[2]
        .run()
        .until("told", |table| leaders(table) == [led("right", 1, 1)])
        .await;
    assert_eq!(leaders(&nodes[0].run().server.table()), [led("left", 1, 1)]);
    cuts.heal();
    for node in &nodes {
        let wanted = [led("left", 1, 1), led("right", 1, 1)];
        node.run()
            .until("whole", |table| leaders(table) == wanted)
            .await;
    }
}

/// Catches the classic: a deposed leader keeps registering with the one name server that has not heard of its successor,
/// and wins when the network heals.
#[tokio::test]
async fn a_deposed_leader_at_a_stale_name_server_does_not_win() {
    let (nodes, cuts) = started(3).await;
    nodes[0]
        .run()
        .register(registration("g", 5, 0, 1), LONG_LEASE_MS)
        .await;
    for node in &nodes {
        node.run()
            .until("registered", |table| leaders(table) == [led("g", 5, 1)])
            .await;
    }
    cuts.cut(&nodes[2], &nodes[0]);
    cuts.cut(&nodes[2], &nodes[1]);
    nodes[0]
        .run()
        .register(registration("g", 6, 0, 2), LONG_LEASE_MS)
        .await;
    nodes[1]
        .run()
        .until("told", |table| leaders(table) == [led("g", 6, 2)])
        .await;
    // The old leader is busy where nobody knows better: many versions, many renewals.
    for version in 1..100 {
        let at_stale = nodes[2]
            .run()
            .register(registration("g", 5, version, 1), LONG_LEASE_MS);
        assert!(at_stale.await.accepted);
    }
    cuts.heal();
    nodes[2]
        .run()
        .until("told", |table| leaders(table) == [led("g", 6, 2)])
        .await;
    let refused = nodes[2]
        .run()
        .register(registration("g", 5, 100, 1), LONG_LEASE_MS)
        .await;
    assert_eq!(
        (refused.accepted, refused.epoch, refused.version),
        (false, 6, 0)
    );
    for node in &nodes {
        assert_eq!(leaders(&node.run().server.table()), [led("g", 6, 2)]);
    }
}

/// Catches a restarted name server that tells its first client that there is no route (RocketMQ's answer until brokers
/// register again).
#[tokio::test]
async fn a_restarted_name_server_knows_everything_before_it_answers() {
    let (mut nodes, addresses, _cuts) = nodes(2).await;
    // No regular round helps: only what is filled at the start can be there.
    let rarely = |config: &mut NameServerConfig| config.gossip_interval_ms = 100_000;
    for node in &mut nodes {
        node.start_with(&addresses, rarely).await;
    }
    nodes[0]
        .run()
        .register(registration("g", 1, 1, 1), LONG_LEASE_MS)
        .await;
    nodes[1]
        .run()
        .until("told", |table| leaders(table) == [led("g", 1, 1)])
        .await;
    let before = nodes[1].run().query(0, 0).await;
    for _ in 0..5 {
        nodes[1].stop().await;
        nodes[1].start_with(&addresses, rarely).await;
        let first_answer = nodes[1].run().query(before.instance, before.version).await;
        assert_eq!(first_answer.registrations, [registration("g", 1, 1, 1)]);
        assert_ne!(first_answer.instance, before.instance);
    }
}

/// Catches a first start at which each waits for the others to know something.
#[tokio::test]
async fn a_first_start_of_all_does_not_wait() {
    let (mut nodes, addresses, _cuts) = nodes(3).await;
    for node in &mut nodes {
        node.start(&addresses).await;
    }
    for node in &nodes {
        assert!(soon(node.run().query(0, 0)).await.registrations.is_empty());
    }
}

/// Catches a name server that never answers because a peer never does.
#[tokio::test]
async fn without_any_peer_it_answers_after_a_bounded_wait() {
    let (nodes, addresses, _cuts) = nodes(1).await;
    let lonely = NameServerConfig {
        peers: addresses,
        fill_wait_ms: 300,
        ..config()
    };
    let server = Running::start(lonely).await;
    let started = tokio::time::Instant::now();
    assert!(soon(server.query(0, 0)).await.registrations.is_empty());
    assert!(started.elapsed() < PATIENCE / 4);
    drop(nodes);
}

/// Catches a name server that only ever talks to those it was configured with.
#[tokio::test]
async fn name_servers_learn_of_each_other() {
    let (mut nodes, addresses, _cuts) = nodes(3).await;
    // A chain: the third knows the second, which knows the first.
    nodes[0].start(&[]).await;
    nodes[1].start(&addresses[..1]).await;
    nodes[2].start(&addresses[1..2]).await;
    soon(async {
        while nodes[2].run().server.members().len() < 3 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
    // Without the second, the ends still reach each other.
    nodes[1].stop().await;
    nodes[0]
        .run()
        .register(registration("g", 1, 1, 1), LONG_LEASE_MS)
        .await;
    nodes[2]
        .run()
        .until("told", |table| leaders(table) == [led("g", 1, 1)])
        .await;
}

/// Catches a table that no longer fits a message being cut off, or never arriving.
#[tokio::test]
async fn a_large_table_travels_in_small_messages() {
    let (mut nodes, addresses, _cuts) = nodes(2).await;
    nodes[0]
        .start_with(&[], |config| config.gossip_bytes_max = 300)
        .await;
    let count = 200;
    for number in 0..count {
        let group = format!("g{number:03}");
        nodes[0]
            .run()
            .register(registration(&group, 1, 1, 1), LONG_LEASE_MS)
            .await;
    }
    nodes[1].start(&addresses).await;
    assert_eq!(nodes[1].run().query(0, 0).await.registrations.len(), count);
}
