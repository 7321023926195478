//! Copies of the tables, complete up to one applied log entry.
//!
//! ```text
//! checkpoints/<index:020>/META        what it is a copy of (checkpoint/meta.rs)
//! checkpoints/<index:020>/tables/     the copy, as its engine wrote it
//! checkpoints/next.building/          one that is being made, or was when the process died
//! checkpoints/<index:020>.removed/    one that is being removed
//! checkpoints/<index:020>.damaged/    one that rotted, kept until what was to be made of it is there again
//! ```
//!
//! The live tables may be deleted at any time: the newest checkpoint and the entries after it make
//! them again. A checkpoint has its name only when all of it is durable, and never changes after.
//!
//! META holds the checksum of every file. Whoever makes tables of a checkpoint, or sends it to a peer,
//! verifies it first: a bit that rotted must not spread.
//!
//! Its files are the tables' files under other names: rot in one is rot in both. So a damaged one is set aside, not
//! removed, as long as nothing has taken its place.
//!
//! Must never: give the name before the sync, or remove the newest one while it is whole.

mod meta;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use host::Disk;

pub use self::meta::{CheckpointFile, CheckpointMeta};
use crate::LogId;
use crate::error::{Result, StoreError};
use crate::kv::{self, Kv};
use crate::table;

const META: &str = "META";
const TABLES: &str = "tables";
/// Where a checkpoint is made: how far it reaches, and so its name, is known only when it is there.
const BUILDING: &str = "next.building";
const BUILDING_SUFFIX: &str = "building";
const REMOVED_SUFFIX: &str = "removed";
const DAMAGED_SUFFIX: &str = "damaged";
/// Digits of a checkpoint's name, so that names sort as their indexes do.
const NAME_DIGITS: usize = 20;
/// Longest META that is read: one line per file of the tables.
const META_BYTES_MAX: u64 = 16 << 20;
/// Bytes that are read at once for a checksum.
const CHECKSUM_READ_BYTES: usize = 1 << 20;

/// The checkpoints of one replica.
pub struct Checkpoints {
    disk: Arc<dyn Disk>,
    dir: PathBuf,
}

/// A copy of the tables that is complete and durable, and has no name yet.
#[derive(Debug)]
pub struct UnnamedCheckpoint {
    dir: PathBuf,
    applied: Bytes,
}

/// One complete checkpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checkpoint {
    dir: PathBuf,
    meta: CheckpointMeta,
}

impl Checkpoints {
    /// The checkpoints in `dir`, which is made if needed. Removes what a crash left half made.
    pub async fn open(disk: Arc<dyn Disk>, dir: PathBuf) -> Result<Checkpoints> {
        disk.create_dir_all(&dir)
            .map_err(StoreError::io("create", &dir))?;
        let parent = dir.parent().unwrap_or(&dir).to_path_buf();
        disk.sync_dir(&parent)
            .await
            .map_err(StoreError::io("sync", &parent))?;
        let checkpoints = Checkpoints { disk, dir };
        for path in checkpoints.list()? {
            if path
                .extension()
                .is_some_and(|end| end == BUILDING_SUFFIX || end == REMOVED_SUFFIX)
            {
                checkpoints.remove_dir(path).await?;
            }
        }
        Ok(checkpoints)
    }

    /// The checkpoints in `dir`, for reading only: whatever else is there stays.
    pub(crate) fn look(disk: Arc<dyn Disk>, dir: PathBuf) -> Checkpoints {
        Checkpoints { disk, dir }
    }

    /// Every checkpoint by index, each file verified; a damaged one with what is wrong.
    pub(crate) async fn all(&self) -> Result<Vec<(PathBuf, Result<Checkpoint>)>> {
        let mut all = Vec::new();
        for path in self.list()? {
            if index_of(&path).is_none() {
                continue;
            }
            let checkpoint = match self.read(&path) {
                Ok(checkpoint) => self.verify(&checkpoint).await.map(|()| checkpoint),
                Err(error) => Err(error),
            };
            all.push((path, checkpoint));
        }
        Ok(all)
    }

