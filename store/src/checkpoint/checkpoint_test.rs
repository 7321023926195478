use host::testing::{CrashDisk, FaultyDisk};

use super::*;
use crate::kv::{Batch, KvEngine, MemEngine};

struct Fixture {
    disk: Arc<dyn Disk>,
    engine: Arc<dyn KvEngine>,
    root: PathBuf,
    kv: Arc<dyn Kv>,
    checkpoints: Checkpoints,
}

impl Fixture {
    async fn new(disk: Arc<dyn Disk>, engine: Arc<dyn KvEngine>, root: &Path) -> Fixture {
        let kv = engine.open(root.join("tables-1")).await.unwrap();
        let dir = root.join("checkpoints");
        let checkpoints = Checkpoints::open(disk.clone(), dir).await.unwrap();
        Fixture {
            disk,
            engine,
            root: root.to_path_buf(),
            kv,
            checkpoints,
        }
    }

    /// Applies one entry: a row and the `applied` row.
    fn apply(&self, index: u64) {
        let mut batch = Batch::new();
        table::next_id::put(&mut batch, index);
        table::applied::put(&mut batch, &index.to_be_bytes());
        self.kv.write(batch).unwrap();
    }

    async fn create(&self, index: u64) -> Result<Checkpoint> {
        let copy = self.checkpoints.copy(&self.kv).await?;
        assert_eq!(copy.applied()[..], index.to_be_bytes());
        self.checkpoints
            .publish(copy, LogId { term: 1, index })
            .await
    }

    /// The index that the tables restored from a checkpoint say.
    async fn restored_index(&self, checkpoint: &Checkpoint) -> u64 {
        let live = self.root.join("tables-2");
        self.engine
            .restore(checkpoint.tables_dir(), live.clone())
            .await
            .unwrap();
        let kv = self.engine.open(live).await.unwrap();
        table::next_id::get(&*kv).unwrap()
    }
}

async fn lives_a_life(fixture: Fixture) {
    assert_eq!(fixture.checkpoints.newest().unwrap(), None);
    // Would catch a checkpoint that claims a place although the tables are nowhere.
    let nothing = fixture.checkpoints.copy(&fixture.kv).await;
    assert!(matches!(nothing, Err(StoreError::Refused { .. })));
    fixture.apply(7);
    let first = fixture.create(7).await.unwrap();
    fixture.apply(30);
    fixture.kv.clone().flush().await.unwrap();
    let second = fixture.create(30).await.unwrap();
    // What is applied later must not reach it.
    fixture.apply(31);
    assert_eq!(
        fixture.checkpoints.newest().unwrap().as_ref(),
        Some(&second)
    );
    assert_eq!(fixture.restored_index(&second).await, 30);
    assert_eq!(fixture.restored_index(&first).await, 7);

    // Would catch a copy that is named after a place where it is not, when it is applied further before it has its name.
    let copy = fixture.checkpoints.copy(&fixture.kv).await.unwrap();
    assert_eq!(copy.applied()[..], 31_u64.to_be_bytes());
    fixture.apply(32);
    let log_id = LogId { term: 1, index: 31 };
    let third = fixture.checkpoints.publish(copy, log_id).await.unwrap();
    assert_eq!(fixture.restored_index(&third).await, 31);

    // Would catch one that is made again although it is there, or one that differs from its namesake.
    assert_eq!(
        fixture.create(32).await.unwrap(),
        fixture.create(32).await.unwrap()
    );

    fixture.checkpoints.remove_older(31).await.unwrap();
    assert!(!fixture.disk.exists(first.dir()));
    assert!(!fixture.disk.exists(second.dir()));
    assert!(fixture.disk.exists(third.dir()));
}

/// Whoever copies the tables while entries are applied must get the effect of whole batches, and know of which.
#[cfg(not(madsim))]
async fn is_copied_while_entries_are_applied(fixture: Fixture) {
    fixture.apply(1);
    let stop = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let (kv, stopped) = (fixture.kv.clone(), stop.clone());
    let applying = tokio::task::spawn_blocking(move || {
        let mut index = 2_u64;
        while !stopped.load(std::sync::atomic::Ordering::Relaxed) {
            // One row in each family that RocksDB has.
            let mut batch = Batch::new();
            table::next_id::put(&mut batch, index);
            for kind in [table::Kind::ConsumeQueue, table::Kind::Dedup] {
                batch.put([kind.tag()], index.to_be_bytes());
            }
            table::applied::put(&mut batch, &index.to_be_bytes());
            kv.write(batch).unwrap();
            index += 1;
        }
        index
    });
    let mut reached = Vec::new();
    for round in 0..5 {
        let copy = fixture.checkpoints.copy(&fixture.kv).await.unwrap();
        let index = u64::from_be_bytes(copy.applied()[..].try_into().unwrap());
        let log_id = LogId { term: 1, index };
        let checkpoint = fixture.checkpoints.publish(copy, log_id).await.unwrap();
        let live = fixture.root.join(format!("copied-{round}"));
        let restoring = fixture
            .engine
            .restore(checkpoint.tables_dir(), live.clone());
        restoring.await.unwrap();
        let kv = fixture.engine.open(live).await.unwrap();
        assert_eq!(table::next_id::get(&*kv).unwrap(), index);
        for kind in [table::Kind::ConsumeQueue, table::Kind::Dedup] {
            let row = kv.get(&[kind.tag()]).unwrap();
            // The first entry made no such row.
            let row = row.map_or(1, |row| u64::from_be_bytes(row[..].try_into().unwrap()));
            assert_eq!(row, index, "of {kind:?}");
        }
        reached.push(index);
    }
    stop.store(true, std::sync::atomic::Ordering::Relaxed);
    let last = applying.await.unwrap();
    assert!(
        reached.is_sorted() && reached[4] < last,
        "{reached:?} of {last}"
    );
}

