//! Puts a received snapshot in place of the log and the tables.
//!
//! ```text
//! 1. the checkpoint gets its name     a crash here: it is ahead of the log, start removes it
//! 2. the log becomes the segments     a crash here: the tables are behind, start makes them again
//! 3. the tables become the checkpoint
//! ```
//!
//! Each step is durable before the next begins, so a crash anywhere leaves a log and tables that fit
//! together, either before or after the installation. If the local log is whole and holds the snapshot's
//! last entry it stays, with what follows: step 2 is skipped.
//!
//! openraft sends no entries that follow the snapshot before the installation is answered: raising
//! the floor waits for it, and everything else waits in the queue behind.

use std::sync::Arc;
use std::time::Duration;

use store::{Adoption, Checkpoint, Kv, StoreError};

use super::manifest::CHECKPOINT_DIR;
use super::segments::keeps_log;
use super::{ReceivedSnapshot, SnapshotData, Snapshots};
use crate::counters::Counters;
use crate::storage::{fresh_tables, remove_dir};

/// Longest wait for readers to let go of replaced tables. Their directory goes at the next start
/// otherwise.
const OLD_TABLES_TIMEOUT: Duration = Duration::from_secs(30);

/// Pause between looks whether they have.
const OLD_TABLES_PAUSE: Duration = Duration::from_millis(100);

impl Snapshots {
    /// Returns when the replica is where the snapshot is.
    pub(crate) async fn install(&self, snapshot: SnapshotData) -> Result<(), StoreError> {
        match snapshot {
            // Only after a start with tables behind the checkpoint, which storage excludes.
            SnapshotData::Local(local) => self.swap_tables(&local.checkpoint).await,
            SnapshotData::Received(received) => self.install_received(&received).await,
        }
    }

    async fn install_received(&self, received: &ReceivedSnapshot) -> Result<(), StoreError> {
        let last = received.last;
        tracing::info!(index = last.index, "installing a snapshot");
        let staged = received.staging.dir().join(CHECKPOINT_DIR);
        let checkpoint = self.checkpoints.adopt(&staged).await?;
        if checkpoint.meta().log_id != last {
            let found = checkpoint.meta().log_id;
            let detail = format!("checkpoint reaches {found:?}, the offer said {last:?}");
            return Err(StoreError::corrupt(checkpoint.dir(), detail));
        }
        if !keeps_log(&self.log, last).await? {
            let segments = received.segments.clone();
            // Raft's floor follows the snapshot, and the segments may begin above the present one.
            let adoption = Adoption {
                segments,
                last,
                purged: Some(last),
                // A peer may have applied less than what was promised here: the rest comes by entries.
                promised: self.log.damage().and_then(|_| self.log.promised()),
            };
            self.log.adopt(&received.staging, adoption).await?;
        }
        self.swap_tables(&checkpoint).await?;
        self.checkpoints.remove_older(last.index).await?;
        remove_dir(&self.data_dir, received.staging.dir().to_path_buf()).await?;
        self.made.send_replace(Some(last.index));
        Counters::add(&self.counters.snapshots_installed, 1);
        tracing::info!(index = last.index, "snapshot was installed");
        Ok(())
    }

    async fn swap_tables(&self, checkpoint: &Checkpoint) -> Result<(), StoreError> {
        let mut tables = self.tables.lock().await;
        let old_dir = self.data_dir.tables_dir();
        let old = tables.kv().clone();
        let kv = fresh_tables(&self.data_dir, &self.engine, Some(checkpoint)).await?;
        tables.replace(kv, self.log.clone())?;
        drop(tables);
        let data_dir = self.data_dir.clone();
        tokio::spawn(async move {
            if is_unused(old).await
                && let Err(error) = remove_dir(&data_dir, old_dir).await
            {
                tracing::warn!(%error, "replaced tables stay until the next start");
            }
        });
        Ok(())
    }
}

/// Waits until nobody but us holds the tables, and closes them.
async fn is_unused(kv: Arc<dyn Kv>) -> bool {
    let waiting = async {
        while Arc::strong_count(&kv) > 1 {
            tokio::time::sleep(OLD_TABLES_PAUSE).await;
        }
    };
    tokio::time::timeout(OLD_TABLES_TIMEOUT, waiting)
        .await
        .is_ok()
}
