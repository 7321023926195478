//! A disk that is full, or fails: injected into a real process through the test-only fault plan.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use cli::process::GroupPlan;
use raftmq_client::Message;

use super::cluster::small;
use super::cluster::{
    Cluster, DISK_FAULTS, DISK_RESERVE_BYTES, LEADER_PATIENCE, PATIENCE, eventually,
};
use super::identity::{copy_directory, reconfigure};
use super::traffic::{Writer, expect_nothing_lost, send};

/// A send that may fail.
const SHORT: Duration = Duration::from_secs(2);

/// Where the faults of a broker's disk are written down.
pub(crate) fn faults(cluster: &Cluster, id: u64) -> PathBuf {
    cluster.directory().join(format!("faults-{id}"))
}

/// A group whose disks can be made to fail.
pub(crate) async fn cluster() -> Cluster {
    cluster_with(|plan| plan).await
}

async fn cluster_with(change: impl FnOnce(GroupPlan) -> GroupPlan) -> Cluster {
    Cluster::start_with(|plan| {
        let mut plan = change(plan);
        for id in plan.brokers.keys().copied().collect::<Vec<_>>() {
            let path = plan.directory.join(format!("faults-{id}"));
            let variable = (DISK_FAULTS.to_owned(), path.display().to_string());
            plan.environment.insert(id, vec![variable]);
        }
        plan
    })
    .await
}

/// Catches a leader that goes on after a failed sync, when nobody knows what is on the disk.
#[tokio::test(flavor = "multi_thread")]
async fn a_leader_whose_disk_fails_stops_and_another_takes_over() {
    let mut cluster = cluster().await;
    cluster.topic("orders").await;
    let writer = Writer::start(&cluster, "orders", 100).await;
    writer.wait_for_acks(100).await;
    let led = cluster.led().await;
    let id = led.broker_id;
    std::fs::write(faults(&cluster, id), "sync log- eio\n").unwrap();
    let code = cluster.wait_for_end(id).await;
    assert_eq!(code, Some(1), "{}", cluster.broker(id).last_words(5));
    let words = cluster.broker(id).last_words(1);
    assert!(words.starts_with("raftmq: "), "{words}");
    cluster
        .wait_for_leader_after(led.term, LEADER_PATIENCE)
        .await
        .unwrap();
    writer.wait_for_acks(100).await;

    std::fs::remove_file(faults(&cluster, id)).unwrap();
    cluster.start_broker(id).unwrap();
    cluster.wait_until_caught_up(id).await;
    let acked = writer.finish().await;
    expect_nothing_lost(&cluster, "orders", &acked).await;
}

/// Catches a follower's disk trouble that takes the group down with it.
#[tokio::test(flavor = "multi_thread")]
async fn a_follower_whose_disk_fails_stops_alone() {
    let mut cluster = cluster().await;
    cluster.topic("orders").await;
    let writer = Writer::start(&cluster, "orders", 100).await;
    writer.wait_for_acks(100).await;
    let id = cluster.followers().await[0];
    std::fs::write(faults(&cluster, id), "write log- eio\n").unwrap();
    assert_eq!(cluster.wait_for_end(id).await, Some(1));
    writer.wait_for_acks(200).await;
    std::fs::remove_file(faults(&cluster, id)).unwrap();
    cluster.start_broker(id).unwrap();
    cluster.wait_until_caught_up(id).await;
    let acked = writer.finish().await;
    expect_nothing_lost(&cluster, "orders", &acked).await;
}

/// Catches a follower that runs out of space in the middle of a segment and takes the group with it.
#[tokio::test(flavor = "multi_thread")]
async fn a_follower_without_space_stops_alone_and_comes_back() {
    let mut cluster = cluster().await;
    cluster.topic("orders").await;
    let writer = Writer::start(&cluster, "orders", 100).await;
    writer.wait_for_acks(100).await;
    let id = cluster.followers().await[0];
    std::fs::write(faults(&cluster, id), "write log- enospc\ncreate * enospc\n").unwrap();
    assert_eq!(cluster.wait_for_end(id).await, Some(1));
    let words = cluster.broker(id).last_words(1);
    assert!(words.starts_with("raftmq: "), "{words}");
    writer.wait_for_acks(200).await;
    std::fs::remove_file(faults(&cluster, id)).unwrap();
    cluster.start_broker(id).unwrap();
    cluster.wait_until_caught_up(id).await;
    let acked = writer.finish().await;
    expect_nothing_lost(&cluster, "orders", &acked).await;
}

/// Catches a leader that refuses every send because its disk alone is full, while two replicas have room.
#[tokio::test(flavor = "multi_thread")]
async fn a_leader_whose_disk_alone_is_full_hands_over() {
    let cluster = cluster().await;
    cluster.topic("orders").await;
    let writer = Writer::start(&cluster, "orders", 100).await;
    writer.wait_for_acks(100).await;
    let led = cluster.led().await;
    std::fs::write(faults(&cluster, led.broker_id), "free * bytes=0\n").unwrap();
    cluster
        .wait_for_leader_after(led.term, PATIENCE)
        .await
        .unwrap();
    writer.wait_for_acks(200).await;
    cluster
        .wait_for_status(led.broker_id, "goes on as a follower", |_| true)
        .await;
    std::fs::remove_file(faults(&cluster, led.broker_id)).unwrap();
    cluster.wait_until_caught_up(led.broker_id).await;
    let acked = writer.finish().await;
    expect_nothing_lost(&cluster, "orders", &acked).await;
}

