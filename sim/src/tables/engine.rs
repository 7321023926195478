//! The tables as one process sees them: the product's engine in memory, and what goes wrong with it.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures::FutureExt;
use futures::future::BoxFuture;
use host::Disk;
use madsim::rand::Rng;
use store::{Batch, Kv, KvCounters, KvEngine, MemEngine, Pair, StoreError};

use super::forgetting;
use super::rot::{ROT, Rot, Rotten};
use super::{Failing, SimTables};
use crate::effect::Effect;

/// As RocksDB's engine: the longest wait of `ready`, and the pause between two looks.
const READY_WAIT_MAX: Duration = Duration::from_secs(30);
const READY_PAUSE: Duration = Duration::from_millis(5);

/// Opens the tables of one process.
pub(super) struct FaultyEngine {
    tables: SimTables,
    disk: Arc<dyn Disk>,
    inner: Arc<MemEngine>,
    life: u64,
}

impl FaultyEngine {
    pub(super) fn new(tables: SimTables, disk: Arc<dyn Disk>, life: u64) -> FaultyEngine {
        FaultyEngine {
            tables,
            inner: Arc::new(MemEngine::new(disk.clone())),
            disk,
            life,
        }
    }
}

impl KvEngine for FaultyEngine {
    fn open(&self, dir: PathBuf) -> BoxFuture<'static, Result<Arc<dyn Kv>, StoreError>> {
        let (tables, disk, life) = (self.tables.clone(), self.disk.clone(), self.life);
        let opening = self.inner.open(dir.clone());
        async move {
            if tables.refuses() {
                tables.trace.happened(Effect::TablesNotOpened);
                return Err(failed("open"));
            }
            let rot = Rot::read(tables.disk.content(&dir.join(ROT)));
            if let Some(rot) = rot.iter().find(|rot| rot.how == Rotten::File) {
                return Err(tables.shows(rot, &dir, life));
            }
            let kv = Arc::new(FaultyKv {
                inner: opening.await?,
                tables: tables.clone(),
                disk,
                dir: dir.clone(),
                life,
                rot: Mutex::new(rot),
                read_only: AtomicBool::new(false),
            });
            let mut state = tables.state();
            state.open = Arc::downgrade(&kv);
            state.dir = dir;
            drop(state);
            let kv: Arc<dyn Kv> = kv;
            Ok(kv)
        }
        .boxed()
    }

    fn restore(
        &self,
        checkpoint: PathBuf,
        live: PathBuf,
    ) -> BoxFuture<'static, Result<(), StoreError>> {
        self.inner.restore(checkpoint, live)
    }

    fn check(&self, dir: PathBuf) -> BoxFuture<'static, Result<(), StoreError>> {
        let rot = Rot::read(self.tables.disk.content(&dir.join(ROT)));
        let checking = self.inner.check(dir.clone());
        async move {
            match rot.first() {
                Some(rot) => Err(met(rot, &dir)),
                None => checking.await,
            }
        }
        .boxed()
    }
}

impl SimTables {
    /// What the process is told that meets rot.
    fn shows(&self, rot: &Rot, dir: &Path, life: u64) -> StoreError {
        let first = self.state().shown.entry(rot.seed).or_default().insert(life);
        if first {
            let machine = self.machine;
            self.trace
                .tell(format_args!("{machine} meets rot in its tables: {rot}"));
            self.trace.happened(Effect::TableRotMet);
        }
        met(rot, dir)
    }

    async fn end_of_stall(&self) {
        while self.stalls() {
            tokio::time::sleep(READY_PAUSE).await;
        }
    }

    /// How long a checkpoint takes beyond what the disk needs, and how much of that passes before it is a copy.
    fn checkpoint_time(&self) -> (Duration, Duration) {
        let longest = self.state().checkpoint_longest;
        if longest.is_zero() {
            return (Duration::ZERO, Duration::ZERO);
        }
        let mut random = madsim::rand::thread_rng();
        let time = random.gen_range(longest / 2..=longest);
        match random.gen_bool(0.5) {
            true => (time, time),
            false => (time, Duration::ZERO),
        }
    }
}

