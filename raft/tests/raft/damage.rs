//! Rot on the disk: what was promised comes back from peers before it is needed.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use crate::common::{Cluster, damage, eventually, free_addresses, log_files};
use host::Host;
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
    cluster.expect_no_leader(damaged).await;
    assert_eq!(*cluster.group(damaged).phase().borrow(), Phase::Repairing);
    // One machine is dead and a bit has flipped on another: the third has all that both had promised.
    cluster.start(other).await;
    cluster.running[&damaged].wait_phase(Phase::Running).await;
    assert!(cluster.group(damaged).status().entries_repaired > 0);
    let last = cluster.fill(5, 100).await;
    cluster.settle(last).await;
    cluster.start(leader).await;
    cluster.settle(last).await;
    assert_logs_equal(&cluster, 0..=last).await;
}

/// Catches a damaged replica that votes for less than it had promised: what only it and a dead one had would be lost.
#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_replica_does_not_vote_for_less_than_it_had_promised() {
    let mut cluster = Cluster::three().await;
    let last = cluster.fill(5, 1_000).await;
    cluster.settle(last).await;
    let (damaged, leader) = (cluster.follower().await, cluster.leader().await);
    let behind = 6 - damaged - leader;
    cluster.stop(behind).await;
    let last = cluster.fill(20, 1_000).await;
    cluster.settle(last).await;
    cluster.stop_all().await;
    let tail = log_files(&cluster.data_dir(damaged), ".seg").pop().unwrap();
    damage(&tail, 64, 100);
    cluster.start(damaged).await;
    cluster.start(behind).await;
    cluster.expect_no_leader(behind).await;
    assert_eq!(*cluster.group(damaged).phase().borrow(), Phase::Repairing);
    cluster.start(leader).await;
    cluster.running[&damaged].wait_phase(Phase::Running).await;
    cluster.settle(last).await;
    assert_logs_equal(&cluster, 0..=last).await;
}

/// Catches a replica of which nobody knows how far it was synced, and that votes with whatever is left of its log.
#[tokio::test(flavor = "multi_thread")]
async fn a_replica_that_lost_its_mark_asks_the_leader_what_it_had_promised() {
    let mut cluster = Cluster::three().await;
    let last = cluster.fill(30, 1_000).await;
    cluster.settle(last).await;
    let (damaged, leader) = (cluster.follower().await, cluster.leader().await);
    let other = 6 - damaged - leader;
    cluster.stop_all().await;
    let tail = log_files(&cluster.data_dir(damaged), ".seg").pop().unwrap();
    let disk = Host::real().disk;
    disk.create(&tail.with_file_name("synced")).unwrap();
    let file = disk.open(&tail).unwrap();
    let zeros = vec![0; usize::try_from(file.len().unwrap() - 200).unwrap()];
    file.write_at(200, &[bytes::Bytes::from(zeros)]).unwrap();
    cluster.start(damaged).await;
    cluster.running[&damaged].wait_phase(Phase::Repairing).await;
    cluster.start(other).await;
    cluster.expect_no_leader(other).await;
    assert_eq!(*cluster.group(damaged).phase().borrow(), Phase::Repairing);
    cluster.start(leader).await;
    cluster.running[&damaged].wait_phase(Phase::Running).await;
    assert!(cluster.group(damaged).status().entries_repaired > 0);
    let last = cluster.fill(5, 100).await;
    cluster.settle(last).await;
    assert_logs_equal(&cluster, 0..=last).await;
}

