//! Receiving segments from a peer: beside the log, checked before they may become part of it.
//!
//! ```text
//! <first:020>-<last:020>-<len>-<crc32c:08x>.part    one that is on its way; its name says which
//! <first:020>.seg, <first:020>.idx                  one that is whole
//! ```
//!
//! A transfer that breaks off goes on where it stopped: a slow link would never carry a large segment otherwise.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use host::{Disk, File};

use super::flush::write_index;
use super::scan;
use super::segment::{self, SegmentIndex, Summary, index_path, segment_path};
use super::{CommitLog, SegmentInfo};
use crate::data_dir::remove_if_there;
use crate::error::{Result, StoreError};

/// How the name of a segment ends that is not whole yet.
const PART_SUFFIX: &str = "part";

/// Segments received so far, in a directory of their own. A start of the replica removes it.
#[derive(Clone)]
pub struct Staging {
    disk: Arc<dyn Disk>,
    dir: PathBuf,
}

impl CommitLog {
    /// A place for the segments of one transfer. What an earlier transfer of this name left is
    /// kept.
    pub fn stage(&self, transfer: &str) -> Result<Staging> {
        let name_ok = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
        if transfer.is_empty() || transfer.len() > 200 || !transfer.bytes().all(name_ok) {
            return Err(StoreError::Refused {
                detail: format!("transfer name {transfer:?}"),
            });
        }
        let disk = self.shared.disk().clone();
        let dir = self.shared.dir.incoming_dir(transfer);
        disk.create_dir_all(&dir)
            .map_err(StoreError::io("create", &dir))?;
        Ok(Staging { disk, dir })
    }

    /// Which of the wanted segments are neither full and identical in this log nor received yet.
    pub async fn missing(
        &self,
        staging: &Staging,
        wanted: &[SegmentInfo],
    ) -> Result<Vec<SegmentInfo>> {
        let mut missing = Vec::new();
        for info in wanted {
            let here = self.shared.identical(info).await?.is_some();
            if !here && !staging.has(info).await? {
                missing.push(*info);
            }
        }
        Ok(missing)
    }
}

impl Staging {
    /// The directory. Other files of the same transfer may be put there.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Goes on to receive a segment from `position`, which is 0 or what [`Staging::received`] said. Parts of
    /// other segments that begin with the same entry are removed.
    pub fn receive(&self, info: SegmentInfo, position: u64) -> Result<SegmentWriter> {
        let path = self.dir.join(part_name(&info));
        for (other, of) in self.parts()? {
            if other != path && of.first_index == info.first_index {
                self.disk
                    .remove(&other)
                    .map_err(StoreError::io("remove", &other))?;
            }
        }
        let file = match position {
            0 => self
                .disk
                .create(&path)
                .map_err(StoreError::io("create", &path))?,
            _ => self
                .disk
                .open(&path)
                .map_err(StoreError::io("open", &path))?,
        };
        let len = file.len().map_err(StoreError::io("read", &path))?;
        if len != position {
            let detail = format!("{len} bytes of the segment are there, not {position}");
            return Err(StoreError::Refused { detail });
        }
        Ok(SegmentWriter {
            staging: self.clone(),
            info,
            path,
            file,
            position,
        })
    }

    /// How many bytes of a segment that is on its way are there.
    pub fn received(&self, info: &SegmentInfo) -> Result<u64> {
        let path = self.dir.join(part_name(info));
        if !self.disk.exists(&path) {
            return Ok(0);
        }
        let file = self
            .disk
            .open(&path)
            .map_err(StoreError::io("open", &path))?;
        let len = file.len().map_err(StoreError::io("read", &path))?;
        Ok(if len <= info.len { len } else { 0 })
    }

    /// A full segment that is on its way and holds `index`.
    pub fn part_with(&self, index: u64) -> Result<Option<SegmentInfo>> {
        let parts = self.parts()?.into_iter().map(|(_, info)| info);
        Ok(parts
            .into_iter()
            .find(|info| (info.first_index..=info.last_index).contains(&index)))
    }

    /// The segments that are on their way, by path.
    fn parts(&self) -> Result<Vec<(PathBuf, SegmentInfo)>> {
        let paths = self
            .disk
            .list(&self.dir)
            .map_err(StoreError::io("list", &self.dir))?;
        let parts = paths.into_iter();
        Ok(parts
            .filter_map(|path| {
                let info = info_of_part(path.file_name()?.to_str()?)?;
                Some((path, info))
            })
            .collect())
    }

    /// Removes everything that was received.
    pub fn discard(self) -> Result<()> {
        remove_if_there(&*self.disk, &self.dir)
    }

    pub(crate) fn segment_path(&self, first_index: u64) -> PathBuf {
        segment_path(&self.dir, first_index)
    }

    /// The index of a segment that was received, if it is the wanted one.
    pub(crate) async fn index_of(&self, info: &SegmentInfo) -> Result<Option<SegmentIndex>> {
        let path = index_path(&self.dir, info.first_index);
        let (disk, info) = (self.disk.clone(), *info);
        host::blocking::run(move || {
            if !disk.exists(&path) {
                return Ok(None);
            }
            let file = disk.open(&path).map_err(StoreError::io("open", &path))?;
            let len = file.len().map_err(StoreError::io("read", &path))?;
            let mut bytes = vec![0; usize::try_from(len).expect("an index fits in memory")];
            file.read_at(0, &mut bytes)
                .map_err(StoreError::io("read", &path))?;
            let index = segment::decode_index(&bytes, info.first_index).ok();
            Ok(index.filter(|index| is_same(&index.summary, &info)))
        })
        .await
    }