/// Catches sends that are accepted and forgotten when the disk is nearly full, and a group that stays
/// closed after there is room again.
#[tokio::test(flavor = "multi_thread")]
async fn a_nearly_full_disk_refuses_sends_and_takes_them_again_when_there_is_room() {
    let cluster = cluster().await;
    cluster.topic("orders").await;
    cluster.topic("refused").await;
    let writer = Writer::start(&cluster, "orders", 100).await;
    writer.wait_for_acks(100).await;
    for id in cluster.ids() {
        let plan = format!("free * bytes={}\n", DISK_RESERVE_BYTES);
        std::fs::write(faults(&cluster, id), plan).unwrap();
    }
    refuses_sends(&cluster, "refused").await;
    for id in cluster.ids() {
        assert!(
            cluster.status(id).await.is_some(),
            "broker {id} stopped for a full disk"
        );
        std::fs::remove_file(faults(&cluster, id)).unwrap();
    }
    writer.wait_for_acks(200).await;
    let acked = writer.finish().await;
    expect_nothing_lost(&cluster, "orders", &acked).await;
}

/// Waits until a send is refused for now.
async fn refuses_sends(cluster: &Cluster, topic: &str) {
    let client = cluster.client().await;
    let producer = client.producer().send_timeout(SHORT).build().unwrap();
    let refused = eventually(PATIENCE, || async {
        let message = Message::new(topic, "x").unwrap();
        producer.send(message).await.err()
    });
    let refused = refused.await.expect("sends are refused on full disks");
    assert!(refused.is_retriable(), "{refused}");
}

/// Catches a group whose replicas end one after the other when all disks are said to be full, and one that cannot be helped then:
/// who is elected writes an entry, and so does whoever lets old entries go.
#[tokio::test(flavor = "multi_thread")]
async fn a_group_whose_disks_are_all_full_elects_and_drops_old_entries() {
    let mut cluster = cluster_with(small).await;
    cluster.topic("old").await;
    cluster.topic("refused").await;
    let client = cluster.client().await;
    send(&client, "old", 0..500, 8 << 10).await;
    for id in cluster.ids() {
        std::fs::write(faults(&cluster, id), "free * bytes=0\n").unwrap();
    }
    refuses_sends(&cluster, "refused").await;
    let led = cluster.led().await;
    cluster.kill(led.broker_id).await;
    cluster
        .wait_for_leader_after(led.term, LEADER_PATIENCE)
        .await
        .unwrap();
    cluster.start_broker(led.broker_id).unwrap();
    cluster.wait_until_caught_up(led.broker_id).await;
    // It has several segments, and keeps the last one.
    let kept = client.admin().drop_log(0).await.unwrap();
    assert!(kept > 0, "nothing was dropped");
    for id in cluster.ids() {
        assert!(cluster.status(id).await.is_some(), "broker {id} has ended");
        std::fs::remove_file(faults(&cluster, id)).unwrap();
    }
    let takes_them = eventually(PATIENCE, || async {
        let producer = client.producer().send_timeout(SHORT).build().unwrap();
        let message = Message::new("refused", "x").unwrap();
        producer.send(message).await.ok()
    });
    assert!(takes_them.await.is_some(), "{}", cluster.last_words());
}

/// A disk of its own, in memory; goes with the test.
struct SmallDisk(PathBuf);

impl SmallDisk {
    /// None where disks may not be made: that needs privileges.
    fn new(at: &Path, bytes: u64) -> Option<SmallDisk> {
        std::fs::create_dir_all(at).unwrap();
        let size = format!("size={bytes}");
        let mut mount = Command::new("mount");
        let made = mount.args(["-t", "tmpfs", "-o", &size, "none"]).arg(at);
        let made = made.output().is_ok_and(|made| made.status.success());
        made.then(|| SmallDisk(at.to_owned()))
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

/// Writes a file until there is no room for another byte.
fn fill(path: &Path) {
    use std::io::Write;
    let mut file = std::fs::File::create(path).unwrap();
    let bytes = vec![1; 1 << 20];
    while file.write_all(&bytes).is_ok() {}
    while file.write_all(&[1]).is_ok() {}
}

/// Catches a replica that cannot start on a full disk to give up what it does not need, although spare files lie there.
#[tokio::test(flavor = "multi_thread")]
async fn a_replica_starts_with_no_byte_free() {
    let mut cluster = Cluster::start_with(small).await;
    let disk = cluster.directory().join("disk");
    let Some(_disk) = SmallDisk::new(&disk, 256 << 20) else {
        eprintln!("not tried: no file system may be mounted here");
        return;
    };
    cluster.topic("orders").await;
    let client = cluster.client().await;
    send(&client, "orders", 0..100, 1_000).await;
    let id = cluster.followers().await[0];
    cluster.wait_until_caught_up(id).await;
    cluster.kill(id).await;
    let data = disk.join("data");
    copy_directory(&cluster.plan().broker_directory(id), &data);
    let path = data.display().to_string();
    reconfigure(&cluster, id, &[("data_dir", path.as_str())]);
    fill(&disk.join("filler"));
    cluster.start_broker(id).unwrap();
    let full = |status: &proto::cluster::BrokerStatusResponse| {
        status
            .disk_free_bytes
            .is_some_and(|free| free < status.disk_needed_bytes)
    };
    cluster
        .wait_for_status(id, "says that it is full", full)
        .await;
    send(&client, "orders", 100..200, 1_000).await;
    std::fs::remove_file(disk.join("filler")).unwrap();
    cluster.wait_until_caught_up(id).await;
    expect_nothing_lost(&cluster, "orders", &(0..200).collect()).await;
    cluster.kill(id).await;
}
