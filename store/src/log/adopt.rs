//! Taking over a peer's segments in place of this log.
//!
//! The new log is built in a directory of its own, beside the old one: segments that both have are
//! linked, not copied. The superblock's generation number switches from one to the other, so a
//! crash leaves the old log or the new one, never a mix.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use host::File;

use super::flush::{Tail, Writer, write_index};
use super::mark::MarkFile;
use super::segment::{SegmentIndex, segment_path};
use super::segment_list::{Open, Sealed, SegmentList};
use super::staging::{Staging, is_same};
use super::state::{Damage, Positions};
use super::{CommitLog, SegmentInfo, Shared};
use crate::data_dir::remove_if_there;
use crate::entry::LogId;
use crate::error::{Result, StoreError};

/// What the log shall be.
#[derive(Clone, Debug)]
pub struct Adoption {
    /// Its segments, lowest first and without gaps. Each was received, or is full and identical
    /// here.
    pub segments: Vec<SegmentInfo>,
    /// Its last entry.
    pub last: LogId,
    /// Its floor, if it is above the present one.
    pub purged: Option<LogId>,
    /// What was promised here, if the new log need not hold all of it: what of it is above `last` is damage then.
    pub promised: Option<LogId>,
}

/// A new log that is complete on the disk and does not count yet.
struct Built {
    dir: PathBuf,
    segments: SegmentList,
    writer: Writer,
}

/// One segment of the new log.
struct Piece {
    info: SegmentInfo,
    source: PathBuf,
    index: SegmentIndex,
}

impl CommitLog {
    /// Puts other segments in the place of the whole log; entries above the new last one are gone.
    /// Durable when this returns. A crash leaves the old log or the new one.
    ///
    /// Refused if the segments have a gap, do not end at `last`, or end below the floor. Damage is
    /// forgotten: the caller vouches that the new log holds all that was promised, but for [`Adoption::promised`].
    pub async fn adopt(&self, staging: &Staging, adoption: Adoption) -> Result<()> {
        let (shared, staging) = (self.shared.clone(), staging.clone());
        self.shared
            .uninterrupted(async move { shared.adopt(&staging, adoption).await })
            .await
    }
}

impl Shared {
    async fn adopt(self: Arc<Shared>, staging: &Staging, adoption: Adoption) -> Result<()> {
        let _maintenance = self.maintenance.lock().await;
        let _exclusive = self.begin_exclusive().await?;
        let purged = adoption.purged.max(self.state().positions.purged);
        check(&adoption, purged)?;
        let mut pieces = Vec::new();
        for info in &adoption.segments {
            pieces.push(self.piece(staging, info).await?);
        }
        let last_term = pieces
            .last()
            .map_or(adoption.last.term, |piece| piece.index.summary.last_term);
        if last_term != adoption.last.term {
            return Err(refused(format!("the last entry is of term {last_term}")));
        }
        let mut writer = self.writer.lock().await;
        let generation = self.state().generation + 1;
        let (last, promised) = (adoption.last, adoption.promised);
        let promised = promised.filter(|promised| promised.index > last.index);
        let ends = (last, promised.unwrap_or(last));
        let mut built = self.build(generation, pieces, ends).await?;
        self.dir.save_log_generation(generation, purged).await?;
        built.writer.mark.follow(&writer.mark);
        *writer = built.writer;
        let old_dir = self.switch(generation, built.dir, built.segments, purged, last);
        if let Some(promised) = promised {
            self.miss(last.index + 1, promised);
        }
        self.spare_taken.notify_one();
        if let Err(error) = remove_if_there(&**self.disk(), &old_dir) {
            tracing::warn!(%error, "the old log is removed at the next start");
        }
        Ok(())
    }

    /// Where a segment of the new log comes from.
    async fn piece(self: &Arc<Shared>, staging: &Staging, info: &SegmentInfo) -> Result<Piece> {
        if let Some(index) = staging.index_of(info).await? {
            return Ok(Piece {
                info: *info,
                source: staging.segment_path(info.first_index),
                index,
            });
        }
        match self.identical(info).await? {
            Some((sealed, index)) => Ok(Piece {
                info: *info,
                source: sealed.path.clone(),
                index,
            }),
            None => Err(refused(format!(
                "segment {} was not received",
                info.first_index
            ))),
        }
    }

    /// The full segment of this log that is the same as `info`, if there is one.
    pub(super) async fn identical(
        self: &Arc<Shared>,
        info: &SegmentInfo,
    ) -> Result<Option<(Arc<Sealed>, SegmentIndex)>> {
        let sealed = self.state().segments.sealed_at(info.first_index).cloned();
        let Some(sealed) = sealed else {
            return Ok(None);
        };
        let (shared, info) = (self.clone(), *info);
        host::blocking::run(move || {
            match shared
                .sealed_files
                .open(&**shared.disk(), &sealed, &shared.counters)
            {
                Ok(opened) if is_same(&opened.index.summary, &info) => {
                    Ok(Some((sealed, opened.index.clone())))
                }
                Ok(_) => Ok(None),
                Err(error) if error.is_corruption() => Ok(None),
                Err(error) => Err(error),
            }
        })
        .await
    }

