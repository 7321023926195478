//! What can go wrong in the store.
//!
//! One enum for the whole crate, cheap to clone, because one failed sync fails everybody who waited
//! for it.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use thiserror::Error;

/// Why the store could not do what it was asked.
#[derive(Clone, Debug, Error)]
#[non_exhaustive]
pub enum StoreError {
    /// The disk failed. If it failed while writing or syncing the log, the log is poisoned: the
    /// replica must stop.
    #[error("cannot {verb} {}: {source}", path.display())]
    Io {
        /// What was being done, for example `sync`.
        verb: &'static str,
        /// To which file or directory.
        path: PathBuf,
        /// What the disk said.
        source: Arc<io::Error>,
    },
    /// Bytes on the disk are not what was written there.
    #[error("{} is damaged{}: {detail}", path.display(), at_index(*index))]
    Corrupt {
        /// The damaged file.
        path: PathBuf,
        /// The first log index that is affected, where one is.
        index: Option<u64>,
        /// What does not fit.
        detail: String,
    },
    /// The table engine failed.
    #[error("cannot {verb} the tables: {detail}")]
    Engine {
        /// What was being done, for example `flush`.
        verb: &'static str,
        /// What the engine said.
        detail: String,
    },
    /// Less free space than the reserve; nothing was written. Try again when there is space.
    #[error("disk of {} is full: {free_bytes} bytes free, {reserve_bytes} must stay free", path.display())]
    DiskFull {
        /// The directory that was to be written to.
        path: PathBuf,
        /// Free space found, in bytes.
        free_bytes: u64,
        /// Free space that appends must leave, in bytes.
        reserve_bytes: u64,
    },
    /// Too many bytes wait for the disk; nothing was written. Try again when some have been synced.
    #[error("log is busy: {pending_bytes} bytes wait to be synced, at most {bytes_max} may")]
    Busy {
        /// Bytes that wait.
        pending_bytes: u64,
        /// Bound on them.
        bytes_max: u64,
    },
    /// The log does not hold this index (any more, or yet).
    #[error("log index {index} is outside of {first}..={last}")]
    OutOfRange {
        /// The index asked for.
        index: u64,
        /// First index held.
        first: u64,
        /// Last index held.
        last: u64,
    },
    /// An entry does not follow the one before it. Nothing was written.
    #[error(
        "entry {found} of term {found_term} cannot follow: expected index {expected} and a term of at least {last_term}"
    )]
    OutOfOrder {
        /// The index that would follow.
        expected: u64,
        /// Term of the entry before.
        last_term: u64,
        /// The index given.
        found: u64,
        /// Its term.
        found_term: u64,
    },
    /// A request that the caller's own rules forbid, for example dropping above the purge floor.
    #[error("refused: {detail}")]
    Refused {
        /// The rule.
        detail: String,
    },
    /// Another process uses the data directory.
    #[error("{} is in use by another process", path.display())]
    Locked {
        /// The lock file.
        path: PathBuf,
    },
    /// The data directory belongs to somebody else.
    #[error("{} belongs to {field} {found:?}, but the configuration says {expected:?}", path.display())]
    Identity {
        /// The data directory.
        path: PathBuf,
        /// What differs: `cluster`, `group` or `broker`.
        field: &'static str,
        /// What the configuration says.
        expected: String,
        /// What the directory says.
        found: String,
    },
    /// The file was written by another version of this program.
    #[error("{} has format version {found}, this program reads {supported}", path.display())]
    Version {
        /// The file.
        path: PathBuf,
        /// Its version.
        found: u32,
        /// The version that can be read.
        supported: u32,
    },
    /// A configuration value is out of its bounds.
    #[error("invalid store configuration: {detail}")]
    Config {
        /// The rule that is broken, with the values.
        detail: String,
    },
    /// The store was closed.
    #[error("store is closed")]
    Closed,
}

/// What the store's functions return.
pub type Result<T, E = StoreError> = std::result::Result<T, E>;

impl StoreError {
    /// For `map_err`: the disk failed to `verb` `path`.
    pub fn io(verb: &'static str, path: &Path) -> impl FnOnce(io::Error) -> StoreError {
        let path = path.to_path_buf();
        move |source| StoreError::Io {
            verb,
            path,
            source: Arc::new(source),
        }
    }

    /// `path` holds something that was never written there.
    pub fn corrupt(path: &Path, detail: impl Into<String>) -> StoreError {
        StoreError::Corrupt {
            path: path.to_path_buf(),
            index: None,
            detail: detail.into(),
        }
    }

    /// Like [`StoreError::corrupt`], where log entry `index` is affected.
    pub fn corrupt_at(path: &Path, index: u64, detail: impl Into<String>) -> StoreError {
        StoreError::Corrupt {
            path: path.to_path_buf(),
            index: Some(index),
            detail: detail.into(),
        }
    }

    /// For `map_err`: the disk does not give back what stands in `path`, which is as good as lost. Where a log entry is
    /// affected, `index` names it.
    pub fn unreadable(path: &Path, index: Option<u64>) -> impl FnOnce(io::Error) -> StoreError {
        let path = path.to_path_buf();
        move |source| StoreError::Corrupt {
            path,
            index,
            detail: format!("the disk cannot read it: {source}"),
        }
    }

    /// For `map_err`: like [`StoreError::unreadable`] if the disk itself failed to read `path`; any other failure says
    /// nothing of what stands there.
    pub fn refused(path: &Path) -> impl FnOnce(io::Error) -> StoreError {
        let path = path.to_path_buf();
        move |source| match host::is_media_error(&source) {
            true => StoreError::unreadable(&path, None)(source),
            false => StoreError::io("read", &path)(source),
        }
    }

    /// Whether bytes on the disk are not what was written there: peers can repair that.
    pub fn is_corruption(&self) -> bool {
        matches!(self, StoreError::Corrupt { .. })
    }

    /// Whether nothing was written and the same request may succeed later.
    pub fn is_retriable(&self) -> bool {
        matches!(self, StoreError::Busy { .. } | StoreError::DiskFull { .. })
    }
}

fn at_index(index: Option<u64>) -> String {
    index.map_or_else(String::new, |index| format!(" at log index {index}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Catches tables that are given up because the system was short of something for a moment.
    #[test]
    fn only_what_the_disk_refuses_is_damage() {
        let path = Path::new("/data/checkpoints/7/tables/1.sst");
        let refused = StoreError::refused(path)(io::Error::from_raw_os_error(5));
        assert!(refused.is_corruption(), "{refused}");
        for kind in [io::ErrorKind::PermissionDenied, io::ErrorKind::OutOfMemory] {
            let failed = StoreError::refused(path)(kind.into());
            assert!(!failed.is_corruption(), "{failed}");
        }
    }

    /// Catches messages that do not say what happened to what.
    #[test]
    fn messages_name_the_file_and_the_entry() {
        let path = Path::new("/data/log-1/7.seg");
        let error = StoreError::io("sync", path)(io::Error::other("no luck"));
        assert_eq!(error.to_string(), "cannot sync /data/log-1/7.seg: no luck");
        let error = StoreError::corrupt_at(path, 9, "checksum differs");
        assert_eq!(
            error.to_string(),
            "/data/log-1/7.seg is damaged at log index 9: checksum differs"
        );
        assert!(error.is_corruption() && !error.is_retriable());
    }
}
