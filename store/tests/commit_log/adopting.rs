//! Taking over a peer's segments: all or nothing, whatever happens in between.

use host::Disk;
use store::{Adoption, CommitLog, Result, StoreError};

use crate::world::{World, append, contents, entries, id, read_all, transfer};

/// A log of a hundred entries, without the first few segments.
async fn peer() -> (World, CommitLog) {
    let world = World::new();
    let log = world.open().await;
    append(&log, entries(2, 0..300, 100)).await.unwrap();
    log.purge_to(id(2, 200)).await.unwrap();
    log.drop_to(60).await.unwrap();
    (world, log)
}

async fn adopt(from: &CommitLog, to: &CommitLog, last: u64) -> Result<u64> {
    let (staging, sent) = transfer(from, to, last).await?;
    let exports = from.export(last).await?;
    let segments = exports.iter().map(|export| export.info()).collect();
    let adoption = Adoption {
        segments,
        last: id(2, last),
        purged: Some(id(2, last)),
        promised: None,
    };
    to.adopt(&staging, adoption).await?;
    staging.discard()?;
    Ok(sent)
}

/// Catches entries that are lost or mixed up on the way, and a log that cannot go on afterwards.
#[tokio::test]
async fn an_adopted_log_is_the_peers_and_goes_on() {
    let (_, peer_log) = peer().await;
    let first = peer_log.positions().dropped;
    for last in [first, 150, 250, 299] {
        let world = World::new();
        let log = world.open().await;
        append(&log, entries(1, 0..20, 100)).await.unwrap();
        adopt(&peer_log, &log, last).await.unwrap();
        assert_eq!(
            (log.last(), log.purged()),
            (Some(id(2, last)), Some(id(2, last)))
        );
        assert_eq!(read_all(&log).await, entries(2, first..last + 1, 100));
        append(&log, entries(2, last + 1..320, 100)).await.unwrap();
        let (log, recovered) = world.reopen(log).await;
        assert_eq!((recovered.last, recovered.damage), (Some(id(2, 319)), None));
        assert_eq!(read_all(&log).await, entries(2, first..320, 100));
        append(&peer_log, entries(2, 300..320, 100)).await.ok();
        assert_eq!(contents(&log).await, contents(&peer_log).await);
        peer_log.truncate_after(Some(299)).await.unwrap();
    }
}

/// Catches segments that are sent although the receiver has them.
#[tokio::test]
async fn what_is_identical_is_not_sent_again() {
    let (_, peer_log) = peer().await;
    let world = World::new();
    let log = world.open().await;
    append(&log, entries(2, 0..200, 100)).await.unwrap();
    let count = contents(&peer_log).await.len() as u64;
    let sent = adopt(&peer_log, &log, 299).await.unwrap();
    assert!(sent < count && sent > 2, "{sent} of {count}");
    assert_eq!(
        read_all(&log).await.len() as u64,
        300 - peer_log.positions().dropped
    );
    // Linked files are dropped and reused without harm to anybody.
    log.drop_to(290).await.unwrap();
    append(&log, entries(2, 300..400, 100)).await.unwrap();
    let (log, _) = world.reopen(log).await;
    assert_eq!(log.last(), Some(id(2, 399)));
    assert_eq!(
        read_all(&log).await.last(),
        entries(2, 399..400, 100).last()
    );
}

/// Catches a crash that leaves a mixture of two logs, or none.
#[tokio::test]
async fn a_crash_leaves_the_old_log_or_the_new_one() {
    let (_, peer_log) = peer().await;
    let first = peer_log.positions().dropped;
    let (mut old, mut new) = (0, 0);
    for step in 0.. {
        let world = World::new();
        let log = world.open().await;
        append(&log, entries(1, 0..20, 100)).await.unwrap();
        let (staging, _) = transfer(&peer_log, &log, 299).await.unwrap();
        let segments = contents(&peer_log).await;
        let adoption = Adoption {
            segments,
            last: id(2, 299),
            purged: Some(id(2, 299)),
            promised: None,
        };
        world.disk.stop_after(step);
        let adopted = log.adopt(&staging, adoption).await;
        let finished = adopted.is_ok();
        world.crash(log, step).await;
        let log = world.open().await;
        match log.last() {
            Some(last) if last == id(1, 19) => {
                assert!(!finished, "step {step}");
                assert_eq!(read_all(&log).await, entries(1, 0..20, 100));
                old += 1;
            }
            last => {
                assert_eq!((last, log.purged()), (Some(id(2, 299)), Some(id(2, 299))));
                assert_eq!(read_all(&log).await, entries(2, first..300, 100));
                new += 1;
            }
        }
        let dirs = world.memory.list("/data".as_ref()).unwrap();
        let logs = dirs
            .iter()
            .filter(|path| path.to_string_lossy().contains("log-"));
        assert_eq!(logs.count(), 1, "leftovers are gone");
        let next = log.last().unwrap();
        append(
            &log,
            entries(next.term, next.index + 1..next.index + 30, 100),
        )
        .await
        .unwrap();
        if finished && new > 3 {
            break;
        }
    }
    assert!(old > 10 && new > 3, "old {old}, new {new}");
}

