//! Snapshots: a checkpoint of the tables and the retained segments of the log up to it.
//!
//! ```text
//! sender    OfferSnapshot(files) -> wants    SendFile ... SendFile    InstallSnapshot
//! receiver  incoming/<id>/checkpoint/...  incoming/<id>/log/...   ->  installed in one go
//! ```
//!
//! The receiver keeps what it has got when a transfer breaks off and wants only the rest when it is
//! offered the same snapshot again; it skips segments that it has with the same name, length and
//! checksum. Nothing is put in place before all of it was verified.

mod builder;
mod hold;
mod incoming;
mod install;
mod last_read;
mod manifest;
mod outgoing;
mod receiving;
mod segments;

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError};

use host::Disk;
use openraft::type_config::alias;
use store::{
    Checkpoint, Checkpoints, CommitLog, DataDir, KvEngine, SegmentInfo, Staging, StoreError,
};
use tokio::sync::{Mutex, OwnedMutexGuard, oneshot, watch};
use tonic::Status;

pub(crate) use builder::SnapshotBuilder;
pub(crate) use hold::Holds;
pub(crate) use incoming::Incoming;
pub(crate) use outgoing::{Chunks, send_snapshot};
pub(crate) use segments::{segment_from_wire, segment_to_wire};

use crate::applied::Applied;
use crate::connections::{Class, Connections};
use crate::convert::{ConvertError, corrupt, log_id_from_store};
use crate::counters::Counters;
use crate::peers::{Addressee, Peers};
use crate::storage::{remove_former, verify};
use crate::tables::Tables;
use crate::types::{SnapshotMeta, StoredMembership, TypeConfig};
use hold::Hold;
use last_read::LastRead;
use manifest::{Content, Source, checkpoint_sources};

/// A snapshot as openraft passes it around.
#[derive(Clone)]
pub(crate) enum SnapshotData {
    /// A checkpoint of ours; the segments are in the log.
    Local(LocalSnapshot),
    /// Everything was received and verified, and waits to be installed.
    Received(ReceivedSnapshot),
}

pub(crate) type RaftSnapshot = alias::SnapshotOf<TypeConfig, SnapshotData>;

/// A checkpoint of this replica, kept while somebody may read it.
#[derive(Clone)]
pub(crate) struct LocalSnapshot {
    checkpoint: Checkpoint,
    log: CommitLog,
    disk: Arc<dyn Disk>,
    engine: Arc<dyn KvEngine>,
    /// Set when the checkpoint turns out to be damaged.
    damaged: Arc<AtomicBool>,
    last_read: Arc<LastRead>,
    refused: RefusedSegments,
    _hold: Arc<Hold>,
}

/// Full segments of this replica that a peer did not take: the first index of each.
type RefusedSegments = Arc<std::sync::Mutex<BTreeSet<u64>>>;

/// Files under `incoming/`, complete and durable.
#[derive(Clone)]
pub(crate) struct ReceivedSnapshot {
    staging: Staging,
    segments: Vec<SegmentInfo>,
    last: store::LogId,
    membership: StoredMembership,
    /// Keeps another snapshot from taking the place of these files, and our segments in place.
    _installing: Arc<(OwnedMutexGuard<()>, Arc<Hold>)>,
}

impl LocalSnapshot {
    /// All that belongs to the checkpoint, whole: what rotted must not spread. Reads all of it, unless that was done lately.
    async fn checkpoint_sources(&self) -> Result<Vec<Source>, StoreError> {
        let reading = self.read_sources();
        self.last_read.or_read(self.checkpoint.dir(), reading).await
    }

    async fn read_sources(&self) -> Result<Vec<Source>, StoreError> {
        let (disk, checkpoint) = (self.disk.clone(), self.checkpoint.clone());
        let read = async {
            let sources = checkpoint_sources(disk, checkpoint).await?;
            self.engine.check(self.checkpoint.tables_dir()).await?;
            Ok(sources)
        };
        let sources = read.await;
        if sources.as_ref().is_err_and(StoreError::is_corruption) {
            self.damaged.store(true, Ordering::Relaxed);
        }
        sources
    }

