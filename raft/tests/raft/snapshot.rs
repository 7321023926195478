//! Snapshots: a follower for whom the log does not reach back far enough.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use crate::common::{Cluster, Line, PATIENCE, SEGMENT_BYTES, eventually, free_addresses};
use futures::stream;
use host::Host;
use proto::raft as wire;

/// Gives up everything below `floor` and waits until the leader's log begins above `above`.
async fn drop_log(cluster: &Cluster, floor: u64, above: u64) {
    let floor = cluster.propose(format!("floor {floor}")).await.log_id.index;
    cluster.settle(floor).await;
    for (id, replica) in &cluster.running {
        replica.group.checkpoint(PATIENCE).await.unwrap();
        eventually(&format!("replica {id} drops segments"), || {
            (replica.group.status().dropped > above).then_some(())
        })
        .await;
    }
}

/// Catches a follower that cannot come back once the log was dropped, or comes back without the
/// bodies that the tables point at, or without the segments after them.
async fn a_follower_catches_up_by_snapshot(mut cluster: Cluster) {
    cluster.start_all().await;
    let away = cluster.follower().await;
    let missed = cluster.fill(5, 1_000).await;
    cluster.settle(missed).await;
    cluster.stop(away).await;
    let last = cluster.fill(60, 4_000).await;
    drop_log(&cluster, last - 30, missed + 1).await;
    cluster.start(away).await;
    let replica = &cluster.running[&away];
    eventually("a snapshot is installed", || {
        (replica.group.status().snapshots_installed > 0).then_some(())
    })
    .await;
    let last = cluster.fill(10, 4_000).await;
    cluster.settle(last).await;
    let leader = cluster.leader().await;
    let log = cluster.running[&away].group.log();
    for index in last - 30..=last {
        let theirs = cluster.group(leader).log().entry(index).await.unwrap();
        assert_eq!(log.entry(index).await.unwrap(), theirs, "entry {index}");
    }
    // It keeps the data directory locked.
    drop(log);
    // It is a full member: it survives a restart, and the group survives with it.
    cluster.stop(away).await;
    cluster.start(away).await;
    let leader = cluster.leader().await;
    cluster
        .stop(if leader == away {
            cluster.follower().await
        } else {
            leader
        })
        .await;
    let last = cluster.fill(5, 100).await;
    cluster.settle(last).await;
    cluster.stop_all().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_follower_catches_up_by_snapshot_in_memory() {
    a_follower_catches_up_by_snapshot(Cluster::new(3)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_follower_catches_up_by_snapshot_on_the_default_engine() {
    let engine = store::default_engine(&Host::real(), &[]);
    a_follower_catches_up_by_snapshot(Cluster::with_engine(3, engine)).await;
}

/// Catches tables that cannot be made again from checkpoint and log.
#[tokio::test(flavor = "multi_thread")]
async fn deleted_tables_cost_only_a_replay() {
    let mut cluster = Cluster::three().await;
    cluster.fill(20, 500).await;
    let follower = cluster.follower().await;
    cluster.group(follower).checkpoint(PATIENCE).await.unwrap();
    cluster.fill(20, 500).await;
    cluster.stop(follower).await;
    let disk = Host::real().disk;
    let dir = cluster.data_dir(follower);
    for path in disk.list(&dir).unwrap() {
        if path
            .file_name()
            .unwrap()
            .to_string_lossy()
            .starts_with("tables-")
        {
            disk.remove_dir_all(&path).unwrap();
        }
    }
    cluster.start(follower).await;
    let last = cluster.fill(1, 100).await;
    cluster.settle(last).await;
}

fn file(name: &str, bytes: &[u8]) -> wire::SnapshotFile {
    wire::SnapshotFile {
        name: name.to_string(),
        size_bytes: bytes.len() as u64,
        crc32c: crc32c::crc32c(bytes),
        ..wire::SnapshotFile::default()
    }
}

fn chunk(id: &str, name: &str, position: u64, bytes: &[u8]) -> wire::FileChunk {
    wire::FileChunk {
        snapshot_id: id.to_string(),
        name: name.to_string(),
        position,
        data: bytes.to_vec().into(),
    }
}

fn wanted(wants: &wire::SnapshotWants) -> Vec<(&str, u64)> {
    wants
        .files
        .iter()
        .map(|want| (want.name.as_str(), want.position))
        .collect()
}

/// Catches a transfer that begins anew after every interruption, and bytes that are installed though
/// they arrived damaged.
#[tokio::test(flavor = "multi_thread")]
async fn an_interrupted_transfer_goes_on_where_it_broke_off() {
    let cluster = Cluster::three().await;
    let address = &cluster.member(1).peer_address;
    let options = host::network::ChannelOptions {
        secret: Some(host::testing::cluster_secret()),
        ..Default::default()
    };
    let channel = host::network::channel(address, &options).unwrap();
    let mut client = proto::raft::raft_client(channel);
    let (meta, table) = (b"what it is".as_slice(), vec![7_u8; SEGMENT_BYTES as usize]);
    let (meta_name, table_name) = ("checkpoint/META", "checkpoint/tables/1.sst");
    let offer = wire::SnapshotOffer {
        cluster_id: "test".into(),
        group: "group".into(),
        last: Some(wire::LogId {
            term: 99,
            index: 999,
        }),
        membership: br#"{"log_id":null,"membership":{"configs":[],"nodes":{}}}"#
            .as_slice()
            .into(),
        files: vec![file(meta_name, meta), file(table_name, &table)],
        snapshot_id: "99-999-a".into(),
        sender: Some(wire::Sender {
            broker_id: 9,
            replica_id: 9,
            incarnation: 9,
            ..wire::Sender::default()
        }),
        ..wire::SnapshotOffer::default()
    };
    let wants = client
        .offer_snapshot(offer.clone())
        .await
        .unwrap()
        .into_inner();
    assert_eq!(wanted(&wants), [(meta_name, 0), (table_name, 0)]);

    let half = table.len() / 2;
    let first = stream::iter([chunk("99-999-a", table_name, 0, &table[..half])]);
    client.send_file(first).await.unwrap();
    let whole = stream::iter([chunk("99-999-a", meta_name, 0, meta)]);
    client.send_file(whole).await.unwrap();
    let wants = client
        .offer_snapshot(offer.clone())
        .await
        .unwrap()
        .into_inner();
    assert_eq!(wanted(&wants), [(table_name, half as u64)]);
    let install = wire::InstallRequest {
        snapshot_id: "99-999-a".into(),
        ..Default::default()
    };
    assert!(
        client.install_snapshot(install).await.is_err(),
        "a file is not whole"
    );

    let mut rest = table[half..].to_vec();
    rest[0] ^= 1;
    let damaged = stream::iter([chunk("99-999-a", table_name, half as u64, &rest)]);
    assert!(client.send_file(damaged).await.is_err());
    let wants = client
        .offer_snapshot(offer.clone())
        .await
        .unwrap()
        .into_inner();
    assert_eq!(wanted(&wants), [(table_name, 0)]);

    let mut evil = offer;
    evil.snapshot_id = "evil".into();
    evil.files[0].name = "checkpoint/../../superblock".into();
    assert!(client.offer_snapshot(evil).await.is_err());
}

/// Bytes of a segment that takes a while to send.
const LARGE_SEGMENT_BYTES: u64 = 32 << 20;
/// Bytes of a body in it.
const LARGE_BODY_BYTES: usize = 512 << 10;
/// A connection breaks when so much of a segment went through: some pieces, and a part of one.
const BREAK_AFTER_BYTES: u64 = 13 << 19;
/// So often at most: a transfer that begins anew each time has sent more than two segments by then.
const BREAKS_MAX: u32 = 8;
/// And so often at least.
const BREAKS_MIN: u32 = 3;

/// Catches a segment that is sent from its beginning after each interruption: over a line that breaks sooner than a segment needs
/// it would never arrive.
#[tokio::test(flavor = "multi_thread")]
async fn a_segment_arrives_over_a_line_that_breaks_again_and_again() {
    let mut cluster = Cluster::new(3);
    cluster.adjust = |config| config.log.segment_bytes = LARGE_SEGMENT_BYTES;
    let (away, behind) = (3, free_addresses(1).remove(0));
    let line = Line::new(&cluster.member(away).peer_address, &behind).await;
    cluster.start(1).await;
    cluster.start(2).await;
    cluster.start_behind(away, &behind).await;
    let missed = cluster.fill(5, 1_000).await;
    cluster.settle(missed).await;
    cluster.stop(away).await;
    // The first segment goes, the second one is full: it must be sent.
    let per_segment = LARGE_SEGMENT_BYTES as usize / LARGE_BODY_BYTES;
    cluster.fill(2 * per_segment, LARGE_BODY_BYTES).await;
    drop_log(&cluster, missed + per_segment as u64, missed + 1).await;
    let before = line.carried();
    line.break_after(BREAK_AFTER_BYTES, BREAKS_MAX);
    cluster.start_behind(away, &behind).await;
    let replica = &cluster.running[&away];
    eventually("a snapshot is installed", || {
        (replica.group.status().snapshots_installed > 0).then_some(())
    })
    .await;
    let (carried, breaks) = (line.carried() - before, BREAKS_MAX - line.breaks_left());
    assert!(carried > LARGE_SEGMENT_BYTES, "{carried} bytes were sent");
    assert!(breaks >= BREAKS_MIN, "the line broke {breaks} times");
    assert!(
        carried < 2 * LARGE_SEGMENT_BYTES,
        "{carried} bytes were sent, the line broke {breaks} times"
    );
    let last = cluster.fill(5, 100).await;
    cluster.settle(last).await;
    cluster.stop_all().await;
}

/// Catches a checkpoint that a crash left ahead of the log being taken for the truth.
#[tokio::test(flavor = "multi_thread")]
async fn a_checkpoint_ahead_of_the_log_is_removed() {
    let mut cluster = Cluster::three().await;
    let last = cluster.fill(10, 100).await;
    let follower = cluster.follower().await;
    cluster.settle(last).await;
    cluster.group(follower).checkpoint(PATIENCE).await.unwrap();
    cluster.stop(follower).await;
    // The checkpoint of another replica that is much further, as a snapshot would bring it.
    let last = cluster.fill(10, 100).await;
    let leader = cluster.leader().await;
    let made = cluster.group(leader).checkpoint(PATIENCE).await.unwrap();
    assert!(made >= last);
    let name = format!("checkpoints/{made:020}");
    copy(
        &cluster.data_dir(leader).join(&name),
        &cluster.data_dir(follower).join(&name),
    );
    cluster.start(follower).await;
    let last = cluster.fill(1, 100).await;
    cluster.settle(last).await;
}

fn copy(from: &std::path::Path, to: &std::path::Path) {
    let disk = Host::real().disk;
    disk.create_dir_all(to).unwrap();
    for path in disk.list(from).unwrap() {
        let target = to.join(path.file_name().unwrap());
        match disk.list(&path) {
            Ok(_) => copy(&path, &target),
            Err(_) => disk.link(&path, &target).unwrap(),
        }
    }
}
