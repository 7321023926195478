//! A replica's machine for these tests: a disk in memory that can crash, behind one that can fail.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use host::Host;
use host::testing::{CrashDisk, FaultyDisk, ManualClock};
use store::{
    CommitLog, DataDir, Entry, EntryKind, Identity, LogConfig, LogId, Recovered, Result,
    SegmentInfo, Staging, StoreError,
};

pub(crate) const DATA: &str = "/data";

/// Small enough that a test of a few kilobytes has many segments.
pub(crate) fn small_config() -> LogConfig {
    LogConfig {
        segment_bytes: 4096,
        cache_bytes: 1000,
        read_cache_bytes: 2000,
        index_cache_bytes: 400,
        reserve_bytes: 0,
        pending_bytes_max: 1 << 20,
        group_bytes_max: 2048,
        spare_segments: 1,
        recycled_segments_max: 2,
        prefill: false,
    }
}

pub(crate) struct World {
    pub(crate) memory: CrashDisk,
    pub(crate) disk: FaultyDisk,
    pub(crate) config: LogConfig,
}

impl World {
    pub(crate) fn new() -> World {
        World::with(small_config())
    }

    pub(crate) fn with(config: LogConfig) -> World {
        let memory = CrashDisk::new();
        let disk = FaultyDisk::new(Arc::new(memory.clone()));
        World {
            memory,
            disk,
            config,
        }
    }

    pub(crate) async fn try_open(&self) -> Result<(CommitLog, Recovered)> {
        let dir = self.data_dir().await?;
        CommitLog::open(&Arc::new(dir), self.config.clone()).await
    }

    /// The replica has promised something. Its log must be closed.
    pub(crate) async fn vote(&self) {
        let dir = self.data_dir().await.unwrap();
        dir.save_vote(Bytes::from_static(b"vote")).await.unwrap();
    }

    /// A log that was written, of a replica that has promised something.
    pub(crate) async fn vote_after(&self, groups: &[Vec<Entry>]) {
        let log = self.open().await;
        for entries in groups {
            append(&log, entries.clone()).await.unwrap();
        }
        log.close().await;
        drop(log);
        self.vote().await;
    }

    /// What stands in a file.
    pub(crate) fn bytes(&self, path: &Path) -> Vec<u8> {
        use host::Disk;
        let file = self.memory.open(path).unwrap();
        let mut bytes = vec![0; usize::try_from(file.len().unwrap()).unwrap()];
        let count = file.read_at(0, &mut bytes).unwrap();
        bytes.truncate(count);
        bytes
    }

    async fn data_dir(&self) -> Result<DataDir> {
        let clock = Arc::new(ManualClock::new(1));
        let host = Host {
            clock,
            disk: Arc::new(self.disk.handle()),
        };
        let identity = Identity {
            cluster_id: "c".into(),
            group: "g".into(),
            broker_id: 1,
        };
        DataDir::open(&host, Path::new(DATA), &identity, &self.config).await
    }

    pub(crate) async fn open(&self) -> CommitLog {
        let (log, recovered) = self.try_open().await.unwrap();
        assert_eq!(recovered.damage, None);
        log
    }

    /// Closes the log and opens it again.
    pub(crate) async fn reopen(&self, log: CommitLog) -> (CommitLog, Recovered) {
        log.close().await;
        drop(log);
        self.try_open().await.unwrap()
    }

    /// The power fails: nothing that runs can reach the disk any more.
    pub(crate) async fn crash(&self, log: CommitLog, seed: u64) {
        self.disk.kill();
        self.memory.crash(seed);
        log.close().await;
        drop(log);
        self.disk.heal();
    }

    /// Paths of the log's files of one kind, lowest first.
    pub(crate) fn files(&self, extension: &str) -> Vec<PathBuf> {
        use host::Disk;
        let is_log = |path: &PathBuf| path.to_string_lossy().contains("/log-");
        let mut dirs = self.memory.list(Path::new(DATA)).unwrap();
        dirs.retain(is_log);
        assert_eq!(dirs.len(), 1, "one generation");
        let mut files = self.memory.list(&dirs[0]).unwrap();
        files.retain(|path| path.extension().is_some_and(|found| found == extension));
        files
    }
}