    /// A peer did not take `source`: if it is a segment, it will be looked at; if not, the checkpoint will be, next time.
    fn was_refused(&self, source: &Source) {
        match &source.content {
            Content::Segment(segment) => {
                let mut refused = self.refused.lock().unwrap_or_else(PoisonError::into_inner);
                refused.insert(segment.info().first_index);
            }
            Content::File { .. } => self.last_read.forget(),
        }
    }
}

impl SnapshotData {
    /// What a snapshot that was received says of itself; ours say it elsewhere.
    pub(crate) fn received_meta(&self) -> Option<SnapshotMeta> {
        match self {
            SnapshotData::Local(_) => None,
            SnapshotData::Received(received) => Some(SnapshotMeta {
                last_log_id: Some(log_id_from_store(received.last)),
                last_membership: received.membership.clone(),
            }),
        }
    }
}

/// Makes, keeps and installs snapshots.
pub(crate) struct Snapshots {
    data_dir: Arc<DataDir>,
    log: CommitLog,
    checkpoints: Checkpoints,
    engine: Arc<dyn KvEngine>,
    tables: Arc<Mutex<Tables>>,
    connections: Connections,
    counters: Arc<Counters>,
    holds: Holds,
    /// One copy of the tables at a time: they are made in one place.
    building: Mutex<()>,
    /// The index of the newest checkpoint that was made or received here.
    made: watch::Sender<Option<u64>>,
    /// The snapshot that a peer asked for and that is on its way, or was the last one that was.
    pushing: std::sync::Mutex<Option<Push>>,
    /// Whether the newest checkpoint turned out to be damaged.
    damaged: Arc<AtomicBool>,
    last_read: Arc<LastRead>,
    refused: RefusedSegments,
}

/// A snapshot on its way to whoever asked for it.
struct Push {
    to: Addressee,
    /// Of the process that asked.
    incarnation: u64,
    /// Ends it when dropped; closed when it has ended.
    stop: oneshot::Sender<()>,
}

/// What [`Snapshots`] works with.
pub(crate) struct SnapshotsParts {
    pub(crate) data_dir: Arc<DataDir>,
    pub(crate) log: CommitLog,
    pub(crate) checkpoints: Checkpoints,
    pub(crate) engine: Arc<dyn KvEngine>,
    pub(crate) tables: Arc<Mutex<Tables>>,
    pub(crate) connections: Connections,
    pub(crate) counters: Arc<Counters>,
}

impl Snapshots {
    pub(crate) fn new(parts: SnapshotsParts) -> Result<Snapshots, StoreError> {
        let newest = parts.checkpoints.newest()?;
        let made = newest.map(|checkpoint| checkpoint.meta().log_id.index);
        Ok(Snapshots {
            data_dir: parts.data_dir,
            log: parts.log,
            checkpoints: parts.checkpoints,
            engine: parts.engine,
            tables: parts.tables,
            connections: parts.connections,
            counters: parts.counters,
            holds: Holds::default(),
            building: Mutex::default(),
            made: watch::channel(made).0,
            pushing: std::sync::Mutex::default(),
            damaged: Arc::default(),
            last_read: Arc::default(),
            refused: Arc::default(),
        })
    }

    /// The index that the newest checkpoint reaches.
    pub(crate) fn made(&self) -> watch::Receiver<Option<u64>> {
        self.made.subscribe()
    }

    pub(crate) fn builder(self: &Arc<Self>) -> SnapshotBuilder {
        SnapshotBuilder::new(self.clone())
    }

    /// Where those who read checkpoints and segments register.
    pub(crate) fn holds(&self) -> Holds {
        self.holds.clone()
    }

    /// The first log index that a snapshot under way still reads.
    pub(crate) fn lowest_held(&self) -> Option<u64> {
        self.holds.lowest_segment()
    }

