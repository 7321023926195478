//! Files that changed while their broker was down: a torn tail, a flipped byte, a mark that says nothing, rotten tables.

use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::cluster::{Cluster, LEADER_PATIENCE, PATIENCE};
use super::traffic::{Writer, expect_nothing_lost, read_all, send};

const BODY_BYTES: usize = 8 << 10;

/// Several times as long as an election takes.
const ELECTIONS: Duration = Duration::from_secs(8);

/// The files in those directories of a broker whose names begin so, sorted.
fn files(cluster: &Cluster, id: u64, directories: &str) -> Vec<PathBuf> {
    let data = cluster.plan().broker_directory(id);
    let mut found = Vec::new();
    for directory in std::fs::read_dir(data).unwrap().flatten() {
        let name = directory.file_name();
        if name.to_string_lossy().starts_with(directories) {
            let files = std::fs::read_dir(directory.path()).unwrap().flatten();
            found.extend(files.map(|file| file.path()));
        }
    }
    found.sort();
    found
}

/// The segments of a broker's log, oldest first.
fn segments(cluster: &Cluster, id: u64) -> Vec<PathBuf> {
    let mut found = files(cluster, id, "log-");
    found.retain(|path| {
        let name = path.file_name().unwrap().to_string_lossy();
        !name.starts_with("spare") && name.ends_with(".seg")
    });
    found
}

fn edit(path: &Path, change: impl FnOnce(&mut Vec<u8>)) {
    let mut file = std::fs::OpenOptions::new()
        .read(true)
        .write(true)
        .open(path)
        .unwrap();
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes).unwrap();
    change(&mut bytes);
    file.seek(SeekFrom::Start(0)).unwrap();
    file.write_all(&bytes).unwrap();
}

/// Where the written part of a preallocated file ends.
fn written(bytes: &[u8]) -> usize {
    bytes
        .iter()
        .rposition(|byte| *byte != 0)
        .map_or(0, |last| last + 1)
}

/// Catches a replica that takes half a record for a whole one, or refuses to start for it.
#[tokio::test(flavor = "multi_thread")]
async fn a_torn_tail_is_cut_and_the_replica_goes_on() {
    let mut cluster = Cluster::start().await;
    cluster.topic("orders").await;
    let writer = Writer::start(&cluster, "orders", 100).await;
    writer.wait_for_acks(200).await;
    let id = cluster.followers().await[0];
    cluster.kill(id).await;
    let active = segments(&cluster, id).pop().unwrap();
    edit(&active, |bytes| {
        // The first half of a record that was being written when the power went.
        let end = written(bytes);
        let half = bytes[end.saturating_sub(300)..end].to_vec();
        bytes[end..end + half.len()].copy_from_slice(&half);
    });
    cluster.start_broker(id).unwrap();
    cluster.wait_until_caught_up(id).await;
    // It counts for the majority again.
    let other = cluster
        .followers()
        .await
        .into_iter()
        .find(|other| *other != id)
        .unwrap();
    cluster.kill(other).await;
    writer.wait_for_acks(100).await;
    let acked = writer.finish().await;
    expect_nothing_lost(&cluster, "orders", &acked).await;
}

/// Catches a damaged message that is delivered, and a replica that never becomes whole again.
#[tokio::test(flavor = "multi_thread")]
async fn a_flipped_byte_in_a_sealed_segment_is_repaired_from_the_peers() {
    let mut cluster = Cluster::start_small().await;
    cluster.topic("orders").await;
    let client = cluster.client().await;
    send(&client, "orders", 0..1_000, BODY_BYTES).await;
    let expected = read_all(&client, "orders").await;
    let id = cluster.followers().await[0];
    cluster.wait_until_caught_up(id).await;
    cluster.kill(id).await;
    let sealed = segments(&cluster, id);
    assert!(sealed.len() > 3, "too few segments: {sealed:?}");
    edit(&sealed[1], |bytes| {
        let middle = written(bytes) / 2;
        bytes[middle] ^= 0x10;
    });
    cluster.start_broker(id).unwrap();
    cluster.wait_until_caught_up(id).await;
    let led = cluster.led().await;
    if led.broker_id != id {
        client.admin().transfer_leader(id).await.unwrap();
        cluster
            .wait_for_leader_after(led.term, LEADER_PATIENCE)
            .await
            .unwrap();
    }
    assert_eq!(read_all(&client, "orders").await, expected);
    cluster
        .wait_for_status(id, "repaired the segment", |status| {
            status.segments_repaired > 0
        })
        .await;
    assert_eq!(read_all(&client, "orders").await, expected);
}

