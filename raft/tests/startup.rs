//! Who may start: not a wiped replica, not a second process under one id, not a stranger.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use common::{Cluster, eventually, free_addresses};
use host::Host;
use raftmq_raft::{Phase, RaftError};

/// Catches a replica that lost everything and votes again as if it had promised nothing.
#[tokio::test(flavor = "multi_thread")]
async fn a_wiped_replica_is_refused() {
    let mut cluster = Cluster::three().await;
    cluster.fill(5, 100).await;
    let wiped = cluster.follower().await;
    cluster.stop(wiped).await;
    Host::real()
        .disk
        .remove_dir_all(&cluster.data_dir(wiped))
        .unwrap();
    // Its former process counts as alive for a moment; after that the data directory is what counts.
    let error = eventually_refused(&cluster, wiped).await;
    assert!(
        error.to_string().contains("raftmq group replace"),
        "{error}"
    );
    cluster.fill(5, 100).await;
}

async fn eventually_refused(cluster: &Cluster, broker_id: u64) -> RaftError {
    loop {
        match cluster.try_start(cluster.config(broker_id)).await {
            Err(error @ RaftError::WipedReplica { .. }) => return error,
            Err(RaftError::DuplicateBroker { .. }) => {}
            Err(error) => panic!("{error}"),
            Ok(_) => panic!("a wiped replica was let in"),
        }
    }
}

/// Catches a replica that lost a part of its directory and goes on with the rest as if that were all.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_left_of_a_data_directory_is_refused() {
    let mut cluster = Cluster::three().await;
    cluster.fill(5, 100).await;
    let torn = cluster.follower().await;
    cluster.stop(torn).await;
    let (disk, dir) = (Host::real().disk, cluster.data_dir(torn));
    for part in ["log-1", "log-1/synced", "replica", "superblock"] {
        let (path, aside) = (dir.join(part), dir.join("aside"));
        disk.rename(&path, &aside).unwrap();
        let refused = cluster.try_start(cluster.config(torn)).await.err();
        let refused = refused.map(|error| error.to_string()).unwrap_or_default();
        assert!(refused.contains("missing"), "without {part}: {refused:?}");
        disk.rename(&aside, &path).unwrap();
    }
    cluster.start(torn).await;
    let last = cluster.fill(5, 100).await;
    cluster.settle(last).await;
}

/// Catches two processes that pass for one replica.
#[tokio::test(flavor = "multi_thread")]
async fn a_second_process_with_the_same_id_is_refused() {
    let cluster = Cluster::three().await;
    cluster.fill(5, 100).await;
    let twin = cluster.follower().await;
    let elsewhere = tempfile::tempdir().unwrap();
    let mut config = cluster.config(twin);
    config.data_dir = elsewhere.path().join("data");
    config.peer_listen = free_addresses(1).remove(0);
    match cluster.try_start(config).await.err() {
        Some(RaftError::DuplicateBroker { broker_id, .. }) => assert_eq!(broker_id, twin),
        other => panic!("{other:?}"),
    }
    // The first one is not disturbed.
    let last = cluster.fill(5, 100).await;
    cluster.settle(last).await;
}

/// Catches a member of another group that is let in because the address is the same.
#[tokio::test(flavor = "multi_thread")]
async fn a_member_of_another_group_is_refused() {
    let mut cluster = Cluster::three().await;
    let stranger = cluster.follower().await;
    cluster.stop(stranger).await;
    let elsewhere = tempfile::tempdir().unwrap();
    let mut config = cluster.config(stranger);
    config.identity.group = "other".into();
    config.data_dir = elsewhere.path().join("data");
    let error = cluster.try_start(config).await.err();
    assert!(
        matches!(error, Some(RaftError::ForeignPeer { .. })),
        "{error:?}"
    );
}

/// Catches a group that is made before all its members are known, so that one that is wiped later
/// could not be told from one that was never there.
#[tokio::test(flavor = "multi_thread")]
async fn a_group_is_made_when_all_members_are_there() {
    let mut cluster = Cluster::new(3);
    cluster.start(1).await;
    cluster.start(2).await;
    assert_eq!(*cluster.group(1).phase().borrow(), Phase::Waiting);
    cluster.start(3).await;
    let last = cluster.fill(3, 100).await;
    cluster.settle(last).await;
    assert_eq!(cluster.group(3).status().members.len(), 3);
}

/// Catches members that would make two groups of one.
#[tokio::test(flavor = "multi_thread")]
async fn different_member_lists_are_refused() {
    let cluster = Cluster::new(3);
    let second = cluster.try_start(cluster.config(2)).await.unwrap();
    let mut config = cluster.config(1);
    config.members.pop();
    let first = cluster.try_start(config).await.unwrap();
    let error = tokio::time::timeout(common::PATIENCE, first.group.failed())
        .await
        .unwrap();
    assert!(
        error.to_string().contains("configured with members"),
        "{error}"
    );
    drop(second);
}

/// Catches a process that goes on although its disk does not take its writes any more.
#[tokio::test(flavor = "multi_thread")]
async fn a_replica_whose_data_directory_is_in_use_says_so() {
    let cluster = Cluster::three().await;
    let mut config = cluster.config(1);
    config.peer_listen = free_addresses(1).remove(0);
    let (_trigger, shutdown) = host::Shutdown::new();
    let application = Box::new(common::TestApplication::new(common::Rows::default()));
    let refused =
        raftmq_raft::RaftGroup::start(config, Host::real(), application, shutdown, |router| router)
            .await;
    let error = refused.err().unwrap();
    assert!(
        matches!(error, RaftError::Store(store::StoreError::Locked { .. })),
        "{error}"
    );
    eventually("nothing changed", || {
        (*cluster.group(1).phase().borrow() == Phase::Running).then_some(())
    })
    .await;
}
