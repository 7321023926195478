//! Files of the person at the terminal: configurations, inputs, logs of child processes.
//!
//! The one file of this crate that opens files itself instead of asking `host::Disk`: nothing here is
//! a replica's data, and none of it runs in the simulator. Must never touch what a broker stores.

#![expect(
    clippy::disallowed_methods,
    reason = "configuration, input and log files of the command line are no part of a replica"
)]

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// The whole file as text.
pub fn read_text(path: &Path) -> io::Result<String> {
    let bytes = fs::read(path)?;
    String::from_utf8(bytes).map_err(|_| io::Error::new(io::ErrorKind::InvalidData, "not UTF-8"))
}

/// The whole file.
pub fn read_bytes(path: &Path) -> io::Result<Vec<u8>> {
    fs::read(path)
}

/// Replaces the file's content.
pub fn write_text(path: &Path, text: &str) -> io::Result<()> {
    fs::write(path, text)
}

/// Replaces the file's content as a whole, for its owner's eyes only: whoever reads it, and whenever
/// the machine stops, finds the old text or the new.
pub fn replace_private_text(path: &Path, text: &str) -> io::Result<()> {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{}.new", std::process::id()));
    let beside = path.with_file_name(name);
    let written = write_private(&beside, text).and_then(|()| fs::rename(&beside, path));
    if written.is_err() {
        // What could not be written whole is not left lying about; the first error is the one told.
        let _ = fs::remove_file(&beside);
    }
    written?;
    match path.parent() {
        Some(parent) => File::open(parent)?.sync_all(),
        None => Ok(()),
    }
}

/// Makes the kernel forget what it keeps in memory of the files below `directory`, as far as it is on the disk;
/// the sum of their lengths, bytes.
pub fn forget_cached(directory: &Path) -> io::Result<u64> {
    let mut bytes = 0;
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            bytes += forget_cached(&entry.path())?;
        } else {
            let file = File::open(entry.path())?;
            file.sync_all()?;
            rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed)?;
            bytes += file.metadata()?.len();
        }
    }
    Ok(bytes)
}

fn write_private(path: &Path, text: &str) -> io::Result<()> {
    let mut file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(path)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()
}

/// Opens for reading from the start.
pub fn open(path: &Path) -> io::Result<File> {
    File::open(path)
}

/// Opens for writing at the end; creates it if it is not there.
pub fn append_to(path: &Path) -> io::Result<File> {
    OpenOptions::new().create(true).append(true).open(path)
}

/// Creates or empties a file that is read and written.
pub fn create(path: &Path) -> io::Result<File> {
    OpenOptions::new()
        .create(true)
        .truncate(true)
        .read(true)
        .write(true)
        .open(path)
}

/// Creates the directory and those above it.
pub fn create_directories(path: &Path) -> io::Result<()> {
    fs::create_dir_all(path)
}

/// A directory that is removed, with all that is in it, when this is dropped.
pub struct ScratchDirectory {
    path: PathBuf,
}

impl ScratchDirectory {
    /// Creates `<parent>/raftmq-<purpose>-<process id>`; the parent is the system's own by default.
    pub fn create(parent: Option<&Path>, purpose: &str) -> io::Result<ScratchDirectory> {
        let parent = parent.map_or_else(std::env::temp_dir, Path::to_path_buf);
        let path = parent.join(format!("raftmq-{purpose}-{}", std::process::id()));
        fs::create_dir_all(&path)?;
        Ok(ScratchDirectory { path })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for ScratchDirectory {
    fn drop(&mut self) {
        // A leftover in the temporary directory is a nuisance, not a failure.
        let _ = fs::remove_dir_all(&self.path);
    }
}
