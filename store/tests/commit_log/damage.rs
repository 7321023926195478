//! Rot: found, named, never papered over, and repaired with a peer's bytes.

use std::io::ErrorKind;
use std::time::Duration;

use host::Disk;
use host::testing::{Fault, Operation};
use store::{Damage, LogConfig, Recovered, StoreError};

use crate::world::{World, append, contents, entries, entry, id, read_all, small_config, transfer};

const RECORD: u64 = 132;

/// Bytes into the file where record `number` of a segment begins.
fn at(number: u64) -> u64 {
    64 + number * RECORD
}

async fn closed_world(count: u64) -> World {
    let world = World::new();
    let log = world.open().await;
    append(&log, entries(1, 0..count, 100)).await.unwrap();
    log.close().await;
    world
}

/// Catches an acknowledged entry that is cut as if it had been torn.
#[tokio::test]
async fn a_flipped_bit_below_the_mark_is_damage() {
    for (number, position) in [(3, at(3) + 50), (0, at(0) + 2), (9, at(9) + 131), (0, 3)] {
        let world = closed_world(10).await;
        world
            .memory
            .flip_bit(&world.files("seg")[0], position, 4)
            .unwrap();
        let (log, recovered) = world.try_open().await.unwrap();
        let damage = Damage {
            first_bad_index: number,
            synced_index: 9,
            sealed: false,
        };
        let last = number.checked_sub(1).map(|index| id(1, index));
        assert_eq!(
            recovered,
            Recovered {
                last,
                torn_bytes_cut: 0,
                damage: Some(damage)
            }
        );
        assert_eq!(log.damage(), Some(damage));
        let refused = log.append(entries(1, number..number + 1, 100), Box::new(|_| {}));
        assert!(refused.is_err_and(|error| error.is_corruption()));
        assert!(log.truncate_after(None).await.is_err());
        // Nothing was cut: the next start finds the same.
        let (_, again) = world.reopen(log).await;
        assert_eq!(again, recovered);
    }
}

/// Catches damage that is taken for a torn write when the mark was lost with the power: a record
/// far behind the bad one proves that its write was complete.
#[tokio::test]
async fn without_the_mark_a_distant_valid_record_proves_damage() {
    for (bad, damaged) in [(1, true), (25, false)] {
        let world = closed_world(30).await;
        let mark = world.files("seg")[0].with_file_name("synced");
        world.memory.remove(&mark).unwrap();
        world
            .memory
            .flip_bit(&world.files("seg")[0], at(bad) + 50, 4)
            .unwrap();
        let (_, recovered) = world.try_open().await.unwrap();
        assert_eq!(recovered.damage.is_some(), damaged, "{recovered:?}");
        assert_eq!(recovered.last, Some(id(1, bad - 1)));
    }
}

/// Catches damage that is taken for a torn write because the mark was lost with the power, however long ago it was written:
/// a second is what is promised.
#[tokio::test]
async fn the_mark_outlives_the_power_after_a_second() {
    let worlds = (0..40).map(|seed| async move {
        let world = World::new();
        let log = world.open().await;
        append(&log, entries(1, 0..10, 100)).await.unwrap();
        tokio::time::sleep(Duration::from_secs(2)).await;
        if seed % 2 == 0 {
            append(&log, entries(1, 10..11, 100)).await.unwrap();
        }
        world.crash(log, seed).await;
        let tail = &world.files("seg")[0];
        world.memory.flip_bit(tail, at(3) + 50, 4).unwrap();
        let (_, recovered) = world.try_open().await.unwrap();
        let damage = recovered.damage.expect("the mark is there");
        assert_eq!(damage.first_bad_index, 3);
        assert!(damage.synced_index >= 9, "{damage:?}");
    });
    futures::future::join_all(worlds).await;
}

