//! The in-memory twin: an ordered map that forgets what was not flushed.
//!
//! ```text
//! <dir>/image    magic | count u64 | (key_len u32 | value_len u32 | key | value)* | crc32c u32
//! ```
//!
//! A flush writes the whole map beside the old image, syncs and renames. That is slow for large maps
//! and right for the simulator, whose disk decides what of it a crash leaves.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::ops::Bound;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use bytes::{Buf, Bytes};
use futures::FutureExt;
use futures::future::BoxFuture;
use host::Disk;

use super::{Batch, Kv, KvCounters, KvEngine, Operation, Pair, image};
use crate::error::StoreError;

const IMAGE: &str = "image";
const IMAGE_BUILDING: &str = "image.building";
const MAGIC: &[u8; 8] = b"RMQTABL1";
const CHECKSUM_BYTES: usize = 4;
/// Before each pair.
const LENGTHS_BYTES: usize = 4 + 4;

/// Time between flushes that nobody asked for.
#[cfg(all(madsim, not(fuzzing)))]
const FLUSH_INTERVAL: std::time::Duration = std::time::Duration::from_millis(400);

/// The pairs, and the sum of their hashes: it does not depend on how the pairs came to be.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Rows {
    pairs: BTreeMap<Bytes, Bytes>,
    /// Of all keys and values.
    bytes: usize,
    digest: u64,
}

impl Rows {
    fn insert(&mut self, key: Bytes, value: Bytes) {
        self.remove(&key);
        self.digest = self.digest.wrapping_add(hash(&key, &value));
        self.bytes += key.len() + value.len();
        self.pairs.insert(key, value);
    }

    fn remove(&mut self, key: &[u8]) {
        if let Some(value) = self.pairs.remove(key) {
            self.digest = self.digest.wrapping_sub(hash(key, &value));
            self.bytes -= key.len() + value.len();
        }
    }
}

fn hash(key: &[u8], value: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    (key, value).hash(&mut hasher);
    hasher.finish()
}

/// Opens maps whose images live on a `host::Disk`.
pub struct MemEngine {
    disk: Arc<dyn Disk>,
}

impl MemEngine {
    /// An engine whose maps lie on `disk`.
    pub fn new(disk: Arc<dyn Disk>) -> MemEngine {
        MemEngine { disk }
    }
}

impl KvEngine for MemEngine {
    fn open(&self, dir: PathBuf) -> BoxFuture<'static, Result<Arc<dyn Kv>, StoreError>> {
        let disk = self.disk.clone();
        async move {
            disk.create_dir_all(&dir)
                .map_err(StoreError::io("create", &dir))?;
            let parent = image::parent(&dir);
            disk.sync_dir(&parent)
                .await
                .map_err(StoreError::io("sync", &parent))?;
            let rows = read_image(&*disk, &dir.join(IMAGE))?;
            let kv = Arc::new(MemKv {
                disk,
                dir,
                rows: RwLock::new(rows),
                flushing: tokio::sync::Mutex::new(()),
                image_bytes: AtomicU64::new(0),
                batches: AtomicU64::new(0),
                flushes: AtomicU64::new(0),
            });
            #[cfg(all(madsim, not(fuzzing)))]
            tokio::spawn(flush_now_and_then(Arc::downgrade(&kv)));
            Ok::<Arc<dyn Kv>, StoreError>(kv)
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
        let disk = self.disk.clone();
        async move { read_image(&*disk, &dir.join(IMAGE)).map(drop) }.boxed()
    }
}

struct MemKv {
    disk: Arc<dyn Disk>,
    dir: PathBuf,
    rows: RwLock<Rows>,
    /// One flush at a time: they share the name of the file that they build.
    flushing: tokio::sync::Mutex<()>,
    image_bytes: AtomicU64,
    batches: AtomicU64,
    flushes: AtomicU64,
}

