//! Taking back entries that were never committed.
//!
//! The order on the disk: lower the mark, so that what goes is not missed; remove whole segments,
//! highest first; overwrite what is cut with zeros. A crash in between leaves an earlier prefix of
//! the log. The files of removed segments are not reused: their indexes come back, and with them
//! their records would pass for new ones.

use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use host::File;

use super::flush::{Tail, Writer};
use super::retention::remove;
use super::segment::{index_path, segment_path};
use super::segment_list::{Open, Sealed};
use super::{CommitLog, Shared};
use crate::entry::LogId;
use crate::error::{Result, StoreError};

/// Bytes of zeros written at once.
const ZERO_BYTES: usize = 1 << 20;

/// What is left of the segment that is cut.
struct Cut {
    first_index: u64,
    path: PathBuf,
    file: Arc<dyn File>,
    /// Where the first record that goes begins.
    position: u64,
    /// Where the last one ended.
    end: u64,
}

impl CommitLog {
    /// Takes back every entry above `last`, or all of them if there is no `last`. Waits for appends
    /// on their way to the disk. Durable when this returns; appends are refused until then.
    ///
    /// Refused below the floor.
    pub async fn truncate_after(&self, last: Option<u64>) -> Result<()> {
        let shared = self.shared.clone();
        self.shared
            .uninterrupted(async move { shared.truncate_after(last).await })
            .await
    }
}

impl Shared {
    async fn truncate_after(self: Arc<Shared>, last: Option<u64>) -> Result<()> {
        let end = last.map_or(0, |last| last + 1);
        let _maintenance = self.maintenance.lock().await;
        let _exclusive = self.begin_exclusive().await?;
        {
            let state = self.state();
            if let Some(damage) = state.damages.first() {
                let detail = format!("truncating a damaged log: {damage:?}");
                return Err(StoreError::Refused { detail });
            }
            if end >= state.next_index() {
                return Ok(());
            }
            let floor = state.positions.purged.map_or(0, |purged| purged.index + 1);
            if end < floor {
                let detail = format!("truncating to {end} below the floor {floor}");
                return Err(StoreError::Refused { detail });
            }
        }
        let last = self.log_id_before(end).await?;
        let mut writer = self.writer.lock().await;
        self.cut(&mut writer, end, last).await
    }

    /// The entry before `end`, which is in the log or is the floor.
    pub(super) async fn log_id_before(self: &Arc<Shared>, end: u64) -> Result<Option<LogId>> {
        let Some(index) = end.checked_sub(1) else {
            return Ok(None);
        };
        let purged = self.state().positions.purged;
        if purged.is_some_and(|purged| purged.index == index) {
            return Ok(purged);
        }
        let piece = self.read_piece(index, end, 0).await?;
        Ok(piece.first().map(|entry| entry.log_id()))
    }

    /// Removes the entries from `end` on, which follow `last`.
    pub(super) async fn cut(
        self: &Arc<Shared>,
        writer: &mut Writer,
        end: u64,
        last: Option<LogId>,
    ) -> Result<()> {
        let reopened = self.reopen_sealed(end).await?;
        let (removed, cut, dir) = {
            let mut state = self.state();
            state.epoch += 1;
            state.ring.truncate(end);
            self.forget_cached();
            self.sealed_files.forget_from(end.saturating_sub(1));
            let removed = state.segments.take_from(end);
            let cut = match reopened {
                Some(open) => {
                    let sealed = state.segments.take_last_sealed();
                    sealed.expect("the segment that was reopened").retire();
                    self.sealed_files.forget(open.first_index);
                    state.segments.push_open(open);
                    state.segments.tail_mut().map(|open| cut_open(open, end))
                }
                None => state.segments.tail_mut().map(|open| cut_open(open, end)),
            };
            state.positions.appended = last;
            state.positions.flushed = last;
            if state.segments.first_index().is_none() {
                state.positions.dropped = end;
            }
            state.assert_positions();
            (removed, cut, state.dir.clone())
        };
        let cut_end = cut.as_ref().map_or(0, |cut| cut.end);
        let place = cut
            .as_ref()
            .map_or((end, 0), |cut| (cut.first_index, cut.position));
        if !writer.mark_held {
            writer.mark.write_cut(last, place.0, place.1, cut_end)?;
            writer.mark.sync().await?;
        }
        for first in &removed {
            remove(self, &segment_path(&dir, *first))?;
            remove(self, &index_path(&dir, *first))?;
        }
        if let Some(cut) = &cut {
            remove(self, &index_path(&dir, cut.first_index))?;
        }
        self.disk()
            .sync_dir(&dir)
            .await
            .map_err(StoreError::io("sync", &dir))?;
        if let Some(cut) = &cut {
            zero(&cut.file, cut.position, cut.end)
                .await
                .map_err(StoreError::io("cut", &cut.path))?;
        }
        if !writer.mark_held {
            writer.mark.write(last, place.0, place.1)?;
        }
        writer.tail = cut.map(|cut| Tail {
            first_index: cut.first_index,
            file: cut.file,
            path: cut.path,
            position: cut.position,
            checksum: None,
        });
        Ok(())
    }

    /// If the entry before `end` is the last one of the list's full segments that stays, that
    /// segment is written to again: by the rule of rolling the next entry may still fit there.
    async fn reopen_sealed(self: &Arc<Shared>, end: u64) -> Result<Option<Open>> {
        let sealed: Option<Arc<Sealed>> = {
            let state = self.state();
            let open = state.segments.open().any(|open| open.first_index < end);
            let below = state
                .segments
                .sealed()
                .rev()
                .find(|sealed| sealed.first_index < end);
            if open { None } else { below.cloned() }
        };
        let Some(sealed) = sealed else {
            return Ok(None);
        };
        let shared = self.clone();
        host::blocking::run(move || {
            let opened = shared
                .sealed_files
                .open(&**shared.disk(), &sealed, &shared.counters)?;
            Ok(Some(Open {
                first_index: sealed.first_index,
                path: sealed.path.clone(),
                file: opened.file.clone(),
                positions: opened.index.positions.clone(),
                end: opened.index.summary.len,
            }))
        })
        .await
    }
}

fn cut_open(open: &mut Open, end: u64) -> Cut {
    let old_end = open.end;
    if let Some(span) = open.span(end) {
        open.end = span.start;
        let kept = usize::try_from(end - open.first_index).expect("positions fit in memory");
        open.positions.truncate(kept);
    }
    Cut {
        first_index: open.first_index,
        path: open.path.clone(),
        file: open.file.clone(),
        position: open.end,
        end: old_end,
    }
}

/// Overwrites a part of a file with zeros, and syncs it.
pub(super) async fn zero(file: &Arc<dyn File>, from: u64, to: u64) -> std::io::Result<()> {
    if from >= to {
        return Ok(());
    }
    let zeros = Bytes::from(vec![
        0;
        ZERO_BYTES.min(
            usize::try_from(to - from).unwrap_or(ZERO_BYTES)
        )
    ]);
    let mut buffers = Vec::new();
    let mut left = to - from;
    while left > 0 {
        let piece = usize::try_from(left).unwrap_or(usize::MAX).min(zeros.len());
        buffers.push(zeros.slice(..piece));
        left -= piece as u64;
    }
    file.clone().write_and_sync(from, buffers).await
}