    /// Copies `kv`. Entries may be applied to it meanwhile: the copy is the tables at one of them, and
    /// its `applied` row says at which. One at a time: what an earlier call made and nobody named is removed.
    ///
    /// `Refused` if nothing was applied yet.
    pub async fn copy(&self, kv: &Arc<dyn Kv>) -> Result<UnnamedCheckpoint> {
        let dir = self.dir.join(BUILDING);
        self.remove_dir(dir.clone()).await?;
        self.disk
            .create_dir_all(&dir)
            .map_err(StoreError::io("create", &dir))?;
        let copying = kv
            .clone()
            .checkpoint(dir.join(TABLES), table::applied::key());
        let Some(applied) = copying.await? else {
            let detail = "no entry was applied, so there is nothing to take a checkpoint of";
            return Err(StoreError::Refused {
                detail: detail.to_owned(),
            });
        };
        Ok(UnnamedCheckpoint { dir, applied })
    }

    /// Makes a copy a checkpoint; `log_id` is what its `applied` row says. Durable on return. Returns the
    /// one that is there already if it is of the same entry and whole.
    pub async fn publish(&self, copy: UnnamedCheckpoint, log_id: LogId) -> Result<Checkpoint> {
        let UnnamedCheckpoint { dir, applied } = copy;
        let target = self.path(log_id.index);
        if let Ok(present) = self.read(&target)
            && present.meta.log_id == log_id
            && present.meta.applied == applied
            && self.verify(&present).await.is_ok()
        {
            self.remove_dir(dir).await?;
            return Ok(present);
        }
        let files = self.checksummed(&dir.join(TABLES)).await?;
        let meta = CheckpointMeta {
            log_id,
            applied,
            files,
        };
        self.write_meta(&dir, &meta).await?;
        self.give_name(&dir, &target).await?;
        Ok(Checkpoint { dir: target, meta })
    }

    /// Takes over a checkpoint that was received into `staged` (same file system), where its files
    /// must be durable already. `Corrupt` if a file is missing or is not what META says.
    pub async fn adopt(&self, staged: &Path) -> Result<Checkpoint> {
        let received = self.read(staged)?;
        self.verify(&received).await?;
        self.disk
            .sync_dir(staged)
            .await
            .map_err(StoreError::io("sync", staged))?;
        let target = self.path(received.meta.log_id.index);
        self.give_name(staged, &target).await?;
        Ok(Checkpoint {
            dir: target,
            meta: received.meta,
        })
    }

    /// The complete checkpoint with the highest index. A damaged one is passed over, with a warning.
    pub fn newest(&self) -> Result<Option<Checkpoint>> {
        self.newest_below(u64::MAX)
    }

    /// The complete checkpoint with the highest index below `end`.
    pub fn newest_below(&self, end: u64) -> Result<Option<Checkpoint>> {
        for path in self
            .list()?
            .into_iter()
            .rev()
            .filter(|path| index_of(path).is_some_and(|index| index < end))
        {
            match self.read(&path) {
                Ok(checkpoint) => return Ok(Some(checkpoint)),
                Err(error) if error.is_corruption() => {
                    tracing::warn!(%error, "passing over a damaged checkpoint");
                }
                Err(error) => return Err(error),
            }
        }
        Ok(None)
    }

    /// Reads every file of a checkpoint. `Corrupt` if one is not what META says.
    pub async fn verify(&self, checkpoint: &Checkpoint) -> Result<()> {
        let (disk, dir) = (self.disk.clone(), checkpoint.tables_dir());
        let files = checkpoint.meta.files.clone();
        host::blocking::run(move || {
            for file in files {
                let path = dir.join(&file.name);
                if checksum(&*disk, &path)? != file.crc32c {
                    return Err(StoreError::corrupt(&path, "the checksum does not match"));
                }
            }
            Ok(())
        })
        .await
    }

    /// Takes the name from a checkpoint that is damaged. What is in it stays until [`Checkpoints::remove_set_aside`].
    pub async fn set_aside(&self, checkpoint: &Checkpoint) -> Result<()> {
        let aside = with_suffix(&checkpoint.dir, DAMAGED_SUFFIX);
        tracing::warn!(dir = %aside.display(), "setting a damaged checkpoint aside");
        self.remove_dir(aside.clone()).await?;
        self.disk
            .rename(&checkpoint.dir, &aside)
            .map_err(StoreError::io("rename", &checkpoint.dir))?;
        self.disk
            .sync_dir(&self.dir)
            .await
            .map_err(StoreError::io("sync", &self.dir))
    }

