//! Whether the disk has room for more.
//!
//! Two levels: below the reserve new client data shall be refused; below half of it every append
//! is, before anything is written. What lies between is for the entries that make space again. The
//! file system is asked at most once for so many bytes written and once in so much time.

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

    /// Whether there is room for new client data.
    pub(crate) fn check_reserve(&self, disk: &dyn Disk, dir: &Path) -> Result<()> {
        self.check(disk, dir, 0, self.reserve_bytes)
    }

    /// Whether an append of `bytes` may be written.
    pub(crate) fn check_append(&self, disk: &dyn Disk, dir: &Path, bytes: u64) -> Result<()> {
        self.check(disk, dir, bytes, self.reserve_bytes / 2)
    }

    /// Looks at the free space at once, before a file of `len` bytes is made.
    pub(crate) fn check_file(&self, disk: &dyn Disk, dir: &Path, len: u64) -> Result<()> {
        let free_bytes = self.look(disk, dir)?;
        self.judge(dir, free_bytes, len + self.reserve_bytes / 2)
    }

    fn check(&self, disk: &dyn Disk, dir: &Path, bytes: u64, limit: u64) -> Result<()> {
        let recent = {
            let mut last = self.last();
            last.as_mut().and_then(|look| {
                look.appended_since += bytes;
                let fresh = look.at.elapsed() < CHECK_INTERVAL && look.appended_since < CHECK_BYTES;
                fresh.then_some(look.free_bytes)
            })
        };
        let free_bytes = match recent {
            Some(free_bytes) => free_bytes,
            None => self.look(disk, dir)?,
        };
        self.judge(dir, free_bytes, limit)
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
