//! The seam to the ordered key-value store that holds the tables.
//!
//! Two implementations pass one suite (`kv/suite.rs`): `RocksEngine` on RocksDB and [`MemEngine`],
//! an ordered map over `host::Disk` for the simulator. Neither keeps a write-ahead log: the commit
//! log is the write-ahead log of the tables. So a write is visible at once and survives a crash only
//! if a later [`Kv::flush`] completed; what a crash leaves is always the effect of a prefix of the
//! batches, never a part of one.
//!
//! ```text
//! write w1 w2 w3 | flush returns | w4 w5 | crash  ->  w1..w3, w1..w4 or w1..w5
//! ```
//!
//! Must never: sync per write, know what a key means beyond its first byte, which says of which table
//! it is, or answer a read with half of a batch.

mod batch;
mod family;
mod image;
mod mem;
#[cfg(not(madsim))]
mod open_databases;
#[cfg(not(madsim))]
mod rocks;
#[cfg(test)]
pub(crate) mod suite;

use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use futures::future::BoxFuture;
use host::Host;

pub use self::batch::{Batch, Operation};
pub use self::family::Family;
pub(crate) use self::image::never_changes;
pub use self::mem::MemEngine;
#[cfg(not(madsim))]
pub use self::open_databases::wait_until_closed;
#[cfg(not(madsim))]
pub use self::rocks::RocksEngine;
use crate::error::StoreError;

/// One key and its value.
pub type Pair = (Bytes, Bytes);

/// An ordered map from keys to values. The first byte of every key says of which table it is.
///
/// ### To ensure correctness:
///
/// 1. A batch is visible as a whole as soon as [`Kv::write`] returned, to every reader.
/// 2. After a crash the map is what a prefix of the batches made of it, and that prefix holds at
///    least every batch written before the last completed [`Kv::flush`].
/// 3. A checkpoint is such a prefix too: at least every batch written before the call, and none
///    written after it returned.
/// 4. After an error of `write`, `flush` or `checkpoint` the map must not be written again: the
///    replica stops.
pub trait Kv: Send + Sync + 'static {
    /// The value of `key`.
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, StoreError>;

    /// Pairs with `from <= key < to`, ascending, the first `limit` of them. Both bounds are of one
    /// kind (`to` may be the first key of the next).
    fn scan(&self, from: &[u8], to: &[u8], limit: usize) -> Result<Vec<Pair>, StoreError>;

    /// The pair with the greatest key that is `<= key` and `>= lower_bound`. Both are of one kind.
    fn last_at_or_before(&self, key: &[u8], lower_bound: &[u8])
    -> Result<Option<Pair>, StoreError>;

    /// Returns when a batch can be written without waiting for the disk: when what was written before has been
    /// flushed and merged far enough. For the one writer, before each batch. Returns after half a minute in any
    /// case; the batch says what is wrong then.
    fn ready(self: Arc<Self>) -> BoxFuture<'static, ()>;

    /// Applies the batch: all of it or nothing, in its order. Waits for the disk only if
    /// [`Kv::ready`] was not asked, or gave up.
    fn write(&self, batch: Batch) -> Result<(), StoreError>;

    /// Makes durable whatever was written before the call. Does its blocking work off the async
    /// threads; other calls go on meanwhile.
    fn flush(self: Arc<Self>) -> BoxFuture<'static, Result<(), StoreError>>;

    /// Writes a complete, durable copy into `dir`, which must not exist (its parent must), and
    /// returns the value that `key` has in the copy: batches may be written meanwhile, so nobody but
    /// the copy knows how far it reaches. Files that never change are linked, not copied. Does its
    /// blocking work off the async threads; other calls go on meanwhile.
    fn checkpoint(
        self: Arc<Self>,
        dir: PathBuf,
        key: Bytes,
    ) -> BoxFuture<'static, Result<Option<Bytes>, StoreError>>;

    /// What it holds and has done, for metrics.
    fn counters(&self) -> KvCounters;

    /// A digest of all pairs, equal for equal contents, where the engine keeps one: for comparing
    /// replicas.
    fn digest(&self) -> Option<u64> {
        None
    }
}

/// What a [`Kv`] holds and has done since it was opened.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct KvCounters {
    /// Bytes in memory: write buffers and cached blocks.
    pub memory_bytes: u64,
    /// Bytes in files.
    pub disk_bytes: u64,
    /// Batches written.
    pub batches: u64,
    /// Flushes asked for (an engine may flush more often by itself).
    pub flushes: u64,
}

/// Opens maps and makes them from checkpoints.
pub trait KvEngine: Send + Sync + 'static {
    /// Opens the map in `dir`, or creates an empty one (the directory too).
    fn open(&self, dir: PathBuf) -> BoxFuture<'static, Result<Arc<dyn Kv>, StoreError>>;

    /// Makes `live` a map equal to `checkpoint`, durable on return. Whatever `live` held is gone.
    /// A crash midway leaves `live` absent or old, never half made. The checkpoint is not changed,
    /// neither now nor by later writes to `live`. `live` must not be open.
    fn restore(
        &self,
        checkpoint: PathBuf,
        live: PathBuf,
    ) -> BoxFuture<'static, Result<(), StoreError>>;

    /// Reads all pairs of the map in `dir`, which is not open, and changes nothing. `Corrupt` if one cannot be read: what
    /// a map's files say of themselves is right although they were rotten when somebody took their checksums.
    fn check(&self, dir: PathBuf) -> BoxFuture<'static, Result<(), StoreError>>;
}

/// The engine that fits the host: RocksDB where paths are real files, else the in-memory twin, whose tables lie in one
/// file whatever `families` say.
pub fn default_engine(host: &Host, families: &'static [Family]) -> Arc<dyn KvEngine> {
    #[cfg(not(madsim))]
    if host.disk.real_path() {
        return Arc::new(RocksEngine::new(host.disk.clone(), families));
    }
    let _ = families;
    Arc::new(MemEngine::new(host.disk.clone()))
}
