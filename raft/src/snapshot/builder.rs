//! Makes checkpoints when openraft asks for a snapshot.
//!
//! The bulk is flushed while entries go on being applied; only the rest, and the links to files that
//! never change, are made while the tables stand still. A checkpoint never reaches further than what
//! this replica's own log has synced, or a crash could leave it ahead of the log.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use openraft::RaftSnapshotBuilder;
use store::{Checkpoint, StoreError};

use super::{SnapshotData, Snapshots};
use crate::convert::log_id_to_store;
use crate::error::to_io;
use crate::state::Counters;
use crate::types::{RaftSnapshot, TypeConfig};

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
        let kv = snapshots.tables.lock().await.kv().clone();
        kv.flush().await?;
        let checkpoint = self.checkpoint().await?;
        let index = checkpoint.meta().log_id.index;
        tracing::info!(index, "checkpoint was made");
        Counters::add(&snapshots.counters.checkpoints_made, 1);
        // Ours is the only hold unless one is being sent; what stays then goes with the next one.
        let snapshot = snapshots.local(checkpoint, hold)?;
        if snapshots.holds.count() <= 1 {
            snapshots.checkpoints.remove_older(index).await?;
        }
        snapshots.made.send_replace(Some(index));
        Ok(snapshot)
    }

    async fn checkpoint(&self) -> Result<Checkpoint, StoreError> {
        let snapshots = &self.snapshots;
        let tables = snapshots.tables.lock().await;
        let applied = tables.applied();
        let Some(log_id) = applied.log_id() else {
            let detail = "no entry was applied, so there is nothing to take a checkpoint of";
            return Err(StoreError::Refused {
                detail: detail.to_string(),
            });
        };
        self.wait_until_flushed(log_id.index()).await?;
        let log_id = log_id_to_store(&log_id);
        snapshots
            .checkpoints
            .create(tables.kv(), log_id, applied.encode())
            .await
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
