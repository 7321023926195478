//! A disk that fails on demand and counts what it is asked for.
//!
//! Wraps any other disk. A failed write leaves half of its bytes behind, as a real one may.

use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};

use bytes::Bytes;
use futures::FutureExt;
use futures::future::BoxFuture;

use crate::disk::{Disk, File};

/// What is asked of a disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Operation {
    Create,
    Open,
    Read,
    Write,
    Preallocate,
    SetLen,
    Sync,
    SyncDir,
    CreateDir,
    RemoveDir,
    Rename,
    Link,
    Remove,
}

impl Operation {
    fn changes_disk(self) -> bool {
        !matches!(self, Operation::Open | Operation::Read)
    }
}

/// Operations that shall fail.
#[derive(Clone, Debug)]
pub struct Fault {
    /// Which operation fails.
    pub operation: Operation,
    /// Only on paths that contain this text.
    pub path_part: String,
    /// How many of them succeed first.
    pub skip: u64,
    /// How many fail then.
    pub times: u64,
    /// With which error.
    pub kind: io::ErrorKind,
    /// Of reads: only those that touch these bytes.
    pub within: Range<u64>,
}

impl Fault {
    /// The next `operation` on a path that contains `path_part` fails, and all later ones.
    pub fn always(operation: Operation, path_part: &str, kind: io::ErrorKind) -> Fault {
        Fault {
            operation,
            path_part: path_part.to_string(),
            skip: 0,
            times: u64::MAX,
            kind,
            within: 0..u64::MAX,
        }
    }

    /// The next `operation` on a path that contains `path_part` fails, and no other.
    pub fn once(operation: Operation, path_part: &str, kind: io::ErrorKind) -> Fault {
        Fault {
            times: 1,
            ..Fault::always(operation, path_part, kind)
        }
    }

    /// Only reads that touch these bytes fail.
    pub fn within(self, within: Range<u64>) -> Fault {
        Fault { within, ..self }
    }

    /// Lets `skip` operations succeed first.
    pub fn after(self, skip: u64) -> Fault {
        Fault { skip, ..self }
    }
}

/// What was asked of the disk so far, failures included.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct Counts {
    pub opens: u64,
    pub reads: u64,
    pub bytes_read: u64,
    pub writes: u64,
    pub bytes_written: u64,
    pub syncs: u64,
    /// Operations of any kind that change something.
    pub changes: u64,
}

#[derive(Default)]
struct State {
    faults: Vec<Fault>,
    counts: Counts,
    changes_left: Option<u64>,
    free_bytes: Option<u64>,
    /// The process that may use the disk; handles of earlier ones are dead.
    life: u64,
}

/// The wrapper; clones share faults and counts.
#[derive(Clone)]
pub struct FaultyDisk {
    inner: Arc<dyn Disk>,
    state: Arc<Mutex<State>>,
    life: u64,
}

impl FaultyDisk {
    /// A disk that does not fail yet.
    pub fn new(inner: Arc<dyn Disk>) -> FaultyDisk {
        FaultyDisk {
            inner,
            state: Arc::default(),
            life: 0,
        }
    }

    /// Adds a fault.
    pub fn inject(&self, fault: Fault) {
        self.state().faults.push(fault);
    }

    /// After `changes` more operations that change something, all operations fail: the process as
    /// good as died there.
    pub fn stop_after(&self, changes: u64) {
        self.state().changes_left = Some(changes);
    }

    /// The process dies: every operation through handles given out before fails from now on, and
    /// touches nothing.
    pub fn kill(&self) {
        self.state().life += 1;
    }

    /// A handle for the process that runs now.
    pub fn handle(&self) -> FaultyDisk {
        let life = self.state().life;
        FaultyDisk {
            life,
            ..self.clone()
        }
    }

    /// Overrides the free space that is reported.
    pub fn set_free_bytes(&self, free_bytes: Option<u64>) {
        self.state().free_bytes = free_bytes;
    }

    /// Removes all faults.
    pub fn heal(&self) {
        let mut state = self.state();
        state.faults.clear();
        state.changes_left = None;
        state.free_bytes = None;
    }