/// What RocksDB says, and `store` makes of that: a sector that the disk does not give back is damage, too.
fn met(rot: &Rot, dir: &Path) -> StoreError {
    match rot.how {
        Rotten::Unreadable => {
            StoreError::corrupt(dir, "IO error: While pread: Input/output error".to_owned())
        }
        _ => StoreError::corrupt(dir, format!("Corruption: block checksum mismatch ({rot})")),
    }
}

fn failed(verb: &'static str) -> StoreError {
    StoreError::Engine {
        verb,
        detail: "IO error: While appending to file: Input/output error".to_owned(),
    }
}

/// Tables that are open.
pub(super) struct FaultyKv {
    inner: Arc<dyn Kv>,
    tables: SimTables,
    disk: Arc<dyn Disk>,
    dir: PathBuf,
    life: u64,
    rot: Mutex<Vec<Rot>>,
    /// After an error in its background, until it is opened again.
    read_only: AtomicBool,
}

impl FaultyKv {
    pub(super) fn inner(&self) -> &dyn Kv {
        &*self.inner
    }

    /// Something of it rots while it is open.
    pub(super) fn rots(&self, rot: Rot) {
        self.rot().push(rot);
    }

    fn rot(&self) -> MutexGuard<'_, Vec<Rot>> {
        self.rot.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whoever reads from one of these keys to the other one.
    fn reads(&self, from: &[u8], to: &[u8]) -> Result<(), StoreError> {
        let met = self.rot().iter().find(|rot| rot.is_met(from, to)).cloned();
        met.map_or(Ok(()), |rot| {
            Err(self.tables.shows(&rot, &self.dir, self.life))
        })
    }

    /// Whoever needs a file that can be written.
    fn check_writable(&self, verb: &'static str) -> Result<(), StoreError> {
        let is_merged = |rot: &&Rot| rot.how == Rotten::Merged;
        let merged = self.rot().iter().find(is_merged).cloned();
        if let Some(rot) = merged {
            return Err(self.tables.shows(&rot, &self.dir, self.life));
        }
        match self.read_only.load(Ordering::Relaxed) {
            true => Err(failed(verb)),
            false => Ok(()),
        }
    }

    /// Fails now, and is not written any more.
    fn fails(&self, effect: Effect, verb: &'static str) -> StoreError {
        self.read_only.store(true, Ordering::Relaxed);
        let machine = self.tables.machine;
        let trace = &self.tables.trace;
        trace.tell(format_args!("{machine}: {} ({verb})", effect.name()));
        trace.happened(effect);
        failed(verb)
    }

    fn check_flushes(&self, verb: &'static str) -> Result<(), StoreError> {
        self.check_writable(verb)?;
        match self.tables.takes_failure(Failing::Flush) {
            true => Err(self.fails(Effect::TablesNotFlushed, verb)),
            false => Ok(()),
        }
    }

    async fn make_checkpoint(&self, dir: PathBuf, key: Bytes) -> Result<Option<Bytes>, StoreError> {
        self.tables.end_of_stall().await;
        self.check_flushes("checkpoint")?;
        if self.tables.takes_failure(Failing::Checkpoint) {
            return Err(self.fails(Effect::CheckpointFailed, "checkpoint"));
        }
        let (time, before) = self.tables.checkpoint_time();
        let _slow = (!time.is_zero()).then(|| SlowCheckpoint::begin(&self.tables));
        tokio::time::sleep(before).await;
        let value = self.inner.clone().checkpoint(dir.clone(), key).await?;
        tokio::time::sleep(time - before).await;
        self.check_writable("checkpoint")?;
        let linked = self.rot().clone();
        if let Some(rot) = linked.iter().find(|rot| rot.how == Rotten::Unreadable) {
            self.tables.shows(rot, &self.dir, self.life);
            return Err(StoreError::corrupt(&dir, "the disk cannot read it"));
        }
        let linked: Vec<Rot> = linked.into_iter().filter(Rot::is_linked).collect();
        if !linked.is_empty() {
            self.write_rot(&dir, &linked).await?;
        }
        Ok(value)
    }

