//! One name server: what it takes from brokers and what it tells of it.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::time::Duration;

use crate::support::{
    LONG_LEASE_MS, Running, config, leaders, led, next, registration, soon, started, topic,
};
use nameserver::route_table::RouteTable;
use proto::cluster::{QueryTableRequest, RegisterRequest, Registration};
use tonic::Code;

/// Catches a deposed leader that overwrites its successor, and one that is not told that it was deposed.
#[tokio::test]
async fn a_deposed_leader_is_refused_and_told_why() {
    let server = Running::start(config()).await;
    assert!(
        server
            .register(registration("g", 4, 0, 1), LONG_LEASE_MS)
            .await
            .accepted
    );
    assert!(
        server
            .register(registration("g", 5, 0, 2), LONG_LEASE_MS)
            .await
            .accepted
    );
    let refused = server
        .register(registration("g", 4, 7, 1), LONG_LEASE_MS)
        .await;
    assert!(!refused.accepted);
    assert_eq!((refused.epoch, refused.version), (5, 0));
    assert_eq!(leaders(&server.server.table()), [led("g", 5, 2)]);
}

/// Catches a registration that makes no sense being believed, or crashing the name server.
#[tokio::test]
async fn nonsense_is_refused() {
    let server = Running::start(config()).await;
    let mut client = server.client.clone();
    let nobody_leads = Registration {
        leader: 9,
        ..registration("g", 1, 1, 1)
    };
    for registration in [None, Some(Registration::default()), Some(nobody_leads)] {
        let request = RegisterRequest {
            registration,
            lease_ms: u64::MAX,
        };
        let status = soon(client.register(request)).await.unwrap_err();
        assert_eq!(status.code(), Code::InvalidArgument, "{status:?}");
    }
    assert!(server.query(0, 0).await.registrations.is_empty());
}

/// Catches a client that polls being sent the whole table each time, or nothing when something changed.
#[tokio::test]
async fn a_query_with_a_known_version_gets_only_news() {
    let server = Running::start(config()).await;
    server
        .register(registration("g", 1, 1, 1), LONG_LEASE_MS)
        .await;
    let first = server.query(0, 0).await;
    assert_eq!(first.registrations, [registration("g", 1, 1, 1)]);
    assert!(server.query(first.instance, first.version).await.unchanged);
    server
        .register(registration("g", 1, 1, 1), LONG_LEASE_MS)
        .await;
    assert!(
        server.query(first.instance, first.version).await.unchanged,
        "a renewal is no news"
    );
    server
        .register(registration("g", 1, 2, 1), LONG_LEASE_MS)
        .await;
    let second = server.query(first.instance, first.version).await;
    assert!(second.version > first.version && !second.unchanged);
    assert_eq!(second.registrations, [registration("g", 1, 2, 1)]);
}

/// Catches a watcher that misses a change: a new leader, a new topic, a group that is gone.
#[tokio::test]
async fn a_watcher_sees_each_change() {
    let server = Running::start(config()).await;
    let watch = server
        .client
        .clone()
        .watch_table(QueryTableRequest::default())
        .await
        .unwrap();
    let mut watch = watch.into_inner();
    assert_eq!(next(&mut watch).await.registrations, []);
    let mut known = registration("g", 1, 1, 1);
    server.register(known.clone(), LONG_LEASE_MS).await;
    assert_eq!(next(&mut watch).await.registrations, [known.clone()]);
    known.topics.push(topic("u"));
    known.version = 2;
    server.register(known.clone(), LONG_LEASE_MS).await;
    assert_eq!(next(&mut watch).await.registrations, [known]);
    server.register(registration("g", 2, 1, 3), 50).await;
    assert_eq!(next(&mut watch).await.registrations[0].leader, 3);
    assert_eq!(next(&mut watch).await.registrations, [], "the lease ended");
    server.stop().await;
}

