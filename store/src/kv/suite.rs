//! The contract of [`Kv`] and [`KvEngine`] as tests, run on both engines.
//!
//! Each check takes an engine and an empty directory; a check that needs a crash is run on the
//! in-memory twin alone, over a disk that forgets.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use proptest::prelude::*;

#[cfg(not(madsim))]
use super::Family;
use super::{Batch, Kv, KvEngine, Pair};
use crate::table::Kind;

/// Of the kinds that the suite uses; all others lie in the one that is always there.
#[cfg(not(madsim))]
pub(crate) const FAMILIES: &[Family] = &[
    Family {
        name: "consume_queue",
        tags: &[Kind::ConsumeQueue.tag()],
    },
    Family {
        name: "dedup",
        tags: &[Kind::Dedup.tag()],
    },
];

/// Runs every check of the contract.
async fn contract(engine: &dyn KvEngine, root: &Path) {
    reads_see_whole_batches(&open(engine, &root.join("batches")).await);
    scans_are_ordered_and_bounded(&open(engine, &root.join("scans")).await);
    last_at_or_before_stays_within_bounds(&open(engine, &root.join("last")).await);
    later_changes_win(&open(engine, &root.join("later")).await);
    flushed_rows_outlive_the_map(engine, &root.join("flushed")).await;
    checkpoints_stand_alone(engine, root).await;
    restore_replaces_what_was_there(engine, root).await;
    rot_in_a_copy_is_found(engine, root).await;
}

async fn open(engine: &dyn KvEngine, dir: &Path) -> Arc<dyn Kv> {
    engine.open(dir.to_path_buf()).await.unwrap()
}

/// A key of a kind: the suite uses three, one of each family.
fn key(kind: Kind, rest: &[u8]) -> Vec<u8> {
    [&[kind.tag()], rest].concat()
}

fn put(kv: &dyn Kv, rows: &[(Vec<u8>, &[u8])]) {
    let mut batch = Batch::new();
    for (key, value) in rows {
        batch.put(key, value);
    }
    kv.write(batch).unwrap();
}

fn everything(kv: &dyn Kv) -> Vec<Pair> {
    let kinds = Kind::ALL.into_iter();
    kinds
        .flat_map(|kind| {
            kv.scan(&[kind.tag()], &[kind.tag() + 1], usize::MAX)
                .unwrap()
        })
        .collect()
}

/// Would catch a batch of which one family's half is missing.
fn reads_see_whole_batches(kv: &Arc<dyn Kv>) {
    let keys = [Kind::Topic, Kind::ConsumeQueue, Kind::Dedup].map(|kind| key(kind, b"row"));
    put(&**kv, &keys.clone().map(|key| (key, &b"value"[..])));
    for key in &keys {
        assert_eq!(kv.get(key).unwrap(), Some(Bytes::from_static(b"value")));
    }
    assert_eq!(kv.get(&key(Kind::Topic, b"other")).unwrap(), None);
    assert_eq!(kv.counters().batches, 1);
}

/// Would catch bounds that are off by one, a limit that is ignored, a scan that runs into the next
/// kind of the same family.
fn scans_are_ordered_and_bounded(kv: &Arc<dyn Kv>) {
    let kind = Kind::Topic;
    let rows: Vec<_> = [3_u8, 1, 2, 9]
        .map(|number| (key(kind, &[number]), &b"v"[..]))
        .to_vec();
    put(&**kv, &rows);
    put(&**kv, &[(key(Kind::Group, &[0]), b"next kind")]);
    let scan = |from: u8, to: u8, limit| -> Vec<u8> {
        let pairs = kv
            .scan(&key(kind, &[from]), &key(kind, &[to]), limit)
            .unwrap();
        pairs.iter().map(|(key, _)| key[1]).collect()
    };
    assert_eq!(scan(1, 9, usize::MAX), [1, 2, 3]);
    assert_eq!(scan(0, 10, 2), [1, 2]);
    assert_eq!(scan(4, 9, 10), []);
    assert_eq!(scan(9, 1, 10), []);
    assert_eq!(scan(0, 10, 0), []);
    let whole = kv
        .scan(&[kind.tag()], &[kind.tag() + 1], usize::MAX)
        .unwrap();
    assert_eq!(whole.len(), 4);
}