    /// Notes that the log lacks entries which were promised, up to `promised`, as its mark says.
    fn miss(&self, first_bad_index: u64, promised: LogId) {
        let mut state = self.state();
        state.promised = Some(promised);
        state.damages.push(Damage {
            first_bad_index,
            synced_index: promised.index,
            sealed: false,
        });
    }

    /// A log that ends with the first of `ends`, and whose mark names the second.
    async fn build(
        &self,
        generation: u64,
        pieces: Vec<Piece>,
        (last, marked): (LogId, LogId),
    ) -> Result<Built> {
        let disk = &**self.disk();
        let dir = self.dir.log_dir_of(generation);
        remove_if_there(disk, &dir)?;
        disk.create_dir_all(&dir)
            .map_err(StoreError::io("create", &dir))?;
        let mut segments = SegmentList::default();
        let mut tail = None;
        let count = pieces.len();
        for (number, piece) in pieces.into_iter().enumerate() {
            let path = segment_path(&dir, piece.info.first_index);
            disk.link(&piece.source, &path)
                .map_err(StoreError::io("link", &path))?;
            if number + 1 < count {
                write_index(disk, &dir, &piece.index).await?;
                let summary = piece.index.summary;
                let (first, last) = (summary.first_index, summary.last_index());
                segments.push_sealed(Arc::new(Sealed::new(first, last, path, Some(summary))));
            } else {
                let file = disk.open(&path).map_err(StoreError::io("open", &path))?;
                self.reserve(&file, &path);
                tail = Some(tail_of(&piece, &path, &file));
                segments.push_open(open_of(piece, path, file));
            }
        }
        let mut mark = MarkFile::open(disk, &dir)?;
        let place = tail.as_ref().map_or((last.index + 1, 0), |tail| {
            (tail.first_index, tail.position)
        });
        mark.write(Some(marked), place.0, place.1)?;
        mark.sync().await?;
        disk.sync_dir(&dir)
            .await
            .map_err(StoreError::io("sync", &dir))?;
        let above = self.dir.path();
        disk.sync_dir(above)
            .await
            .map_err(StoreError::io("sync", above))?;
        Ok(Built {
            dir,
            segments,
            writer: Writer {
                tail,
                mark,
                mark_held: false,
            },
        })
    }

    /// Gives a received tail the length of a segment. Without it appends are slower, not wrong.
    fn reserve(&self, file: &Arc<dyn File>, path: &Path) {
        if let Err(error) = file.preallocate(self.segment_bytes) {
            tracing::warn!(path = %path.display(), %error, "cannot reserve a segment");
        }
    }

    /// Makes the new log the one in memory; returns the old one's directory.
    fn switch(
        &self,
        generation: u64,
        dir: PathBuf,
        segments: SegmentList,
        purged: Option<LogId>,
        last: LogId,
    ) -> PathBuf {
        let mut state = self.state();
        state.epoch += 1;
        state.segments.sealed().for_each(|sealed| sealed.retire());
        state.ring.truncate(0);
        self.forget_cached();
        self.sealed_files.forget_from(0);
        state.positions = Positions {
            dropped: segments.first_index().unwrap_or(last.index + 1),
            purged,
            flushed: Some(last),
            appended: Some(last),
        };
        state.segments = segments;
        state.damages.clear();
        (state.promised, state.mark_lost) = (None, false);
        state.generation = generation;
        state.spares.clear();
        state.next_spare = 0;
        state.assert_positions();
        std::mem::replace(&mut state.dir, dir)
    }
}

fn check(adoption: &Adoption, purged: Option<LogId>) -> Result<()> {
    let last = adoption.last;
    if purged > Some(last) {
        return Err(refused(format!("{last:?} is below the floor {purged:?}")));
    }
    let floor = purged.map_or(0, |purged| purged.index + 1);
    let mut next = None;
    for info in &adoption.segments {
        let fits = next.is_none_or(|next| info.first_index == next);
        if !fits || info.last_index < info.first_index {
            return Err(refused(format!("gap before segment {}", info.first_index)));
        }
        next = Some(info.last_index + 1);
    }
    if adoption
        .segments
        .first()
        .is_some_and(|first| first.first_index > floor)
    {
        return Err(refused(format!(
            "the segments begin above the floor {floor}"
        )));
    }
    // Without segments everything up to the last entry is below the floor.
    if next.unwrap_or(floor) != last.index + 1 {
        return Err(refused(format!("the segments do not end at {last:?}")));
    }
    Ok(())
}

fn refused(detail: String) -> StoreError {
    StoreError::Refused {
        detail: format!("adopting a log: {detail}"),
    }
}

fn tail_of(piece: &Piece, path: &Path, file: &Arc<dyn File>) -> Tail {
    let summary = piece.index.summary;
    Tail {
        first_index: summary.first_index,
        file: file.clone(),
        path: path.to_path_buf(),
        position: summary.len,
        checksum: Some(summary.checksum),
    }
}

fn open_of(piece: Piece, path: PathBuf, file: Arc<dyn File>) -> Open {
    let first_index = piece.info.first_index;
    Open {
        first_index,
        path,
        file,
        end: piece.index.summary.len,
        positions: piece.index.positions,
    }
}
