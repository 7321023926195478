//! The operating system's files.
//!
//! The only place of the product that opens files (RocksDB's own excepted). Never retries a failed
//! sync.
#![expect(
    clippy::disallowed_methods,
    reason = "this is the seam that others must ask"
)]

mod fault_plan;

use std::fs;
use std::io::{self, IoSlice};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use futures::FutureExt;
use futures::future::BoxFuture;
use rustix::fs::FallocateFlags;

use crate::blocking;
use crate::disk::{Disk, File};
use fault_plan::{FaultPlan, Operation};

/// Buffers handed to the kernel in one call: Linux takes no more (`IOV_MAX`).
const BUFFERS_PER_WRITE_MAX: usize = 1024;

/// Files of the operating system.
#[derive(Clone, Debug)]
pub struct OsDisk {
    faults: Option<Arc<FaultPlan>>,
}

impl OsDisk {
    /// The disk.
    pub fn new() -> OsDisk {
        OsDisk { faults: None }
    }

    /// The disk with the faults that the environment names, for tests on real processes; see `fault_plan`. No program
    /// that users get calls this.
    pub(crate) fn with_faults_of_the_environment() -> OsDisk {
        OsDisk {
            faults: FaultPlan::from_environment().map(Arc::new),
        }
    }

    fn file(&self, path: &Path, file: fs::File) -> Arc<dyn File> {
        Arc::new(OsFile {
            file,
            path: path.to_path_buf(),
            faults: self.faults.clone(),
        })
    }
}

impl Default for OsDisk {
    fn default() -> OsDisk {
        OsDisk::new()
    }
}

impl Disk for OsDisk {
    fn create(&self, path: &Path) -> io::Result<Arc<dyn File>> {
        check(&self.faults, Operation::Create, path)?;
        let file = fs::OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(true)
            .open(path)?;
        Ok(self.file(path, file))
    }

    fn open(&self, path: &Path) -> io::Result<Arc<dyn File>> {
        let file = fs::OpenOptions::new().read(true).write(true).open(path)?;
        Ok(self.file(path, file))
    }

    fn exists(&self, path: &Path) -> bool {
        path.exists()
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<PathBuf>> {
        let mut paths = fs::read_dir(dir)?
            .map(|entry| entry.map(|entry| entry.path()))
            .collect::<io::Result<Vec<_>>>()?;
        paths.sort();
        Ok(paths)
    }

    fn create_dir_all(&self, dir: &Path) -> io::Result<()> {
        fs::create_dir_all(dir)
    }

    fn remove_dir_all(&self, dir: &Path) -> io::Result<()> {
        fs::remove_dir_all(dir)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn link(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::hard_link(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    fn sync_dir(&self, dir: &Path) -> BoxFuture<'static, io::Result<()>> {
        let (faults, dir) = (self.faults.clone(), dir.to_path_buf());
        blocking::run(move || {
            check(&faults, Operation::Sync, &dir)?;
            fs::File::open(&dir)?.sync_all()
        })
        .boxed()
    }

    fn free_bytes(&self, dir: &Path) -> io::Result<u64> {
        check(&self.faults, Operation::Free, dir)?;
        let statistics = rustix::fs::statvfs(dir)?;
        let free_bytes = statistics.f_bavail.saturating_mul(statistics.f_frsize);
        Ok(match &self.faults {
            Some(plan) => plan.free_bytes(dir, free_bytes),
            None => free_bytes,
        })
    }

    fn lock(&self, path: &Path) -> io::Result<Box<dyn Send + Sync>> {
        let file = fs::OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(path)?;
        match file.try_lock() {
            Ok(()) => Ok(Box::new(file)),
            Err(fs::TryLockError::WouldBlock) => Err(io::ErrorKind::WouldBlock.into()),
            Err(fs::TryLockError::Error(error)) => Err(error),
        }
    }

    fn real_path(&self) -> bool {
        true
    }
}

#[derive(Debug)]
struct OsFile {
    file: fs::File,
    path: PathBuf,
    faults: Option<Arc<FaultPlan>>,
}

impl OsFile {
    fn sync_now(&self) -> io::Result<()> {
        check(&self.faults, Operation::Sync, &self.path)?;
        self.file.sync_data()
    }
}

impl File for OsFile {
    fn len(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.len())
    }

    fn read_at(&self, position: u64, buffer: &mut [u8]) -> io::Result<usize> {
        check(&self.faults, Operation::Read, &self.path)?;
        let mut filled = 0;
        while filled < buffer.len() {
            match self
                .file
                .read_at(&mut buffer[filled..], position + filled as u64)
            {
                Ok(0) => break,
                Ok(count) => filled += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(filled)
    }

    fn write_at(&self, position: u64, buffers: &[Bytes]) -> io::Result<()> {
        check(&self.faults, Operation::Write, &self.path)?;
        let mut position = position;
        for chunk in buffers.chunks(BUFFERS_PER_WRITE_MAX) {
            let mut slices: Vec<IoSlice<'_>> = chunk
                .iter()
                .filter(|buffer| !buffer.is_empty())
                .map(|buffer| IoSlice::new(buffer))
                .collect();
            position = write_all(&self.file, position, &mut slices)?;
        }
        Ok(())
    }

    fn preallocate(&self, len: u64) -> io::Result<()> {
        check(&self.faults, Operation::Write, &self.path)?;
        if len == 0 {
            return Ok(());
        }
        match rustix::fs::fallocate(&self.file, FallocateFlags::empty(), 0, len) {
            Ok(()) => Ok(()),
            // Some file systems cannot reserve: the space is then taken as it is written.
            Err(rustix::io::Errno::OPNOTSUPP) if self.len()? >= len => Ok(()),
            Err(rustix::io::Errno::OPNOTSUPP) => self.file.set_len(len),
            Err(error) => Err(error.into()),
        }
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        check(&self.faults, Operation::Write, &self.path)?;
        self.file.set_len(len)
    }

    fn sync(self: Arc<Self>) -> BoxFuture<'static, io::Result<()>> {
        blocking::run(move || self.sync_now()).boxed()
    }

    fn write_and_sync(
        self: Arc<Self>,
        position: u64,
        buffers: Vec<Bytes>,
    ) -> BoxFuture<'static, io::Result<()>> {
        blocking::run(move || {
            self.write_at(position, &buffers)?;
            self.sync_now()
        })
        .boxed()
    }
}

/// Writes all of `slices`; returns the position behind them.
fn write_all(file: &fs::File, position: u64, slices: &mut [IoSlice<'_>]) -> io::Result<u64> {
    let (mut position, mut rest) = (position, slices);
    while !rest.is_empty() {
        match rustix::io::pwritev(file, rest, position) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(count) => {
                position += count as u64;
                IoSlice::advance_slices(&mut rest, count);
            }
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(position)
}

fn check(faults: &Option<Arc<FaultPlan>>, operation: Operation, path: &Path) -> io::Result<()> {
    match faults {
        None => Ok(()),
        Some(plan) => plan.check(operation, path),
    }
}