/// Catches a mark that the disk lost and that is taken for "nothing was synced": the log would be cut to whatever is left of
/// it. Whoever knows better says what was promised, and what stands behind that goes.
#[tokio::test]
async fn a_lost_mark_is_damage_until_somebody_says_what_was_promised() {
    for (first_lost, promised) in [(15, 19), (20, 19), (15, 16), (20, 16), (20, 25)] {
        let world = closed_world(20).await;
        world.vote().await;
        let tail = world.files("seg")[0].clone();
        world.memory.empty(&tail.with_file_name("synced")).unwrap();
        world
            .memory
            .overwrite(
                &tail,
                at(first_lost),
                &vec![0; ((20 - first_lost) * RECORD) as usize],
            )
            .unwrap();
        let (log, recovered) = world.try_open().await.unwrap();
        let damage = recovered.damage.expect("nobody knows what was synced");
        assert_eq!((damage.first_bad_index, damage.sealed), (first_lost, false));
        assert!(log.is_mark_lost());
        assert_eq!(log.promised_end(), u64::MAX);
        assert!(
            log.append(
                entries(1, first_lost..first_lost + 1, 100),
                Box::new(|_| {})
            )
            .is_err()
        );
        // Nothing was cut or noted: the next start finds the same.
        let (log, again) = world.reopen(log).await;
        assert_eq!(again, recovered);

        log.learn_promise(id(1, promised)).await.unwrap();
        assert!(!log.is_mark_lost());
        assert!(log.learn_promise(id(1, promised)).await.is_err(), "twice");
        let damage = log.damage().unwrap();
        assert_eq!(damage.first_bad_index, first_lost.min(promised + 1));
        assert_eq!(log.promised_end(), promised.max(first_lost - 1) + 1);
        let missing = damage.first_bad_index..promised + 1;
        log.reset_from(damage.first_bad_index, entries(1, missing, 100))
            .await
            .unwrap();
        assert_eq!(log.damage(), None);
        let (log, recovered) = world.reopen(log).await;
        assert_eq!(recovered.damage, None);
        assert_eq!(read_all(&log).await, entries(1, 0..promised + 1, 100));
    }
}

/// Catches an answer that is forgotten when the repair after it is interrupted.
#[tokio::test]
async fn what_was_promised_is_noted_before_the_repair() {
    let world = closed_world(20).await;
    world.vote().await;
    let tail = world.files("seg")[0].clone();
    world.memory.empty(&tail.with_file_name("synced")).unwrap();
    world
        .memory
        .overwrite(&tail, at(15), &vec![0; (5 * RECORD) as usize])
        .unwrap();
    let (log, _) = world.try_open().await.unwrap();
    log.learn_promise(id(1, 19)).await.unwrap();
    world.crash(log, 3).await;
    let (_, recovered) = world.try_open().await.unwrap();
    let damage = recovered.damage.unwrap();
    assert_eq!((damage.first_bad_index, damage.synced_index), (15, 19));
}

/// Catches a repair that is taken for complete before it is, and one that is not kept.
#[tokio::test]
async fn a_damaged_tail_is_reset_with_entries_of_a_peer() {
    for (first, stop_after) in [
        (3, None),
        (1, None),
        (3, Some(2)),
        (3, Some(5)),
        (3, Some(9)),
    ] {
        let world = closed_world(20).await;
        world
            .memory
            .flip_bit(&world.files("seg")[0], at(3) + 50, 4)
            .unwrap();
        let (log, recovered) = world.try_open().await.unwrap();
        let damage = recovered.damage.unwrap();
        assert!(
            log.reset_from(4, entries(1, 4..20, 100)).await.is_err(),
            "leaves 3 out"
        );
        assert!(
            log.reset_from(3, entries(1, 4..20, 100)).await.is_err(),
            "leaves 3 out"
        );
        if let Some(changes) = stop_after {
            world.disk.stop_after(changes);
            assert!(
                log.reset_from(first, entries(1, first..20, 100))
                    .await
                    .is_err()
            );
            world.crash(log, changes).await;
            let (log, recovered) = world.try_open().await.unwrap();
            // Half a repair is none, but all of one is.
            if let Some(found) = recovered.damage {
                assert!(found.first_bad_index >= 3);
                assert_eq!(found.synced_index, damage.synced_index);
                log.reset_from(3, entries(1, 3..20, 100)).await.unwrap();
            }
            log.close().await;
        } else {
            log.reset_from(first, entries(1, first..20, 100))
                .await
                .unwrap();
            assert_eq!(log.damage(), None);
            append(&log, entries(1, 20..25, 100)).await.unwrap();
            log.truncate_after(Some(19)).await.unwrap();
            log.close().await;
            drop(log);
        }
        let (log, _) = world.try_open().await.unwrap();
        assert_eq!(log.damage(), None);
        assert_eq!(read_all(&log).await, entries(1, 0..20, 100));
    }
}

