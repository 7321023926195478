//! A full disk refuses before anything is written, and is not the end of the log.

use std::io::ErrorKind;

use host::testing::{Fault, Operation};
use store::{Room, StoreError};

use crate::world::{World, append, entries, id};

/// Catches an append that fills the disk to the last byte, and a log that stays shut afterwards.
#[tokio::test]
async fn below_the_reserve_clients_are_refused_and_below_half_of_it_everybody() {
    let mut world = World::new();
    world.config.reserve_bytes = 1000;
    let log = world.open().await;
    append(&log, entries(1, 0..5, 10)).await.unwrap();
    drop(log);
    for (free, room, appends) in [
        (1000, Room::Everything, true),
        (999, Room::Keeping, true),
        (874, Room::Upkeep, true),
        (749, Room::Nothing, true),
        (499, Room::Nothing, false),
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
        let result = append(&log, entries(1, next..next + 1, 10)).await;
        assert_eq!(result.is_ok(), appends, "{free} bytes free");
        if let Err(error) = result {
            assert!(error.is_retriable() && matches!(error, StoreError::DiskFull { .. }));
            assert_eq!(log.last(), Some(id(1, next - 1)), "nothing was appended");
        }
        log.close().await;
    }
    world.disk.set_free_bytes(None);
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
