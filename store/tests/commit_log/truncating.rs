//! Truncating, purging and dropping.

use store::StoreError;

use crate::world::{World, append, contents, entries, entry, id, read_all};

/// Catches truncated entries that come back, in memory, on the disk, or after a restart; and
/// segments that end elsewhere than on a replica that never had the truncated entries.
#[tokio::test]
async fn what_is_taken_back_does_not_return() {
    for keep in [0_u64, 1, 5, 38, 39, 40, 41, 60, 77, 78, 79, 99] {
        let world = World::new();
        let log = world.open().await;
        append(&log, entries(5, 0..100, 68)).await.unwrap();
        log.truncate_after(keep.checked_sub(1)).await.unwrap();
        assert_eq!(log.last(), keep.checked_sub(1).map(|last| id(5, last)));
        assert!(matches!(
            log.entry(keep).await,
            Err(StoreError::OutOfRange { .. })
        ));
        // Same sizes, and a term between: old records stand exactly behind the new ones.
        append(&log, entries(5, keep..keep + 3, 68)).await.unwrap();
        let (log, recovered) = world.reopen(log).await;
        assert_eq!(recovered.last, Some(id(5, keep + 2)), "keep {keep}");
        assert_eq!(read_all(&log).await, entries(5, 0..keep + 3, 68));
        append(&log, entries(6, keep + 3..150, 68)).await.unwrap();

        let other = World::new();
        let fresh = other.open().await;
        append(&fresh, entries(5, 0..keep + 3, 68)).await.unwrap();
        append(&fresh, entries(6, keep + 3..150, 68)).await.unwrap();
        assert_eq!(contents(&log).await, contents(&fresh).await, "keep {keep}");
    }
}

/// Catches an old record that continues a log whose entries before it were replaced by ones of an
/// older term: no leader ever had that log.
#[tokio::test]
async fn old_records_do_not_continue_entries_of_an_older_term() {
    let world = World::new();
    let log = world.open().await;
    append(&log, entries(2, 0..10, 68)).await.unwrap();
    append(&log, entries(4, 10..20, 68)).await.unwrap();
    log.truncate_after(Some(9)).await.unwrap();
    append(&log, entries(3, 10..12, 68)).await.unwrap();
    world.crash(log, 1).await;
    assert_eq!(world.open().await.last(), Some(id(3, 11)));
}

/// Catches a truncation that overtakes entries on their way to the disk.
#[tokio::test]
async fn truncating_waits_for_what_is_on_its_way() {
    let world = World::new();
    let log = world.open().await;
    log.append(entries(1, 0..50, 100), Box::new(|result| result.unwrap()))
        .unwrap();
    log.truncate_after(Some(9)).await.unwrap();
    append(&log, entries(2, 10..12, 100)).await.unwrap();
    let (log, _) = world.reopen(log).await;
    assert_eq!(log.last(), Some(id(2, 11)));
}

/// Catches a floor that is forgotten, goes back, or lets committed entries be taken back.
#[tokio::test]
async fn the_floor_only_rises_and_holds() {
    let world = World::new();
    let log = world.open().await;
    append(&log, entries(1, 0..100, 100)).await.unwrap();
    assert!(matches!(
        log.purge_to(id(1, 100)).await,
        Err(StoreError::Refused { .. })
    ));
    log.purge_to(id(1, 50)).await.unwrap();
    log.purge_to(id(1, 40)).await.unwrap();
    assert_eq!(log.purged(), Some(id(1, 50)));
    assert!(matches!(
        log.truncate_after(Some(49)).await,
        Err(StoreError::Refused { .. })
    ));
    assert!(matches!(
        log.drop_to(52).await,
        Err(StoreError::Refused { .. })
    ));
    let (log, _) = world.reopen(log).await;
    assert_eq!(log.purged(), Some(id(1, 50)));
    assert_eq!(
        log.entry(3).await.unwrap(),
        entry(1, 3, 100),
        "purging deletes nothing"
    );
    log.truncate_after(Some(50)).await.unwrap();
    assert_eq!(log.last(), Some(id(1, 50)));
}

/// Catches dropping half a segment, dropping above the floor, and a dropped file that is not
/// reused.
#[tokio::test]
async fn dropping_takes_whole_segments_and_reuses_their_files() {
    let world = World::new();
    let mut log = world.open().await;
    let (mut next, mut recycled) = (0, 0);
    for round in 0..20 {
        append(&log, entries(1, next..next + 100, 100))
            .await
            .unwrap();
        next += 100;
        log.purge_to(id(1, next - 30)).await.unwrap();
        let before = contents(&log).await;
        let bytes = log.drop_to(next - 29).await.unwrap();
        let after = contents(&log).await;
        assert!(after[0].first_index <= next - 29 && after[0].last_index >= next - 30);
        let gone: u64 = before[..before.len() - after.len()]
            .iter()
            .map(|segment| segment.len)
            .sum();
        assert_eq!(
            (bytes, log.positions().dropped),
            (gone, after[0].first_index)
        );
        assert!(matches!(
            log.entry(0).await,
            Err(StoreError::OutOfRange { .. })
        ));
        assert_eq!(
            read_all(&log).await,
            entries(1, after[0].first_index..next, 100)
        );
        recycled += log.counters().segments_recycled;
        if round % 5 == 4 {
            log = world.reopen(log).await.0;
        }
    }
    assert!(recycled > 10, "{recycled}");
    assert!(world.files("seg").len() <= 4, "{:?}", world.files("seg"));
    assert_eq!(world.files("idx").len(), world.files("seg").len() - 1);
}

/// Catches a log that cannot go on when everything in it was dropped or taken back.
#[tokio::test]
async fn an_emptied_log_goes_on_behind_its_floor() {
    let world = World::new();
    let log = world.open().await;
    append(&log, entries(1, 0..100, 100)).await.unwrap();
    log.purge_to(id(1, 60)).await.unwrap();
    log.drop_to(61).await.unwrap();
    log.truncate_after(Some(60)).await.unwrap();
    let (log, _) = world.reopen(log).await;
    assert_eq!(
        (log.last(), log.purged()),
        (Some(id(1, 60)), Some(id(1, 60)))
    );
    append(&log, entries(2, 61..70, 100)).await.unwrap();
    assert_eq!(log.entry(61).await.unwrap(), entry(2, 61, 100));

    let world = World::new();
    let log = world.open().await;
    append(&log, entries(1, 0..100, 100)).await.unwrap();
    log.truncate_after(None).await.unwrap();
    let (log, recovered) = world.reopen(log).await;
    assert_eq!((log.last(), recovered.last), (None, None));
    append(&log, entries(1, 0..3, 100)).await.unwrap();
    assert_eq!(read_all(&log).await.len(), 3);
}
