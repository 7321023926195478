//! The floor, and the segments below it.
//!
//! Purging moves a number. Dropping takes whole full segments, lowest first, and never one above
//! the floor. Their files are reused: a dropped index never comes back, so an old record in a
//! reused file is never taken for a new one.

use std::io::ErrorKind;
use std::path::Path;
use std::sync::Arc;

use super::counters::Counters;
use super::segment::{index_path, spare_path};
use super::segment_list::Sealed;
use super::state::Spare;
use super::{CommitLog, Shared};
use crate::entry::LogId;
use crate::error::{Result, StoreError};

impl CommitLog {
    /// Raises the floor that Raft may ask for; durable when this returns. Deletes nothing. A floor
    /// below the present one changes nothing.
    ///
    /// Refused above the last synced entry.
    pub async fn purge_to(&self, log_id: LogId) -> Result<()> {
        let shared = self.shared.clone();
        self.shared
            .uninterrupted(async move { shared.purge_to(log_id).await })
            .await
    }

    /// Drops the full segments whose entries are all below `first_index`; returns their size in
    /// bytes. Durable when this returns.
    ///
    /// Refused if `first_index` is above the floor.
    pub async fn drop_to(&self, first_index: u64) -> Result<u64> {
        let shared = self.shared.clone();
        self.shared
            .uninterrupted(async move { shared.drop_to(first_index).await })
            .await
    }
}

impl Shared {
    async fn purge_to(self: Arc<Shared>, log_id: LogId) -> Result<()> {
        let _maintenance = self.maintenance.lock().await;
        {
            let state = self.state();
            if state.positions.purged >= Some(log_id) {
                return Ok(());
            }
            if state.positions.flushed < Some(log_id) {
                let flushed = state.positions.flushed;
                let detail = format!("purging to {log_id:?} above the last synced {flushed:?}");
                return Err(StoreError::Refused { detail });
            }
        }
        self.dir.save_purged(log_id).await?;
        let mut state = self.state();
        state.positions.purged = Some(log_id);
        state.assert_positions();
        Ok(())
    }

    async fn drop_to(self: Arc<Shared>, first_index: u64) -> Result<u64> {
        let _maintenance = self.maintenance.lock().await;
        let (dropped, dir) = {
            let mut state = self.state();
            let floor = state.positions.purged.map_or(0, |purged| purged.index + 1);
            if first_index > floor {
                let detail = format!("dropping below {first_index} above the floor {floor}");
                return Err(StoreError::Refused { detail });
            }
            let dropped = state.segments.take_below(first_index);
            for sealed in &dropped {
                sealed.retire();
                self.sealed_files.forget(sealed.first_index);
            }
            if let Some(last) = dropped.last() {
                let first = last.last_index + 1;
                state.positions.dropped = first;
                state.ring.drop_below(first);
                state.assert_positions();
            }
            (dropped, state.dir.clone())
        };
        if dropped.is_empty() {
            return Ok(0);
        }
        let bytes = dropped
            .iter()
            .filter_map(|sealed| sealed.summary.get())
            .map(|s| s.len)
            .sum();
        self.recycle(&dir, &dropped).await?;
        Ok(bytes)
    }

    /// Takes the segments' names away, keeps some of the files, and only then lets them be reused:
    /// a name that came back after a crash would stand for another segment's records.
    async fn recycle(&self, dir: &Path, dropped: &[Arc<Sealed>]) -> Result<()> {
        let mut kept = Vec::new();
        for sealed in dropped {
            let number = self.number_for_reuse(kept.len());
            match number.map(|number| spare_path(dir, number)) {
                Some(path) => {
                    let renamed = self.disk().rename(&sealed.path, &path);
                    renamed.map_err(StoreError::io("rename", &sealed.path))?;
                    kept.push(path);
                }
                None => {
                    remove(self, &sealed.path)?;
                }
            }
            remove(self, &index_path(dir, sealed.first_index))?;
        }
        self.disk()
            .sync_dir(dir)
            .await
            .map_err(StoreError::io("sync", dir))?;
        for path in kept {
            let file = self
                .disk()
                .open(&path)
                .map_err(StoreError::io("open", &path))?;
            let len = file.len().map_err(StoreError::io("read", &path))?;
            if len != self.segment_bytes {
                // A segment of one large record; or one that another configuration made.
                remove(self, &path)?;
                continue;
            }
            Counters::add(&self.counters.segments_recycled, 1);
            self.state().spares.push(Spare { file, path, len });
        }
        Ok(())
    }

    /// The number of the spare file that a dropped segment becomes, unless there are enough.
    fn number_for_reuse(&self, kept: usize) -> Option<u64> {
        let mut state = self.state();
        let wanted = state.spares.len() + kept < self.config.recycled_segments_max;
        wanted.then(|| {
            state.next_spare += 1;
            state.next_spare - 1
        })
    }
}

/// Removes a file that may be gone already.
pub(super) fn remove(shared: &Shared, path: &Path) -> Result<()> {
    match shared.disk().remove(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            Err(StoreError::io("remove", path)(error))
        }
        _ => Ok(()),
    }
}