/// Would catch a lookup that answers with a row of another queue (below the lower bound).
fn last_at_or_before_stays_within_bounds(kv: &Arc<dyn Kv>) {
    let kind = Kind::ConsumeQueue;
    put(
        &**kv,
        &[10_u8, 20, 30].map(|number| (key(kind, &[number]), &b"v"[..])),
    );
    let last = |wanted: u8, lower: u8| -> Option<u8> {
        let pair = kv
            .last_at_or_before(&key(kind, &[wanted]), &key(kind, &[lower]))
            .unwrap();
        pair.map(|(key, _)| key[1])
    };
    assert_eq!(last(20, 0), Some(20));
    assert_eq!(last(29, 0), Some(20));
    assert_eq!(last(255, 0), Some(30));
    assert_eq!(last(9, 0), None);
    assert_eq!(last(19, 11), None);
    assert_eq!(last(20, 20), Some(20));
    assert_eq!(last(20, 21), None);
}

/// Would catch a batch that is applied out of its order.
fn later_changes_win(kv: &Arc<dyn Kv>) {
    let kind = Kind::Dedup;
    let mut batch = Batch::new();
    batch.put(key(kind, &[1]), b"old");
    batch.put(key(kind, &[2]), b"old");
    batch.put(key(kind, &[3]), b"old");
    batch.delete_range(key(kind, &[1]), key(kind, &[3]));
    batch.put(key(kind, &[1]), b"new");
    batch.delete(key(kind, &[3]));
    batch.delete(key(kind, &[200]));
    kv.write(batch).unwrap();
    let rows = everything(&**kv);
    assert_eq!(
        rows,
        [(Bytes::from(key(kind, &[1])), Bytes::from_static(b"new"))]
    );
    let mut upside_down = Batch::new();
    upside_down.delete_range(key(kind, &[9]), key(kind, &[0]));
    kv.write(upside_down).unwrap();
    assert_eq!(everything(&**kv).len(), 1);
}

/// Would catch a flush that leaves a family out, or an open that starts empty.
async fn flushed_rows_outlive_the_map(engine: &dyn KvEngine, dir: &Path) {
    let kv = open(engine, dir).await;
    let kinds = [Kind::Applied, Kind::ConsumeQueue, Kind::Dedup];
    put(&*kv, &kinds.map(|kind| (key(kind, b"row"), &b"value"[..])));
    kv.clone().flush().await.unwrap();
    let before = everything(&*kv);
    drop(kv);
    let kv = open(engine, dir).await;
    assert_eq!(everything(&*kv), before);
}

/// Would catch a checkpoint that misses unflushed rows, or that later writes reach.
async fn checkpoints_stand_alone(engine: &dyn KvEngine, root: &Path) {
    let (live, copy) = (root.join("stand-live"), root.join("stand-copy"));
    let kv = open(engine, &live).await;
    let kinds = [Kind::Applied, Kind::ConsumeQueue, Kind::Dedup];
    put(&*kv, &kinds.map(|kind| (key(kind, b"row"), &b"before"[..])));
    let row = Bytes::from(key(Kind::Dedup, b"row"));
    let value = kv.clone().checkpoint(copy.clone(), row).await.unwrap();
    assert_eq!(value, Some(Bytes::from_static(b"before")));
    let before = everything(&*kv);
    put(&*kv, &kinds.map(|kind| (key(kind, b"row"), &b"after"[..])));
    kv.clone().flush().await.unwrap();

    let restored = root.join("stand-restored");
    engine
        .restore(copy.clone(), restored.clone())
        .await
        .unwrap();
    let second = open(engine, &restored).await;
    assert_eq!(everything(&*second), before);
    // Nor may what happens to the restored map reach the checkpoint.
    put(
        &*second,
        &kinds.map(|kind| (key(kind, b"row"), &b"elsewhere"[..])),
    );
    second.clone().flush().await.unwrap();
    drop(second);
    engine.restore(copy, restored.clone()).await.unwrap();
    assert_eq!(everything(&*open(engine, &restored).await), before);
}