/// Catches rot in a full segment that is handed to a reader, or that hides its good neighbours.
#[tokio::test]
async fn a_rotten_record_in_a_full_segment_is_an_error_that_names_it() {
    let world = closed_world(100).await;
    let path = world.files("seg")[1].clone();
    let log = world.open().await;
    let info = contents(&log).await[1];
    world.memory.flip_bit(&path, at(4) + 50, 4).unwrap();
    let bad = info.first_index + 4;
    let error = log.read(bad, bad + 5, 10_000).await.unwrap_err();
    let StoreError::Corrupt {
        path: found, index, ..
    } = &error
    else {
        panic!("{error}")
    };
    assert_eq!((found, *index), (&path, Some(bad)));
    assert!(
        log.entry(bad)
            .await
            .is_err_and(|error| error.is_corruption())
    );
    let before = log.read(bad - 2, bad + 5, 10_000).await.unwrap();
    assert_eq!(
        before,
        entries(1, bad - 2..bad, 100),
        "the good ones before it"
    );
    assert_eq!(log.entry(bad + 1).await.unwrap(), entry(1, bad + 1, 100));
    let error = log.verify_segment(info.first_index).await.unwrap_err();
    assert!(matches!(error, StoreError::Corrupt { index: Some(index), .. } if index == bad));
    assert!(log.verify_segment(0).await.is_ok());

    // A peer's segment takes its place, under the eyes of the readers.
    let peer = World::new();
    let peer_log = peer.open().await;
    append(&peer_log, entries(1, 0..100, 100)).await.unwrap();
    let staging = log.stage("repair").unwrap();
    let exports = peer_log.export(99).await.unwrap();
    let mut writer = staging.receive(exports[1].info(), 0).unwrap();
    writer
        .write(exports[1].read(0, usize::MAX).await.unwrap())
        .await
        .unwrap();
    writer.finish().await.unwrap();
    assert!(
        log.replace_segment(&staging, exports[0].info())
            .await
            .is_err(),
        "not received"
    );
    log.replace_segment(&staging, exports[1].info())
        .await
        .unwrap();
    assert_eq!(log.entry(bad).await.unwrap(), entry(1, bad, 100));
    assert_eq!(log.verify_segment(info.first_index).await.unwrap(), info);
    let (log, recovered) = world.reopen(log).await;
    assert_eq!(recovered.damage, None);
    assert_eq!(read_all(&log).await, entries(1, 0..100, 100));
}

/// Catches a sector that the disk does not give back any more, and that is no damage: nobody would repair it.
#[tokio::test]
async fn what_the_disk_does_not_give_back_is_damage() {
    let world = closed_world(100).await;
    let log = world.open().await;
    let info = contents(&log).await[1];
    let name = world.files("seg")[1].file_name().unwrap().to_owned();
    let fault = || Fault::always(Operation::Read, name.to_str().unwrap(), ErrorKind::Other);
    world.disk.inject(fault());
    let error = log.read(info.first_index, info.last_index, 10_000).await;
    assert!(error.is_err_and(|error| error.is_corruption()));
    let error = log.verify_segment(info.first_index).await;
    assert!(error.is_err_and(|error| error.is_corruption()));
    world.disk.heal();
    log.close().await;
    drop(log);
    // The same at a start, of the end of the log.
    let tail = world.files("seg").pop().unwrap();
    let name = tail.file_name().unwrap().to_str().unwrap().to_owned();
    let fault = Fault::always(Operation::Read, &name, ErrorKind::Other);
    world.disk.inject(fault);
    let (_, recovered) = world.try_open().await.unwrap();
    let damage = recovered.damage.expect("the tail was synced");
    assert_eq!((damage.synced_index, damage.sealed), (99, false));
}