    /// The newest checkpoint as openraft wants it.
    pub(crate) async fn current(&self) -> Result<Option<RaftSnapshot>, StoreError> {
        // Held before it is looked for, so that it cannot go in between.
        let hold = self.holds.take(self.log.positions().dropped);
        let Some(checkpoint) = self.checkpoints.newest()? else {
            return Ok(None);
        };
        self.local(checkpoint, hold).map(Some)
    }

    fn local(&self, checkpoint: Checkpoint, hold: Hold) -> Result<RaftSnapshot, StoreError> {
        let meta = snapshot_meta(&checkpoint).map_err(|error| corrupt(checkpoint.dir(), &error))?;
        let snapshot = SnapshotData::Local(LocalSnapshot {
            checkpoint,
            log: self.log.clone(),
            disk: self.data_dir.disk().clone(),
            engine: self.engine.clone(),
            damaged: self.damaged.clone(),
            last_read: self.last_read.clone(),
            refused: self.refused.clone(),
            _hold: Arc::new(hold),
        });
        Ok(openraft::Snapshot { meta, snapshot })
    }

    /// Reads the newest checkpoint; whether it is whole, or there is none.
    pub(crate) async fn newest_is_whole(&self) -> Result<bool, StoreError> {
        match self.verify_newest().await {
            Ok(()) => Ok(true),
            Err(error) if error.is_corruption() => {
                tracing::error!(%error, "the newest checkpoint is damaged");
                Ok(false)
            }
            Err(error) => Err(error),
        }
    }

    /// Reads the newest checkpoint, if there is one. `Corrupt` also if what says which one it is cannot be read.
    pub(crate) async fn verify_newest(&self) -> Result<(), StoreError> {
        let _hold = self.holds.take(self.log.positions().dropped);
        let made = *self.made.borrow();
        let newest = self.checkpoints.newest()?;
        let Some(newest) = newest.filter(|newest| Some(newest.meta().log_id.index) >= made) else {
            let dir = self.data_dir.checkpoints_dir();
            return match made {
                Some(index) => Err(StoreError::corrupt(
                    &dir,
                    format!("the checkpoint of entry {index} cannot be read"),
                )),
                None => Ok(()),
            };
        };
        let verified = verify(&self.engine, &self.checkpoints, &newest).await;
        // One that a snapshot replaced meanwhile is gone: nothing is wrong with what there is now.
        let is_there = self.data_dir.disk().exists(newest.dir());
        verified.or_else(|error| if is_there { Err(error) } else { Ok(()) })
    }

    /// The index up to which tables can be made of a checkpoint here; none if the newest one is damaged.
    pub(crate) async fn whole_upto(&self) -> Result<Option<u64>, StoreError> {
        let newest = self.checkpoints.newest()?;
        match self.newest_is_whole().await? {
            true => Ok(newest.map(|newest| newest.meta().log_id.index)),
            false => Ok(None),
        }
    }

    /// Removes what was kept until the tables were whole again: they end with `applied` now, and a checkpoint of what is above
    /// it is one that they could not be made of.
    pub(crate) async fn remove_former(&self, applied: Option<u64>) -> Result<(), StoreError> {
        let end = applied.map_or(0, |index| index + 1);
        while let Some(newest) = self.checkpoints.newest()?
            && newest.meta().log_id.index >= end
        {
            self.checkpoints.set_aside(&newest).await?;
        }
        remove_former(&self.data_dir, &self.checkpoints).await
    }

