//! Tables in RocksDB: no write-ahead log, all families flushed at one point.
//!
//! The commit log is the write-ahead log, so RocksDB's own is off on every write, and a flush takes
//! all families to the same batch (atomic flush): only then is what a crash leaves the effect of a
//! prefix of the batches. Memory is bounded in one place, below: an idle replica needs little, a busy
//! one no more than the sum of the constants.
//!
//! Must never: write with RocksDB's log on, or flush one family alone.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures::FutureExt;
use futures::future::BoxFuture;
use host::Disk;
use rocksdb::checkpoint::Checkpoint;
use rocksdb::{
    BlockBasedOptions, Cache, ColumnFamily, ColumnFamilyDescriptor, DB, DBCompressionType,
    DBRawIterator, ErrorKind, FlushOptions, LogLevel, Options, ReadOptions, WriteBatch,
    WriteOptions, properties,
};

use super::open_databases::OpenDatabase;
use super::{Batch, Family, Kv, KvCounters, KvEngine, Operation, Pair, image};
use crate::error::StoreError;

/// Blocks read from files, their indexes and filters, of all families. Grows on use.
const BLOCK_CACHE_BYTES: usize = 8 << 20;
/// One family's write buffer; a full one flushes all families.
const WRITE_BUFFER_BYTES: usize = 16 << 20;
/// All write buffers together, those being flushed included.
const WRITE_BUFFERS_BYTES: usize = 48 << 20;
/// Write buffers of one family: one in use, the others being flushed.
const WRITE_BUFFERS_PER_FAMILY: i32 = 3;
/// Full write buffers of one family that wait for the disk, before a batch that may fill another one: RocksDB holds
/// writers up when all but the one in use would be full.
const WRITE_BUFFERS_WAITING_MAX: u64 = WRITE_BUFFERS_PER_FAMILY as u64 - 2;
/// Files of one family that no compaction has merged yet, before a batch.
const UNMERGED_FILES_MAX: u64 = 24;
/// Where RocksDB itself would hold writers up for that reason: never, [`Kv::ready`] does.
const UNMERGED_FILES_NEVER: i32 = 1 << 20;
/// Longest wait of [`Kv::ready`].
const READY_WAIT_MAX: Duration = Duration::from_secs(30);
/// Pause between looks whether the disk has caught up.
const READY_PAUSE: Duration = Duration::from_millis(5);
/// Write buffers grow by this much: an idle family holds at most one piece.
const ARENA_BLOCK_BYTES: usize = 64 << 10;
/// Files kept open; the others are opened again on use.
const OPEN_FILES_MAX: i32 = 128;
/// Threads for flushes and compactions.
const BACKGROUND_JOBS: i32 = 2;
const BLOCK_BYTES: usize = 16 << 10;
/// RocksDB's list of files is copied by every checkpoint, so it starts over when it is this long.
const MANIFEST_BYTES: usize = 4 << 20;
const INFO_LOG_BYTES: usize = 1 << 20;
const INFO_LOGS: usize = 2;
/// How the names of RocksDB's own log files begin.
const INFO_LOG: &str = "LOG";

/// What the system says where the disk does not give back what stands there (EIO), or has lost the file.
const LOST: [&str; 2] = ["Input/output error", "No such file or directory"];

/// What RocksDB was doing, in its own words, where it read.
const READING: [&str; 3] = [
    "While pread",
    "While open a file for random read",
    "While reading",
];

/// And where it wrote: who opens tables does that, too.
const WRITING: [&str; 3] = ["While appending", "While fsync", "While fdatasync"];

/// The family that is always there, of RocksDB itself.
const DEFAULT_FAMILY: &str = "default";

