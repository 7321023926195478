//! Appending: readable at once, durable when answered, answered in order, one sync for a group.

use std::io::ErrorKind;

use host::testing::{Fault, Operation};
use store::{CommitLog, StoreError};

use crate::world::{Acknowledged, World, append, contents, entries, entry, id, read_all, roll};

/// Catches entries that cannot be read before they are synced, or read differently after.
#[tokio::test]
async fn entries_are_readable_at_once_and_after_a_restart() {
    let world = World::new();
    let log = world.open().await;
    let written = entries(1, 0..200, 100);
    let acknowledged = Acknowledged::default();
    for (number, entry) in written.iter().enumerate() {
        let number = number as u64;
        log.append(vec![entry.clone()], acknowledged.done(number, number + 1))
            .unwrap();
        assert_eq!(
            log.read(number, number + 1, 0).await.unwrap(),
            std::slice::from_ref(entry)
        );
        assert_eq!(log.last(), Some(id(1, number)));
    }
    assert_eq!(read_all(&log).await, written);
    let (log, recovered) = world.reopen(log).await;
    assert_eq!(
        acknowledged.order(),
        (0..200).collect::<Vec<_>>(),
        "answered in order"
    );
    assert_eq!(
        (recovered.last, recovered.torn_bytes_cut),
        (Some(id(1, 199)), 0)
    );
    assert_eq!(read_all(&log).await, written);
    assert_eq!(log.entry(17).await.unwrap(), written[17]);
    assert_eq!(log.entry(17).await.unwrap(), written[17], "from the cache");
    assert_eq!(log.term_at(17).await.unwrap(), 1);
    assert!(matches!(
        log.entry(200).await,
        Err(StoreError::OutOfRange { index: 200, .. })
    ));
}

/// Catches a sync for each append: the throughput of the whole system hangs on this.
#[tokio::test]
async fn what_waits_shares_a_sync() {
    let world = World::new();
    let log = world.open().await;
    // The flusher has not run yet when all of these are queued.
    for index in 0..20 {
        log.append(vec![entry(1, index, 10)], Box::new(|_| {}))
            .unwrap();
    }
    append(&log, vec![entry(1, 20, 10)]).await.unwrap();
    let counters = log.counters();
    assert_eq!((counters.entries, counters.syncs), (21, 1));
}

/// Catches a group that is larger than allowed, and an entry that is larger than a segment and
/// never finds a place.
#[tokio::test]
async fn large_entries_get_groups_and_segments_of_their_own() {
    let world = World::new();
    let log = world.open().await;
    let written: Vec<_> = (0..12)
        .map(|index| entry(1, index, 3000 * (index as usize % 3)))
        .collect();
    append(&log, written.clone()).await.unwrap();
    assert_eq!(read_all(&log).await, written);
    let segments = contents(&log).await;
    let (log, _) = world.reopen(log).await;
    assert_eq!(read_all(&log).await, written);
    assert_eq!(contents(&log).await, segments);
    for segment in segments
        .iter()
        .filter(|segment| segment.len > world.config.segment_bytes)
    {
        assert_eq!(segment.first_index, segment.last_index, "{segment:?}");
    }
    assert!(log.counters().entries == 0 && segments.len() > 4);
}

/// Catches segments that depend on how entries were grouped, or on restarts: replicas would differ.
#[tokio::test]
async fn replicas_hold_identical_segments() {
    let written: Vec<_> = (0..150)
        .map(|index| match index % 40 {
            3 => roll(1, index),
            _ => entry(1, index, (index as usize * 37) % 900),
        })
        .collect();
    let mut all = Vec::new();
    for batch in [1, 7, 150] {
        let world = World::new();
        let mut log = world.open().await;
        for chunk in written.chunks(batch) {
            append(&log, chunk.to_vec()).await.unwrap();
            if batch == 7 {
                log = world.reopen(log).await.0;
            }
        }
        all.push(contents(&log).await);
    }
    assert!(all[0].len() > 10);
    assert_eq!(all[0], all[1]);
    assert_eq!(all[0], all[2]);
}

/// Catches a segment that nobody can end before it is full, and one that is ended where none was asked to be.
#[tokio::test]
async fn a_roll_begins_a_segment() {
    let world = World::new();
    let log = world.open().await;
    // The first entry of a log begins a segment anyway; two rolls, one after the other, begin two.
    let written = vec![
        roll(1, 0),
        entry(1, 1, 10),
        roll(1, 2),
        roll(1, 3),
        entry(1, 4, 10),
    ];
    for one in &written {
        append(&log, vec![one.clone()]).await.unwrap();
    }
    assert_eq!(log.tail_begin(), Some(3));
    let begins = async |log: &CommitLog| -> Vec<u64> {
        let segments = contents(log).await;
        segments.iter().map(|segment| segment.first_index).collect()
    };
    assert_eq!(begins(&log).await, [0, 2, 3]);
    let (log, _) = world.reopen(log).await;
    assert_eq!(begins(&log).await, [0, 2, 3]);
    assert_eq!(read_all(&log).await, written);
    log.purge_to(id(1, 2)).await.unwrap();
    assert!(log.drop_to(3).await.unwrap() > 0, "both are full");
    assert_eq!(log.positions().dropped, 3);
}