impl MemKv {
    /// A panic while the lock was held cannot have left half a batch: `apply` does not panic midway.
    fn rows<T>(&self, look: impl FnOnce(&Rows) -> T) -> T {
        look(&self.rows.read().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Kv for MemKv {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
        Ok(self.rows(|rows| rows.pairs.get(key).cloned()))
    }

    fn scan(&self, from: &[u8], to: &[u8], limit: usize) -> Result<Vec<Pair>, StoreError> {
        if from >= to {
            return Ok(Vec::new());
        }
        let range = (Bound::Included(from), Bound::Excluded(to));
        Ok(self.rows(|rows| {
            let pairs = rows.pairs.range::<[u8], _>(range).take(limit);
            pairs
                .map(|(key, value)| (key.clone(), value.clone()))
                .collect()
        }))
    }

    fn last_at_or_before(
        &self,
        key: &[u8],
        lower_bound: &[u8],
    ) -> Result<Option<Pair>, StoreError> {
        if lower_bound > key {
            return Ok(None);
        }
        let range = (Bound::Included(lower_bound), Bound::Included(key));
        Ok(self.rows(|rows| {
            let last = rows.pairs.range::<[u8], _>(range).next_back();
            last.map(|(key, value)| (key.clone(), value.clone()))
        }))
    }

    /// Its writes never wait: they go to memory alone.
    fn ready(self: Arc<Self>) -> BoxFuture<'static, ()> {
        std::future::ready(()).boxed()
    }

    fn write(&self, batch: Batch) -> Result<(), StoreError> {
        let mut rows = self.rows.write().unwrap_or_else(PoisonError::into_inner);
        batch
            .iter()
            .for_each(|operation| change(&mut rows, operation));
        self.batches.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    fn flush(self: Arc<Self>) -> BoxFuture<'static, Result<(), StoreError>> {
        async move {
            let _one_at_a_time = self.flushing.lock().await;
            self.flushes.fetch_add(1, Ordering::Relaxed);
            let encoded = self.rows(encode);
            self.image_bytes
                .store(encoded.len() as u64, Ordering::Relaxed);
            write_image(&self.disk, &self.dir, encoded).await
        }
        .boxed()
    }

    fn checkpoint(
        self: Arc<Self>,
        dir: PathBuf,
        key: Bytes,
    ) -> BoxFuture<'static, Result<Option<Bytes>, StoreError>> {
        async move {
            // Taken at once: what is written while the image goes to the disk is not part of it.
            let rows = self.rows(Rows::clone);
            let encoded = encode(&rows);
            self.disk
                .create_dir_all(&dir)
                .map_err(StoreError::io("create", &dir))?;
            write_image(&self.disk, &dir, encoded).await?;
            image::sync_changing(&self.disk, &dir).await?;
            Ok(rows.pairs.get(&key).cloned())
        }
        .boxed()
    }

    fn counters(&self) -> KvCounters {
        KvCounters {
            memory_bytes: self.rows(|rows| rows.bytes) as u64,
            disk_bytes: self.image_bytes.load(Ordering::Relaxed),
            batches: self.batches.load(Ordering::Relaxed),
            flushes: self.flushes.load(Ordering::Relaxed),
        }
    }

    fn digest(&self) -> Option<u64> {
        Some(self.rows(|rows| rows.digest))
    }
}

/// RocksDB flushes when it pleases, however far the log has been synced: so does its twin in the simulator.
#[cfg(all(madsim, not(fuzzing)))]
async fn flush_now_and_then(kv: std::sync::Weak<MemKv>) {
    loop {
        tokio::time::sleep(FLUSH_INTERVAL).await;
        let Some(kv) = kv.upgrade() else {
            return;
        };
        // The next flush that somebody waits for says so too.
        if let Err(error) = kv.flush().await {
            tracing::debug!(%error, "tables were not flushed");
        }
    }
}

fn change(rows: &mut Rows, operation: Operation<'_>) {
    match operation {
        Operation::Put { key, value } => {
            rows.insert(Bytes::copy_from_slice(key), Bytes::copy_from_slice(value));
        }
        Operation::Delete { key } => {
            rows.remove(key);
        }
        Operation::DeleteRange { from, to } if from < to => {
            let range = (Bound::Included(from), Bound::Excluded(to));
            let keys: Vec<Bytes> = rows
                .pairs
                .range::<[u8], _>(range)
                .map(|(key, _)| key.clone())
                .collect();
            for key in keys {
                rows.remove(&key);
            }
        }
        Operation::DeleteRange { .. } => {}
    }
}