/// Catches a block that the disk refuses behind the end of what can be read, and that is cut as if a write had been torn there:
/// an entry that was synced after a mark that is a second old may stand in it. And one that says nothing of the end, for which
/// nobody has to be asked.
#[tokio::test]
async fn a_block_that_the_disk_refuses_at_the_end_is_damage_until_somebody_says_what_was_promised()
{
    const BLOCK: u64 = 4096;
    // The record that begins in one block and ends in the next.
    let across = (BLOCK - 64) / RECORD;
    // What of the last block the mark tells, and what is refused; whether the end is unknown.
    for (marked, refused, unknown) in [
        (across - 1, BLOCK..2 * BLOCK, true),
        (50, BLOCK..2 * BLOCK, true),
        (across, 0..2 * BLOCK, true),
        // What stands behind it can be read.
        (across, 0..BLOCK, false),
        // Nothing was ever written there.
        (50, 2 * BLOCK..3 * BLOCK, false),
    ] {
        let world = World::with(LogConfig {
            segment_bytes: 16 << 10,
            ..small_config()
        });
        world.vote_after(&[entries(1, 0..marked, 100)]).await;
        let mark = world.files("seg")[0].with_file_name("synced");
        let old = world.bytes(&mark);
        let log = world.open().await;
        append(&log, entries(1, marked..50, 100)).await.unwrap();
        log.close().await;
        drop(log);
        // As a power cut leaves it.
        world.memory.overwrite(&mark, 0, &old).unwrap();
        let fault = Fault::always(Operation::Read, ".seg", ErrorKind::Other);
        world.disk.inject(fault.within(refused.clone()));
        let (log, recovered) = world.try_open().await.unwrap();
        assert_eq!(log.is_mark_lost(), unknown, "{marked} {refused:?}");
        let first_bad = recovered.damage.map(|damage| damage.first_bad_index);
        let expected = match refused.start {
            0 => Some(0),
            BLOCK => Some(across),
            _ => None,
        };
        assert_eq!(first_bad, expected, "{marked} {refused:?}");
        // Nothing was cut: the disk may have recovered by the next start.
        world.disk.heal();
        let (log, recovered) = world.reopen(log).await;
        assert_eq!(recovered.damage, None, "{marked} {refused:?}");
        assert_eq!(read_all(&log).await, entries(1, 0..50, 100));
    }
}

/// Catches a read of many entries that blames the first of them for a block which only the last of them is in: a peer that has
/// that one is asked for what it need not have.
#[tokio::test]
async fn the_entry_that_the_disk_refuses_is_named() {
    let world = World::with(LogConfig {
        segment_bytes: 16 << 10,
        ..small_config()
    });
    let log = world.open().await;
    append(&log, entries(1, 0..50, 100)).await.unwrap();
    log.close().await;
    drop(log);
    let log = world.open().await;
    let bad = (4096 - 64) / RECORD;
    let fault = Fault::always(Operation::Read, ".seg", ErrorKind::Other);
    world.disk.inject(fault.within(4096..4097));
    let before = log.read(0, 50, 10_000).await.unwrap();
    assert_eq!(before, entries(1, 0..bad, 100));
    let error = log.read(bad, 50, 10_000).await.unwrap_err();
    assert!(
        matches!(error, StoreError::Corrupt { index: Some(index), .. } if index == bad),
        "{error}"
    );
    assert_eq!(
        log.read(bad + 1, 50, 10_000).await.unwrap().len(),
        49 - bad as usize
    );
}

/// Catches a missing segment that goes unnoticed until somebody reads there.
#[tokio::test]
async fn a_missing_segment_is_damage_until_it_is_put_back() {
    let world = closed_world(100).await;
    let path = world.files("seg")[1].clone();
    world.memory.remove(&path).unwrap();
    let (log, recovered) = world.try_open().await.unwrap();
    let damage = recovered.damage.unwrap();
    assert!(damage.sealed, "{damage:?}");
    assert_eq!(recovered.last, Some(id(1, 99)));
    assert!(
        log.append(entries(1, 100..101, 100), Box::new(|_| {}))
            .is_err()
    );
    assert!(
        log.entry(damage.first_bad_index)
            .await
            .is_err_and(|error| error.is_corruption())
    );

    let peer = World::new();
    let peer_log = peer.open().await;
    append(&peer_log, entries(1, 0..100, 100)).await.unwrap();
    let (staging, _) = transfer(&peer_log, &log, 99).await.unwrap();
    let infos = contents(&peer_log).await;
    log.replace_segment(&staging, infos[1]).await.unwrap();
    assert_eq!(log.damage(), None);
    append(&log, entries(1, 100..110, 100)).await.unwrap();
    let (log, recovered) = world.reopen(log).await;
    assert_eq!(recovered.damage, None);
    assert_eq!(read_all(&log).await, entries(1, 0..110, 100));
}