/// Would catch a look at a copy that passes over rows which cannot be read.
async fn rot_in_a_copy_is_found(engine: &dyn KvEngine, root: &Path) {
    let kv = open(engine, &root.join("rotting")).await;
    for number in 0_u8..100 {
        put(&*kv, &[(key(Kind::Dedup, &[number]), &[number; 100])]);
    }
    let copy = root.join("rotten");
    let applied = Bytes::from(key(Kind::Applied, b""));
    kv.clone().checkpoint(copy.clone(), applied).await.unwrap();
    engine.check(copy.clone()).await.unwrap();
    let disk = host::Host::real().disk;
    let files = disk.list(&copy).unwrap().into_iter();
    let rows = files.filter(|path| {
        let name = path.to_string_lossy();
        name.ends_with("sst") || name.ends_with("image")
    });
    for path in rows {
        let file = disk.open(&path).unwrap();
        let mut byte = [0];
        file.read_at(40, &mut byte).unwrap();
        file.write_at(40, &[Bytes::copy_from_slice(&[byte[0] ^ 4])])
            .unwrap();
    }
    let found = engine.check(copy).await;
    assert!(
        matches!(&found, Err(error) if error.is_corruption()),
        "{found:?}"
    );
}

/// Would catch a restore that merges with what the directory held.
async fn restore_replaces_what_was_there(engine: &dyn KvEngine, root: &Path) {
    let (source, target) = (root.join("replace-source"), root.join("replace-target"));
    let copy = root.join("replace-copy");
    let kv = open(engine, &source).await;
    put(&*kv, &[(key(Kind::Topic, b"kept"), b"value")]);
    let none = Bytes::from(key(Kind::Topic, b"other"));
    let value = kv.clone().checkpoint(copy.clone(), none).await.unwrap();
    assert_eq!(value, None);
    let other = open(engine, &target).await;
    put(&*other, &[(key(Kind::Topic, b"gone"), b"value")]);
    other.clone().flush().await.unwrap();
    drop(other);
    engine.restore(copy, target.clone()).await.unwrap();
    assert_eq!(everything(&*open(engine, &target).await), everything(&*kv));
}

/// Changes drawn by the property test, on few keys so that they meet.
#[derive(Debug, Clone)]
enum Step {
    Put(u8, u8, u8),
    Delete(u8, u8),
    DeleteRange(u8, u8, u8),
    Flush,
}

fn step() -> impl Strategy<Value = Step> {
    let kind = 0_u8..3;
    prop_oneof![
        6 => (kind.clone(), 0_u8..20, any::<u8>()).prop_map(|(kind, key, value)| Step::Put(kind, key, value)),
        2 => (kind.clone(), 0_u8..20).prop_map(|(kind, key)| Step::Delete(kind, key)),
        1 => (kind, 0_u8..20, 0_u8..20).prop_map(|(kind, from, to)| Step::DeleteRange(kind, from, to)),
        1 => Just(Step::Flush),
    ]
}

/// Runs the steps on a fresh map and gives what is in it then, and what every lookup finds.
async fn run(engine: &dyn KvEngine, dir: PathBuf, steps: &[Step]) -> Vec<Option<Pair>> {
    let kinds = [Kind::Topic, Kind::ConsumeQueue, Kind::Dedup];
    let key = |kind: u8, number: u8| key(kinds[usize::from(kind)], &[number]);
    let kv = engine.open(dir).await.unwrap();
    for step in steps {
        let mut batch = Batch::new();
        match *step {
            Step::Put(kind, number, value) => batch.put(key(kind, number), [value]),
            Step::Delete(kind, number) => batch.delete(key(kind, number)),
            Step::DeleteRange(kind, from, to) => batch.delete_range(key(kind, from), key(kind, to)),
            Step::Flush => kv.clone().flush().await.unwrap(),
        }
        kv.write(batch).unwrap();
    }
    let mut found: Vec<Option<Pair>> = everything(&*kv).into_iter().map(Some).collect();
    for kind in 0..3 {
        for number in 0..20 {
            found.push(
                kv.last_at_or_before(&key(kind, number), &key(kind, 5))
                    .unwrap(),
            );
        }
    }
    found
}

#[tokio::test]
async fn mem_keeps_the_contract() {
    let root = tempfile::tempdir().unwrap();
    let host = host::Host::real();
    contract(&super::MemEngine::new(host.disk), root.path()).await;
}