/// Catches a damaged replica that waits forever for entries which nobody has any more, or for a snapshot that is sent to
/// where nobody is.
#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_tail_is_replaced_by_a_snapshot_when_the_entries_are_gone() {
    let mut cluster = Cluster::three().await;
    let last = cluster.fill(10, 1_000).await;
    cluster.settle(last).await;
    let damaged = cluster.follower().await;
    cluster.stop(damaged).await;
    let tail = log_files(&cluster.data_dir(damaged), ".seg").remove(0);
    damage(&tail, 64, 100);
    let last = cluster.fill(40, 4_000).await;
    let floor = cluster
        .propose(format!("floor {}", last - 10))
        .await
        .log_id
        .index;
    cluster.settle(floor).await;
    for (id, replica) in &cluster.running {
        replica
            .group
            .checkpoint(crate::common::PATIENCE)
            .await
            .unwrap();
        eventually(&format!("replica {id} drops segments"), || {
            (replica.group.status().dropped > 12).then_some(())
        })
        .await;
    }
    // Its own configuration errs about where it is: the snapshot goes to where its peers reach it.
    let mut config = cluster.config(damaged);
    let own = (config.members.iter_mut()).find(|one| one.broker_id == damaged);
    own.unwrap().peer_address = free_addresses(1).remove(0);
    let replica = cluster.try_start(config).await.unwrap();
    cluster.running.insert(damaged, replica);
    cluster.running[&damaged].wait_phase(Phase::Running).await;
    assert_eq!(cluster.group(damaged).status().snapshots_installed, 1);
    let last = cluster.fill(5, 100).await;
    cluster.settle(last).await;
    let dropped = cluster.group(damaged).status().dropped;
    assert_logs_equal(&cluster, dropped.max(last - 10)..=last).await;
}

/// Catches two replicas that wait for each other: one lacks what only a snapshot gives back, and the other, which leads, has not
/// committed as much as the first had promised, and cannot without it.
#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_replica_takes_what_its_leader_has_committed_and_the_rest_by_entries() {
    let mut cluster = Cluster::new(3);
    cluster.adjust = |config| config.catch_up_log_bytes = 1;
    cluster.start_all().await;
    let mut last = 0;
    for _ in 0..2 {
        last = cluster.fill(10, 100).await;
        cluster.settle(last).await;
        for replica in cluster.running.values() {
            replica
                .group
                .checkpoint(crate::common::PATIENCE)
                .await
                .unwrap();
        }
    }
    for replica in cluster.running.values() {
        let purged = || replica.group.log().purged().map(drop);
        eventually("entries that Raft may not ask for", purged).await;
    }
    let checkpoint = last;
    let last = cluster.fill(10, 100).await;
    cluster.settle(last).await;
    let (damaged, leader) = (cluster.follower().await, cluster.leader().await);
    cluster.stop_all().await;
    damage(&log_files(&cluster.data_dir(damaged), ".seg")[0], 64, 100);
    // The leader does not know any more how much was committed.
    let (disk, dir) = (Host::real().disk, cluster.data_dir(leader));
    for path in disk.list(&dir).unwrap() {
        if path.to_string_lossy().contains("tables-") {
            disk.remove_dir_all(&path).unwrap();
        }
    }
    cluster.start(leader).await;
    let applied = cluster.group(leader).status().applied;
    assert!(
        applied.is_some_and(|applied| (checkpoint..last).contains(&applied)),
        "{applied:?}"
    );
    cluster.start(damaged).await;
    cluster.running[&damaged].wait_phase(Phase::Running).await;
    let status = cluster.group(damaged).status();
    assert_eq!(status.snapshots_installed, 1);
    let last = cluster.fill(5, 100).await;
    cluster.settle(last).await;
    assert_logs_equal(&cluster, checkpoint + 1..=last).await;
}

/// Catches a replica that for ever asks its peers for the entry before its damage, which they have just dropped.
#[tokio::test(flavor = "multi_thread")]
async fn a_damage_that_begins_where_the_peers_logs_begin_is_repaired() {
    let mut cluster = Cluster::three().await;
    let last = cluster.fill(30, 1_000).await;
    cluster.settle(last).await;
    let damaged = cluster.follower().await;
    cluster.stop(damaged).await;
    let tail = log_files(&cluster.data_dir(damaged), ".seg").pop().unwrap();
    damage(&tail, 64, 100);
    let first: u64 = tail.file_stem().unwrap().to_str().unwrap().parse().unwrap();
    let last = cluster.fill(30, 1_000).await;
    let floor = cluster.propose(format!("floor {}", first + 1)).await;
    cluster.settle(floor.log_id.index.max(last)).await;
    for (id, replica) in &cluster.running {
        replica
            .group
            .checkpoint(crate::common::PATIENCE)
            .await
            .unwrap();
        eventually(&format!("replica {id} drops segments"), || {
            (replica.group.status().dropped == first).then_some(())
        })
        .await;
    }
    cluster.start(damaged).await;
    cluster.running[&damaged].wait_phase(Phase::Running).await;
    let last = cluster.fill(5, 100).await;
    cluster.settle(last).await;
    assert_logs_equal(&cluster, first..=last).await;
}