    /// Removes the damaged checkpoints that were set aside: something whole stands in their place.
    pub async fn remove_set_aside(&self) -> Result<()> {
        for path in self.list()? {
            if path.extension().is_some_and(|end| end == DAMAGED_SUFFIX) {
                self.remove_dir(path).await?;
            }
        }
        Ok(())
    }

    /// Removes every checkpoint below `index`.
    pub async fn remove_older(&self, index: u64) -> Result<()> {
        for path in self.list()? {
            if index_of(&path).is_some_and(|of_path| of_path < index) {
                self.remove(&path).await?;
            }
        }
        Ok(())
    }

    /// Reads and verifies the checkpoint in `dir`: META's checksum, and that each file it names is
    /// there with the size it names. What is in the files, [`Checkpoints::verify`] looks at.
    pub fn read(&self, dir: &Path) -> Result<Checkpoint> {
        let path = dir.join(META);
        let meta = CheckpointMeta::decode(self.read_file(&path)?)
            .map_err(|detail| StoreError::corrupt(&path, detail))?;
        let found = self.files(&dir.join(TABLES))?;
        for file in &meta.files {
            match found.iter().find(|(name, _)| *name == file.name) {
                Some((_, size_bytes)) if *size_bytes == file.size_bytes => {}
                Some((_, size_bytes)) => {
                    let detail = format!("{size_bytes} bytes instead of {}", file.size_bytes);
                    return Err(StoreError::corrupt(
                        &dir.join(TABLES).join(&file.name),
                        detail,
                    ));
                }
                None => {
                    let path = dir.join(TABLES).join(&file.name);
                    return Err(StoreError::corrupt(&path, "the file is missing"));
                }
            }
        }
        Ok(Checkpoint {
            dir: dir.to_path_buf(),
            meta,
        })
    }

    /// The files of a directory, as META lists them. A file that the newest checkpoint has too, and that
    /// never changes, is not read again.
    async fn checksummed(&self, dir: &Path) -> Result<Vec<CheckpointFile>> {
        let known = self
            .newest()?
            .map_or(Vec::new(), |newest| newest.meta.files);
        let (disk, dir, found) = (self.disk.clone(), dir.to_path_buf(), self.files(dir)?);
        host::blocking::run(move || {
            let file = |(name, size_bytes): (String, u64)| {
                let same = |file: &&CheckpointFile| {
                    kv::never_changes(&name) && file.name == name && file.size_bytes == size_bytes
                };
                let crc32c = match known.iter().find(same) {
                    Some(file) => file.crc32c,
                    None => checksum(&*disk, &dir.join(&name))?,
                };
                Ok(CheckpointFile {
                    name,
                    size_bytes,
                    crc32c,
                })
            };
            found.into_iter().map(file).collect()
        })
        .await
    }

    /// The files of a directory with their sizes, by name; none if there is no such directory.
    fn files(&self, dir: &Path) -> Result<Vec<(String, u64)>> {
        if !self.disk.exists(dir) {
            return Ok(Vec::new());
        }
        let mut files = Vec::new();
        for path in self.disk.list(dir).map_err(StoreError::io("list", dir))? {
            let file = self
                .disk
                .open(&path)
                .map_err(StoreError::io("open", &path))?;
            let size_bytes = file.len().map_err(StoreError::io("read", &path))?;
            let name = path.file_name().and_then(|name| name.to_str());
            let name = name.ok_or_else(|| StoreError::corrupt(&path, "not a file's name"))?;
            files.push((name.to_owned(), size_bytes));
        }
        Ok(files)
    }

    fn read_file(&self, path: &Path) -> Result<Bytes> {
        let missing = || StoreError::corrupt(path, "the file is missing");
        if !self.disk.exists(path) {
            return Err(missing());
        }
        let file = self.disk.open(path).map_err(StoreError::io("open", path))?;
        let len = file.len().map_err(StoreError::io("read", path))?;
        if len > META_BYTES_MAX {
            return Err(StoreError::corrupt(
                path,
                format!("{len} bytes are too many"),
            ));
        }
        let mut bytes = vec![0; len as usize];
        let read = file
            .read_at(0, &mut bytes)
            .map_err(StoreError::refused(path))?;
        bytes.truncate(read);
        Ok(Bytes::from(bytes))
    }