    /// A copy's files are the tables' files.
    async fn write_rot(&self, dir: &Path, rot: &[Rot]) -> Result<(), StoreError> {
        let path = dir.join(ROT);
        let file = self.disk.create(&path);
        let file = file.map_err(StoreError::io("create", &path))?;
        let written = file.write_and_sync(0, vec![Rot::write(rot)]).await;
        written.map_err(StoreError::io("write", &path))?;
        let synced = self.disk.sync_dir(dir).await;
        synced.map_err(StoreError::io("sync", dir))
    }
}

/// A checkpoint that takes long, until it is made or given up.
struct SlowCheckpoint(SimTables);

impl SlowCheckpoint {
    fn begin(tables: &SimTables) -> SlowCheckpoint {
        tables.state().slow_checkpoints += 1;
        tables.trace.happened(Effect::CheckpointSlow);
        SlowCheckpoint(tables.clone())
    }
}

impl Drop for SlowCheckpoint {
    fn drop(&mut self) {
        self.0.state().slow_checkpoints -= 1;
    }
}

impl Kv for FaultyKv {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
        self.reads(key, key)?;
        self.inner.get(key)
    }

    fn scan(&self, from: &[u8], to: &[u8], limit: usize) -> Result<Vec<Pair>, StoreError> {
        let pairs = self.inner.scan(from, to, limit)?;
        // Who has read enough does not look further.
        match pairs.last() {
            Some((last, _)) if pairs.len() == limit => self.reads(from, last)?,
            _ => self.reads(from, to)?,
        }
        Ok(pairs)
    }

    fn last_at_or_before(
        &self,
        key: &[u8],
        lower_bound: &[u8],
    ) -> Result<Option<Pair>, StoreError> {
        let pair = self.inner.last_at_or_before(key, lower_bound)?;
        let reached = pair.as_ref().map_or(lower_bound, |(key, _)| &key[..]);
        self.reads(reached, key)?;
        Ok(pair)
    }

    fn ready(self: Arc<Self>) -> BoxFuture<'static, ()> {
        async move {
            if !self.tables.stalls() {
                return;
            }
            self.tables.trace.happened(Effect::WriteStalled);
            // Half a minute at most, as it is promised.
            let _ = tokio::time::timeout(READY_WAIT_MAX, self.tables.end_of_stall()).await;
        }
        .boxed()
    }

    fn write(&self, batch: Batch) -> Result<(), StoreError> {
        self.check_writable("write")?;
        if self.tables.refuses() || self.tables.takes_failure(Failing::Write) {
            return Err(self.fails(Effect::TablesNotWritten, "write"));
        }
        let remembered_ms = self.tables.state().remembered_ms;
        for effect in forgetting::with(&batch, &*self.inner, remembered_ms) {
            self.tables.trace.happened(effect);
        }
        self.inner.write(batch)
    }

    fn flush(self: Arc<Self>) -> BoxFuture<'static, Result<(), StoreError>> {
        async move {
            self.tables.end_of_stall().await;
            self.check_flushes("flush")?;
            self.inner.clone().flush().await
        }
        .boxed()
    }

    fn checkpoint(
        self: Arc<Self>,
        dir: PathBuf,
        key: Bytes,
    ) -> BoxFuture<'static, Result<Option<Bytes>, StoreError>> {
        async move { self.make_checkpoint(dir, key).await }.boxed()
    }

    fn counters(&self) -> KvCounters {
        self.inner.counters()
    }

    fn digest(&self) -> Option<u64> {
        self.inner.digest()
    }
}
