//! A data directory whose broker is stopped, looked at from outside.
//!
//! Takes the directory's lock, so that nothing moves meanwhile and no broker starts on it; changes
//! nothing. Must never make a file: a directory that is none stays none.

use std::path::{Path, PathBuf};

use host::Host;

use crate::checkpoint::{Checkpoint, Checkpoints};
use crate::data_dir;
use crate::entry::Entry;
use crate::error::{Result, StoreError};
use crate::log::inspect::{self, SegmentReport, Synced};
use crate::superblock::Superblock;

/// A locked data directory, for reading only.
pub struct Inspection {
    host: Host,
    path: PathBuf,
    superblock: Superblock,
    _lock: Box<dyn Send + Sync>,
}

impl Inspection {
    /// Locks the directory and reads its superblock.
    ///
    /// Fails with [`StoreError::Locked`] while a process uses it, and with [`StoreError::Refused`] if it is
    /// no data directory.
    pub fn open(host: &Host, path: &Path) -> Result<Inspection> {
        let disk = &*host.disk;
        let missing = ["lock", "superblock"]
            .into_iter()
            .find(|name| !disk.exists(&path.join(name)));
        if let Some(name) = missing {
            let path = path.display();
            return Err(StoreError::Refused {
                detail: format!("{path} is no data directory of a broker: it has no file {name}"),
            });
        }
        let lock = data_dir::lock(disk, path)?;
        let superblock = data_dir::read(disk, path)?.ok_or_else(|| StoreError::Refused {
            detail: format!("the superblock of {} is gone", path.display()),
        })?;
        Ok(Inspection {
            host: host.clone(),
            path: path.to_path_buf(),
            superblock,
            _lock: lock,
        })
    }

    /// Whose it is, its vote, and which generation of its files counts.
    pub fn superblock(&self) -> &Superblock {
        &self.superblock
    }

    /// The directory of the log that counts.
    pub fn log_dir(&self) -> PathBuf {
        let generation = self.superblock.log_generation;
        self.path.join(format!("log-{generation}"))
    }

    /// Every segment, each record's checksum verified. Reads the whole log, and tells after each segment how many were read,
    /// of how many.
    pub fn segments(&self, read: impl FnMut(usize, usize)) -> Result<Vec<SegmentReport>> {
        let dir = self.log_dir();
        match self.host.disk.exists(&dir) {
            true => inspect::segments(&*self.host.disk, &dir, read),
            false => Ok(Vec::new()),
        }
    }

    /// How far the log was synced, as far as its process noted that.
    pub fn synced(&self) -> Result<Synced> {
        inspect::synced(&*self.host.disk, &self.log_dir())
    }

    /// One entry of a segment; none if it has no valid record of that index.
    pub fn entry(&self, segment: &SegmentReport, index: u64) -> Result<Option<Entry>> {
        segment.entry(&*self.host.disk, index)
    }

    /// Every checkpoint by index, each file's checksum verified; a damaged one with what is wrong.
    pub async fn checkpoints(&self) -> Result<Vec<(PathBuf, Result<Checkpoint>)>> {
        let dir = self.path.join("checkpoints");
        if !self.host.disk.exists(&dir) {
            return Ok(Vec::new());
        }
        Checkpoints::look(self.host.disk.clone(), dir).all().await
    }
}