/// Catches a replica that can never start again because the copy of its tables rotted, or a record that it
/// has to apply again, and nobody has the entries any more.
#[tokio::test(flavor = "multi_thread")]
async fn what_a_start_needs_comes_back_as_a_snapshot_when_the_entries_are_gone() {
    for rotten in ["checkpoint", "record"] {
        let mut cluster = Cluster::three().await;
        let last = cluster.fill(60, 1_000).await;
        cluster.settle(last).await;
        let damaged = cluster.follower().await;
        if rotten == "checkpoint" {
            drop_log(&mut cluster, last).await;
        }
        cluster.stop(damaged).await;
        let (disk, dir) = (Host::real().disk, cluster.data_dir(damaged));
        for path in disk.list(&dir).unwrap() {
            if path.to_string_lossy().contains("tables-") {
                disk.remove_dir_all(&path).unwrap();
            }
        }
        match rotten {
            "checkpoint" => {
                let checkpoints = disk.list(&dir.join("checkpoints")).unwrap();
                let tables = disk.list(&checkpoints[0].join("tables")).unwrap();
                damage(&tables[0], 20, 3);
            }
            _ => damage(&log_files(&dir, ".seg")[1], 3_000, 10),
        }
        let last = cluster.fill(40, 4_000).await;
        drop_log(&mut cluster, last).await;
        cluster.start(damaged).await;
        cluster.running[&damaged].wait_phase(Phase::Running).await;
        let status = cluster.group(damaged).status();
        assert_eq!(status.snapshots_installed, 1, "{rotten}");
        let last = cluster.fill(5, 100).await;
        cluster.settle(last).await;
    }
}

/// Catches a replica that waits for ever for a peer whose copy has rotted too, or that died, beside one that could help.
#[tokio::test(flavor = "multi_thread")]
async fn whoever_can_help_is_asked_if_the_first_one_cannot() {
    let mut cluster = Cluster::three().await;
    let last = cluster.fill(30, 1_000).await;
    cluster.settle(last).await;
    let damaged = cluster.follower().await;
    cluster.stop(damaged).await;
    // All others, one after the other: whoever is asked first, once it is one that cannot help.
    let others: Vec<u64> = cluster.running.keys().copied().collect();
    for rotten in others {
        let tail = log_files(&cluster.data_dir(damaged), ".seg").pop().unwrap();
        damage(&tail, 64, 100);
        let theirs = log_files(&cluster.data_dir(rotten), ".seg").pop().unwrap();
        // Restarted, so that it has to read from the disk.
        cluster.stop(rotten).await;
        cluster.start(rotten).await;
        cluster.leader().await;
        damage(&theirs, 64, 100);
        cluster.start(damaged).await;
        cluster.running[&damaged].wait_phase(Phase::Running).await;
        cluster.stop(damaged).await;
        cluster.stop(rotten).await;
        // Turned around once more it is whole.
        damage(&theirs, 64, 100);
        cluster.start(rotten).await;
        cluster.leader().await;
    }
}