#[cfg(not(madsim))]
#[tokio::test]
async fn mem_is_copied_while_entries_are_applied() {
    let root = tempfile::tempdir().unwrap();
    let disk = host::Host::real().disk;
    let engine = Arc::new(MemEngine::new(disk.clone()));
    is_copied_while_entries_are_applied(Fixture::new(disk, engine, root.path()).await).await;
}

#[cfg(not(madsim))]
#[tokio::test]
async fn rocks_is_copied_while_entries_are_applied() {
    let root = tempfile::tempdir().unwrap();
    let disk = host::Host::real().disk;
    let engine = Arc::new(crate::RocksEngine::new(
        disk.clone(),
        crate::kv::suite::FAMILIES,
    ));
    is_copied_while_entries_are_applied(Fixture::new(disk, engine, root.path()).await).await;
}

#[tokio::test]
async fn mem_checkpoints_live_a_life() {
    let root = tempfile::tempdir().unwrap();
    let disk = host::Host::real().disk;
    let engine = Arc::new(MemEngine::new(disk.clone()));
    lives_a_life(Fixture::new(disk, engine, root.path()).await).await;
}

#[cfg(not(madsim))]
#[tokio::test]
async fn rocks_checkpoints_live_a_life() {
    let root = tempfile::tempdir().unwrap();
    let disk = host::Host::real().disk;
    let engine = Arc::new(crate::RocksEngine::new(
        disk.clone(),
        crate::kv::suite::FAMILIES,
    ));
    lives_a_life(Fixture::new(disk, engine, root.path()).await).await;
}

/// Would catch a META that is believed although a file of the tables is cut or missing.
#[tokio::test]
async fn a_damaged_checkpoint_is_passed_over() {
    let root = tempfile::tempdir().unwrap();
    let disk = host::Host::real().disk;
    let engine = Arc::new(MemEngine::new(disk.clone()));
    let fixture = Fixture::new(disk, engine, root.path()).await;
    fixture.apply(1);
    let first = fixture.create(1).await.unwrap();
    fixture.apply(2);
    let second = fixture.create(2).await.unwrap();
    let table_file = second.dir().join(&second.relative_paths()[1]);
    fixture.disk.open(&table_file).unwrap().set_len(3).unwrap();
    assert!(
        fixture
            .checkpoints
            .read(second.dir())
            .unwrap_err()
            .is_corruption()
    );
    assert_eq!(fixture.checkpoints.newest().unwrap(), Some(first.clone()));
    fixture.disk.remove(&first.dir().join(META)).unwrap();
    assert_eq!(fixture.checkpoints.newest().unwrap(), None);
}

/// Would catch a checkpoint that has its name before all of it is durable, and a restore that a
/// crash leaves half made.
#[tokio::test]
async fn a_power_cut_leaves_whole_checkpoints_only() {
    for seed in 0..40 {
        let disk = CrashDisk::new();
        let root = Path::new("/replica");
        disk.create_dir_all(root).unwrap();
        disk.sync_dir(Path::new("/")).await.unwrap();
        let fixture = on_crash_disk(&disk, root).await;
        fixture.apply(5);
        let made = fixture.create(5).await.unwrap();
        fixture.apply(9);
        // Half made: the tables' files are there, META is not.
        let half = fixture.checkpoints.copy(&fixture.kv).await.unwrap().dir;
        assert!(disk.exists(&half));
        disk.crash(seed);

        let fixture = on_crash_disk(&disk, root).await;
        assert_eq!(fixture.checkpoints.newest().unwrap(), Some(made.clone()));
        assert!(!disk.exists(&half));
        assert_eq!(fixture.restored_index(&made).await, 5);
        disk.crash(seed);
        let kv = fixture.engine.open(root.join("tables-2")).await.unwrap();
        assert_eq!(table::next_id::get(&*kv).unwrap(), 5);
    }
}

