//! The disk as one process sees it, until that process dies.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use futures::FutureExt;
use futures::future::BoxFuture;
use host::{Disk, File};

use super::{Failing, Room, SimDisk};
use crate::effect::Effect;

/// Free space of a disk with plenty of room.
const FREE_BYTES: u64 = 1 << 40;

/// A process's view of the disk.
#[derive(Clone)]
pub(super) struct LiveDisk {
    disk: SimDisk,
    life: u64,
}

fn dead() -> io::Error {
    io::Error::other("the process that held this disk is dead")
}

/// What Linux says: `EIO`, by which the disk's own failures are told from others.
fn failed() -> io::Error {
    io::Error::from_raw_os_error(5)
}

impl LiveDisk {
    pub(super) fn new(disk: SimDisk, life: u64) -> LiveDisk {
        LiveDisk { disk, life }
    }

    fn check_alive(&self) -> io::Result<()> {
        match self.disk.state().life == self.life {
            true => Ok(()),
            false => Err(dead()),
        }
    }

    /// For operations that need space.
    fn check_room(&self) -> io::Result<()> {
        if self.disk.state().room == Room::Full {
            self.disk.trace.happened(Effect::NoSpace);
            return Err(io::ErrorKind::StorageFull.into());
        }
        Ok(())
    }

    fn fails(&self, failing: Failing, path: &Path) -> bool {
        let fails = self.disk.takes_failure(failing);
        if fails {
            self.disk.trace.tell(format_args!(
                "{}: {failing:?} of {} fails",
                self.disk.machine,
                path.display()
            ));
            self.disk.trace.happened(match failing {
                Failing::Read => Effect::ReadFailed,
                Failing::Write => Effect::WriteFailed,
                Failing::Sync => Effect::SyncFailed,
            });
        }
        fails
    }

    fn trace(&self, verb: &str, path: &Path) {
        self.disk.trace.event(format_args!(
            "{} {verb} {}",
            self.disk.machine,
            path.display()
        ));
    }

    fn file(&self, path: &Path, inner: Arc<dyn File>) -> Arc<dyn File> {
        Arc::new(LiveFile {
            inner,
            path: path.to_path_buf(),
            disk: self.clone(),
        })
    }
}

impl Disk for LiveDisk {
    fn create(&self, path: &Path) -> io::Result<Arc<dyn File>> {
        self.check_alive()?;
        self.check_room()?;
        self.trace("create", path);
        Ok(self.file(path, self.disk.inner.create(path)?))
    }

    fn open(&self, path: &Path) -> io::Result<Arc<dyn File>> {
        self.check_alive()?;
        Ok(self.file(path, self.disk.inner.open(path)?))
    }