/// Catches a replica whose tables are gone although no file of its log is: Raft may not ask for its first entries any more,
/// and ended at each start.
#[tokio::test(flavor = "multi_thread")]
async fn tables_that_end_below_what_raft_may_ask_for_come_back_as_a_snapshot() {
    let mut cluster = Cluster::new(3);
    cluster.adjust = |config| config.catch_up_log_bytes = 1;
    cluster.start_all().await;
    let damaged = cluster.follower().await;
    let group = cluster.group(damaged).clone();
    for _ in 0..2 {
        let last = cluster.fill(30, 1_000).await;
        cluster.settle(last).await;
        group.checkpoint(crate::common::PATIENCE).await.unwrap();
    }
    eventually("entries that Raft may not ask for", || {
        group.log().purged().map(drop)
    })
    .await;
    assert_eq!(group.status().dropped, 0);
    drop(group);
    cluster.stop(damaged).await;
    let (disk, dir) = (Host::real().disk, cluster.data_dir(damaged));
    for path in disk.list(&dir).unwrap() {
        if path.to_string_lossy().contains("tables-") {
            disk.remove_dir_all(&path).unwrap();
        }
    }
    for checkpoint in disk.list(&dir.join("checkpoints")).unwrap() {
        disk.remove_dir_all(&checkpoint).unwrap();
    }
    cluster.start(damaged).await;
    cluster.running[&damaged].wait_phase(Phase::Running).await;
    assert_eq!(cluster.group(damaged).status().snapshots_installed, 1);
    let last = cluster.fill(5, 100).await;
    cluster.settle(last).await;
}

/// Lets all running replicas drop what is far below `last`.
async fn drop_log(cluster: &mut Cluster, last: u64) {
    let floor = cluster
        .propose(format!("floor {}", last - 10))
        .await
        .log_id
        .index;
    cluster.settle(floor).await;
    for (id, replica) in &cluster.running {
        let before = replica.group.status().dropped;
        replica
            .group
            .checkpoint(crate::common::PATIENCE)
            .await
            .unwrap();
        eventually(&format!("replica {id} drops segments"), || {
            (replica.group.status().dropped > before).then_some(())
        })
        .await;
    }
}

