//! Files that changed while their broker was down: a torn tail, a flipped byte.

use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use super::cluster::{Cluster, LEADER_PATIENCE};
use super::traffic::{Writer, expect_nothing_lost, read_all, send};

const BODY_BYTES: usize = 8 << 10;

/// The segments of a broker's log, oldest first.
fn segments(cluster: &Cluster, id: u64) -> Vec<PathBuf> {
    let data = cluster.plan().broker_directory(id);
    let mut found = Vec::new();
    for directory in std::fs::read_dir(data).unwrap().flatten() {
        if !directory.file_name().to_string_lossy().starts_with("log-") {
            continue;
        }
        for file in std::fs::read_dir(directory.path()).unwrap().flatten() {
            let path = file.path();
            let is_spare = file.file_name().to_string_lossy().starts_with("spare");
            if !is_spare && path.extension().is_some_and(|extension| extension == "seg") {
                found.push(path);
            }
        }
    }
    found.sort();
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