    async fn write_meta(&self, dir: &Path, meta: &CheckpointMeta) -> Result<()> {
        let path = dir.join(META);
        let file = self
            .disk
            .create(&path)
            .map_err(StoreError::io("create", &path))?;
        file.write_and_sync(0, vec![meta.encode()])
            .await
            .map_err(StoreError::io("write", &path))?;
        self.disk
            .sync_dir(dir)
            .await
            .map_err(StoreError::io("sync", dir))
    }

    /// Gives a complete and durable directory its name.
    async fn give_name(&self, built: &Path, target: &Path) -> Result<()> {
        if self.disk.exists(target) {
            self.remove(target).await?;
        }
        self.disk
            .rename(built, target)
            .map_err(StoreError::io("rename", built))?;
        self.disk
            .sync_dir(&self.dir)
            .await
            .map_err(StoreError::io("sync", &self.dir))
    }

    /// Takes the name away first, so that a crash midway leaves nothing that looks like a checkpoint.
    async fn remove(&self, path: &Path) -> Result<()> {
        let removed = with_suffix(path, REMOVED_SUFFIX);
        self.remove_dir(removed.clone()).await?;
        self.disk
            .rename(path, &removed)
            .map_err(StoreError::io("rename", path))?;
        self.disk
            .sync_dir(&self.dir)
            .await
            .map_err(StoreError::io("sync", &self.dir))?;
        self.remove_dir(removed).await
    }

    async fn remove_dir(&self, path: PathBuf) -> Result<()> {
        if !self.disk.exists(&path) {
            return Ok(());
        }
        let disk = self.disk.clone();
        host::blocking::run(move || {
            disk.remove_dir_all(&path)
                .map_err(StoreError::io("remove", &path))
        })
        .await
    }

    fn list(&self) -> Result<Vec<PathBuf>> {
        self.disk
            .list(&self.dir)
            .map_err(StoreError::io("list", &self.dir))
    }

    fn path(&self, index: u64) -> PathBuf {
        self.dir.join(format!("{index:0NAME_DIGITS$}"))
    }
}

impl UnnamedCheckpoint {
    /// The `applied` row of the copy.
    pub fn applied(&self) -> &Bytes {
        &self.applied
    }
}

impl Checkpoint {
    /// What it is a copy of.
    pub fn meta(&self) -> &CheckpointMeta {
        &self.meta
    }

    /// Its directory: META and the tables' directory.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The directory to give to [`KvEngine::restore`](crate::KvEngine::restore).
    pub fn tables_dir(&self) -> PathBuf {
        self.dir.join(TABLES)
    }

    /// The checksum of one of its files, as META has it; META itself has none there.
    pub fn checksum(&self, relative: &Path) -> Option<u32> {
        let name = relative.strip_prefix(TABLES).ok()?.to_str()?;
        let file = self.meta.files.iter().find(|file| file.name == name)?;
        Some(file.crc32c)
    }

    /// Its files, relative to [`Checkpoint::dir`], META first: what a snapshot ships, in this order.
    pub fn relative_paths(&self) -> Vec<PathBuf> {
        let tables = self
            .meta
            .files
            .iter()
            .map(|file| Path::new(TABLES).join(&file.name));
        std::iter::once(PathBuf::from(META)).chain(tables).collect()
    }
}

/// CRC32C of a file. Blocks.
fn checksum(disk: &dyn Disk, path: &Path) -> Result<u32> {
    let file = disk.open(path).map_err(StoreError::io("open", path))?;
    let len = file.len().map_err(StoreError::io("read", path))?;
    let mut buffer = vec![0; CHECKSUM_READ_BYTES.min(len as usize + 1)];
    let (mut position, mut crc32c) = (0, 0);
    loop {
        let read = file
            .read_at(position, &mut buffer)
            .map_err(StoreError::refused(path))?;
        if read == 0 {
            return Ok(crc32c);
        }
        crc32c = crc32c::crc32c_append(crc32c, &buffer[..read]);
        position += read as u64;
    }
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    path.with_extension(suffix)
}

/// The index that a checkpoint's name states; none for other names.
fn index_of(path: &Path) -> Option<u64> {
    let name = path.file_name()?.to_str()?;
    (name.len() == NAME_DIGITS && name.bytes().all(|byte| byte.is_ascii_digit()))
        .then(|| name.parse().ok())
        .flatten()
}

#[cfg(test)]
mod checkpoint_test;
