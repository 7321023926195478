//! Reading a log that nobody has opened, for operators: what is there, and whether it fits together.
//!
//! Blocking, and read-only: nothing is cut, made or repaired. Judges nothing either: damage is described,
//! and `recovery` decides at the next start what becomes of it.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use host::{Disk, File};

use super::mark::{self, Look};
use super::record;
use super::scan::{self, Scanned};
use super::segment::{self, FileName};
use crate::entry::{Entry, LogId};
use crate::error::{Result, StoreError};

/// Longest index file that is read: one position for each record of the largest segment.
const INDEX_BYTES_MAX: u64 = 1 << 30;

/// What one segment file holds.
#[derive(Clone, Debug)]
pub struct SegmentReport {
    /// The file.
    pub path: PathBuf,
    /// Index of its first record.
    pub first: LogId,
    /// Its last valid record; none if it has no valid record.
    pub last: Option<LogId>,
    /// Valid records.
    pub records: u64,
    /// Where the last valid record ends, bytes.
    pub bytes: u64,
    /// Length of the file, bytes: more than `bytes` while it is being filled.
    pub file_bytes: u64,
    /// CRC32C of what is valid, as the index file holds it.
    pub crc32c: u32,
    /// What the index file beside it says.
    pub index: IndexReport,
    /// What is wrong with it; nothing for a torn tail that was never synced.
    pub damage: Option<String>,
    positions: Vec<u32>,
}

/// What an index file says about its segment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum IndexReport {
    /// There is none: the segment is being filled, or the file is made again when it is needed.
    Missing,
    /// It says what the segment holds.
    Fits,
    /// It says something else.
    Differs(String),
}

/// What the note of how far the log was synced says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Synced {
    /// Nothing was synced.
    Nothing,
    /// Everything up to here was.
    UpTo(SyncedReport),
    /// There is no such file.
    Missing,
    /// The file is there, and can't be read: what is missing at the end of the log nobody knows.
    Unreadable,
}

impl Synced {
    /// How far the log was synced, if that is known and anything was.
    pub fn up_to(&self) -> Option<SyncedReport> {
        match self {
            Synced::UpTo(report) => Some(*report),
            _ => None,
        }
    }
}

/// How far the log was synced when its process ended, as far as it noted that.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SyncedReport {
    /// The last entry that was synced.
    pub last: LogId,
    /// First index of the segment that holds it.
    pub segment: u64,
    /// Where its record ends there, bytes.
    pub position: u64,
}

/// The mark of the log in `dir`.
pub(crate) fn synced(disk: &dyn Disk, dir: &Path) -> Result<Synced> {
    let mark = match mark::look(disk, dir)? {
        Look::Missing => return Ok(Synced::Missing),
        Look::Unreadable => return Ok(Synced::Unreadable),
        Look::Mark(mark) => mark,
    };
    Ok(mark.synced.map_or(Synced::Nothing, |last| {
        Synced::UpTo(SyncedReport {
            last,
            segment: mark.segment,
            position: mark.position,
        })
    }))
}

/// Every segment of the log in `dir`, read from front to back; tells after each how many were read, of how many.
pub(crate) fn segments(
    disk: &dyn Disk,
    dir: &Path,
    mut read: impl FnMut(usize, usize),
) -> Result<Vec<SegmentReport>> {
    let synced = synced(disk, dir)?.up_to();
    let files = disk.list(dir).map_err(StoreError::io("list", dir))?;
    let mut firsts: Vec<u64> = files
        .iter()
        .filter_map(|path| match FileName::of(path) {
            FileName::Segment(first) => Some(first),
            _ => None,
        })
        .collect();
    firsts.sort_unstable();
    let mut reports: Vec<SegmentReport> = Vec::new();
    for (place, first) in firsts.iter().enumerate() {
        let before = reports.last().and_then(|report| report.last);
        let next = firsts.get(place + 1).copied();
        reports.push(segment(disk, dir, *first, next, before, synced)?);
        read(reports.len(), firsts.len());
    }
    Ok(reports)
}

