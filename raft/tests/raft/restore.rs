//! A copy of a data directory becomes a group of its own.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use crate::common::{Cluster, PATIENCE, Replica, eventually, free_addresses, member};
use host::Host;
use raftmq_raft::{Member, RaftConfig, Restored, restore};

/// What a stopped replica keeps, as `cp -a` copies it.
fn copy(from: &Path, to: &Path) {
    let disk = Host::real().disk;
    disk.create_dir_all(to).unwrap();
    for path in disk.list(from).unwrap() {
        let target = to.join(path.file_name().unwrap());
        if path.is_dir() {
            copy(&path, &target);
        } else {
            std::fs::copy(path, target).unwrap();
        }
    }
}

/// A copy of a follower that was stopped for it, and the follower's id.
async fn backup(cluster: &mut Cluster, into: &Path) -> (u64, PathBuf) {
    let source = cluster.follower().await;
    cluster.stop(source).await;
    let dir = into.join("copy");
    copy(&cluster.data_dir(source), &dir);
    cluster.start(source).await;
    (source, dir)
}

fn config(cluster: &Cluster, dir: &Path, member: &Member, members: &[Member]) -> RaftConfig {
    let mut config = cluster.config(1);
    config.identity.broker_id = member.broker_id;
    config.data_dir = dir.to_path_buf();
    config.peer_listen = member.peer_address.clone();
    config.members = members.to_vec();
    config
}

async fn leads(replica: &Replica) {
    let mut leadership = replica.group.leadership();
    let serving = leadership.wait_for(|leadership| leadership.serving);
    tokio::time::timeout(PATIENCE, serving)
        .await
        .unwrap()
        .unwrap();
}

fn begins(number: u64) -> bytes::Bytes {
    format!("put history {number}").into()
}

/// Catches a backup that cannot be used when all three replicas are gone, lacks something, or cannot grow to three again.
#[tokio::test(flavor = "multi_thread")]
async fn a_lost_group_comes_back_from_a_copy() {
    let elsewhere = tempfile::tempdir().unwrap();
    let mut cluster = Cluster::three().await;
    let last = cluster.fill(50, 1_000).await;
    cluster.settle(last).await;
    let expected = cluster.running[&1].rows.dump();
    let term = cluster.propose("put term 1").await.log_id.term;
    let (source, dir) = backup(&mut cluster, elsewhere.path()).await;
    cluster.stop_all().await;
    // There is no better copy than one that does not say how far it was synced.
    let log = crate::common::log_files(&dir, ".seg").remove(0);
    Host::real()
        .disk
        .create(&log.with_file_name("synced"))
        .unwrap();

    // On the machine that the copy was made on.
    let four = member(4, cluster.member(source).peer_address.clone());
    let five = member(5, free_addresses(1).remove(0));
    let host = Host::real();
    let told = std::sync::Mutex::new(bytes::Bytes::new());
    let tell = |number| {
        *told.lock().unwrap() = begins(number);
        begins(number)
    };
    let restored: Restored = restore(&host, &dir, &four, None, &tell).await.unwrap();
    assert_eq!(restored.from.broker_id, source);
    assert_eq!(
        restored.identity,
        config(&cluster, &dir, &four, &[]).identity
    );
    let first = config(&cluster, &dir, &four, std::slice::from_ref(&four));
    let first = cluster.try_start(first).await.unwrap();
    leads(&first).await;
    let proposed = first.group.propose("put new 1".into()).await.unwrap();
    assert!(proposed.log_id.term > term + 1_000, "{proposed:?}");
    let rows = first.rows.dump();
    let begun = first.rows.of(restored.last.index + 2);
    let expected_row = crate::common::application::row(&told.lock().unwrap());
    assert_eq!(
        begun,
        Some(expected_row.into()),
        "the application was not told"
    );
    // One row counts the entries.
    let missing = expected.iter().filter(|row| !rows.contains(row)).count();
    assert!(missing <= 1, "{missing} rows are missing");

    let both = [four, five.clone()];
    let second = config(&cluster, &elsewhere.path().join("second"), &five, &both);
    let second = cluster.try_start(second).await.unwrap();
    first.group.add_learner(five, PATIENCE).await.unwrap();
    let voters = BTreeSet::from([4, 5]);
    first.group.change_voters(voters, PATIENCE).await.unwrap();
    let last = first.group.propose("put more 1".into()).await.unwrap();
    eventually("the second one has everything", || {
        let applied = second.group.status().applied;
        applied
            .is_some_and(|applied| applied >= last.log_id.index)
            .then_some(())
    })
    .await;
    assert_eq!(first.rows.dump(), second.rows.dump());
}

/// Catches a copy whose terms were forged to the highest, and a restore that panics over it.
#[tokio::test(flavor = "multi_thread")]
async fn a_copy_of_the_highest_term_is_refused() {
    let elsewhere = tempfile::tempdir().unwrap();
    let dir = elsewhere.path().join("copy");
    let mut cluster = Cluster::new(1);
    cluster.start_all().await;
    cluster.leader().await;
    cluster.fill(5, 100).await;
    cluster.stop(1).await;
    copy(&cluster.data_dir(1), &dir);
    let host = Host::real();
    let identity = cluster.config(1).identity;
    let log = cluster.config(1).log;
    let data = std::sync::Arc::new(
        store::DataDir::open(&host, &dir, &identity, &log)
            .await
            .unwrap(),
    );
    let (log, _) = store::CommitLog::open(&data, log).await.unwrap();
    let entry = store::Entry {
        term: u64::MAX,
        index: log.last().unwrap().index + 1,
        kind: store::EntryKind::Blank,
        body: bytes::Bytes::new(),
    };
    let (done, synced) = tokio::sync::oneshot::channel();
    log.append(vec![entry], Box::new(move |result| drop(done.send(result))))
        .unwrap();
    synced.await.unwrap().unwrap();
    log.close().await;
    drop((log, data));
    let two = member(2, free_addresses(1).remove(0));
    let refused = restore(&host, &dir, &two, None, &begins).await.unwrap_err();
    assert!(
        refused.to_string().contains("no group reaches"),
        "{refused}"
    );
}

/// Catches a look at a backup that takes a replica's place in the group that lives, or stops it.
#[tokio::test(flavor = "multi_thread")]
async fn a_copy_beside_the_living_group_disturbs_nobody() {
    let elsewhere = tempfile::tempdir().unwrap();
    let mut cluster = Cluster::three().await;
    cluster.fill(5, 100).await;
    let (source, dir) = backup(&mut cluster, elsewhere.path()).await;
    let host = Host::real();
    let twin = member(source, free_addresses(1).remove(0));
    let refused = restore(&host, &dir, &twin, None, &begins)
        .await
        .unwrap_err();
    assert!(refused.to_string().contains("never used"), "{refused}");

    let four = member(4, free_addresses(1).remove(0));
    let cluster_id = Some("drill".to_owned());
    restore(&host, &dir, &four, cluster_id, &begins)
        .await
        .unwrap();
    let mut drill = config(&cluster, &dir, &four, std::slice::from_ref(&four));
    drill.identity.cluster_id = "drill".into();
    let drill = cluster.try_start(drill).await.unwrap();
    leads(&drill).await;
    drill.group.propose("put drill 1".into()).await.unwrap();
    let last = cluster.fill(5, 100).await;
    cluster.settle(last).await;
    assert_eq!(cluster.running.len(), 3);
}