/// The families that were declared, and the one of all other tables.
#[derive(Clone, Copy)]
struct Families(&'static [Family]);

impl Families {
    fn names(self) -> impl Iterator<Item = &'static str> {
        let declared = self.0.iter().map(|family| family.name);
        std::iter::once(DEFAULT_FAMILY).chain(declared)
    }

    /// The family of a key, by its first byte.
    fn name_of(self, key: &[u8]) -> &'static str {
        let has = |family: &&Family| key.first().is_some_and(|tag| family.tags.contains(tag));
        let declared = self.0.iter().find(has);
        declared.map_or(DEFAULT_FAMILY, |family| family.name)
    }

    fn descriptors(self, cache: &Cache) -> impl Iterator<Item = ColumnFamilyDescriptor> {
        self.names()
            .map(move |name| ColumnFamilyDescriptor::new(name, family_options(cache)))
    }
}

/// Opens maps in RocksDB.
pub struct RocksEngine {
    disk: Arc<dyn Disk>,
    families: Families,
}

impl RocksEngine {
    /// An engine whose maps lie on `disk`, whose paths must be real files (`Disk::real_path`):
    /// RocksDB opens them itself. Maps that are there must have been made with these families.
    pub fn new(disk: Arc<dyn Disk>, families: &'static [Family]) -> RocksEngine {
        assert!(
            disk.real_path(),
            "rocksdb needs a disk whose paths are real files"
        );
        let families = Families(families);
        RocksEngine { disk, families }
    }
}

impl KvEngine for RocksEngine {
    fn open(&self, dir: PathBuf) -> BoxFuture<'static, Result<Arc<dyn Kv>, StoreError>> {
        let (disk, families) = (self.disk.clone(), self.families);
        async move {
            let kv = host::blocking::run(move || RocksKv::open(disk, dir, families)).await?;
            let kv: Arc<dyn Kv> = Arc::new(kv);
            Ok(kv)
        }
        .boxed()
    }

    fn restore(
        &self,
        checkpoint: PathBuf,
        live: PathBuf,
    ) -> BoxFuture<'static, Result<(), StoreError>> {
        image::restore(self.disk.clone(), checkpoint, live).boxed()
    }

    fn check(&self, dir: PathBuf) -> BoxFuture<'static, Result<(), StoreError>> {
        let (disk, families) = (self.disk.clone(), self.families);
        let read = move || {
            look_into(&*disk, &dir, families, |copy| {
                read_all(copy, &dir, families)
            })
        };
        host::blocking::run(read).boxed()
    }
}

struct RocksKv {
    database: DB,
    families: Families,
    disk: Arc<dyn Disk>,
    dir: PathBuf,
    batches: AtomicU64,
    flushes: AtomicU64,
    /// The last field: dropped when the database is closed.
    _open: OpenDatabase,
}

impl RocksKv {
    fn open(disk: Arc<dyn Disk>, dir: PathBuf, families: Families) -> Result<RocksKv, StoreError> {
        let cache = Cache::new_lru_cache(BLOCK_CACHE_BYTES);
        let descriptors = families.descriptors(&cache);
        let open = OpenDatabase::new();
        let database = DB::open_cf_descriptors(&database_options(), &dir, descriptors)
            .map_err(|error| explain("open", &dir, error))?;
        let (batches, flushes) = (AtomicU64::new(0), AtomicU64::new(0));
        Ok(RocksKv {
            database,
            families,
            disk,
            dir,
            batches,
            flushes,
            _open: open,
        })
    }

    /// The family of a key, by its first byte.
    fn family(&self, key: &[u8]) -> &ColumnFamily {
        family_in(&self.database, self.families.name_of(key))
    }

    fn every_family(&self) -> impl Iterator<Item = &ColumnFamily> {
        let names = self.families.names();
        names.map(move |name| family_in(&self.database, name))
    }

    /// Whether the next batch would find room in memory. A batch makes at most one more buffer full in each family.
    fn takes_a_batch(&self) -> bool {
        let unmerged = properties::num_files_at_level(0);
        let mut families = self.every_family();
        // RocksDB tells the number of files as text only.
        families.all(|family| {
            let waiting = self
                .database
                .property_int_value_cf(family, properties::NUM_IMMUTABLE_MEM_TABLE);
            let files = self.database.property_value_cf(family, &unmerged);
            let files = files.ok().flatten().and_then(|count| count.parse().ok());
            waiting.ok().flatten().unwrap_or(0) <= WRITE_BUFFERS_WAITING_MAX
                && files.unwrap_or(0) <= UNMERGED_FILES_MAX
        })
    }

