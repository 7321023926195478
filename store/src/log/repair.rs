//! Putting back what was promised and is missing, with bytes or entries from a peer.
//!
//! Until a repair is complete and synced the mark stays where it was, so that a crash half-way is
//! found to be damage again.

use std::sync::Arc;

use super::segment::{FileName, SegmentIndex};
use super::segment_list::{Place, Sealed};
use super::staging::Staging;
use super::state::Damage;
use super::truncate::zero;
use super::{CommitLog, SegmentInfo, Shared};
use crate::entry::{Entry, LogId};
use crate::error::{Result, StoreError};

impl CommitLog {
    /// Notes that an entry of a full segment turned out to be damaged, so that [`CommitLog::damage`] tells
    /// of it until the segment is replaced. Entries behind the last full segment were read when the log was
    /// opened; one that does not verify now is an error.
    pub fn report_damage(&self, index: u64) -> Result<()> {
        let mut state = self.shared.state();
        let damage = match state.segments.find(index) {
            Some(Place::Sealed(sealed)) => Damage {
                first_bad_index: sealed.first_index,
                synced_index: sealed.last_index,
                sealed: true,
            },
            _ => {
                let detail = "an entry rotted that was whole when the log was opened";
                return Err(StoreError::corrupt_at(&state.dir, index, detail));
            }
        };
        tracing::error!(
            ?damage,
            index,
            "the log is damaged and must be repaired from its peers"
        );
        let known = state
            .damages
            .iter()
            .any(|known| known.sealed && known.first_bad_index == damage.first_bad_index);
        if !known {
            state.damages.push(damage);
            state.damages.sort_by_key(|damage| damage.first_bad_index);
        }
        Ok(())
    }

    /// Whether an entry stands in a segment that is still written to: no peer's segment can take its place, but what
    /// [`CommitLog::reset_from`] puts there when the log is opened again.
    pub fn is_in_open_segment(&self, index: u64) -> bool {
        let state = self.shared.state();
        matches!(state.segments.find(index), Some(Place::Open(_)))
    }

    /// Ends not knowing how far this log was synced: `last` is the last entry that it can have promised, as somebody
    /// says who must know. Noted for good, so that an interrupted repair is found to be one.
    ///
    /// Refused unless [`CommitLog::is_mark_lost`].
    pub async fn learn_promise(&self, last: LogId) -> Result<()> {
        let shared = self.shared.clone();
        self.shared
            .uninterrupted(async move { shared.learn_promise(last).await })
            .await
    }

    /// Puts a received segment in the place of a damaged full one, or of a missing one.
    ///
    /// Refused if it does not hold exactly the entries of the one it replaces.
    pub async fn replace_segment(&self, staging: &Staging, info: SegmentInfo) -> Result<()> {
        let (shared, staging) = (self.shared.clone(), staging.clone());
        self.shared
            .uninterrupted(async move { shared.replace_segment(&staging, &info).await })
            .await
    }

    /// Puts entries in the place of everything from `first_index` on, which must not be above the
    /// first damaged index. Durable when this returns; then the damage is forgotten.
    ///
    /// The caller vouches that the entries hold all that was promised, normally up to
    /// [`super::Damage::synced_index`] at least.
    pub async fn reset_from(&self, first_index: u64, entries: Vec<Entry>) -> Result<()> {
        let shared = self.shared.clone();
        self.shared
            .uninterrupted(async move { shared.reset_from(first_index, entries).await })
            .await
    }
}

impl Shared {
    async fn learn_promise(self: Arc<Shared>, last: LogId) -> Result<()> {
        let _maintenance = self.maintenance.lock().await;
        if !self.state().mark_lost {
            return Err(refused("it is known what was promised".to_string()));
        }
        let mut writer = self.writer.lock().await;
        writer.mark.write(Some(last), 0, 0)?;
        writer.mark.sync().await?;
        let mut state = self.state();
        state.mark_lost = false;
        state.promised = Some(last);
        let purged = state.positions.purged.map_or(0, |purged| purged.index);
        for damage in state.damages.iter_mut().filter(|damage| !damage.sealed) {
            // What stands behind it here was never agreed on, and goes.
            damage.first_bad_index = damage.first_bad_index.min(last.index + 1);
            damage.synced_index = last.index.max(purged);
        }
        Ok(())
    }

    async fn replace_segment(
        self: Arc<Shared>,
        staging: &Staging,
        info: &SegmentInfo,
    ) -> Result<()> {
        let _maintenance = self.maintenance.lock().await;
        let Some(index) = staging.index_of(info).await? else {
            return Err(refused(format!(
                "segment {} was not received",
                info.first_index
            )));
        };
        let dir = {
            let state = self.state();
            let old = state.segments.sealed_at(info.first_index);
            let same = old.is_some_and(|old| old.last_index == info.last_index);
            let gap = state.damages.iter().any(|damage| {
                damage.sealed
                    && damage.first_bad_index == info.first_index
                    && info.last_index <= damage.synced_index
            });
            if !same && !gap {
                return Err(refused(format!("{info:?} has no place in the log")));
            }
            state.dir.clone()
        };
        self.put_in_place(&dir, staging, info, index).await?;
        let mut state = self.state();
        for damage in state.damages.iter_mut().filter(|damage| damage.sealed) {
            if damage.first_bad_index == info.first_index {
                damage.first_bad_index = info.last_index + 1;
            }
        }
        state
            .damages
            .retain(|damage| !damage.sealed || damage.first_bad_index <= damage.synced_index);
        if let Some(first) = state.segments.first_index() {
            state.positions.dropped = first;
        }
        state.assert_positions();
        Ok(())
    }

