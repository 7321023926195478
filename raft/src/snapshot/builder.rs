//! Makes checkpoints when openraft asks for a snapshot.
//!
//! Entries go on being applied meanwhile, however slowly the disk syncs: the copy says itself how far it
//! reaches. A checkpoint never reaches further than what this replica's own log has synced, or a crash could
//! leave it ahead of the log. Must never hold the tables' lock while it waits for the disk.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use openraft::RaftSnapshotBuilder;
use store::{Checkpoint, StoreError};

use super::{RaftSnapshot, SnapshotData, Snapshots};
use crate::applied::Applied;
use crate::convert::{corrupt, log_id_to_store};
use crate::counters::Counters;
use crate::error::to_io;
use crate::types::TypeConfig;

/// Longest wait for entries that are applied to be synced here as well.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(30);

/// Pause between looks at what is synced.
const FLUSH_PAUSE: Duration = Duration::from_millis(2);

/// Makes one snapshot.
pub(crate) struct SnapshotBuilder {
    snapshots: Arc<Snapshots>,
}

impl SnapshotBuilder {
    pub(super) fn new(snapshots: Arc<Snapshots>) -> SnapshotBuilder {
        SnapshotBuilder { snapshots }
    }

    async fn build(&self) -> Result<RaftSnapshot, StoreError> {
        let snapshots = &self.snapshots;
        let hold = snapshots.holds.take(snapshots.log.positions().dropped);
        let checkpoint = self.checkpoint().await?;
        let index = checkpoint.meta().log_id.index;
        tracing::info!(index, "checkpoint was made");
        Counters::add(&snapshots.counters.checkpoints_made, 1);
        // Ours is the only hold unless one is being sent; what stays then goes with the next one.
        let snapshot = snapshots.local(checkpoint, hold)?;
        if snapshots.holds.count() <= 1 {
            snapshots.checkpoints.remove_older(index).await?;
        }
        // A snapshot may have been installed meanwhile that reaches further.
        snapshots
            .made
            .send_modify(|made| *made = (*made).max(Some(index)));
        Ok(snapshot)
    }

    async fn checkpoint(&self) -> Result<Checkpoint, StoreError> {
        let snapshots = &self.snapshots;
        let _one = snapshots.building.lock().await;
        let kv = snapshots.tables.lock().await.kv().clone();
        let copy = snapshots.checkpoints.copy(&kv).await?;
        drop(kv);
        let dir = self.snapshots.data_dir.checkpoints_dir();
        let applied = Applied::decode(copy.applied()).map_err(|error| corrupt(&dir, &error))?;
        let Some(log_id) = applied.log_id() else {
            return Err(StoreError::corrupt(
                &dir,
                "the copy says that nothing was applied",
            ));
        };
        self.wait_until_flushed(log_id.index()).await?;
        let log_id = log_id_to_store(&log_id);
        let published = snapshots.checkpoints.publish(copy, log_id).await;
        // Its files are the tables' files: one that cannot be read is one of theirs.
        snapshots.tables.lock().await.note(&published);
        published
    }

    /// A majority may have synced an entry before this replica did.
    async fn wait_until_flushed(&self, index: u64) -> Result<(), StoreError> {
        let waiting = async {
            while self
                .snapshots
                .log
                .positions()
                .flushed
                .is_none_or(|flushed| flushed.index < index)
            {
                tokio::time::sleep(FLUSH_PAUSE).await;
            }
        };
        match tokio::time::timeout(FLUSH_TIMEOUT, waiting).await {
            Ok(()) => Ok(()),
            Err(_) => Err(StoreError::Refused {
                detail: format!("entry {index} was not synced within {FLUSH_TIMEOUT:?}"),
            }),
        }
    }
}

impl RaftSnapshotBuilder<TypeConfig> for SnapshotBuilder {
    type SnapshotData = SnapshotData;

    async fn build_snapshot(&mut self) -> Result<RaftSnapshot, io::Error> {
        self.build().await.map_err(to_io)
    }
}