/// Catches a hole in the log, and terms that go back.
#[tokio::test]
async fn entries_must_follow_each_other() {
    let world = World::new();
    let log = world.open().await;
    append(&log, entries(3, 0..5, 10)).await.unwrap();
    for wrong in [entry(3, 4, 10), entry(3, 6, 10), entry(2, 5, 10)] {
        let refused = log.append(vec![wrong], Box::new(|_| {}));
        assert!(
            matches!(refused, Err(StoreError::OutOfOrder { expected: 5, .. })),
            "{refused:?}"
        );
    }
    let torn = vec![entry(3, 5, 10), entry(3, 7, 10)];
    assert!(log.append(torn, Box::new(|_| {})).is_err());
    append(&log, entries(3, 5..6, 10)).await.unwrap();
    assert_eq!(read_all(&log).await.len(), 6);
}

/// Catches a queue without a bound.
#[tokio::test]
async fn appends_are_refused_when_too_much_waits() {
    let mut world = World::new();
    world.config.pending_bytes_max = 4000;
    let log = world.open().await;
    log.append(entries(1, 0..3, 1000), Box::new(|_| {}))
        .unwrap();
    let refused = log.append(entries(1, 3..4, 1000), Box::new(|_| {}));
    assert!(refused.is_err_and(|error| error.is_retriable()));
    append(&log, vec![]).await.unwrap();
    append(&log, entries(1, 3..13, 1000))
        .await
        .expect("any size, when nothing else waits");
}

/// Catches a failed sync that is tried again, or an append that is answered well after one.
#[tokio::test]
async fn a_failed_sync_ends_the_log() {
    for operation in [Operation::Sync, Operation::Write] {
        let world = World::new();
        let log = world.open().await;
        append(&log, entries(1, 0..5, 10)).await.unwrap();
        world
            .disk
            .inject(Fault::once(operation, ".seg", ErrorKind::Other).after(0));
        world
            .disk
            .inject(Fault::once(operation, "spare", ErrorKind::Other).after(0));
        let error = append(&log, entries(1, 5..6, 10)).await.unwrap_err();
        assert!(matches!(error, StoreError::Io { .. }), "{error}");
        assert!(!error.is_retriable());
        let again = log.append(entries(1, 6..7, 10), Box::new(|_| {}));
        assert!(
            matches!(again, Err(StoreError::Io { .. })),
            "the disk works again, the log does not"
        );
        assert!(log.truncate_after(Some(2)).await.is_err());
        assert!(log.purge_to(id(1, 2)).await.is_err() || log.purged().is_some());
        assert!(matches!(log.failed().await, StoreError::Io { .. }));
        assert_eq!(log.positions().flushed, Some(id(1, 4)));
        assert_eq!(read_all(&log).await.len(), 6, "reading goes on");
    }
}

/// Catches a log that never ends, and one that forgets what was appended just before.
#[tokio::test]
async fn closing_writes_what_is_appended() {
    let world = World::new();
    let log = world.open().await;
    let acknowledged = Acknowledged::default();
    log.append(entries(1, 0..5, 10), acknowledged.done(0, 5))
        .unwrap();
    log.close().await;
    assert_eq!(acknowledged.end(), 5);
    let refused = log.append(entries(1, 5..6, 10), Box::new(|_| {}));
    assert!(matches!(refused, Err(StoreError::Closed)));
    assert!(
        matches!(world.try_open().await, Err(StoreError::Locked { .. })),
        "still held"
    );
    drop(log);
    assert_eq!(world.open().await.last(), Some(id(1, 4)));
}

/// Catches a callback's bug that silences the log: appends that are never answered, without an error.
#[tokio::test]
async fn a_callback_that_panics_ends_the_log() {
    let world = World::new();
    let log = world.open().await;
    append(&log, entries(1, 0..5, 10)).await.unwrap();
    log.append(
        entries(1, 5..6, 10),
        Box::new(|_| panic!("a bug, on purpose")),
    )
    .unwrap();
    assert!(matches!(log.failed().await, StoreError::Closed));
    assert!(log.append(entries(1, 6..7, 10), Box::new(|_| {})).is_err());
    assert!(log.truncate_after(Some(3)).await.is_err());
}
