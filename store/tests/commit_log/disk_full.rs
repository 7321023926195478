//! A full disk refuses before anything is written, and is not the end of the log.

use std::io::ErrorKind;
use std::time::Duration;

use host::testing::{Fault, Operation};
use store::{Room, StoreError};

use crate::world::{World, append, entries, id};

/// Catches a log that refuses the small entries which make room again, although they need none: its files are there.
#[tokio::test]
async fn below_the_reserve_clients_are_refused_and_what_fits_into_files_is_taken() {
    let mut world = World::new();
    world.config.reserve_bytes = 1000;
    let log = world.open().await;
    append(&log, entries(1, 0..5, 10)).await.unwrap();
    drop(log);
    for (free, room) in [
        (1000, Room::Everything),
        (999, Room::Keeping),
        (874, Room::Upkeep),
        (749, Room::Nothing),
        (0, Room::Nothing),
    ] {
        // Opened anew, so that no earlier look at the free space counts.
        world.disk.set_free_bytes(Some(free));
        let log = loop {
            match world.try_open().await {
                Ok((log, _)) => break log,
                Err(StoreError::Locked { .. }) => tokio::task::yield_now().await,
                Err(error) => panic!("{error}"),
            }
        };
        let next = log.last().unwrap().index + 1;
        assert_eq!(log.room().unwrap(), room, "{free} bytes free");
        assert!(log.has_place(1, 10), "{free} bytes free");
        append(&log, entries(1, next..next + 1, 10)).await.unwrap();
        log.close().await;
    }
    world.disk.set_free_bytes(None);
}

/// Catches an append that fills the disk to the last byte, and a log that stays shut afterwards.
#[tokio::test]
async fn below_half_the_reserve_no_file_is_made() {
    let mut world = World::new();
    world.config.reserve_bytes = 1000;
    let log = world.open().await;
    append(&log, entries(1, 0..5, 10)).await.unwrap();
    world.disk.set_free_bytes(Some(499));
    let mut next = 5;
    let refused = loop {
        let has_place = log.has_place(1, 1000);
        match append(&log, entries(1, next..next + 1, 1000)).await {
            Ok(()) => next += 1,
            Err(error) => {
                assert!(!has_place, "it was said that there is a place");
                break error;
            }
        }
        assert!(next < 500, "never full");
    };
    assert!(refused.is_retriable() && matches!(refused, StoreError::DiskFull { .. }));
    assert_eq!(log.last(), Some(id(1, next - 1)), "nothing was appended");
    world.disk.set_free_bytes(None);
    append(&log, entries(1, next..next + 1, 1000))
        .await
        .unwrap();
    assert_eq!(log.last(), Some(id(1, next)));
}

/// Catches a start that fails for want of room while a file lies there that nobody needs yet.
#[tokio::test]
async fn a_full_disk_gives_up_spare_files() {
    let mut world = World::new();
    world.config.reserve_bytes = 1000;
    let spares = |world: &World| {
        let is_spare = |path: &std::path::PathBuf| path.to_string_lossy().contains("spare-");
        let dir = world.files("seg")[0].parent().unwrap().to_path_buf();
        let files = host::Disk::list(&world.memory, &dir).unwrap();
        files.into_iter().filter(is_spare).count()
    };
    let log = world.open().await;
    append(&log, entries(1, 0..5, 10)).await.unwrap();
    let made = async {
        while spares(&world) == 0 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), made)
        .await
        .expect("a file is made ahead of need");
    world.disk.set_free_bytes(Some(400));
    log.close().await;
    drop(log);
    let log = world.open().await;
    assert_eq!(spares(&world), 0, "at a start");
    world.disk.set_free_bytes(None);
    append(&log, entries(1, 5..6, 10)).await.unwrap();
    assert_eq!(log.last(), Some(id(1, 5)));
}

/// Catches a segment that cannot be made being taken for a broken disk: nothing was promised.
#[tokio::test]
async fn a_segment_that_finds_no_room_refuses_the_append() {
    let world = World::new();
    let log = world.open().await;
    append(&log, entries(1, 0..5, 10)).await.unwrap();
    world.disk.inject(Fault::always(
        Operation::Preallocate,
        "spare",
        ErrorKind::StorageFull,
    ));
    let mut next = 5;
    let refused = loop {
        match append(&log, entries(1, next..next + 1, 1000)).await {
            Ok(()) => next += 1,
            Err(error) => break error,
        }
        assert!(next < 50, "never full");
    };
    assert!(matches!(refused, StoreError::DiskFull { .. }), "{refused}");
    // An append that needs several segments takes all of them or none.
    assert!(
        append(&log, entries(1, next..next + 20, 1000))
            .await
            .is_err()
    );
    assert_eq!(log.last(), Some(id(1, next - 1)));
    world.disk.heal();
    append(&log, entries(1, next..next + 20, 1000))
        .await
        .unwrap();
    let (log, _) = world.reopen(log).await;
    assert_eq!(log.last(), Some(id(1, next + 19)));
}

/// Catches a write that finds the disk full and is tried again: some of it may be on the disk.
#[tokio::test]
async fn no_room_in_the_middle_of_a_write_ends_the_log() {
    let world = World::new();
    let log = world.open().await;
    append(&log, entries(1, 0..5, 10)).await.unwrap();
    world.disk.inject(Fault::once(
        Operation::Write,
        "spare",
        ErrorKind::StorageFull,
    ));
    world.disk.inject(Fault::once(
        Operation::Write,
        ".seg",
        ErrorKind::StorageFull,
    ));
    assert!(matches!(
        append(&log, entries(1, 5..6, 10)).await,
        Err(StoreError::Io { .. })
    ));
    assert!(matches!(
        append(&log, entries(1, 6..7, 10)).await,
        Err(StoreError::Io { .. })
    ));
}
