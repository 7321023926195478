//! Open files and record positions of full segments, as many as fit.
//!
//! An index file is checked when it is read. One that is missing or damaged is made again from the
//! segment itself, which is then read once from front to back.

use std::sync::{Arc, Mutex};

use bytes::Bytes;
use host::{Disk, File};

use super::counters::Counters;
use super::lru::Lru;
use super::scan;
use super::segment::{self, SegmentIndex, Summary, index_path};
use super::segment_list::Sealed;
use crate::error::{Result, StoreError};

/// Files kept open at most.
const FILES_MAX: usize = 256;

/// A full segment, ready to be read.
pub(crate) struct SealedFile {
    pub(crate) file: Arc<dyn File>,
    pub(crate) index: SegmentIndex,
}

pub(crate) struct SealedFiles {
    files: Mutex<Lru<Arc<SealedFile>>>,
}

impl SealedFiles {
    pub(crate) fn new(bytes_max: u64) -> SealedFiles {
        SealedFiles {
            files: Mutex::new(Lru::new(bytes_max, FILES_MAX)),
        }
    }

    /// Remembers what is known of a segment that was just sealed, or read.
    pub(crate) fn keep(
        &self,
        sealed: &Sealed,
        file: Arc<dyn File>,
        index: SegmentIndex,
    ) -> Arc<SealedFile> {
        sealed.summary.get_or_init(|| index.summary);
        let weight = index.positions.len() as u64 * 4;
        let opened = Arc::new(SealedFile { file, index });
        self.files().put(sealed.first_index, opened.clone(), weight);
        opened
    }

    pub(crate) fn forget(&self, first_index: u64) {
        self.files().remove(first_index);
    }

    pub(crate) fn forget_from(&self, first_index: u64) {
        self.files().remove_from(first_index);
    }

    /// The segment's file and positions. Blocking, unless they are kept.
    pub(crate) fn open(
        &self,
        disk: &dyn Disk,
        sealed: &Sealed,
        counters: &Counters,
    ) -> Result<Arc<SealedFile>> {
        if let Some(opened) = self.files().get(sealed.first_index) {
            return Ok(opened);
        }
        let path = &sealed.path;
        let file = open_sealed(disk, sealed)?;
        let index = match read_index(disk, sealed)? {
            Some(index) => index,
            None => {
                Counters::add(&counters.indexes_rebuilt, 1);
                rebuild_index(disk, sealed, &*file)?
            }
        };
        if sealed.is_retired() {
            return Err(StoreError::corrupt_at(
                path,
                sealed.first_index,
                "the segment was dropped",
            ));
        }
        Ok(self.keep(sealed, file, index))
    }

    fn files(&self) -> std::sync::MutexGuard<'_, Lru<Arc<SealedFile>>> {
        self.files
            .lock()
            .expect("nobody panics while holding the cache")
    }
}

/// The file of a full segment; one that is not there, or that the disk does not give, is damage.
pub(crate) fn open_sealed(disk: &dyn Disk, sealed: &Sealed) -> Result<Arc<dyn File>> {
    let (path, index) = (&sealed.path, sealed.first_index);
    disk.open(path).map_err(|error| match error.kind() {
        std::io::ErrorKind::NotFound => {
            StoreError::corrupt_at(path, index, "the segment is missing")
        }
        _ if host::is_media_error(&error) => StoreError::unreadable(path, Some(index))(error),
        _ => StoreError::io("open", path)(error),
    })
}

/// Reads the front of an index file; nothing if it is missing or damaged.
pub(crate) fn read_summary(
    disk: &dyn Disk,
    dir: &std::path::Path,
    first_index: u64,
) -> Option<Summary> {
    let file = disk.open(&index_path(dir, first_index)).ok()?;
    let mut bytes = [0; segment::INDEX_HEADER_BYTES];
    let count = file.read_at(0, &mut bytes).ok()?;
    segment::decode_summary(&bytes[..count], first_index).ok()
}

/// Reads an index file; nothing if it is missing, damaged, or of another segment than the list
/// says.
fn read_index(disk: &dyn Disk, sealed: &Sealed) -> Result<Option<SegmentIndex>> {
    let path = sealed.path.with_extension("idx");
    let file = match disk.open(&path) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(StoreError::io("open", &path)(error)),
    };
    let len = segment::INDEX_HEADER_BYTES as u64 + sealed.count() * 4;
    if file.len().map_err(StoreError::io("read", &path))? != len {
        return Ok(None);
    }
    let mut bytes = vec![0; usize::try_from(len).expect("four bytes for each record of a segment")];
    let count = match file.read_at(0, &mut bytes) {
        Ok(count) => count,
        Err(error) => {
            tracing::warn!(path = %path.display(), %error, "rebuilding an index file that cannot be read");
            return Ok(None);
        }
    };
    match segment::decode_index(&bytes[..count], sealed.first_index) {
        Ok(index) => Ok(Some(index)),
        Err(error) => {
            tracing::warn!(path = %path.display(), %error, "rebuilding a damaged index file");
            Ok(None)
        }
    }
}

/// Makes the index of a full segment from its records, and writes it beside them.
fn rebuild_index(disk: &dyn Disk, sealed: &Sealed, file: &dyn File) -> Result<SegmentIndex> {
    let index = scan_sealed(file, sealed)?;
    let path = sealed.path.with_extension("idx");
    let bytes = Bytes::from(segment::encode_index(&index));
    // Not synced, and a failure is not fatal: it is only a copy of what the segment says.
    let written = disk
        .create(&path)
        .and_then(|file| file.write_at(0, &[bytes]));
    if let Err(error) = written {
        tracing::warn!(path = %path.display(), %error, "cannot write an index file");
    }
    Ok(index)
}

/// Reads a full segment from front to back; every record must be there.
pub(crate) fn scan_sealed(file: &dyn File, sealed: &Sealed) -> Result<SegmentIndex> {
    let (path, first_index) = (&sealed.path, sealed.first_index);
    let scanned = scan::scan(file, path, first_index, Some(sealed.count()), 0)?;
    let found = scanned.positions.len() as u64;
    let (Some(last), true) = (scanned.last, found == sealed.count()) else {
        return Err(StoreError::corrupt_at(
            path,
            first_index + found,
            scanned.stopped,
        ));
    };
    let summary = Summary {
        first_index,
        count: found,
        len: scanned.end,
        checksum: scanned.checksum,
        last_term: last.term,
    };
    Ok(SegmentIndex {
        summary,
        positions: scanned.positions,
    })
}