    /// Segments that a peer did not take since the last call: they may be damaged here.
    pub(crate) fn take_refused(&self) -> BTreeSet<u64> {
        std::mem::take(&mut *self.refused.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Whether a checkpoint turned out to be damaged since the last call.
    pub(crate) fn take_damaged(&self) -> bool {
        self.damaged.swap(false, Ordering::Relaxed)
    }

    /// Sends the newest snapshot to a peer that asked for it, in the background: to one at a time. Who asks again while it is on
    /// its way need not; a process that started since takes the place of the one before it, which cannot take it any more.
    pub(crate) async fn push(
        &self,
        peers: Peers,
        (to, incarnation): (Addressee, u64),
        address: String,
        index: u64,
    ) -> Result<(), Status> {
        if let Some(push) = self
            .pushing()
            .as_ref()
            .filter(|push| !push.stop.is_closed())
        {
            if push.to.broker_id != to.broker_id {
                let to = push.to.broker_id;
                let error = format!("a snapshot is on its way to broker {to}");
                return Err(Status::unavailable(error));
            }
            if (push.to, push.incarnation) == (to, incarnation) {
                return Ok(());
            }
        }
        let internal = |error: StoreError| Status::internal(error.to_string());
        let snapshot = self.current().await.map_err(internal)?;
        let Some(snapshot) = snapshot else {
            return Err(Status::out_of_range("there is no snapshot here"));
        };
        let last = snapshot
            .meta
            .last_log_id
            .as_ref()
            .map(|log_id| log_id.index());
        if last.is_none_or(|last| last < index) {
            let error = format!("the snapshot here reaches {last:?}, not {index}");
            return Err(Status::out_of_range(error));
        }
        let client = self.connections.client(&address, Class::Bulk);
        let client = client.map_err(|error| Status::invalid_argument(error.to_string()))?;
        let (stop, mut stopped) = oneshot::channel();
        *self.pushing() = Some(Push {
            to,
            incarnation,
            stop,
        });
        tokio::spawn(async move {
            let sending = send_snapshot(peers, to, client, None, snapshot.snapshot);
            tokio::select! {
                biased;
                _ = &mut stopped => tracing::info!(address, "who asked for a snapshot has started again"),
                sent = sending => match sent {
                    Ok(_) => tracing::info!(address, "sent the snapshot that was asked for"),
                    Err(error) => tracing::warn!(address, %error, "could not send the snapshot"),
                },
            }
        });
        Ok(())
    }

    fn pushing(&self) -> std::sync::MutexGuard<'_, Option<Push>> {
        self.pushing.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What openraft needs to know of a checkpoint.
fn snapshot_meta(checkpoint: &Checkpoint) -> Result<SnapshotMeta, ConvertError> {
    let applied = Applied::decode(&checkpoint.meta().applied)?;
    Ok(SnapshotMeta {
        last_log_id: Some(log_id_from_store(checkpoint.meta().log_id)),
        last_membership: applied.membership().clone(),
    })
}

/// Makes what a transfer would make of a local snapshot at the receiver whose log is `log`.
#[cfg(test)]
pub(crate) async fn hand_over(
    snapshot: &SnapshotData,
    log: &CommitLog,
    disk: &Arc<dyn Disk>,
) -> Result<SnapshotData, StoreError> {
    let SnapshotData::Local(local) = snapshot else {
        return Ok(snapshot.clone());
    };
    let staging = log.stage("hand-over")?;
    let target = staging.dir().join(manifest::CHECKPOINT_DIR);
    disk.create_dir_all(&target.join("tables")).unwrap();
    for relative in local.checkpoint.relative_paths() {
        disk.link(
            &local.checkpoint.dir().join(&relative),
            &target.join(&relative),
        )
        .unwrap();
    }
    let last = local.checkpoint.meta().log_id;
    let mut segments = Vec::new();
    for export in local.log.export(last.index).await? {
        let mut writer = staging.receive(export.info(), 0)?;
        writer.write(export.read(0, usize::MAX).await?).await?;
        writer.finish().await?;
        segments.push(export.info());
    }
    let applied = Applied::decode(&local.checkpoint.meta().applied).unwrap();
    let nobody = Arc::new(Mutex::new(())).try_lock_owned().unwrap();
    Ok(SnapshotData::Received(ReceivedSnapshot {
        staging,
        segments,
        last,
        membership: applied.membership().clone(),
        _installing: Arc::new((nobody, Arc::new(Holds::default().take(0)))),
    }))
}