/// Would catch a step whose failure, or a crash after it, leaves a checkpoint in name only or takes the
/// former one away. The process dies after every possible number of steps.
#[tokio::test]
async fn dying_at_any_step_leaves_a_whole_checkpoint() {
    for steps in 0.. {
        let crash_disk = CrashDisk::new();
        let faulty = Arc::new(FaultyDisk::new(Arc::new(crash_disk.clone())));
        let root = Path::new("/replica");
        crash_disk.create_dir_all(root).unwrap();
        crash_disk.sync_dir(Path::new("/")).await.unwrap();
        let engine = Arc::new(MemEngine::new(faulty.clone()));
        let fixture = Fixture::new(faulty.clone(), engine, root).await;
        fixture.apply(5);
        fixture.create(5).await.unwrap();
        fixture.apply(9);
        faulty.stop_after(steps);
        let mut done = fixture.create(9).await.is_ok();
        done &= fixture.checkpoints.remove_older(9).await.is_ok();
        crash_disk.crash(steps);

        let fixture = on_crash_disk(&crash_disk, root).await;
        let newest = fixture.checkpoints.newest().unwrap().unwrap();
        let index = newest.meta().log_id.index;
        assert!(
            index == 9 || (index == 5 && !done),
            "{index} after {steps} steps"
        );
        assert_eq!(fixture.restored_index(&newest).await, index);
        if done {
            return;
        }
    }
}

async fn on_crash_disk(disk: &CrashDisk, root: &Path) -> Fixture {
    let disk: Arc<dyn Disk> = Arc::new(disk.clone());
    Fixture::new(disk.clone(), Arc::new(MemEngine::new(disk)), root).await
}

/// Would catch tables made of, or a peer sent, bytes that rotted while nobody looked.
#[tokio::test]
async fn rot_in_a_checkpoint_is_found() {
    let root = tempfile::tempdir().unwrap();
    let disk = host::Host::real().disk;
    let engine = Arc::new(MemEngine::new(disk.clone()));
    let fixture = Fixture::new(disk, engine, root.path()).await;
    fixture.apply(1);
    let checkpoint = fixture.create(1).await.unwrap();
    fixture.checkpoints.verify(&checkpoint).await.unwrap();
    let rotten = checkpoint.dir().join(&checkpoint.relative_paths()[1]);
    let file = fixture.disk.open(&rotten).unwrap();
    let mut byte = [0];
    file.read_at(9, &mut byte).unwrap();
    file.write_at(9, &[Bytes::from(vec![byte[0] ^ 4])]).unwrap();
    let found = fixture.checkpoints.verify(&checkpoint).await.unwrap_err();
    assert!(found.is_corruption(), "{found}");
    // Nothing was applied since, and all the same it is made again.
    let renewed = fixture.create(1).await.unwrap();
    fixture.checkpoints.verify(&renewed).await.unwrap();
    // Who has nothing else may still want what can be read of it.
    for _ in 0..2 {
        let renewed = fixture.create(1).await.unwrap();
        fixture.checkpoints.set_aside(&renewed).await.unwrap();
        assert_eq!(fixture.checkpoints.newest().unwrap(), None);
        let aside = renewed.dir().with_extension("damaged");
        assert!(fixture.disk.exists(&aside.join("tables")));
    }
    fixture.checkpoints.remove_set_aside().await.unwrap();
    assert!(
        !fixture
            .disk
            .exists(&renewed.dir().with_extension("damaged"))
    );
}

/// Would catch a received name that leads out of the directory, and damage that is not noticed.
#[test]
fn meta_is_believed_only_as_it_was_written() {
    let meta = CheckpointMeta {
        log_id: LogId { term: 3, index: 9 },
        applied: Bytes::from_static(b"opaque"),
        files: vec![CheckpointFile {
            name: "000001.sst".into(),
            size_bytes: 77,
            crc32c: 5,
        }],
    };
    assert_eq!(CheckpointMeta::decode(meta.encode()), Ok(meta.clone()));
    for place in 0..meta.encode().len() {
        let mut damaged = meta.encode().to_vec();
        damaged[place] ^= 1;
        assert!(CheckpointMeta::decode(Bytes::from(damaged)).is_err());
    }
    for name in ["../META", "/etc/passwd", "a/b", "", ".", "..", "a/"] {
        let mut evil = meta.clone();
        evil.files[0].name = name.into();
        assert!(CheckpointMeta::decode(evil.encode()).is_err(), "{name:?}");
    }
    let mut endless = meta;
    endless.log_id.index = u64::MAX;
    assert!(CheckpointMeta::decode(endless.encode()).is_err());
}
