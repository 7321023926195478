//! Who may start: not a wiped replica, not a second process under one id, not a stranger.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::io::ErrorKind;
use std::path::Path;
use std::sync::Arc;

use crate::common::{Cluster, PATIENCE, eventually, free_addresses};
use host::Host;
use host::testing::{Fault, FaultyDisk, Operation};
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
    let error = tokio::time::timeout(crate::common::PATIENCE, first.group.failed())
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
    let application = Box::new(crate::common::TestApplication::new(
        crate::common::Rows::default(),
    ));
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

/// What stands in a file; nothing if it is not there.
fn bytes_of(path: &Path) -> Vec<u8> {
    let mut bytes = vec![0; 4096];
    let read = Host::real()
        .disk
        .open(path)
        .and_then(|file| file.read_at(0, &mut bytes));
    bytes.truncate(read.unwrap_or(0));
    bytes
}

/// Catches an older copy whose process ends before its start is taken back: started often enough, it would pass for the newest.
#[tokio::test(flavor = "multi_thread")]
async fn a_start_that_is_refused_later_is_taken_back_before_the_replica_fails() {
    let mut cluster = Cluster::three().await;
    let copied = cluster.follower().await;
    let file = cluster.data_dir(copied).join("replica");
    cluster.stop(copied).await;
    let old = bytes_of(&file);
    let others: Vec<u64> = cluster.running.keys().copied().collect();
    cluster.start(copied).await;
    cluster.stop(copied).await;
    cluster.start(copied).await;
    for other in &others {
        let remembered = cluster.data_dir(*other).join("peers");
        eventually("its third start is remembered", || {
            let bytes = bytes_of(&remembered);
            let mut numbers = bytes.get(8..)?.chunks_exact(8);
            let third = |number: &[u8]| number[4..] == 3_u32.to_le_bytes();
            numbers.any(third).then_some(())
        })
        .await;
    }
    cluster.stop_all().await;
    let written = Host::real().disk.open(&file).unwrap();
    written.write_at(0, &[old.clone().into()]).unwrap();
    // Nobody is there who would refuse it at once.
    cluster.start(copied).await;
    assert_ne!(bytes_of(&file), old);
    for other in others {
        cluster.start(other).await;
    }
    let failed = tokio::time::timeout(PATIENCE, cluster.group(copied).failed());
    let reason = failed.await.unwrap().to_string();
    assert!(reason.contains("started"), "{reason}");
    assert_eq!(bytes_of(&file), old);
}

/// Catches a replica that ends because a disk does not take what is only a safeguard, and one that never tries again.
#[tokio::test(flavor = "multi_thread")]
async fn a_replica_goes_on_if_what_peers_have_promised_cannot_be_kept() {
    let mut cluster = Cluster::new(3);
    let real = Host::real();
    let disk = FaultyDisk::new(real.disk.clone());
    disk.inject(Fault::always(
        Operation::Write,
        "peers.new",
        ErrorKind::Other,
    ));
    let host = Host {
        disk: Arc::new(disk.handle()),
        ..real
    };
    let replica = crate::common::start(cluster.config(1), host).await.unwrap();
    cluster.running.insert(1, replica);
    cluster.start(2).await;
    cluster.start(3).await;
    let last = cluster.fill(5, 100).await;
    cluster.settle(last).await;
    let group = cluster.group(1).clone();
    // Introductions go on: what the others say of themselves is heard again and again.
    eventually("peers say how far they are", || {
        let ends = group.status().promised_by_peers;
        (ends.len() == 2 && ends.values().all(|end| *end > 0)).then_some(())
    })
    .await;
    assert_eq!(*group.phase().borrow(), Phase::Running);
    let peers = cluster.data_dir(1).join("peers");
    assert!(bytes_of(&peers).is_empty());
    disk.heal();
    eventually("it is kept when the disk takes it", || {
        (!bytes_of(&peers).is_empty()).then_some(())
    })
    .await;
}

/// Catches a replica that takes its peers for strangers right after its start, because nobody has told yet who they are.
#[tokio::test(flavor = "multi_thread")]
async fn a_replica_knows_the_members_as_soon_as_it_runs() {
    let mut cluster = Cluster::three().await;
    let before = cluster.propose("before").await;
    cluster.settle(before.log_id.index).await;
    for _ in 0..5 {
        let id = cluster.follower().await;
        cluster.stop(id).await;
        cluster.start(id).await;
        let status = cluster.group(id).status();
        assert_eq!(status.phase, Phase::Running);
        assert_eq!(status.members.len(), 3);
    }
}