    fn flush_families(&self) -> Result<(), StoreError> {
        let families: Vec<&ColumnFamily> = self.every_family().collect();
        // The default waits until the flush is done.
        self.database
            .flush_cfs_opt(&families, &FlushOptions::default())
            .map_err(|error| explain("flush", &self.dir, error))
    }

    /// Where `iterator` stands, if it stands anywhere.
    fn pair(&self, iterator: &DBRawIterator<'_>) -> Result<Option<Pair>, StoreError> {
        if let Some((key, value)) = iterator.item() {
            return Ok(Some((
                Bytes::copy_from_slice(key),
                Bytes::copy_from_slice(value),
            )));
        }
        iterator
            .status()
            .map_err(|error| explain("read", &self.dir, error))?;
        Ok(None)
    }

    fn property(&self, name: &rocksdb::properties::PropName) -> u64 {
        self.every_family()
            .map(|family| self.database.property_int_value_cf(family, name))
            // A property that cannot be read is a gap in a graph, no reason to stop.
            .map(|value| value.ok().flatten().unwrap_or(0))
            .sum()
    }
}

impl Kv for RocksKv {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
        self.database
            .get_pinned_cf(self.family(key), key)
            .map(|value| value.map(|value| Bytes::copy_from_slice(&value)))
            .map_err(|error| explain("read", &self.dir, error))
    }

    fn scan(&self, from: &[u8], to: &[u8], limit: usize) -> Result<Vec<Pair>, StoreError> {
        let mut pairs = Vec::new();
        if from >= to {
            return Ok(pairs);
        }
        let mut options = ReadOptions::default();
        options.set_iterate_upper_bound(to);
        let mut iterator = self
            .database
            .raw_iterator_cf_opt(self.family(from), options);
        iterator.seek(from);
        while pairs.len() < limit {
            let Some(pair) = self.pair(&iterator)? else {
                break;
            };
            pairs.push(pair);
            iterator.next();
        }
        Ok(pairs)
    }

    fn last_at_or_before(
        &self,
        key: &[u8],
        lower_bound: &[u8],
    ) -> Result<Option<Pair>, StoreError> {
        if lower_bound > key {
            return Ok(None);
        }
        let mut options = ReadOptions::default();
        options.set_iterate_lower_bound(lower_bound);
        let mut iterator = self.database.raw_iterator_cf_opt(self.family(key), options);
        iterator.seek_for_prev(key);
        self.pair(&iterator)
    }

    /// RocksDB would make the writer sleep, with whatever locks it holds: here it waits beforehand, holding nothing.
    fn ready(self: Arc<Self>) -> BoxFuture<'static, ()> {
        async move {
            let waiting = async {
                while !self.takes_a_batch() {
                    tokio::time::sleep(READY_PAUSE).await;
                }
            };
            if tokio::time::timeout(READY_WAIT_MAX, waiting).await.is_err() {
                tracing::warn!(dir = %self.dir.display(), "the tables' files lag behind: the disk is too slow, or full");
            }
        }
        .boxed()
    }

    fn write(&self, batch: Batch) -> Result<(), StoreError> {
        let mut write = WriteBatch::default();
        for operation in batch.iter() {
            match operation {
                Operation::Put { key, value } => write.put_cf(self.family(key), key, value),
                Operation::Delete { key } => write.delete_cf(self.family(key), key),
                Operation::DeleteRange { from, to } if from < to => {
                    write.delete_range_cf(self.family(from), from, to);
                }
                Operation::DeleteRange { .. } => {}
            }
        }
        let mut options = WriteOptions::default();
        options.disable_wal(true);
        self.batches.fetch_add(1, Ordering::Relaxed);
        self.database
            .write_opt(write, &options)
            .map_err(|error| explain("write", &self.dir, error))
    }

    fn flush(self: Arc<Self>) -> BoxFuture<'static, Result<(), StoreError>> {
        self.flushes.fetch_add(1, Ordering::Relaxed);
        host::blocking::run(move || self.flush_families()).boxed()
    }

    fn checkpoint(
        self: Arc<Self>,
        dir: PathBuf,
        key: Bytes,
    ) -> BoxFuture<'static, Result<Option<Bytes>, StoreError>> {
        async move {
            let disk = self.disk.clone();
            let target = dir.clone();
            let value = host::blocking::run(move || {
                // Flushes what was written since the last flush, then links the files. Families are flushed
                // together or not at all, so the files are the effect of a prefix of the batches.
                Checkpoint::new(&self.database)
                    .and_then(|checkpoint| checkpoint.create_checkpoint(&target))
                    .map_err(|error| explain("checkpoint", &target, error))?;
                value_in_copy(&*self.disk, &target, self.families, &key)
            })
            .await?;
            image::sync_changing(&disk, &dir).await?;
            Ok(value)
        }
        .boxed()
    }

    fn counters(&self) -> KvCounters {
        KvCounters {
            memory_bytes: self.property(properties::SIZE_ALL_MEM_TABLES)
                + self.property(properties::ESTIMATE_TABLE_READERS_MEM)
                // One cache serves all families: asked of one of them.
                + self
                    .database
                    .property_int_value(properties::BLOCK_CACHE_USAGE)
                    .ok()
                    .flatten()
                    .unwrap_or(0),
            disk_bytes: self.property(properties::TOTAL_SST_FILES_SIZE),
            batches: self.batches.load(Ordering::Relaxed),
            flushes: self.flushes.load(Ordering::Relaxed),
        }
    }
}