/// Catches a group that is down as a whole and that no operator can hear of, or that clients are still told of.
#[tokio::test]
async fn operators_are_told_of_a_group_that_has_expired() {
    let server = Running::start(config()).await;
    let lost = registration("lost", 1, 1, 1);
    let live = registration("live", 1, 1, 1);
    server.register(live.clone(), LONG_LEASE_MS).await;
    // Remembered for ten times as long.
    server.register(lost.clone(), 500).await;
    let one_left = |table: &RouteTable| table.registrations().len() == 1;
    server.until("expired", one_left).await;
    let for_clients = server.query(0, 0).await;
    assert_eq!(for_clients.registrations, std::slice::from_ref(&live));
    assert_eq!(for_clients.expired, []);
    let request = QueryTableRequest {
        with_expired: true,
        ..Default::default()
    };
    let mut client = server.client.clone();
    let for_operators = soon(client.query_table(request)).await.unwrap();
    let for_operators = for_operators.into_inner();
    assert_eq!(for_operators.registrations, [live]);
    assert_eq!(for_operators.expired, [lost]);
}

/// Catches a watcher that comes back with what it has and is sent it all again, or that is left waiting with old news.
#[tokio::test]
async fn a_watcher_that_knows_the_table_hears_that_it_is_unchanged() {
    let server = Running::start(config()).await;
    server
        .register(registration("g", 1, 1, 1), LONG_LEASE_MS)
        .await;
    let known = server.query(0, 0).await;
    let request = QueryTableRequest {
        known_instance: known.instance,
        known_version: known.version,
        ..Default::default()
    };
    let watch = server.client.clone().watch_table(request).await.unwrap();
    let mut watch = watch.into_inner();
    assert!(next(&mut watch).await.unchanged);
    server
        .register(registration("g", 2, 1, 2), LONG_LEASE_MS)
        .await;
    assert_eq!(next(&mut watch).await.registrations[0].leader, 2);
}

/// Catches a slow watcher that is fed every state that ever was, out of a queue that grows.
#[tokio::test]
async fn a_slow_watcher_gets_the_newest_state() {
    let server = Running::start(config()).await;
    let mut big = registration("g", 1, 0, 1);
    big.topics = (0..20_000)
        .map(|number| topic(&format!("topic-number-{number}")))
        .collect();
    let mut watch = server
        .client
        .clone()
        .watch_table(QueryTableRequest::default())
        .await
        .unwrap();
    let last = 60;
    for version in 1..=last {
        big.version = version;
        server.register(big.clone(), LONG_LEASE_MS).await;
    }
    // What the connection had room for came early; the rest was never queued.
    let mut states = 0;
    loop {
        states += 1;
        let answer = next(watch.get_mut()).await;
        if answer
            .registrations
            .first()
            .is_some_and(|held| held.version == last)
        {
            break;
        }
    }
    assert!(
        states < last,
        "{states} states of about half a megabyte were queued"
    );
}

/// Catches watchers without a bound.
#[tokio::test]
async fn there_are_only_so_many_watchers() {
    let config = nameserver::NameServerConfig {
        watchers_max: 1,
        ..config()
    };
    let server = Running::start(config).await;
    let mut client = server.client.clone();
    let first = client
        .watch_table(QueryTableRequest::default())
        .await
        .unwrap();
    let refused = client
        .watch_table(QueryTableRequest::default())
        .await
        .unwrap_err();
    assert_eq!(refused.code(), Code::ResourceExhausted);
    drop(first);
    // The place comes back once the server has noticed.
    soon(async {
        while client
            .watch_table(QueryTableRequest::default())
            .await
            .is_err()
        {}
    })
    .await;
}

/// Catches a lease that ends although it is renewed in time, at a name server that hears of the renewals only by gossip.
#[tokio::test]
async fn a_lease_that_is_renewed_elsewhere_does_not_end() {
    let (nodes, _cuts) = started(2).await;
    let lease_ms = 600;
    nodes[0]
        .run()
        .register(registration("g", 1, 1, 1), lease_ms)
        .await;
    nodes[1]
        .run()
        .until("registered", |table| !table.registrations().is_empty())
        .await;
    let mut tables = nodes[1].run().server.tables();
    tables.mark_unchanged();
    let watched = tokio::time::timeout(Duration::from_millis(3 * lease_ms), tables.changed());
    let renewed = async {
        loop {
            nodes[0]
                .run()
                .register(registration("g", 1, 1, 1), lease_ms)
                .await;
            tokio::time::sleep(Duration::from_millis(lease_ms / 10)).await;
        }
    };
    tokio::select! {
        biased;
        changed = watched => assert!(changed.is_err(), "the table changed"),
        () = renewed => unreachable!("renews for ever"),
    }
    // Not renewed any more, it ends, and is not brought back.
    for node in &nodes {
        node.run()
            .until("expired", |table| table.registrations().is_empty())
            .await;
    }
}