/// An entry whose body tells it from every other.
pub(crate) fn entry(term: u64, index: u64, body_len: usize) -> Entry {
    let body: Vec<u8> = (0..body_len as u64)
        .map(|at| (term * 7 + index * 13 + at) as u8)
        .collect();
    Entry {
        term,
        index,
        kind: EntryKind::Normal,
        body: Bytes::from(body),
    }
}

/// An entry that begins a segment.
pub(crate) fn roll(term: u64, index: u64) -> Entry {
    let kind = EntryKind::Roll;
    Entry {
        kind,
        ..entry(term, index, 0)
    }
}

pub(crate) fn entries(term: u64, indexes: std::ops::Range<u64>, body_len: usize) -> Vec<Entry> {
    indexes.map(|index| entry(term, index, body_len)).collect()
}

/// Appends, and returns once the entries are synced or failed to be.
pub(crate) async fn append(log: &CommitLog, entries: Vec<Entry>) -> Result<()> {
    let (done, synced) = tokio::sync::oneshot::channel();
    log.append(entries, Box::new(move |result| drop(done.send(result))))?;
    synced.await.unwrap_or(Err(StoreError::Closed))
}

/// All entries of the log, piece by piece.
pub(crate) async fn read_all(log: &CommitLog) -> Vec<Entry> {
    let positions = log.positions();
    let end = positions.appended.map_or(0, |last| last.index + 1);
    let mut entries = Vec::new();
    let mut next = positions.dropped;
    while next < end {
        let piece = log.read(next, end, 3000).await.unwrap();
        assert_eq!(piece.first().map(|entry| entry.index), Some(next));
        next += piece.len() as u64;
        entries.extend(piece);
    }
    entries
}

/// The segments with their checksums: equal if the bytes are.
pub(crate) async fn contents(log: &CommitLog) -> Vec<SegmentInfo> {
    let last = log.positions().flushed.unwrap();
    let exports = log.export(last.index).await.unwrap();
    exports.iter().map(|export| export.info()).collect()
}

pub(crate) fn id(term: u64, index: u64) -> LogId {
    LogId { term, index }
}

/// Copies all segments of `from` up to `last` into a staging place of `to`.
pub(crate) async fn transfer(
    from: &CommitLog,
    to: &CommitLog,
    last: u64,
) -> Result<(Staging, u64)> {
    let exports = from.export(last).await?;
    let staging = to.stage("snapshot-1")?;
    let wanted: Vec<_> = exports.iter().map(|export| export.info()).collect();
    let missing = to.missing(&staging, &wanted).await?;
    let mut sent = 0;
    for export in exports
        .iter()
        .filter(|export| missing.contains(&export.info()))
    {
        let mut writer = staging.receive(export.info(), 0)?;
        let mut position = 0;
        loop {
            let bytes = export.read(position, 1000).await?;
            if bytes.is_empty() {
                break;
            }
            position += bytes.len() as u64;
            writer.write(bytes).await?;
        }
        writer.finish().await?;
        sent += 1;
    }
    Ok((staging, sent))
}

/// Counts appends that were answered well.
#[derive(Clone, Default)]
pub(crate) struct Acknowledged {
    end: Arc<AtomicU64>,
    order: Arc<Mutex<Vec<u64>>>,
}

impl Acknowledged {
    pub(crate) fn done(&self, number: u64, end: u64) -> store::Done {
        let this = self.clone();
        Box::new(move |result| {
            this.order.lock().unwrap().push(number);
            if result.is_ok() {
                this.end.fetch_max(end, Ordering::SeqCst);
            }
        })
    }

    /// The index behind the last entry that was answered well.
    pub(crate) fn end(&self) -> u64 {
        self.end.load(Ordering::SeqCst)
    }

    pub(crate) fn set_end(&self, end: u64) {
        self.end.store(end, Ordering::SeqCst);
    }

    pub(crate) fn order(&self) -> Vec<u64> {
        self.order.lock().unwrap().clone()
    }
}