/// Catches a checkpoint that rotted and is sent to others, or stays until it is needed; and a new one that is wished for
/// right after another and never made.
#[tokio::test(flavor = "multi_thread")]
async fn scrubbing_renews_a_damaged_checkpoint() {
    let cluster = Cluster::three().await;
    let last = cluster.fill(20, 1_000).await;
    cluster.settle(last).await;
    let damaged = cluster.follower().await;
    let group = cluster.group(damaged);
    group.checkpoint(crate::common::PATIENCE).await.unwrap();
    let made = group.status().checkpoints_made;
    let disk = Host::real().disk;
    let dir = cluster.data_dir(damaged).join("checkpoints");
    for round in 1..=10 {
        let checkpoint = disk.list(&dir).unwrap().pop().unwrap();
        let tables = disk.list(&checkpoint.join("tables")).unwrap();
        damage(&tables[0], 20, 3);
        group.scrub().await.unwrap();
        assert_eq!(group.status().checkpoints_made, made + round);
    }
    group.scrub().await.unwrap();
    assert_eq!(group.status().checkpoints_made, made + 10);
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
    assert_logs_equal(&cluster, 0..=last).await;
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

/// Catches a leader that cannot read what it wrote lately, and fails whoever asks for it until the segment is full.
#[tokio::test(flavor = "multi_thread")]
async fn rot_in_the_segment_that_is_written_to_is_repaired_by_a_restart() {
    let mut cluster = Cluster::three().await;
    let last = cluster.fill(5, 1_000).await;
    cluster.settle(last).await;
    let damaged = cluster.leader().await;
    // Restarted, so that it has to read from the disk.
    cluster.stop(damaged).await;
    cluster.leader().await;
    cluster.start(damaged).await;
    let last = cluster.propose("put after the restart").await.log_id.index;
    cluster.settle(last).await;
    let led = cluster.leader().await;
    if led != damaged {
        let transfer = cluster
            .group(led)
            .transfer_leader(damaged, crate::common::PATIENCE);
        transfer.await.unwrap();
        assert_eq!(cluster.leader().await, damaged);
    }
    let tail = log_files(&cluster.data_dir(damaged), ".seg").pop().unwrap();
    damage(&tail, 2_500, 10);
    let replica = cluster.running.remove(&damaged).unwrap();
    let group = replica.group.clone();
    let bad = first_bad(&group, last).await.expect("the damage shows");
    let asked = tokio::spawn(async move { group.repair_entry(bad).await });
    let failed = tokio::time::timeout(crate::common::PATIENCE, replica.group.failed()).await;
    let reason = failed.expect("the replica ends in order").to_string();
    assert!(reason.contains("repaired from the peers"), "{reason}");
    assert_ne!(cluster.leader().await, damaged);
    asked.abort();
    replica.stop().await;
    cluster.start(damaged).await;
    cluster.running[&damaged].wait_phase(Phase::Running).await;
    assert!(cluster.group(damaged).status().entries_repaired > 0);
    let last = cluster.fill(5, 100).await;
    cluster.settle(last).await;
    assert_logs_equal(&cluster, 0..=last).await;
}

/// Catches a repair that goes on asking for what everybody has dropped, and then reports damage that is gone.
#[tokio::test(flavor = "multi_thread")]
async fn a_repair_ends_when_the_segment_is_dropped() {
    let cluster = Cluster::three().await;
    let last = cluster.fill(60, 2_000).await;
    cluster.settle(last).await;
    let damaged = cluster.leader().await;
    let first = log_files(&cluster.data_dir(damaged), ".seg").remove(0);
    damage(&first, 3_000, 10);
    let floor = cluster.propose(format!("floor {}", last - 10)).await;
    cluster.settle(floor.log_id.index).await;
    for (id, replica) in &cluster.running {
        if *id != damaged {
            replica
                .group
                .checkpoint(crate::common::PATIENCE)
                .await
                .unwrap();
            eventually(&format!("replica {id} drops segments"), || {
                (replica.group.status().dropped > 0).then_some(())
            })
            .await;
        }
    }
    let group = cluster.group(damaged).clone();
    assert_eq!(group.status().dropped, 0);
    let bad = first_bad(&group, last).await.expect("the damage shows");
    let repair = tokio::spawn({
        let group = group.clone();
        async move { group.repair_entry(bad).await }
    });
    eventually("the repair begins", || {
        (group.status().damage_found > 0).then_some(())
    })
    .await;
    group.checkpoint(crate::common::PATIENCE).await.unwrap();
    let repaired = tokio::time::timeout(crate::common::PATIENCE, repair).await;
    repaired.expect("ends soon").unwrap().unwrap();
    assert_eq!(group.status().segments_repaired, 0);
    assert!(group.status().dropped > bad);
}

/// Catches a leader that dies of a damaged record which a follower needs.
#[tokio::test(flavor = "multi_thread")]
async fn a_leader_repairs_what_a_follower_needs() {
    let mut cluster = Cluster::three().await;
    let away = cluster.follower().await;
    cluster.stop(away).await;
    let last = cluster.fill(60, 2_000).await;
    cluster.settle(last).await;
    // Restarted, so that it has to read from the disk.
    let damaged = cluster.leader().await;
    cluster.stop(damaged).await;
    let segments = log_files(&cluster.data_dir(damaged), ".seg");
    for segment in segments.iter().take(3) {
        damage(segment, 3_000, 10);
    }
    cluster.start(damaged).await;
    let leader = cluster.leader().await;
    if leader != damaged {
        cluster
            .group(leader)
            .transfer_leader(damaged, crate::common::PATIENCE)
            .await
            .unwrap();
        assert_eq!(cluster.leader().await, damaged);
    }
    cluster.start(away).await;
    let last = cluster.fill(1, 100).await;
    cluster.settle(last).await;
    assert_eq!(cluster.group(damaged).status().segments_repaired, 3);
    assert_logs_equal(&cluster, 0..=last).await;
}

/// Catches a leader that leads for ever although it can send nothing: what rotted there nobody else has, and its log is the
/// longest.
#[tokio::test(flavor = "multi_thread")]
async fn a_leader_that_cannot_read_what_nobody_else_has_leaves_the_lead() {
    let mut cluster = Cluster::three().await;
    let agreed = cluster.fill(5, 100).await;
    cluster.settle(agreed).await;
    let damaged = cluster.leader().await;
    let others: Vec<u64> = [1, 2, 3].into_iter().filter(|id| *id != damaged).collect();
    let first = cluster.running.remove(&others[0]).unwrap();
    let second = cluster.running.remove(&others[1]).unwrap();
    // At once: a leader that has not heard from a majority for a while takes nothing.
    let appending = append_without_answers(&cluster, damaged);
    let ((), (), alone) = tokio::join!(biased; first.stop(), second.stop(), appending);
    cluster.stop(damaged).await;
    // While it runs, so that it does not know; and before anybody is there who could take the entries. Of two, nobody but
    // the one with the longest log can be elected.
    cluster.start(damaged).await;
    damage_all(&cluster, damaged);
    cluster.start(others[0]).await;
    let has = cluster.group(others[0]).status().appended.unwrap();
    assert!(
        has + 16 <= alone,
        "nothing that fills a segment is on one replica alone: {has} of {alone}"
    );
    eventually("the damaged one leads", || {
        let leadership = cluster.group(damaged).leadership();
        leadership.borrow().is_leader.then_some(())
    })
    .await;
    cluster.start(others[1]).await;
    let last = cluster.fill(5, 100).await;
    assert!(
        last < alone,
        "what nobody was answered for was kept: {last}"
    );
    cluster.settle(last).await;
    assert_logs_equal(&cluster, agreed..=last).await;
}

/// Has a leader append what nobody takes from it; the last index.
async fn append_without_answers(cluster: &Cluster, leader: u64) -> u64 {
    let group = cluster.group(leader);
    let before = group.status().appended.unwrap();
    let proposals = (0..40).map(|_| group.propose(vec![b'.'; 2_000].into()));
    let proposals = futures::future::join_all(proposals);
    let appended = async {
        eventually("the leader has appended", || {
            let appended = group.status().appended.unwrap();
            (appended >= before + 20).then_some(appended)
        })
        .await
    };
    tokio::select! {
        outcomes = proposals => panic!("all returned: {:?}", outcomes.first()),
        appended = appended => appended,
    }
}

/// Damages every segment of a replica that runs, behind what all have.
fn damage_all(cluster: &Cluster, broker_id: u64) {
    let disk = Host::real().disk;
    for segment in log_files(&cluster.data_dir(broker_id), ".seg") {
        let len = disk.open(&segment).unwrap().len().unwrap();
        if len > 6_000 {
            damage(&segment, 5_000, 500);
        }
    }
}

/// Catches a leader that offers a rotten segment in every snapshot, which no peer ever takes.
#[tokio::test(flavor = "multi_thread")]
async fn a_leader_repairs_a_segment_that_a_peer_does_not_take() {
    let mut cluster = Cluster::three().await;
    let last = cluster.fill(10, 1_000).await;
    cluster.settle(last).await;
    let behind = cluster.follower().await;
    cluster.stop(behind).await;
    let last = cluster.fill(40, 4_000).await;
    drop_log(&mut cluster, last).await;
    let leader = cluster.leader().await;
    let kept = log_files(&cluster.data_dir(leader), ".seg");
    damage(&kept[0], 3_000, 10);
    cluster.start(behind).await;
    let last = cluster.fill(5, 100).await;
    cluster.settle(last).await;
    assert_eq!(cluster.group(behind).status().snapshots_installed, 1);
    assert!(cluster.group(leader).status().segments_repaired > 0);
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

async fn assert_logs_equal(cluster: &Cluster, range: std::ops::RangeInclusive<u64>) {
    let mut logs = cluster.running.values().map(|replica| replica.group.log());
    let first = logs.next().unwrap();
    for log in logs {
        for index in range.clone() {
            let (ours, theirs) = (first.entry(index).await, log.entry(index).await);
            assert_eq!(ours.unwrap(), theirs.unwrap(), "entry {index}");
        }
    }
}