    /// What was asked so far.
    pub fn counts(&self) -> Counts {
        self.state().counts
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    fn check(&self, operation: Operation, path: &Path) -> io::Result<()> {
        self.check_bytes(operation, path, 0..u64::MAX)
    }

    fn check_bytes(&self, operation: Operation, path: &Path, at: Range<u64>) -> io::Result<()> {
        let mut state = self.state();
        if self.life < state.life {
            return Err(io::Error::other("the process that held this disk is dead"));
        }
        if operation.changes_disk() {
            state.counts.changes += 1;
        }
        match state.changes_left {
            Some(0) => return Err(io::Error::other("the disk was stopped")),
            Some(left) if operation.changes_disk() => state.changes_left = Some(left - 1),
            _ => {}
        }
        let path = path.to_string_lossy();
        for fault in &mut state.faults {
            let touched = at.start < fault.within.end && fault.within.start < at.end;
            if fault.operation != operation || !path.contains(&fault.path_part) || !touched {
                continue;
            }
            if fault.skip > 0 {
                fault.skip -= 1;
            } else if fault.times > 0 {
                fault.times -= 1;
                return Err(fault.kind.into());
            }
        }
        Ok(())
    }

    fn wrap(&self, path: &Path, inner: Arc<dyn File>) -> Arc<dyn File> {
        Arc::new(FaultyFile {
            inner,
            path: path.to_path_buf(),
            disk: self.clone(),
        })
    }
}

impl Disk for FaultyDisk {
    fn create(&self, path: &Path) -> io::Result<Arc<dyn File>> {
        self.check(Operation::Create, path)?;
        Ok(self.wrap(path, self.inner.create(path)?))
    }

    fn open(&self, path: &Path) -> io::Result<Arc<dyn File>> {
        self.state().counts.opens += 1;
        self.check(Operation::Open, path)?;
        Ok(self.wrap(path, self.inner.open(path)?))
    }

    fn exists(&self, path: &Path) -> bool {
        self.inner.exists(path)
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<PathBuf>> {
        self.inner.list(dir)
    }

    fn create_dir_all(&self, dir: &Path) -> io::Result<()> {
        self.check(Operation::CreateDir, dir)?;
        self.inner.create_dir_all(dir)
    }

    fn remove_dir_all(&self, dir: &Path) -> io::Result<()> {
        self.check(Operation::RemoveDir, dir)?;
        self.inner.remove_dir_all(dir)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.check(Operation::Rename, to)?;
        self.inner.rename(from, to)
    }

    fn link(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.check(Operation::Link, to)?;
        self.inner.link(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.check(Operation::Remove, path)?;
        self.inner.remove(path)
    }

    fn sync_dir(&self, dir: &Path) -> BoxFuture<'static, io::Result<()>> {
        let (disk, dir) = (self.clone(), dir.to_path_buf());
        async move {
            disk.check(Operation::SyncDir, &dir)?;
            disk.inner.sync_dir(&dir).await
        }
        .boxed()
    }

    fn free_bytes(&self, dir: &Path) -> io::Result<u64> {
        match self.state().free_bytes {
            Some(free_bytes) => Ok(free_bytes),
            None => self.inner.free_bytes(dir),
        }
    }

    fn lock(&self, path: &Path) -> io::Result<Box<dyn Send + Sync>> {
        self.inner.lock(path)
    }

    fn real_path(&self) -> bool {
        self.inner.real_path()
    }
}

struct FaultyFile {
    inner: Arc<dyn File>,
    path: PathBuf,
    disk: FaultyDisk,
}

impl File for FaultyFile {
    fn len(&self) -> io::Result<u64> {
        self.inner.len()
    }

    fn read_at(&self, position: u64, buffer: &mut [u8]) -> io::Result<usize> {
        let bytes = position..position + buffer.len() as u64;
        self.disk.check_bytes(Operation::Read, &self.path, bytes)?;
        let count = self.inner.read_at(position, buffer)?;
        let mut state = self.disk.state();
        state.counts.reads += 1;
        state.counts.bytes_read += count as u64;
        Ok(count)
    }

    fn write_at(&self, position: u64, buffers: &[Bytes]) -> io::Result<()> {
        let len: u64 = buffers.iter().map(|buffer| buffer.len() as u64).sum();
        {
            let mut state = self.disk.state();
            state.counts.writes += 1;
            state.counts.bytes_written += len;
        }
        if let Err(error) = self.disk.check(Operation::Write, &self.path) {
            if self.disk.life < self.disk.state().life {
                return Err(error);
            }
            let all: Vec<u8> = buffers
                .iter()
                .flat_map(|buffer| buffer.iter().copied())
                .collect();
            let half = Bytes::copy_from_slice(&all[..all.len() / 2]);
            self.inner.write_at(position, &[half])?;
            return Err(error);
        }
        self.inner.write_at(position, buffers)
    }

    fn preallocate(&self, len: u64) -> io::Result<()> {
        self.disk.check(Operation::Preallocate, &self.path)?;
        self.inner.preallocate(len)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.disk.check(Operation::SetLen, &self.path)?;
        self.inner.set_len(len)
    }

    fn sync(self: Arc<Self>) -> BoxFuture<'static, io::Result<()>> {
        async move {
            self.disk.state().counts.syncs += 1;
            self.disk.check(Operation::Sync, &self.path)?;
            self.inner.clone().sync().await
        }
        .boxed()
    }

    fn write_and_sync(
        self: Arc<Self>,
        position: u64,
        buffers: Vec<Bytes>,
    ) -> BoxFuture<'static, io::Result<()>> {
        async move {
            self.write_at(position, &buffers)?;
            self.sync().await
        }
        .boxed()
    }
}