/// The value of `key` in the database whose files are in `dir`, which are left as they are. Blocks.
fn value_in_copy(
    disk: &dyn Disk,
    dir: &Path,
    families: Families,
    key: &[u8],
) -> Result<Option<Bytes>, StoreError> {
    look_into(disk, dir, families, |copy| {
        let value = copy.get_pinned_cf(family_in(copy, families.name_of(key)), key);
        value
            .map(|value| value.map(|value| Bytes::copy_from_slice(&value)))
            .map_err(|error| explain("read", dir, error))
    })
}

/// Reads every block of a database whose files are in `dir`.
fn read_all(copy: &DB, dir: &Path, families: Families) -> Result<(), StoreError> {
    for name in families.names() {
        let mut options = ReadOptions::default();
        options.fill_cache(false);
        #[allow(
            deprecated,
            reason = "blocks of what was deleted by range are read too, as merging files does"
        )]
        options.set_ignore_range_deletions(true);
        let mut iterator = copy.raw_iterator_cf_opt(family_in(copy, name), options);
        iterator.seek_to_first();
        while iterator.valid() {
            iterator.next();
        }
        iterator
            .status()
            .map_err(|error| explain("read", dir, error))?;
    }
    Ok(())
}

fn family_in<'a>(database: &'a DB, name: &str) -> &'a ColumnFamily {
    database.cf_handle(name).expect("open made every family")
}

/// Opens the database whose files are in `dir`, for reading, and leaves them as they are. Blocks.
fn look_into<T>(
    disk: &dyn Disk,
    dir: &Path,
    families: Families,
    look: impl FnOnce(&DB) -> Result<T, StoreError>,
) -> Result<T, StoreError> {
    let cache = Cache::new_lru_cache(BLOCK_CACHE_BYTES);
    let descriptors = families.descriptors(&cache);
    let mut options = Options::default();
    options.set_max_open_files(OPEN_FILES_MAX);
    options.set_max_file_opening_threads(1);
    let open = OpenDatabase::new();
    let database = DB::open_cf_descriptors_read_only(&options, dir, descriptors, false)
        .map_err(|error| explain("open", dir, error))?;
    let seen = look(&database);
    drop(database);
    drop(open);
    // Opening writes a log of its own beside the files; a copy is what was copied.
    for path in disk.list(dir).map_err(StoreError::io("list", dir))? {
        let name = path.file_name().and_then(|name| name.to_str());
        if name.is_some_and(|name| name.starts_with(INFO_LOG)) {
            disk.remove(&path)
                .map_err(StoreError::io("remove", &path))?;
        }
    }
    seen
}

