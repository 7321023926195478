//! What a replica may ask of a disk.
//!
//! The contract, checked by `testing::suite` on every implementation:
//!
//! - What survives a power cut is what was synced: bytes by [`File::sync`], names by
//!   [`Disk::sync_dir`] of the directory that holds them. Anything else may be lost, kept, or torn.
//! - What survives the death of the process alone is everything that a call returned `Ok` for.
//! - A write is readable when it returns. Files may be read and written at the same time, at
//!   different positions.
//! - After a failed `sync` or `write_and_sync` the file must not be used again: nobody knows what
//!   is on the disk.
//! - A rename replaces its target, if there is one, in one step.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use futures::future::BoxFuture;

/// Linux's `EIO`.
pub(crate) const INPUT_OUTPUT_ERROR: i32 = 5;

/// Whether the disk itself failed, and not the request: what it was asked for is as good as lost.
pub fn is_media_error(error: &io::Error) -> bool {
    error.raw_os_error() == Some(INPUT_OUTPUT_ERROR)
}

/// A tree of files. All paths are used as they are given.
pub trait Disk: Send + Sync + 'static {
    /// Makes an empty file, or empties the one that is there.
    fn create(&self, path: &Path) -> io::Result<Arc<dyn File>>;

    /// Opens a file for reading and writing. `NotFound` if it does not exist.
    fn open(&self, path: &Path) -> io::Result<Arc<dyn File>>;

    /// Whether there is a file or directory of this name.
    fn exists(&self, path: &Path) -> bool;

    /// The paths of everything in a directory, sorted. `NotFound` if it does not exist.
    fn list(&self, dir: &Path) -> io::Result<Vec<PathBuf>>;

    /// Makes a directory and those above it. Existing ones are fine.
    fn create_dir_all(&self, dir: &Path) -> io::Result<()>;

    /// Removes a directory and everything in it. `NotFound` if it does not exist.
    fn remove_dir_all(&self, dir: &Path) -> io::Result<()>;

    /// Gives a file or directory another name; a file of that name is replaced. Open files stay
    /// usable.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;

    /// Gives a file a second name (a hard link). `AlreadyExists` if the name is taken.
    fn link(&self, from: &Path, to: &Path) -> io::Result<()>;

    /// Removes a file's name. Open files stay usable.
    fn remove(&self, path: &Path) -> io::Result<()>;

    /// Makes the names in a directory durable, as they are now.
    fn sync_dir(&self, dir: &Path) -> BoxFuture<'static, io::Result<()>>;

    /// Bytes that may still be written to the file system that holds `dir`.
    fn free_bytes(&self, dir: &Path) -> io::Result<u64>;

    /// Takes an exclusive lock named by a file, made if needed. `WouldBlock` if another holder has
    /// it. The lock is released when the returned value is dropped, and when the process dies.
    fn lock(&self, path: &Path) -> io::Result<Box<dyn Send + Sync>>;

    /// Whether paths name files of the operating system, so that RocksDB can open them too.
    fn real_path(&self) -> bool {
        false
    }
}

/// An open file.
pub trait File: Send + Sync + 'static {
    /// Length in bytes.
    fn len(&self) -> io::Result<u64>;

    /// Whether the file has no bytes.
    fn is_empty(&self) -> io::Result<bool> {
        Ok(self.len()? == 0)
    }

    /// Reads into all of `buffer`; returns fewer bytes only at the end of the file.
    fn read_at(&self, position: u64, buffer: &mut [u8]) -> io::Result<usize>;

    /// Writes all buffers one after another from `position` on. A gap before it reads as zeros.
    fn write_at(&self, position: u64, buffers: &[Bytes]) -> io::Result<()>;

    /// Reserves space, so that the file is at least `len` bytes long; new bytes read as zeros. A
    /// failure with `StorageFull` leaves the file's contents as they were.
    fn preallocate(&self, len: u64) -> io::Result<()>;

    /// Cuts the file, or lengthens it with zeros.
    fn set_len(&self, len: u64) -> io::Result<()>;

    /// Makes everything written so far durable, off the async threads.
    fn sync(self: Arc<Self>) -> BoxFuture<'static, io::Result<()>>;

    /// [`File::write_at`] and then [`File::sync`], in one hop off the async threads: the log's
    /// write path.
    fn write_and_sync(
        self: Arc<Self>,
        position: u64,
        buffers: Vec<Bytes>,
    ) -> BoxFuture<'static, io::Result<()>>;
}