    async fn put_in_place(
        &self,
        dir: &std::path::Path,
        staging: &Staging,
        info: &SegmentInfo,
        index: SegmentIndex,
    ) -> Result<()> {
        let disk = &**self.disk();
        let path = super::segment::segment_path(dir, info.first_index);
        let source = staging.segment_path(info.first_index);
        disk.rename(&source, &path)
            .map_err(StoreError::io("rename", &source))?;
        super::flush::write_index(disk, dir, &index).await?;
        disk.sync_dir(dir)
            .await
            .map_err(StoreError::io("sync", dir))?;
        let summary = index.summary;
        let sealed = Sealed::new(info.first_index, info.last_index, path, Some(summary));
        let mut state = self.state();
        if let Some(old) = state.segments.sealed_at(info.first_index) {
            old.retire();
        }
        self.sealed_files.forget(info.first_index);
        state.segments.replace_sealed(Arc::new(sealed));
        Ok(())
    }

    async fn reset_from(self: Arc<Shared>, first_index: u64, entries: Vec<Entry>) -> Result<()> {
        let _maintenance = self.maintenance.lock().await;
        let _exclusive = self.begin_exclusive().await?;
        self.check_reset(first_index, &entries)?;
        let last = self.log_id_before(first_index).await?;
        {
            let mut writer = self.writer.lock().await;
            writer.mark_held = true;
            self.cut(&mut writer, first_index, last).await?;
            self.missing_from(first_index);
            self.remove_unlisted_from(first_index).await?;
            if let Some(tail) = &writer.tail {
                let end = tail
                    .file
                    .len()
                    .map_err(StoreError::io("read", &tail.path))?;
                let zeroed = zero(&tail.file, tail.position, end).await;
                zeroed.map_err(StoreError::io("cut", &tail.path))?;
            }
        }
        self.append_and_wait(entries).await?;
        let mut writer = self.writer.lock().await;
        writer.mark_held = false;
        let place = writer
            .tail
            .as_ref()
            .map_or((0, 0), |tail| (tail.first_index, tail.position));
        let flushed = self.state().positions.flushed;
        writer.mark.write(flushed, place.0, place.1)?;
        writer.mark.sync().await?;
        let mut state = self.state();
        state.damages.retain(|damage| damage.sealed);
        state.promised = None;
        state.assert_positions();
        Ok(())
    }

    /// What was good above `first_index` is gone too now, until the repair is complete.
    fn missing_from(&self, first_index: u64) {
        let mut state = self.state();
        for damage in state.damages.iter_mut().filter(|damage| !damage.sealed) {
            damage.first_bad_index = first_index;
        }
    }

    fn check_reset(&self, first_index: u64, entries: &[Entry]) -> Result<()> {
        let state = self.state();
        let Some(damage) = state.damages.iter().find(|damage| !damage.sealed) else {
            return Err(refused("the end of the log is not damaged".to_string()));
        };
        if first_index > damage.first_bad_index || first_index < state.positions.dropped {
            return Err(refused(format!(
                "beginning at {first_index} does not repair {damage:?}"
            )));
        }
        let indexes = (first_index..).take(entries.len());
        if !indexes.eq(entries.iter().map(|entry| entry.index)) {
            return Err(refused(format!(
                "the entries do not follow each other from {first_index}"
            )));
        }
        let end = first_index + entries.len() as u64;
        if state
            .positions
            .purged
            .is_some_and(|purged| purged.index >= end)
        {
            return Err(refused(format!("{end} entries are below the floor")));
        }
        Ok(())
    }

    /// Removes segments that were not even readable enough to be part of the log.
    async fn remove_unlisted_from(&self, first_index: u64) -> Result<()> {
        let dir = self.state().dir.clone();
        let paths = self
            .disk()
            .list(&dir)
            .map_err(StoreError::io("list", &dir))?;
        for path in paths {
            match FileName::of(&path) {
                FileName::Segment(first) | FileName::Index(first) if first >= first_index => {
                    super::retention::remove(self, &path)?;
                }
                _ => {}
            }
        }
        self.disk()
            .sync_dir(&dir)
            .await
            .map_err(StoreError::io("sync", &dir))
    }

    /// Appends past every check but that of order, and waits until the entries are synced.
    async fn append_and_wait(&self, entries: Vec<Entry>) -> Result<()> {
        let (done, synced) = tokio::sync::oneshot::channel();
        {
            let mut state = self.state();
            state.check_follows(&entries)?;
            let bytes: u64 = entries.iter().map(super::record::record_len).sum();
            let done = Box::new(move |result| drop(done.send(result)));
            self.enqueue(&mut state, entries, done)?;
            state.pending_bytes += bytes;
        }
        self.appended.notify_one();
        synced.await.map_err(|_| StoreError::Closed)?
    }
}

fn refused(detail: String) -> StoreError {
    StoreError::Refused {
        detail: format!("repairing the log: {detail}"),
    }
}