fn segment(
    disk: &dyn Disk,
    dir: &Path,
    first_index: u64,
    next: Option<u64>,
    before: Option<LogId>,
    synced: Option<SyncedReport>,
) -> Result<SegmentReport> {
    let path = segment::segment_path(dir, first_index);
    let file = disk.open(&path).map_err(StoreError::io("open", &path))?;
    let file_bytes = file.len().map_err(StoreError::io("read", &path))?;
    // Behind the last record of a full segment stands what its file held before.
    let count = next.map(|next| next - first_index);
    let term_before = before.map_or(0, |before| before.term);
    let scanned = scan::scan(&*file, &path, first_index, count, term_before)?;
    let index = index_report(disk, dir, first_index, &scanned)?;
    let damage = damage(&scanned, first_index, count, synced);
    let first_term = match scanned.positions.first() {
        Some(position) => read_header(&*file, &path, u64::from(*position))?.term,
        None => term_before,
    };
    Ok(SegmentReport {
        path,
        first: LogId {
            term: first_term,
            index: first_index,
        },
        last: scanned.last,
        records: scanned.positions.len() as u64,
        bytes: scanned.end,
        file_bytes,
        crc32c: scanned.checksum,
        index,
        damage,
        positions: scanned.positions,
    })
}

/// What is missing of what must be there: all records of a segment that others follow, and whatever was
/// synced. A segment file that is gone is missed as records of the one before it.
fn damage(
    scanned: &Scanned,
    first_index: u64,
    count: Option<u64>,
    synced: Option<SyncedReport>,
) -> Option<String> {
    let there = scanned.positions.len() as u64;
    let end_index = first_index + there;
    let stopped = |wanted: String| {
        format!(
            "index {end_index} at byte {}: {}, {wanted}",
            scanned.end, scanned.stopped
        )
    };
    match (count, synced) {
        (Some(count), _) if there < count => Some(stopped(format!("of {count} records"))),
        (None, Some(synced)) if synced.last.index >= end_index => {
            Some(stopped(format!("index {} was synced", synced.last.index)))
        }
        _ => None,
    }
}

fn index_report(
    disk: &dyn Disk,
    dir: &Path,
    first_index: u64,
    scanned: &Scanned,
) -> Result<IndexReport> {
    let path = segment::index_path(dir, first_index);
    if !disk.exists(&path) {
        return Ok(IndexReport::Missing);
    }
    let file = disk.open(&path).map_err(StoreError::io("open", &path))?;
    let len = file.len().map_err(StoreError::io("read", &path))?;
    if len > INDEX_BYTES_MAX {
        return Ok(IndexReport::Differs(format!("{len} bytes are too many")));
    }
    let bytes = read_at(&*file, &path, 0, len as usize)?;
    let index = match segment::decode_index(&bytes, first_index) {
        Ok(index) => index,
        Err(error) => return Ok(IndexReport::Differs(error.to_string())),
    };
    let same = index.positions == scanned.positions
        && index.summary.len == scanned.end
        && index.summary.checksum == scanned.checksum;
    Ok(match same {
        true => IndexReport::Fits,
        false => IndexReport::Differs(format!(
            "it lists {} records of {} bytes with checksum {:08x}",
            index.summary.count, index.summary.len, index.summary.checksum
        )),
    })
}

impl SegmentReport {
    /// The entry of `index`, if the segment has a valid record of it.
    pub(crate) fn entry(&self, disk: &dyn Disk, index: u64) -> Result<Option<Entry>> {
        let place = index.checked_sub(self.first.index);
        let place = place.and_then(|place| usize::try_from(place).ok());
        let Some(position) = place.and_then(|place| self.positions.get(place)) else {
            return Ok(None);
        };
        let path = &self.path;
        let file: Arc<dyn File> = disk.open(path).map_err(StoreError::io("open", path))?;
        let position = u64::from(*position);
        let header = read_header(&*file, path, position)?;
        let len = usize::try_from(header.record_len()).expect("bodies are bounded");
        let bytes = Bytes::from(read_at(&*file, path, position, len)?);
        record::decode(record::seed(self.first.index), &bytes)
            .map_err(|error| StoreError::corrupt(path, error.to_string()))?;
        Ok(Some(Entry {
            term: header.term,
            index: header.index,
            kind: header.kind,
            body: bytes.slice(record::HEADER_BYTES..),
        }))
    }
}

fn read_header(file: &dyn File, path: &Path, position: u64) -> Result<record::Header> {
    let bytes = read_at(file, path, position, record::HEADER_BYTES)?;
    record::decode_header(&bytes).map_err(|error| StoreError::corrupt(path, error.to_string()))
}

fn read_at(file: &dyn File, path: &Path, position: u64, len: usize) -> Result<Vec<u8>> {
    let mut bytes = vec![0; len];
    let count = file
        .read_at(position, &mut bytes)
        .map_err(StoreError::io("read", path))?;
    bytes.truncate(count);
    Ok(bytes)
}
