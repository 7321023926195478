//! Opening: what it costs, and what it finds.

use std::path::Path;

use host::Disk;
use store::StoreError;

use crate::world::{World, append, entries, id, read_all};

/// Catches an open that reads the log. Counted in bytes, not in seconds: a hundred segments here
/// stand for the hundred of a log of ten gigabytes.
#[tokio::test]
async fn opening_reads_the_tail_and_little_else() {
    let world = World::new();
    let log = world.open().await;
    append(&log, entries(1, 0..3000, 100)).await.unwrap();
    let segments = log.segments().await.unwrap();
    assert!(segments.len() > 90);
    log.close().await;
    drop(log);
    let before = world.disk.counts();
    let log = world.open().await;
    let read = world.disk.counts().bytes_read - before.bytes_read;
    let tail = world.config.segment_bytes;
    // The tail is read a few times (scan, search behind it, written again), each index only in
    // front.
    assert!(
        read < segments.len() as u64 * 64 + 6 * tail + 4096,
        "{read} bytes"
    );
    let before = world.disk.counts();
    assert_eq!(log.segments().await.unwrap(), segments);
    assert_eq!(log.entry(5).await.unwrap().index, 5);
    let read = world.disk.counts().bytes_read - before.bytes_read;
    assert!(
        read < 3000 * 8 + segments.len() as u64 * 64 + 8192,
        "{read} bytes for the indexes"
    );
}

/// Catches a log that needs its index files, and one that believes a damaged one.
#[tokio::test]
async fn index_files_are_rebuilt() {
    let world = World::new();
    let log = world.open().await;
    append(&log, entries(1, 0..300, 100)).await.unwrap();
    let segments = log.segments().await.unwrap();
    log.close().await;
    drop(log);
    for (number, path) in world.files("idx").iter().enumerate() {
        match number % 3 {
            0 => world.memory.remove(path).unwrap(),
            1 => world.memory.flip_bit(path, 70, 3).unwrap(),
            _ => world.memory.flip_bit(path, 20, 3).unwrap(),
        }
    }
    let log = world.open().await;
    assert_eq!(read_all(&log).await, entries(1, 0..300, 100));
    assert_eq!(log.segments().await.unwrap(), segments);
    assert!(log.counters().indexes_rebuilt > 5);
    let (log, _) = world.reopen(log).await;
    assert_eq!(log.segments().await.unwrap(), segments);
    assert_eq!(log.counters().indexes_rebuilt, 0, "they were written again");
}

/// Catches files of an unfinished change that are taken for the log, or stay for ever.
#[tokio::test]
async fn leftovers_are_removed() {
    let world = World::new();
    let log = world.open().await;
    append(&log, entries(1, 0..50, 100)).await.unwrap();
    log.close().await;
    drop(log);
    let touch = |path: &str| {
        world
            .memory
            .create_dir_all(Path::new(path).parent().unwrap())
            .unwrap();
        world.memory.create(Path::new(path)).unwrap();
    };
    touch("/data/log-2/00000000000000000000.seg");
    touch("/data/log-0/synced");
    touch("/data/incoming/snapshot-9/00000000000000000000.seg");
    touch("/data/log-1/spare-000077");
    touch("/data/log-1/00000000000000000777.idx");
    let log = world.open().await;
    assert_eq!(log.last(), Some(id(1, 49)));
    for path in [
        "log-2",
        "log-0",
        "incoming",
        "log-1/spare-000077",
        "log-1/00000000000000000777.idx",
    ] {
        assert!(
            !world.memory.exists(&Path::new("/data").join(path)),
            "{path}"
        );
    }
}

/// Catches two processes writing one log.
#[tokio::test]
async fn a_log_is_open_once() {
    let world = World::new();
    let _log = world.open().await;
    assert!(matches!(
        world.try_open().await,
        Err(StoreError::Locked { .. })
    ));
}

/// Catches a torn write that is kept, and a whole one that is thrown away.
#[tokio::test]
async fn a_torn_tail_is_cut() {
    for torn_at in [1, 40, 100, 131] {
        let world = World::new();
        let log = world.open().await;
        append(&log, entries(1, 0..10, 100)).await.unwrap();
        log.close().await;
        drop(log);
        // The next record, written as far as `torn_at`; its mark never was.
        let path = world.files("seg").pop().unwrap();
        let whole = World::new();
        let other = whole.open().await;
        append(&other, entries(1, 0..11, 100)).await.unwrap();
        let mut bytes = vec![0; torn_at];
        let start = 64 + 10 * 132;
        let source = whole.memory.open(&whole.files("seg")[0]).unwrap();
        source.read_at(start, &mut bytes).unwrap();
        world
            .memory
            .open(&path)
            .unwrap()
            .write_at(start, &[bytes.into()])
            .unwrap();

        let (log, recovered) = world.try_open().await.unwrap();
        assert_eq!((recovered.last, recovered.damage), (Some(id(1, 9)), None));
        let header_is_whole = torn_at >= 32;
        assert_eq!(
            recovered.torn_bytes_cut,
            if header_is_whole { 132 } else { 0 }
        );
        append(&log, entries(2, 10..12, 100)).await.unwrap();
        let (log, recovered) = world.reopen(log).await;
        assert_eq!(
            (recovered.last, recovered.torn_bytes_cut),
            (Some(id(2, 11)), 0)
        );
        assert_eq!(read_all(&log).await.len(), 12);
    }
}

/// Catches entries that count as synced because the page cache shows them: after a failed sync it
/// lies, and syncing again does not help.
#[tokio::test]
async fn what_is_kept_after_a_failed_sync_is_really_on_the_disk() {
    for marked in [true, false] {
        let world = World::new();
        let log = world.open().await;
        append(&log, entries(1, 0..10, 100)).await.unwrap();
        let path = world.files("seg").pop().unwrap();
        world.memory.fail_next_sync(&path).unwrap();
        append(&log, entries(1, 10..12, 100)).await.unwrap_err();
        world.disk.kill();
        log.close().await;
        drop(log);
        if !marked {
            world.memory.remove(&path.with_file_name("synced")).unwrap();
        }
        // The process comes back; then the power goes.
        let log = world.open().await;
        let kept = log.positions().flushed;
        assert_eq!(kept, Some(id(1, 11)), "the page cache shows them");
        world.crash(log, 7).await;
        assert_eq!(world.open().await.last(), kept);
    }
}