/// Catches a lost tail segment, and a lost directory, being taken for a short log.
#[tokio::test]
async fn a_missing_tail_is_damage() {
    let world = closed_world(100).await;
    let path = world.files("seg").pop().unwrap();
    world.memory.remove(&path).unwrap();
    let (_, recovered) = world.try_open().await.unwrap();
    let damage = recovered.damage.unwrap();
    assert_eq!((damage.synced_index, damage.sealed), (99, false));
    assert_eq!(recovered.last, Some(id(1, damage.first_bad_index - 1)));
}

/// Catches a snapshot that is taken for long enough because it covers the first of two damages: what lies between them,
/// and in the other one, was promised too.
#[tokio::test]
async fn what_was_promised_ends_behind_the_last_damage() {
    let world = closed_world(100).await;
    let files = world.files("seg");
    let (full, tail) = (&files[1], &files[files.len() - 1]);
    for lost in [&[tail][..], &[full], &[full, tail]] {
        let world = closed_world(100).await;
        for path in lost {
            world.memory.remove(path).unwrap();
        }
        let (log, _) = world.try_open().await.unwrap();
        assert_eq!(log.promised_end(), 100, "{lost:?}");
    }
}

/// Catches a segment whose first record rotted and that is removed as a torn beginning of one, although Raft only may not
/// ask for its entries any more: tables still point at them.
#[tokio::test]
async fn a_segment_without_a_first_record_is_lost_if_it_begins_below_the_floor() {
    for purged in [3, 9] {
        let world = World::new();
        let log = world.open().await;
        append(&log, entries(1, 0..10, 100)).await.unwrap();
        log.purge_to(id(1, purged)).await.unwrap();
        log.close().await;
        drop(log);
        let segment = world.files("seg")[0].clone();
        for position in [3, at(0) + 50] {
            world.memory.flip_bit(&segment, position, 4).unwrap();
            let (log, recovered) = world.try_open().await.unwrap();
            let damage = recovered.damage.expect("entries are lost");
            assert_eq!((damage.first_bad_index, damage.synced_index), (0, 9));
            log.close().await;
            drop(log);
            world.memory.flip_bit(&segment, position, 4).unwrap();
        }
        let (log, recovered) = world.try_open().await.unwrap();
        assert_eq!(recovered.damage, None, "nothing was removed");
        assert_eq!(log.entry(0).await.unwrap(), entry(1, 0, 100));
    }
}

/// Catches a received segment that is believed without being read.
#[tokio::test]
async fn a_segment_that_was_damaged_on_its_way_is_refused() {
    let world = closed_world(100).await;
    let log = world.open().await;
    let export = &log.export(99).await.unwrap()[0];
    let good = export.read(0, usize::MAX).await.unwrap();
    let staging = log.stage("x").unwrap();
    for position in [0, 20, 70, 200, good.len() - 1] {
        let mut bytes = good.to_vec();
        bytes[position] ^= 1;
        let mut writer = staging.receive(export.info(), 0).unwrap();
        writer.write(bytes.into()).await.unwrap();
        assert!(
            writer
                .finish()
                .await
                .is_err_and(|error| error.is_corruption()),
            "{position}"
        );
    }
    let mut writer = staging.receive(export.info(), 0).unwrap();
    writer.write(good.slice(..good.len() - 132)).await.unwrap();
    assert!(writer.finish().await.is_err(), "cut short");
    let mut writer = staging.receive(export.info(), 0).unwrap();
    writer.write(good.clone()).await.unwrap();
    assert!(writer.write(good).await.is_err(), "too long");
    assert!(log.stage("../x").is_err() && log.stage("").is_err());
}
