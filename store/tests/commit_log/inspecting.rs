//! A log looked at from outside: nothing is changed by it, and what does not fit is said.

use std::path::Path;
use std::sync::Arc;

use host::testing::ManualClock;
use host::{Disk, Host};
use store::{IndexReport, Inspection, Result, StoreError, Synced};

use crate::world::{DATA, World, append, entries, id};

fn look(world: &World) -> Result<Inspection> {
    let host = Host {
        clock: Arc::new(ManualClock::new(1)),
        disk: Arc::new(world.disk.handle()),
    };
    Inspection::open(&host, Path::new(DATA))
}

async fn closed_world(count: u64) -> World {
    let world = World::new();
    let log = world.open().await;
    append(&log, entries(1, 0..count / 2, 100)).await.unwrap();
    append(&log, entries(2, count / 2..count, 100))
        .await
        .unwrap();
    log.close().await;
    world
}

/// Catches a look that calls a log whole of which nobody knows where it ended.
#[tokio::test]
async fn a_mark_that_is_lost_is_told_from_one_that_says_nothing() {
    let world = closed_world(10).await;
    let mark = world.files("seg")[0].with_file_name("synced");
    world.memory.empty(&mark).unwrap();
    assert_eq!(look(&world).unwrap().synced().unwrap(), Synced::Unreadable);
    world.memory.remove(&mark).unwrap();
    assert_eq!(look(&world).unwrap().synced().unwrap(), Synced::Missing);
}

/// Catches a look that misses entries, reads other ones, or finds damage in a whole log.
#[tokio::test]
async fn a_whole_log_is_read_to_its_end() {
    let world = closed_world(100).await;
    let inspection = look(&world).unwrap();
    assert_eq!(inspection.superblock().identity.broker_id, 1);
    let synced = inspection.synced().unwrap().up_to().unwrap();
    assert_eq!(synced.last, id(2, 99));
    let mut read = Vec::new();
    let segments = inspection.segments(|done, of| read.push((done, of)));
    let segments = segments.unwrap();
    assert_eq!(read.last(), Some(&(segments.len(), segments.len())));
    assert!(segments.len() > 2, "{segments:?}");
    let records: u64 = segments.iter().map(|segment| segment.records).sum();
    assert_eq!(records, 100);
    for segment in &segments {
        assert_eq!(segment.damage, None);
        assert!(
            !matches!(segment.index, IndexReport::Differs(_)),
            "{segment:?}"
        );
    }
    assert_eq!(segments[0].first, id(1, 0));
    assert_eq!(segments.last().unwrap().last, Some(id(2, 99)));
    for expected in entries(1, 0..50, 100)
        .into_iter()
        .chain(entries(2, 50..100, 100))
    {
        let found = segments
            .iter()
            .find_map(|segment| inspection.entry(segment, expected.index).unwrap());
        assert_eq!(found, Some(expected));
    }
    assert!(inspection.checkpoints().await.unwrap().is_empty());
}

/// Catches rot that a look does not see, or sees in the wrong place.
#[tokio::test]
async fn rot_is_told_with_its_place() {
    let world = closed_world(100).await;
    let record = 132;
    let middle = 64 + 3 * record + 50;
    world
        .memory
        .flip_bit(&world.files("seg")[0], middle, 4)
        .unwrap();
    let segments = look(&world).unwrap().segments(|_, _| {}).unwrap();
    let damage = segments[0].damage.as_ref().unwrap();
    assert!(
        damage.starts_with("index 3 at byte 460: checksum"),
        "{damage}"
    );
    assert!(segments[1..].iter().all(|segment| segment.damage.is_none()));

    let world = closed_world(100).await;
    let last = world.files("seg").pop().unwrap();
    world.memory.flip_bit(&last, 64 + 10, 4).unwrap();
    let segments = look(&world).unwrap().segments(|_, _| {}).unwrap();
    let damage = segments.last().unwrap().damage.as_ref().unwrap();
    assert!(damage.contains("index 99 was synced"), "{damage}");
}

/// Catches a look at a log that is written to meanwhile, and one that makes a data directory of any other.
#[tokio::test]
async fn a_directory_in_use_and_one_that_is_none_are_refused() {
    let world = World::new();
    let refused = look(&world).err();
    assert!(
        matches!(refused, Some(StoreError::Refused { .. })),
        "{refused:?}"
    );
    assert!(
        !world.memory.exists(Path::new(DATA)),
        "looking made something"
    );
    let log = world.open().await;
    let locked = look(&world).err();
    assert!(
        matches!(locked, Some(StoreError::Locked { .. })),
        "{locked:?}"
    );
    log.close().await;
    drop(log);
    let inspection = look(&world).unwrap();
    assert!(world.try_open().await.is_err(), "a broker starts meanwhile");
    drop(inspection);
    world.open().await;
}