    fn exists(&self, path: &Path) -> bool {
        self.disk.inner.exists(path)
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<PathBuf>> {
        self.check_alive()?;
        self.disk.inner.list(dir)
    }

    fn create_dir_all(&self, dir: &Path) -> io::Result<()> {
        self.check_alive()?;
        if !self.disk.inner.exists(dir) {
            self.check_room()?;
        }
        self.disk.inner.create_dir_all(dir)
    }

    fn remove_dir_all(&self, dir: &Path) -> io::Result<()> {
        self.check_alive()?;
        self.trace("remove", dir);
        self.disk.inner.remove_dir_all(dir)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.check_alive()?;
        self.trace("rename to", to);
        self.disk.inner.rename(from, to)
    }

    fn link(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.check_alive()?;
        self.check_room()?;
        self.trace("link", to);
        self.disk.inner.link(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.check_alive()?;
        self.trace("remove", path);
        self.disk.inner.remove(path)
    }

    fn sync_dir(&self, dir: &Path) -> BoxFuture<'static, io::Result<()>> {
        let (disk, dir) = (self.clone(), dir.to_path_buf());
        async move {
            disk.check_alive()?;
            tokio::time::sleep(disk.disk.sync_time(&dir)).await;
            disk.check_alive()?;
            if disk.fails(Failing::Sync, &dir) {
                return Err(failed());
            }
            disk.trace("sync", &dir);
            disk.disk.trace.count("disk sync of a directory");
            disk.disk.inner.sync_dir(&dir).await
        }
        .boxed()
    }

    fn free_bytes(&self, _dir: &Path) -> io::Result<u64> {
        self.check_alive()?;
        Ok(match self.disk.state().room {
            Room::Plenty => FREE_BYTES,
            Room::Free(bytes) => bytes,
            Room::Full => 0,
        })
    }

    fn lock(&self, path: &Path) -> io::Result<Box<dyn Send + Sync>> {
        self.check_alive()?;
        if !self.exists(path) {
            self.create(path)?;
        }
        if !self.disk.state().locks.insert(path.to_path_buf()) {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        Ok(Box::new(Lock {
            disk: self.clone(),
            path: path.to_path_buf(),
        }))
    }
}

/// Held until it is dropped, or its process dies.
struct Lock {
    disk: LiveDisk,
    path: PathBuf,
}

impl Drop for Lock {
    fn drop(&mut self) {
        // One that was held by a dead process must not free its successor's.
        if self.disk.check_alive().is_ok() {
            self.disk.disk.state().locks.remove(&self.path);
        }
    }
}

struct LiveFile {
    inner: Arc<dyn File>,
    path: PathBuf,
    disk: LiveDisk,
}

impl LiveFile {
    fn write(&self, position: u64, buffers: &[Bytes]) -> io::Result<()> {
        self.disk.check_alive()?;
        let len: u64 = buffers.iter().map(|buffer| buffer.len() as u64).sum();
        if position + len > self.inner.len()? {
            self.disk.check_room()?;
        }
        self.disk.disk.trace.event(format_args!(
            "{} write {} {position}+{len}",
            self.disk.disk.machine,
            self.path.display()
        ));
        if self.disk.fails(Failing::Write, &self.path) {
            let all: Vec<u8> = buffers.concat();
            let half = Bytes::copy_from_slice(&all[..all.len() / 2]);
            self.inner.write_at(position, &[half])?;
            return Err(failed());
        }
        self.inner.write_at(position, buffers)
    }

    async fn make_durable(self: Arc<Self>) -> io::Result<()> {
        self.disk.check_alive()?;
        tokio::time::sleep(self.disk.disk.sync_time(&self.path)).await;
        self.disk.check_alive()?;
        self.disk.trace("sync", &self.path);
        self.disk.disk.trace.count("disk sync");
        if self.disk.fails(Failing::Sync, &self.path) {
            // A file whose name is gone cannot be found to fail.
            if self.disk.disk.inner.fail_next_sync(&self.path).is_err() {
                return Err(failed());
            }
        }
        self.inner.clone().sync().await
    }
}

impl File for LiveFile {
    fn len(&self) -> io::Result<u64> {
        self.disk.check_alive()?;
        self.inner.len()
    }

    fn read_at(&self, position: u64, buffer: &mut [u8]) -> io::Result<usize> {
        self.disk.check_alive()?;
        if self.disk.fails(Failing::Read, &self.path) {
            return Err(failed());
        }
        self.disk.disk.trace.count("disk read");
        let read = self.inner.read_at(position, buffer);
        if read.as_ref().is_err_and(host::is_media_error) {
            self.disk.disk.trace.happened(Effect::SectorNotGiven);
        }
        read
    }

    fn write_at(&self, position: u64, buffers: &[Bytes]) -> io::Result<()> {
        self.write(position, buffers)
    }

    fn preallocate(&self, len: u64) -> io::Result<()> {
        self.disk.check_alive()?;
        if len > self.inner.len()? {
            self.disk.check_room()?;
        }
        self.inner.preallocate(len)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.disk.check_alive()?;
        if len > self.inner.len()? {
            self.disk.check_room()?;
        }
        self.inner.set_len(len)
    }

    fn sync(self: Arc<Self>) -> BoxFuture<'static, io::Result<()>> {
        self.make_durable().boxed()
    }

    fn write_and_sync(
        self: Arc<Self>,
        position: u64,
        buffers: Vec<Bytes>,
    ) -> BoxFuture<'static, io::Result<()>> {
        async move {
            self.write(position, &buffers)?;
            self.make_durable().await
        }
        .boxed()
    }
}