fn database_options() -> Options {
    let mut options = Options::default();
    options.create_if_missing(true);
    options.create_missing_column_families(true);
    options.set_atomic_flush(true);
    options.set_paranoid_checks(true);
    options.set_db_write_buffer_size(WRITE_BUFFERS_BYTES);
    options.set_max_open_files(OPEN_FILES_MAX);
    options.set_max_file_opening_threads(1);
    options.set_max_background_jobs(BACKGROUND_JOBS);
    options.set_max_manifest_file_size(MANIFEST_BYTES);
    options.set_log_level(LogLevel::Warn);
    options.set_max_log_file_size(INFO_LOG_BYTES);
    options.set_keep_log_file_num(INFO_LOGS);
    options.set_stats_dump_period_sec(0);
    options.set_stats_persist_period_sec(0);
    options
}

fn family_options(cache: &Cache) -> Options {
    let mut blocks = BlockBasedOptions::default();
    blocks.set_block_cache(cache);
    blocks.set_block_size(BLOCK_BYTES);
    blocks.set_cache_index_and_filter_blocks(true);
    blocks.set_pin_l0_filter_and_index_blocks_in_cache(true);
    let mut options = Options::default();
    options.set_block_based_table_factory(&blocks);
    options.set_compression_type(DBCompressionType::Lz4);
    options.set_write_buffer_size(WRITE_BUFFER_BYTES);
    options.set_max_write_buffer_number(WRITE_BUFFERS_PER_FAMILY);
    options.set_arena_block_size(ARENA_BLOCK_BYTES);
    options.set_level_zero_slowdown_writes_trigger(UNMERGED_FILES_NEVER);
    options.set_level_zero_stop_writes_trigger(UNMERGED_FILES_NEVER);
    options.set_soft_pending_compaction_bytes_limit(0);
    options.set_hard_pending_compaction_bytes_limit(0);
    options
}

/// Whether the disk does not give back what stands there. RocksDB passes on what the system says, as words only; also where it
/// read in order to merge files, and tells whoever writes next.
fn is_lost(verb: &str, detail: &str) -> bool {
    let has = |words: &[&str]| words.iter().any(|word| detail.contains(word));
    let reads = matches!(verb, "open" | "read") && !has(&WRITING) || has(&READING);
    reads && has(&LOST)
}

fn explain(verb: &'static str, path: &Path, error: rocksdb::Error) -> StoreError {
    let (kind, detail) = (error.kind(), error.into_string());
    let lost = kind == ErrorKind::IOError && is_lost(verb, &detail);
    match kind == ErrorKind::Corruption || lost {
        true => StoreError::corrupt(path, detail),
        false => StoreError::Engine { verb, detail },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Catches a sector that merging files cannot read being taken for an error of the write that hears of it: the replica ends
    /// at every start, and nobody gives it other tables. And a full or failing disk being taken for rot.
    #[test]
    fn what_the_disk_does_not_give_back_is_told_by_whoever_hears_of_it() {
        let lost = "While pread offset 0 len 4096: tables/000012.sst: Input/output error";
        let gone = "While open a file for random read: 000012.sst: No such file or directory";
        assert!(is_lost("write", lost) && is_lost("flush", lost) && is_lost("write", gone));
        assert!(is_lost("open", "CURRENT: No such file or directory"));
        for passing in [
            "While appending to file: 000013.sst: Input/output error",
            "While open a file for random read: 000012.sst: Too many open files",
            "While fsync: 000013.sst: No space left on device",
        ] {
            assert!(!is_lost("write", passing), "{passing}");
        }
        // Whoever opens tables writes, too.
        for written in ["While appending to file", "While fsync", "While fdatasync"] {
            let failed = format!("{written}: tables/MANIFEST-000013: Input/output error");
            assert!(!is_lost("open", &failed), "{failed}");
        }
    }
}
