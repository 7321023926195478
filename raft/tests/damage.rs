//! Rot on the disk: what was promised comes back from peers before it is needed.

mod common;

use common::{Cluster, damage, eventually, log_files};
use raftmq_raft::Phase;

/// Catches a replica that votes although part of what it promised is gone, or forgets it.
#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_tail_is_repaired_before_the_replica_votes() {
    let mut cluster = Cluster::three().await;
    let last = cluster.fill(30, 1_000).await;
    cluster.settle(last).await;
    let damaged = cluster.follower().await;
    cluster.stop(damaged).await;
    let tail = log_files(&cluster.data_dir(damaged), ".seg").pop().unwrap();
    damage(&tail, 64, 100);
    // Alone with its damage it neither votes nor serves.
    let leader = cluster.leader().await;
    let other = [1, 2, 3]
        .into_iter()
        .find(|id| *id != damaged && *id != leader)
        .unwrap();
    cluster.stop(other).await;
    cluster.stop(leader).await;
    cluster.start(damaged).await;
    cluster.running[&damaged].wait_phase(Phase::Repairing).await;
    cluster.start(leader).await;
    assert_eq!(*cluster.group(damaged).phase().borrow(), Phase::Repairing);
    cluster.start(other).await;
    cluster.running[&damaged].wait_phase(Phase::Running).await;
    assert!(cluster.group(damaged).status().entries_repaired > 0);
    let last = cluster.fill(5, 100).await;
    cluster.settle(last).await;
    assert_logs_equal(&cluster, last).await;
}

/// Catches rot in a full segment that is served, or that stays until somebody needs the bytes.
#[tokio::test(flavor = "multi_thread")]
async fn scrubbing_repairs_a_damaged_segment() {
    let cluster = Cluster::three().await;
    let last = cluster.fill(60, 2_000).await;
    cluster.settle(last).await;
    let damaged = cluster.follower().await;
    let group = cluster.group(damaged);
    let first = log_files(&cluster.data_dir(damaged), ".seg").remove(0);
    damage(&first, 3_000, 10);
    eventually("the others are known", || {
        (group.status().members.len() == 3).then_some(())
    })
    .await;
    assert_eq!(group.scrub().await.unwrap(), 1);
    assert_eq!(group.scrub().await.unwrap(), 0);
    assert_eq!(group.status().segments_repaired, 1);
    assert_logs_equal(&cluster, last).await;
}

/// Catches rot that is only noticed when a reader asks, and then for good.
#[tokio::test(flavor = "multi_thread")]
async fn a_reader_has_a_damaged_segment_repaired() {
    let cluster = Cluster::three().await;
    let last = cluster.fill(60, 2_000).await;
    cluster.settle(last).await;
    let group = cluster.group(cluster.leader().await);
    let first = log_files(&cluster.data_dir(cluster.leader().await), ".seg").remove(0);
    damage(&first, 3_000, 10);
    let bad = first_bad(group, last).await.expect("the damage shows");
    group.repair_entry(bad).await.unwrap();
    assert_eq!(first_bad(group, last).await, None);
}

/// Catches a leader that dies of a damaged record which a follower needs.
#[tokio::test(flavor = "multi_thread")]
async fn a_leader_repairs_what_a_follower_needs() {
    let mut cluster = Cluster::three().await;
    let away = cluster.follower().await;
    cluster.stop(away).await;
    let last = cluster.fill(60, 2_000).await;
    cluster.settle(last).await;
    let leader = cluster.leader().await;
    for segment in log_files(&cluster.data_dir(leader), ".seg").iter().take(3) {
        damage(segment, 3_000, 10);
    }
    cluster.start(away).await;
    let last = cluster.fill(1, 100).await;
    cluster.settle(last).await;
    assert!(cluster.group(leader).status().segments_repaired > 0);
    assert_logs_equal(&cluster, last).await;
}

async fn first_bad(group: &raftmq_raft::RaftGroup, last: u64) -> Option<u64> {
    for index in 0..=last {
        match group.log().entry(index).await {
            Ok(_) => {}
            Err(error) if error.is_corruption() => return Some(index),
            Err(error) => panic!("{error}"),
        }
    }
    None
}

async fn assert_logs_equal(cluster: &Cluster, last: u64) {
    let mut logs = cluster.running.values().map(|replica| replica.group.log());
    let first = logs.next().unwrap();
    for log in logs {
        for index in 0..=last {
            let (ours, theirs) = (first.entry(index).await, log.entry(index).await);
            assert_eq!(ours.unwrap(), theirs.unwrap(), "entry {index}");
        }
    }
}