/// Would catch a twin that remembers more than it flushed, or less.
#[tokio::test]
async fn mem_forgets_what_was_not_flushed() {
    for seed in 0..20 {
        let disk = host::testing::CrashDisk::new();
        let engine = super::MemEngine::new(Arc::new(disk.clone()));
        let kv = open(&engine, Path::new("/tables")).await;
        put(&*kv, &[(key(Kind::Topic, b"flushed"), b"value")]);
        kv.clone().flush().await.unwrap();
        let flushed = everything(&*kv);
        put(&*kv, &[(key(Kind::Topic, b"not flushed"), b"value")]);
        drop(kv);
        disk.crash(seed);
        let kv = open(&engine, Path::new("/tables")).await;
        assert_eq!(everything(&*kv), flushed);
    }
}

#[cfg(not(madsim))]
#[tokio::test]
async fn rocks_keeps_the_contract() {
    let root = tempfile::tempdir().unwrap();
    let host = host::Host::real();
    contract(&super::RocksEngine::new(host.disk, FAMILIES), root.path()).await;
}

/// Would catch a file that the disk lost, and that is taken for an error of the moment: nobody would make the tables again.
#[cfg(not(madsim))]
#[tokio::test]
async fn a_file_of_rocks_that_is_gone_is_damage() {
    let root = tempfile::tempdir().unwrap();
    let disk = host::Host::real().disk;
    let engine = super::RocksEngine::new(disk.clone(), FAMILIES);
    let dir = root.path().join("live");
    let kv = open(&engine, &dir).await;
    let row = key(Kind::Topic, b"row");
    put(&*kv, &[(row.clone(), b"value")]);
    kv.clone().flush().await.unwrap();
    drop(kv);
    for path in disk.list(&dir).unwrap() {
        if path.extension().is_some_and(|suffix| suffix == "sst") {
            disk.remove(&path).unwrap();
        }
    }
    let lost = match engine.open(dir).await {
        Ok(kv) => kv.get(&row).map(drop),
        Err(error) => Err(error),
    };
    let error = lost.unwrap_err();
    assert!(error.is_corruption(), "{error}");
}

/// Would catch families that are flushed one by one: after a crash their rows would be of different
/// batches. The flush is RocksDB's own, when one family's write buffer is full.
#[cfg(not(madsim))]
#[tokio::test]
async fn rocks_loses_whole_batches_only() {
    let root = tempfile::tempdir().unwrap();
    let engine = super::RocksEngine::new(host::Host::real().disk, FAMILIES);
    let kv = open(&engine, &root.path().join("live")).await;
    let kinds = [Kind::Topic, Kind::ConsumeQueue, Kind::Dedup];
    let mut written = 0_u32;
    while kv.counters().disk_bytes == 0 {
        let mut batch = Batch::new();
        let name = written.to_be_bytes();
        batch.put(key(kinds[0], &name), b"small");
        batch.put(key(kinds[1], &name), vec![written as u8; 64 << 10]);
        batch.put(key(kinds[2], &name), b"small");
        kv.write(batch).unwrap();
        written += 1;
        assert!(written < 100_000, "a full write buffer is flushed");
    }
    // The process dies: nothing is flushed on the way out.
    std::mem::forget(kv);
    let copy = root.path().join("copy");
    engine
        .restore(root.path().join("live"), copy.clone())
        .await
        .unwrap();
    let kv = open(&engine, &copy).await;
    let rows = kinds.map(|kind| {
        kv.scan(&[kind.tag()], &[kind.tag() + 1], usize::MAX)
            .unwrap()
            .len() as u32
    });
    assert!(rows[0] > 0 && rows[0] < written, "{rows:?} of {written}");
    assert!(
        rows.iter().all(|count| *count == rows[0]),
        "{rows:?} of {written}"
    );
}

#[cfg(not(madsim))]
proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]

    /// Would catch any step after which the twins hold different rows.
    #[test]
    fn twins_agree(steps in proptest::collection::vec(step(), 1..60)) {
        let root = tempfile::tempdir().unwrap();
        let disk = host::Host::real().disk;
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).build().unwrap();
        let (mem, rocks) = runtime.block_on(async {
            let mem = super::MemEngine::new(disk.clone());
            let rocks = super::RocksEngine::new(disk, FAMILIES);
            let mem = run(&mem, root.path().join("mem"), &steps).await;
            (mem, run(&rocks, root.path().join("rocks"), &steps).await)
        });
        prop_assert_eq!(mem, rocks);
    }
}