fn encode(rows: &Rows) -> Bytes {
    let lengths = rows.pairs.len() * LENGTHS_BYTES;
    let capacity = MAGIC.len() + 8 + lengths + rows.bytes + CHECKSUM_BYTES;
    let mut image = Vec::with_capacity(capacity);
    image.extend_from_slice(MAGIC);
    image.extend_from_slice(&(rows.pairs.len() as u64).to_be_bytes());
    for (key, value) in &rows.pairs {
        image.extend_from_slice(&(key.len() as u32).to_be_bytes());
        image.extend_from_slice(&(value.len() as u32).to_be_bytes());
        image.extend_from_slice(key);
        image.extend_from_slice(value);
    }
    let checksum = crc32c::crc32c(&image);
    image.extend_from_slice(&checksum.to_be_bytes());
    Bytes::from(image)
}

/// The rows of an image, or what is wrong with it.
fn decode(mut image: Bytes) -> Result<Rows, &'static str> {
    if image.len() < MAGIC.len() + 8 + CHECKSUM_BYTES {
        return Err("the image is cut off");
    }
    let mut trailer = image.split_off(image.len() - CHECKSUM_BYTES);
    if crc32c::crc32c(&image) != trailer.get_u32() {
        return Err("the image's checksum does not match");
    }
    if !image.starts_with(MAGIC) {
        return Err("not an image of tables");
    }
    image.advance(MAGIC.len());
    let count = image.get_u64();
    let mut rows = Rows::default();
    for _ in 0..count {
        let mut head = split(&mut image, 8).ok_or("a row is cut off")?;
        let (key_len, value_len) = (head.get_u32() as usize, head.get_u32() as usize);
        let key = split(&mut image, key_len).ok_or("a key is cut off")?;
        let value = split(&mut image, value_len).ok_or("a value is cut off")?;
        rows.insert(key, value);
    }
    if image.is_empty() {
        Ok(rows)
    } else {
        Err("bytes after the last row")
    }
}

fn split(bytes: &mut Bytes, len: usize) -> Option<Bytes> {
    (bytes.len() >= len).then(|| bytes.split_to(len))
}

fn read_image(disk: &dyn Disk, path: &Path) -> Result<Rows, StoreError> {
    if !disk.exists(path) {
        return Ok(Rows::default());
    }
    let file = disk.open(path).map_err(StoreError::io("open", path))?;
    let len = file.len().map_err(StoreError::io("read", path))?;
    let mut image = vec![0; len as usize];
    let read = file
        .read_at(0, &mut image)
        .map_err(StoreError::refused(path))?;
    image.truncate(read);
    decode(Bytes::from(image)).map_err(|detail| StoreError::corrupt(path, detail))
}

/// Replaces the image in `dir`: beside, sync, rename, sync the directory.
async fn write_image(disk: &Arc<dyn Disk>, dir: &Path, image: Bytes) -> Result<(), StoreError> {
    let building = dir.join(IMAGE_BUILDING);
    let file = disk
        .create(&building)
        .map_err(StoreError::io("create", &building))?;
    file.write_and_sync(0, vec![image])
        .await
        .map_err(StoreError::io("write", &building))?;
    disk.rename(&building, &dir.join(IMAGE))
        .map_err(StoreError::io("rename", &building))?;
    disk.sync_dir(dir)
        .await
        .map_err(StoreError::io("sync", dir))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Would catch a decoder that panics on, or believes, an image that is not what was written.
        #[test]
        fn a_damaged_image_is_refused(cut in 0_usize..200, flip in 0_usize..200) {
            let mut rows = Rows::default();
            for number in 0_u8..8 {
                rows.insert(Bytes::from(vec![number]), Bytes::from(vec![number; 9]));
            }
            let image = encode(&rows);
            prop_assert_eq!(decode(image.clone()), Ok(rows));
            let mut damaged = image.to_vec();
            damaged[flip % image.len()] ^= 0x10;
            prop_assert!(decode(Bytes::from(damaged)).is_err());
            prop_assert!(decode(image.slice(..cut.min(image.len() - 1))).is_err());
        }
    }
}