    async fn has(&self, info: &SegmentInfo) -> Result<bool> {
        Ok(self.index_of(info).await?.is_some())
    }
}

/// Whether a segment is the one that is meant.
pub(crate) fn is_same(summary: &Summary, info: &SegmentInfo) -> bool {
    (
        summary.first_index,
        summary.last_index(),
        summary.len,
        summary.checksum,
    ) == (info.first_index, info.last_index, info.len, info.crc32c)
}

/// What a segment is called while it is on its way: two that differ have two names.
fn part_name(info: &SegmentInfo) -> String {
    let SegmentInfo {
        first_index,
        last_index,
        len,
        crc32c,
        sealed,
    } = info;
    let kind = if *sealed { "full" } else { "open" };
    format!("{first_index:020}-{last_index:020}-{len}-{crc32c:08x}-{kind}.{PART_SUFFIX}")
}

/// The segment of that name; none for other names.
fn info_of_part(name: &str) -> Option<SegmentInfo> {
    let mut fields = name
        .strip_suffix(PART_SUFFIX)?
        .strip_suffix('.')?
        .split('-');
    let info = SegmentInfo {
        first_index: fields.next()?.parse().ok()?,
        last_index: fields.next()?.parse().ok()?,
        len: fields.next()?.parse().ok()?,
        crc32c: u32::from_str_radix(fields.next()?, 16).ok()?,
        sealed: fields.next()? == "full",
    };
    fields.next().is_none().then_some(info)
}

/// A segment that is being received.
pub struct SegmentWriter {
    staging: Staging,
    info: SegmentInfo,
    path: PathBuf,
    file: Arc<dyn File>,
    position: u64,
}

impl SegmentWriter {
    /// How many bytes are there.
    pub fn position(&self) -> u64 {
        self.position
    }

    /// Writes the next bytes.
    pub async fn write(&mut self, bytes: Bytes) -> Result<()> {
        let len = bytes.len() as u64;
        if self.position + len > self.info.len {
            let detail = format!("more than {} bytes were sent", self.info.len);
            return Err(StoreError::corrupt(&self.path, detail));
        }
        let (file, path, position) = (self.file.clone(), self.path.clone(), self.position);
        let write = move || file.write_at(position, &[bytes]);
        host::blocking::run(write)
            .await
            .map_err(StoreError::io("write", &path))?;
        self.position += len;
        Ok(())
    }

    /// Checks every record, and that the whole is what was announced; durable when this returns. What is not that
    /// is removed, so that the next attempt begins anew.
    pub async fn finish(self) -> Result<()> {
        let (file, path, info) = (self.file.clone(), self.path.clone(), self.info);
        let checked = host::blocking::run(move || check(&*file, &path, &info)).await;
        let index = match checked {
            Err(error) if error.is_corruption() => {
                let Staging { disk, .. } = &self.staging;
                disk.remove(&self.path)
                    .map_err(StoreError::io("remove", &self.path))?;
                return Err(error);
            }
            checked => checked?,
        };
        self.file
            .sync()
            .await
            .map_err(StoreError::io("sync", &self.path))?;
        let Staging { disk, dir } = &self.staging;
        let path = segment_path(dir, info.first_index);
        disk.rename(&self.path, &path)
            .map_err(StoreError::io("rename", &self.path))?;
        // The index says that the segment is complete, so it comes last.
        write_index(&**disk, dir, &index).await?;
        disk.sync_dir(dir)
            .await
            .map_err(StoreError::io("sync", dir))
    }
}

/// Reads a received segment from front to back. Blocking.
fn check(file: &dyn File, path: &Path, info: &SegmentInfo) -> Result<SegmentIndex> {
    let count = info
        .last_index
        .checked_sub(info.first_index)
        .and_then(|less| less.checked_add(1));
    let Some(count) = count else {
        return Err(StoreError::corrupt(
            path,
            "the announced indexes do not fit",
        ));
    };
    let scanned = scan::scan(file, path, info.first_index, Some(count), 0)?;
    let found = scanned.positions.len() as u64;
    let Some(last) = scanned.last.filter(|_| found == count) else {
        return Err(StoreError::corrupt_at(
            path,
            info.first_index + found,
            scanned.stopped,
        ));
    };
    let summary = Summary {
        first_index: info.first_index,
        count,
        len: scanned.end,
        checksum: scanned.checksum,
        last_term: last.term,
    };
    let file_len = file.len().map_err(StoreError::io("read", path))?;
    if !is_same(&summary, info) || file_len != info.len {
        let detail = "it is not the segment that was announced";
        return Err(StoreError::corrupt_at(path, info.first_index, detail));
    }
    Ok(SegmentIndex {
        summary,
        positions: scanned.positions,
    })
}

impl std::fmt::Debug for Staging {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("Staging")
            .field("dir", &self.dir)
            .finish()
    }
}
