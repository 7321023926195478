//! Giving segments to a peer: for a snapshot, or to repair what is damaged there.

use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use host::File;

use super::flush::checksum_of;
use super::segment::Summary;
use super::segment_list::{Open, Sealed};
use super::{CommitLog, Shared};
use crate::error::{Result, StoreError};

/// One segment, or the front of one. Equal on two replicas if and only if the bytes are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SegmentInfo {
    /// Index of the first record.
    pub first_index: u64,
    /// Index of the last record.
    pub last_index: u64,
    /// Bytes up to the end of the last record.
    pub len: u64,
    /// CRC32C over the segment's header and the headers of all records; those hold the checksums of
    /// the bodies. 0 where it is not known.
    pub crc32c: u32,
    /// Whether the segment is full: no record will follow in it.
    pub sealed: bool,
}

/// A segment that can be read. It stays readable when the log drops it meanwhile, or says so.
pub struct SegmentExport {
    info: SegmentInfo,
    file: Arc<dyn File>,
    path: PathBuf,
    sealed: Option<Arc<Sealed>>,
}

impl SegmentExport {
    /// What it is.
    pub fn info(&self) -> SegmentInfo {
        self.info
    }

    /// At most `len` bytes from `position` on; none at the end. Not checked: the receiver does.
    ///
    /// Fails with [`StoreError::OutOfRange`] if the log has dropped the segment.
    pub async fn read(&self, position: u64, len: usize) -> Result<Bytes> {
        let left = self.info.len.saturating_sub(position);
        let len = len.min(usize::try_from(left).unwrap_or(usize::MAX));
        let (file, path) = (self.file.clone(), self.path.clone());
        let bytes = host::blocking::run(move || {
            let mut buffer = vec![0; len];
            let count = file.read_at(position, &mut buffer);
            buffer.truncate(count.map_err(StoreError::unreadable(&path, None))?);
            Ok::<Bytes, StoreError>(Bytes::from(buffer))
        })
        .await?;
        if self
            .sealed
            .as_ref()
            .is_some_and(|sealed| sealed.is_retired())
        {
            let SegmentInfo {
                first_index,
                last_index,
                ..
            } = self.info;
            let (index, first) = (first_index, last_index + 1);
            return Err(StoreError::OutOfRange {
                index,
                first,
                last: u64::MAX,
            });
        }
        Ok(bytes)
    }
}

impl CommitLog {
    /// All segments, lowest first; the one being written up to the last synced entry, and with a
    /// checksum of 0, because it changes all the time. Reads nothing, unless an index file is
    /// missing and must be made again.
    pub async fn segments(&self) -> Result<Vec<SegmentInfo>> {
        let (sealed, open) = {
            let state = self.shared.state();
            let end = state
                .positions
                .flushed
                .map_or(0, |flushed| flushed.index + 1);
            let sealed: Vec<_> = state.segments.sealed().cloned().collect();
            let open: Vec<_> = state
                .segments
                .open()
                .filter_map(|open| front(open, end))
                .collect();
            (sealed, open)
        };
        let shared = self.shared.clone();
        host::blocking::run(move || {
            let sealed = sealed.iter().map(|sealed| match sealed.summary.get() {
                Some(summary) => Ok(info_of(summary)),
                None => shared
                    .export_sealed(sealed, sealed.last_index)
                    .map(|export| export.info),
            });
            sealed.chain(open.into_iter().map(Ok)).collect()
        })
        .await
    }

    /// The segments that hold the entries up to `last`, which must be synced; the last one only as
    /// far as that.
    pub async fn export(&self, last: u64) -> Result<Vec<SegmentExport>> {
        let (sealed, open) = {
            let state = self.shared.state();
            if state
                .positions
                .flushed
                .is_none_or(|flushed| flushed.index < last)
            {
                return Err(state.out_of_range(last));
            }
            let sealed: Vec<_> = state.segments.sealed().cloned().collect();
            let open: Vec<_> = state.segments.open().cloned().collect();
            (sealed, open)
        };
        let shared = self.shared.clone();
        host::blocking::run(move || {
            let mut exports = Vec::new();
            for sealed in sealed.iter().filter(|sealed| sealed.first_index <= last) {
                exports.push(shared.export_sealed(sealed, last)?);
            }
            for open in open.iter().filter(|open| open.first_index <= last) {
                exports.extend(export_open(open, last)?);
            }
            Ok(exports)
        })
        .await
    }
}

impl Shared {
    /// Blocking.
    fn export_sealed(&self, sealed: &Arc<Sealed>, last: u64) -> Result<SegmentExport> {
        let opened = self
            .sealed_files
            .open(&**self.disk(), sealed, &self.counters)?;
        let summary = opened.index.summary;
        let info = match last >= sealed.last_index {
            true => info_of(&summary),
            false => {
                let count = usize::try_from(last - sealed.first_index + 1);
                let count = count.expect("positions fit in memory");
                let positions = &opened.index.positions;
                SegmentInfo {
                    first_index: sealed.first_index,
                    last_index: last,
                    len: u64::from(positions[count]),
                    crc32c: checksum_of(&*opened.file, &sealed.path, &positions[..count])?,
                    sealed: false,
                }
            }
        };
        Ok(SegmentExport {
            info,
            file: opened.file.clone(),
            path: sealed.path.clone(),
            sealed: Some(sealed.clone()),
        })
    }
}

pub(super) fn info_of(summary: &Summary) -> SegmentInfo {
    SegmentInfo {
        first_index: summary.first_index,
        last_index: summary.last_index(),
        len: summary.len,
        crc32c: summary.checksum,
        sealed: true,
    }
}

/// The part of a segment that lies below index `end`, if there is one. Leaves out the checksum.
fn front(open: &Open, end: u64) -> Option<SegmentInfo> {
    let last_index = end.min(open.end_index()).checked_sub(1)?;
    let len = open.span(last_index)?.end;
    let first_index = open.first_index;
    Some(SegmentInfo {
        first_index,
        last_index,
        len,
        crc32c: 0,
        sealed: false,
    })
}

/// The front of a segment that is being written; nothing if none of it is wanted. Blocking.
fn export_open(open: &Open, last: u64) -> Result<Option<SegmentExport>> {
    let Some(info) = front(open, last + 1) else {
        return Ok(None);
    };
    let count = info.last_index - open.first_index + 1;
    let count = usize::try_from(count).expect("positions fit in memory");
    let crc32c = checksum_of(&*open.file, &open.path, &open.positions[..count])?;
    let info = SegmentInfo { crc32c, ..info };
    let (file, path) = (open.file.clone(), open.path.clone());
    Ok(Some(SegmentExport {
        info,
        file,
        path,
        sealed: None,
    }))
}