/// Catches a log with a hole, or without what was promised, being adopted.
#[tokio::test]
async fn what_does_not_fit_is_refused() {
    let (_, peer_log) = peer().await;
    let world = World::new();
    let log = world.open().await;
    append(&log, entries(1, 0..20, 100)).await.unwrap();
    let (staging, _) = transfer(&peer_log, &log, 299).await.unwrap();
    let all = contents(&peer_log).await;
    let good = Adoption {
        segments: all.clone(),
        last: id(2, 299),
        purged: Some(id(2, 299)),
        promised: None,
    };
    let mut hole = good.clone();
    hole.segments.remove(2);
    let mut short = good.clone();
    short.segments.pop();
    let below = Adoption {
        purged: None,
        ..good.clone()
    };
    let above = Adoption {
        purged: Some(id(2, 300)),
        ..good.clone()
    };
    let term = Adoption {
        last: id(3, 299),
        ..good.clone()
    };
    let mut other = good.clone();
    other.segments[1].crc32c ^= 1;
    for wrong in [hole, short, below, above, term, other] {
        let refused = log.adopt(&staging, wrong.clone()).await;
        assert!(
            matches!(refused, Err(StoreError::Refused { .. })),
            "{wrong:?}: {refused:?}"
        );
    }
    assert_eq!(read_all(&log).await, entries(1, 0..20, 100));
    append(&log, entries(1, 20..21, 100)).await.unwrap();
    log.adopt(&staging, good).await.unwrap();
}

/// Catches an export of bytes that were reused meanwhile.
#[tokio::test]
async fn an_export_of_a_dropped_segment_says_so() {
    let (_, peer_log) = peer().await;
    let exports = peer_log.export(299).await.unwrap();
    assert!(peer_log.export(300).await.is_err());
    assert!(exports[0].read(0, 100).await.is_ok());
    peer_log.drop_to(200).await.unwrap();
    assert!(matches!(
        exports[0].read(0, 100).await,
        Err(StoreError::OutOfRange { .. })
    ));
    assert!(exports.last().unwrap().read(0, 100).await.is_ok());
}

/// Catches a transfer over a slow link that begins anew each time it breaks off, and one that goes on with the bytes of
/// another segment.
#[tokio::test]
async fn a_transfer_that_broke_off_goes_on_where_it_stopped() {
    let (_, peer_log) = peer().await;
    let exports = peer_log.export(299).await.unwrap();
    let (export, other) = (&exports[0], &exports[1]);
    let info = export.info();
    let half = info.len / 2;
    let world = World::new();
    let log = world.open().await;
    let staging = log.stage("snapshot-1").unwrap();
    assert_eq!(staging.received(&info).unwrap(), 0);

    let mut writer = staging.receive(info, 0).unwrap();
    let piece = export.read(0, half as usize).await.unwrap();
    writer.write(piece).await.unwrap();
    drop(writer);

    // The same place, opened by whoever is offered the segment next.
    let staging = log.stage("snapshot-1").unwrap();
    assert_eq!(staging.received(&info).unwrap(), half);
    assert_eq!(staging.part_with(info.last_index).unwrap(), Some(info));
    assert_eq!(staging.part_with(info.last_index + 1).unwrap(), None);
    assert_eq!(staging.received(&other.info()).unwrap(), 0);
    let elsewhere = staging.receive(info, half - 1).err().unwrap();
    assert!(
        matches!(elsewhere, StoreError::Refused { .. }),
        "{elsewhere}"
    );
    let mut writer = staging.receive(info, half).unwrap();
    assert_eq!(writer.position(), half);
    let rest = export.read(half, usize::MAX).await.unwrap();
    writer.write(rest).await.unwrap();
    writer.finish().await.unwrap();
    assert!(log.missing(&staging, &[info]).await.unwrap().is_empty());

    // A longer one of the same beginning is another one, and takes the place of what came of this one.
    let longer = store::SegmentInfo {
        len: info.len + 1,
        ..info
    };
    let staging = log.stage("snapshot-2").unwrap();
    drop(staging.receive(info, 0).unwrap());
    let mut writer = staging.receive(longer, 0).unwrap();
    writer
        .write(export.read(0, 10).await.unwrap())
        .await
        .unwrap();
    drop(writer);
    assert_eq!(staging.received(&longer).unwrap(), 10);
    assert_eq!(staging.part_with(info.first_index).unwrap(), Some(longer));

    // What does not verify in the end is not gone on with.
    let mut writer = staging.receive(longer, 10).unwrap();
    writer
        .write(export.read(10, usize::MAX).await.unwrap())
        .await
        .unwrap();
    assert!(
        writer
            .finish()
            .await
            .is_err_and(|error| error.is_corruption())
    );
    assert_eq!(staging.received(&longer).unwrap(), 0);
}

/// Catches a promise that is forgotten with the log that held it: a snapshot need not reach as far as what was promised here.
#[tokio::test]
async fn what_was_promised_above_the_new_log_is_damage() {
    for crash in [false, true] {
        let (peer, world) = (World::new(), World::new());
        let (from, to) = (peer.open().await, world.open().await);
        append(&from, entries(2, 0..300, 100)).await.unwrap();
        append(&to, entries(2, 0..340, 100)).await.unwrap();
        let (staging, _) = transfer(&from, &to, 299).await.unwrap();
        let exports = from.export(299).await.unwrap();
        let adoption = Adoption {
            segments: exports.iter().map(|export| export.info()).collect(),
            last: id(2, 299),
            purged: Some(id(2, 299)),
            promised: to.promised(),
        };
        assert_eq!(adoption.promised, Some(id(2, 339)));
        to.adopt(&staging, adoption).await.unwrap();
        let log = match crash {
            true => {
                world.crash(to, 7).await;
                world.try_open().await.unwrap().0
            }
            false => to,
        };
        let damage = log.damage().expect("forty entries are missing");
        assert_eq!((damage.first_bad_index, damage.synced_index), (300, 339));
        assert!(!log.is_covered_by(Some(id(2, 338))) && log.is_covered_by(Some(id(2, 339))));
        let missing = entries(2, 300..340, 100);
        log.reset_from(300, missing).await.unwrap();
        let (log, recovered) = world.reopen(log).await;
        assert_eq!(recovered.damage, None);
        assert_eq!(log.last(), Some(id(2, 339)));
    }
}