/// Catches an outage without end where one machine is dead and another one finds a flipped bit in its log: the third one has all
/// that was promised, and needs a vote.
#[tokio::test(flavor = "multi_thread")]
async fn one_dead_machine_and_one_flipped_byte_are_no_outage() {
    let mut cluster = Cluster::start().await;
    cluster.topic("orders").await;
    let client = cluster.client().await;
    send(&client, "orders", 0..500, 100).await;
    let led = cluster.led().await;
    let followers = cluster.followers().await;
    let (dead, flipped) = (followers[0], followers[1]);
    cluster.wait_until_caught_up(flipped).await;
    for id in [dead, flipped, led.broker_id] {
        cluster.kill(id).await;
    }
    let active = segments(&cluster, flipped).pop().unwrap();
    edit(&active, |bytes| {
        let middle = written(bytes) / 2;
        bytes[middle] ^= 0x10;
    });
    cluster.start_broker(flipped).unwrap();
    cluster.start_broker(led.broker_id).unwrap();
    cluster
        .wait_for_leader_after(led.term, LEADER_PATIENCE)
        .await
        .unwrap();
    cluster.wait_until_caught_up(flipped).await;
    send(&client, "orders", 500..510, 100).await;
    expect_nothing_lost(&cluster, "orders", &(0..510).collect()).await;
}

/// Catches a replica that cuts what it had promised, and votes without it.
#[tokio::test(flavor = "multi_thread")]
async fn a_flipped_byte_in_the_synced_tail_is_repaired_before_the_replica_votes() {
    let mut cluster = Cluster::start().await;
    cluster.topic("orders").await;
    let client = cluster.client().await;
    send(&client, "orders", 0..500, 100).await;
    let id = cluster.followers().await[0];
    cluster.wait_until_caught_up(id).await;
    cluster.kill(id).await;
    let active = segments(&cluster, id).pop().unwrap();
    edit(&active, |bytes| {
        let middle = written(bytes) / 2;
        bytes[middle] ^= 0x10;
    });
    cluster.start_broker(id).unwrap();
    cluster.wait_until_caught_up(id).await;
    expect_nothing_lost(&cluster, "orders", &(0..500).collect()).await;
}

/// Catches a replica that takes a mark which says nothing for "nothing was synced", and goes on with what is left of its log:
/// it and whoever was behind would agree without what was acknowledged.
#[tokio::test(flavor = "multi_thread")]
async fn a_replica_that_lost_its_mark_and_its_tail_is_repaired() {
    let mut cluster = Cluster::start().await;
    cluster.topic("orders").await;
    let client = cluster.client().await;
    let followers = cluster.followers().await;
    let (id, behind) = (followers[0], followers[1]);
    send(&client, "orders", 0..100, 100).await;
    // From here on only the leader and the one that will be damaged have what is acknowledged.
    cluster.kill(behind).await;
    send(&client, "orders", 100..300, 100).await;
    cluster.wait_until_caught_up(id).await;
    let led = cluster.led().await;
    cluster.kill(id).await;
    cluster.kill(led.broker_id).await;
    let active = segments(&cluster, id).pop().unwrap();
    std::fs::File::create(active.with_file_name("synced")).unwrap();
    edit(&active, |bytes| {
        let end = written(bytes);
        bytes[end / 2..end].fill(0);
    });
    cluster.start_broker(id).unwrap();
    cluster.start_broker(behind).unwrap();
    let phase = |status: &proto::cluster::BrokerStatusResponse| status.state == "repairing";
    cluster
        .wait_for_status(id, "waits for somebody who knows", phase)
        .await;
    assert!(
        cluster.wait_for_leader(ELECTIONS).await.is_err(),
        "a group of a damaged one and one that is behind has a leader"
    );
    cluster.start_broker(led.broker_id).unwrap();
    cluster.wait_for_leader(PATIENCE).await.unwrap();
    cluster.wait_until_caught_up(id).await;
    // With its damage repaired it counts for a majority again, and knows all.
    let led = cluster.led().await;
    let other = [1, 2, 3]
        .into_iter()
        .find(|other| *other != id && *other != led.broker_id);
    cluster.kill(other.unwrap()).await;
    expect_nothing_lost(&cluster, "orders", &(0..300).collect()).await;
}

/// Catches a replica that ends at every start because a block of its tables rotted, and one that serves what it reads there.
#[tokio::test(flavor = "multi_thread")]
async fn tables_that_rotted_are_made_again() {
    let mut cluster = Cluster::start().await;
    cluster.topic("orders").await;
    let client = cluster.client().await;
    send(&client, "orders", 0..500, 100).await;
    let id = cluster.followers().await[0];
    cluster.wait_until_caught_up(id).await;
    // An orderly end writes what the tables hold in memory.
    cluster.broker(id).end(PATIENCE).await;
    let mut tables = files(&cluster, id, "tables-");
    tables.retain(|path| path.extension().is_some_and(|extension| extension == "sst"));
    assert!(!tables.is_empty(), "no tables on the disk");
    for table in &tables {
        // All of a table but its foot, which is read when it is opened.
        edit(table, |bytes| {
            let end = bytes.len() - 1_000.min(bytes.len());
            bytes[..end].iter_mut().for_each(|byte| *byte ^= 0x10);
        });
    }
    cluster.start_broker(id).unwrap();
    cluster.wait_until_caught_up(id).await;
    let led = cluster.led().await;
    if led.broker_id != id {
        client.admin().transfer_leader(id).await.unwrap();
        cluster
            .wait_for_leader_after(led.term, LEADER_PATIENCE)
            .await
            .unwrap();
    }
    expect_nothing_lost(&cluster, "orders", &(0..500).collect()).await;
}
