//! Segment files that are ready before they are needed.
//!
//! A task makes them: reserving blocks, or reusing the file of a dropped segment, costs the write
//! path nothing then. A file that is made too late is made at once, by the append that needs it.
//! A full disk is not an error here: nothing was promised yet.

use std::io::ErrorKind;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use host::File;

use super::Shared;
use super::counters::Counters;
use super::segment::spare_path;
use super::state::{Spare, State};
use crate::error::{Result, StoreError};

/// Bytes of zeros written at once, and then synced, when a file is filled ahead of need. Small, so
/// that a group of the log that comes in between does not wait long.
const FILL_BYTES: usize = 1 << 20;

/// Pause after a file could not be made.
const RETRY: Duration = Duration::from_secs(5);

impl Shared {
    /// A file of at least `len` bytes, for a segment that begins now.
    pub(crate) fn take_spare(&self, state: &mut State, len: u64) -> Result<Spare> {
        if len <= self.segment_bytes
            && let Some(spare) = state.spares.pop()
        {
            self.spare_taken.notify_one();
            return Ok(spare);
        }
        Counters::add(&self.counters.segments_late, 1);
        let len = len.max(self.segment_bytes);
        let number = state.next_spare;
        state.next_spare += 1;
        self.make_spare(&state.dir, number, len)
    }

    /// Gives back a file that was not used after all.
    pub(crate) fn return_spare(&self, state: &mut State, spare: Spare) {
        if spare.len == self.segment_bytes {
            state.spares.push(spare);
        } else if let Err(error) = self.disk().remove(&spare.path) {
            tracing::warn!(path = %spare.path.display(), %error, "cannot remove an unused segment file");
        }
    }

    /// Removes the files that are ready but not needed yet, where so little is free that no more are made: what lets older
    /// entries go needs room more.
    pub(crate) fn give_up_spares(&self) {
        let spares = std::mem::take(&mut self.state().spares);
        for spare in spares {
            tracing::warn!(path = %spare.path.display(), "the disk is full: giving up a spare file");
            if let Err(error) = self.disk().remove(&spare.path) {
                tracing::warn!(path = %spare.path.display(), %error, "cannot remove a spare file");
            }
        }
    }

    fn make_spare(&self, dir: &std::path::Path, number: u64, len: u64) -> Result<Spare> {
        self.space.check_file(&**self.disk(), dir, len)?;
        let path = spare_path(dir, number);
        let file = self
            .disk()
            .create(&path)
            .map_err(StoreError::io("create", &path))?;
        match file.preallocate(len) {
            Ok(()) => Ok(Spare { file, path, len }),
            Err(error) => {
                // Best effort: a start removes what is left.
                let _ = self.disk().remove(&path);
                Err(match error.kind() {
                    ErrorKind::StorageFull | ErrorKind::QuotaExceeded => StoreError::DiskFull {
                        path: dir.to_path_buf(),
                        free_bytes: 0,
                        reserve_bytes: self.config.reserve_bytes,
                    },
                    _ => StoreError::io("reserve", &path)(error),
                })
            }
        }
    }

    /// Keeps the wanted number of files ready until the log is closed.
    pub(crate) async fn prepare_spares(self: Arc<Shared>) {
        loop {
            let woken = self.spare_taken.notified();
            let wanted = {
                let mut state = self.state();
                if state.closed || state.failure.is_some() {
                    return;
                }
                let wanted = state.spares.len() < self.config.spare_segments;
                wanted.then(|| {
                    state.next_spare += 1;
                    (state.dir.clone(), state.generation, state.next_spare - 1)
                })
            };
            let Some((dir, generation, number)) = wanted else {
                woken.await;
                continue;
            };
            match self.make_spare(&dir, number, self.segment_bytes) {
                Ok(spare) => self.fill_and_keep(spare, generation).await,
                Err(error) => {
                    tracing::warn!(%error, "cannot make a segment file ahead of need");
                    // Woken early only by a close: the next try is at the next append that needs
                    // it.
                    let _ = tokio::time::timeout(RETRY, woken).await;
                }
            }
        }
    }

    async fn fill_and_keep(&self, spare: Spare, generation: u64) {
        if let Err(error) = self.fill(&spare.file, spare.len).await {
            tracing::warn!(path = %spare.path.display(), %error, "cannot fill a segment file");
        }
        let mut state = self.state();
        // Another generation's directory may be gone, and this file with it.
        if state.generation == generation {
            state.spares.push(spare);
        }
    }

    /// Writes zeros, so that the blocks are in use before the log writes to them. Stops when the
    /// log is busy: measured, its syncs would take several times as long.
    async fn fill(&self, file: &Arc<dyn File>, len: u64) -> std::io::Result<()> {
        if !self.config.prefill {
            return file.clone().sync().await;
        }
        let zeros = Bytes::from(vec![0; FILL_BYTES]);
        let syncs = self.counters.snapshot().syncs;
        let mut position = 0;
        while position < len && self.counters.snapshot().syncs == syncs {
            let piece = (len - position).min(FILL_BYTES as u64);
            let bytes = zeros.slice(..usize::try_from(piece).expect("at most the buffer"));
            file.clone().write_and_sync(position, vec![bytes]).await?;
            position += piece;
            let state = self.state();
            if state.closed || !state.is_idle() {
                break;
            }
        }
        file.clone().sync().await
    }
}
