//! Whether the disk has room for more.
//!
//! Below the reserve new client data shall be refused; below half of it no file is made any more. What lies between is for
//! the entries that make space again, and [`Room`] says what for; what fits into files that are there is taken however little
//! is free. The file system is asked at most once for so many bytes written and once in so
//! much time.

use std::path::Path;
use std::sync::Mutex;
use std::time::Duration;

use host::Disk;
use tokio::time::Instant;

use crate::error::{Result, StoreError};

/// Bytes appended between two looks at the free space.
const CHECK_BYTES: u64 = 16 << 20;

/// Time after which the free space is looked at again.
const CHECK_INTERVAL: Duration = Duration::from_secs(1);

/// What the free space still allows, the most first. Replicas of a group often have disks of one size that fill
/// together: so each level leaves the next one room to make space in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Room {
    /// At least the reserve is free: new client data.
    #[default]
    Everything,
    /// At least 7/8 of it: what must be kept is written once more, so that older entries can go.
    Keeping,
    /// At least 3/4 of it: the small entries that let older ones go.
    Upkeep,
    /// Less: nothing that a leader sends, but what fits into files that are there.
    Nothing,
}

impl Room {
    fn of(free_bytes: u64, reserve_bytes: u64) -> Room {
        let eighth = reserve_bytes / 8;
        match free_bytes {
            free if free >= reserve_bytes => Room::Everything,
            free if free >= reserve_bytes - eighth => Room::Keeping,
            free if free >= reserve_bytes - 2 * eighth => Room::Upkeep,
            _ => Room::Nothing,
        }
    }
}

pub(crate) struct Space {
    reserve_bytes: u64,
    last: Mutex<Option<Look>>,
}

#[derive(Clone, Copy)]
struct Look {
    at: Instant,
    free_bytes: u64,
    appended_since: u64,
}

impl Space {
    pub(crate) fn new(reserve_bytes: u64) -> Space {
        Space {
            reserve_bytes,
            last: Mutex::new(None),
        }
    }

    /// What there is room for.
    pub(crate) fn room(&self, disk: &dyn Disk, dir: &Path) -> Result<Room> {
        Ok(Room::of(self.free_bytes(disk, dir)?, self.reserve_bytes))
    }

    /// So many bytes are written: the free space is looked at again the sooner.
    pub(crate) fn appended(&self, bytes: u64) {
        if let Some(look) = self.last().as_mut() {
            look.appended_since += bytes;
        }
    }

    /// Looks at the free space at once, before a file of `len` bytes is made.
    pub(crate) fn check_file(&self, disk: &dyn Disk, dir: &Path, len: u64) -> Result<()> {
        let free_bytes = self.look(disk, dir)?;
        self.judge(dir, free_bytes, len + self.reserve_bytes / 2)
    }

    /// The free space, as it was lately.
    pub(crate) fn free_bytes(&self, disk: &dyn Disk, dir: &Path) -> Result<u64> {
        let recent = self
            .last()
            .filter(|look| look.at.elapsed() < CHECK_INTERVAL && look.appended_since < CHECK_BYTES);
        match recent {
            Some(look) => Ok(look.free_bytes),
            None => self.look(disk, dir),
        }
    }

    fn look(&self, disk: &dyn Disk, dir: &Path) -> Result<u64> {
        let free_bytes = disk
            .free_bytes(dir)
            .map_err(StoreError::io("look at", dir))?;
        *self.last() = Some(Look {
            at: Instant::now(),
            free_bytes,
            appended_since: 0,
        });
        Ok(free_bytes)
    }

    fn judge(&self, dir: &Path, free_bytes: u64, limit: u64) -> Result<()> {
        if free_bytes >= limit {
            return Ok(());
        }
        let (path, reserve_bytes) = (dir.to_path_buf(), self.reserve_bytes);
        Err(StoreError::DiskFull {
            path,
            free_bytes,
            reserve_bytes,
        })
    }

    fn last(&self) -> std::sync::MutexGuard<'_, Option<Look>> {
        self.last
            .lock()
            .expect("nobody panics while holding the free space")
    }
}
