//! Receives a snapshot, file by file, and verifies it.
//!
//! One snapshot at a time. An offer of another one takes its place, but segments that were received
//! stay, and count if the new one has them too: a log takes longer to send than a checkpoint to make.
//! A file of the checkpoint grows under its own name with `.part` behind it and loses that when its
//! length and checksum are right, so what has its name is whole. Segments are checked by the store.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use proto::raft as wire;
use store::{CommitLog, DataDir, SegmentInfo, Staging, StoreError};
use tokio::sync::{Mutex, OwnedMutexGuard};
use tokio::time::Instant;
use tonic::{Status, Streaming};

use super::hold::{Hold, Holds};
use super::manifest::{CHECKPOINT_DIR, is_allowed, is_plain};
use super::receiving::{CheckpointFile, next_chunk, receive_segment};
use super::segments::{keeps_log, segment_from_wire};
use super::{ReceivedSnapshot, SnapshotData};
use crate::convert::stored_membership_from_bytes;
use crate::storage::remove_dir;

/// Most files that a snapshot may have.
const FILES_MAX: usize = 1 << 20;

/// A transfer that nobody has continued for so long is given up: what it keeps from being dropped
/// would fill the disk otherwise. What was received stays and counts for the next one.
const ABANDONED_AFTER: Duration = Duration::from_secs(300);

/// Name of the store's place for what is received.
const TRANSFER: &str = "snapshot";

/// The snapshot that is being received, if any.
pub(crate) struct Incoming {
    data_dir: Arc<DataDir>,
    log: CommitLog,
    holds: Holds,
    current: Mutex<Option<Transfer>>,
    /// Held while a snapshot that was received is put in place: its files must stay.
    installing: Arc<Mutex<()>>,
    /// Bytes of the disk that a snapshot must leave free.
    reserve_bytes: u64,
}

struct Transfer {
    offer: wire::SnapshotOffer,
    last: store::LogId,
    staging: Staging,
    /// What is needed, by name.
    files: BTreeMap<String, wire::SnapshotFile>,
    /// Segments of ours that are part of the snapshot are not sent: they must not be dropped.
    hold: Arc<Hold>,
    /// When the sender was last heard.
    heard_at: Instant,
}

impl Incoming {
    pub(crate) fn new(
        data_dir: Arc<DataDir>,
        log: CommitLog,
        holds: Holds,
        reserve_bytes: u64,
    ) -> Incoming {
        Incoming {
            data_dir,
            log,
            holds,
            current: Mutex::new(None),
            installing: Arc::default(),
            reserve_bytes,
        }
    }

    /// Begins or resumes a transfer; answers which files are still wanted, and from where.
    pub(crate) async fn offer(
        &self,
        offer: wire::SnapshotOffer,
    ) -> Result<wire::SnapshotWants, Status> {
        let last = check_offer(&offer)?;
        let mut current = self.current.lock().await;
        if self.installing.try_lock().is_err() {
            return Err(Status::unavailable("a snapshot is being installed"));
        }
        let same = |transfer: &Transfer| {
            transfer.offer.snapshot_id == offer.snapshot_id && transfer.offer.repair == offer.repair
        };
        let resumes = current.as_ref().is_some_and(same);
        if !resumes {
            *current = None;
            *current = Some(self.begin(offer.clone(), last).await.map_err(failed)?);
        }
        let Some(transfer) = current.as_mut() else {
            return Err(Status::internal("transfer was not begun"));
        };
        transfer.heard_at = Instant::now();
        let transfer = &*transfer;
        let files = self.wants(transfer).await.map_err(failed)?;
        self.check_space(transfer, &files)?;
        tracing::info!(
            snapshot = offer.snapshot_id,
            files = transfer.files.len(),
            wanted = files.len(),
            resumes,
            "snapshot is offered"
        );
        Ok(wire::SnapshotWants { files })
    }

    /// Gives up a transfer whose sender went away.
    pub(crate) fn forget_abandoned(&self) {
        // It is locked while a file arrives.
        if let Ok(mut current) = self.current.try_lock()
            && current
                .as_ref()
                .is_some_and(|transfer| transfer.heard_at.elapsed() > ABANDONED_AFTER)
        {
            *current = None;
        }
    }

    async fn begin(
        &self,
        offer: wire::SnapshotOffer,
        last: store::LogId,
    ) -> Result<Transfer, StoreError> {
        let staging = self.log.stage(TRANSFER)?;
        let checkpoint = staging.dir().join(CHECKPOINT_DIR);
        remove_dir(&self.data_dir, checkpoint.clone()).await?;
        let tables = checkpoint.join("tables");
        self.data_dir
            .disk()
            .create_dir_all(&tables)
            .map_err(StoreError::io("create", &tables))?;
        let hold = Arc::new(self.holds.take(self.log.positions().dropped));
        let keep_log = keeps_log(&self.log, last).await?;
        let needed = offer
            .files
            .iter()
            .filter(|file| !(file.segment && keep_log));
        let files = needed
            .map(|file| (file.name.clone(), file.clone()))
            .collect();
        Ok(Transfer {
            offer,
            last,
            staging,
            files,
            hold,
            heard_at: Instant::now(),
        })
    }

    async fn wants(&self, transfer: &Transfer) -> Result<Vec<wire::SnapshotWant>, StoreError> {
        let mut wants = Vec::new();
        for file in transfer.files.values().filter(|file| !file.segment) {
            if let Some(position) = self.checkpoint_file(transfer, file).missing_from()? {
                wants.push(wire::SnapshotWant {
                    name: file.name.clone(),
                    position,
                });
            }
        }
        for missing in self
            .log
            .missing(&transfer.staging, &transfer.segments())
            .await?
        {
            let name = super::segment_to_wire(&missing).name;
            let position = transfer.staging.received(&missing)?;
            wants.push(wire::SnapshotWant { name, position });
        }
        Ok(wants)
    }

    /// A snapshot must not eat what is held in reserve: the log would have to stop.
    #[allow(clippy::result_large_err, reason = "the transport's own error type")]
    fn check_space(&self, transfer: &Transfer, wants: &[wire::SnapshotWant]) -> Result<(), Status> {
        let missing = |want: &wire::SnapshotWant| {
            let size_bytes = transfer
                .files
                .get(&want.name)
                .map_or(0, |file| file.size_bytes);
            size_bytes.saturating_sub(want.position)
        };
        let wanted_bytes: u64 = wants.iter().map(missing).sum();
        let dir = self.data_dir.path();
        let free_bytes = self.data_dir.disk().free_bytes(dir);
        let free_bytes = free_bytes
            .map_err(StoreError::io("look at", dir))
            .map_err(failed)?;
        if wanted_bytes.saturating_add(self.reserve_bytes) <= free_bytes {
            return Ok(());
        }
        Err(Status::resource_exhausted(format!(
            "snapshot needs {wanted_bytes} bytes, {free_bytes} are free and {} are held in reserve",
            self.reserve_bytes
        )))
    }

    fn checkpoint_file(&self, transfer: &Transfer, file: &wire::SnapshotFile) -> CheckpointFile {
        let path = transfer.staging.dir().join(&file.name);
        CheckpointFile::new(self.data_dir.disk().clone(), path, file.clone())
    }

    /// Takes one file's pieces. Returns how many bytes of it are there.
    pub(crate) async fn receive(
        &self,
        mut chunks: Streaming<wire::FileChunk>,
    ) -> Result<wire::FileReceived, Status> {
        let Some(first) = next_chunk(&mut chunks).await? else {
            return Err(Status::invalid_argument("a file without a first piece"));
        };
        let mut current = self.current.lock().await;
        let Some(transfer) = current.as_mut() else {
            return Err(Status::failed_precondition("no snapshot was offered"));
        };
        transfer.heard_at = Instant::now();
        if transfer.offer.snapshot_id != first.snapshot_id {
            return Err(Status::failed_precondition(
                "another snapshot was offered since",
            ));
        }
        let Some(file) = transfer.files.get(&first.name) else {
            return Err(Status::invalid_argument("a file that was not offered"));
        };
        let size_bytes = match file.segment {
            true => receive_segment(&transfer.staging, file, first, chunks).await?,
            false => {
                self.checkpoint_file(transfer, file)
                    .receive(first, chunks)
                    .await?
            }
        };
        Ok(wire::FileReceived { size_bytes })
    }

    /// The snapshot, when every file is there; it is no longer the one being received.
    pub(crate) async fn complete(
        &self,
        snapshot_id: &str,
        repair: bool,
    ) -> Result<SnapshotData, Status> {
        let mut current = self.current.lock().await;
        let Some(transfer) = current.as_ref() else {
            return Err(Status::failed_precondition("no snapshot was offered"));
        };
        if transfer.offer.snapshot_id != snapshot_id || transfer.offer.repair != repair {
            return Err(Status::failed_precondition(
                "another snapshot was offered since",
            ));
        }
        if let Some(missing) = self.wants(transfer).await.map_err(failed)?.first() {
            let error = format!("{} is not there yet", missing.name);
            return Err(Status::failed_precondition(error));
        }
        for folder in ["checkpoint/tables", CHECKPOINT_DIR] {
            let folder: PathBuf = transfer.staging.dir().join(folder);
            let synced = self.data_dir.disk().sync_dir(&folder).await;
            synced
                .map_err(StoreError::io("sync", &folder))
                .map_err(failed)?;
        }
        let installing = self.installing.clone().try_lock_owned();
        let installing =
            installing.map_err(|_| Status::unavailable("another snapshot is being installed"))?;
        let snapshot = transfer.received(installing)?;
        *current = None;
        Ok(SnapshotData::Received(snapshot))
    }
}

impl Transfer {
    fn segments(&self) -> Vec<SegmentInfo> {
        let segments = self.files.values().filter(|file| file.segment);
        segments.map(segment_from_wire).collect()
    }

    #[allow(clippy::result_large_err, reason = "the transport's own error type")]
    fn received(&self, installing: OwnedMutexGuard<()>) -> Result<ReceivedSnapshot, Status> {
        Ok(ReceivedSnapshot {
            staging: self.staging.clone(),
            segments: self.segments(),
            last: self.last,
            membership: stored_membership_from_bytes(&self.offer.membership)?,
            _installing: Arc::new((installing, self.hold.clone())),
        })
    }
}

/// The snapshot's last entry, if the offer is one that a peer of ours would make.
#[allow(clippy::result_large_err, reason = "the transport's own error type")]
fn check_offer(offer: &wire::SnapshotOffer) -> Result<store::LogId, Status> {
    let refuse = |what: &str| Err(Status::invalid_argument(what.to_string()));
    if !is_plain(&offer.snapshot_id) {
        return refuse("snapshot id is not a plain name");
    }
    if offer.files.len() > FILES_MAX {
        return refuse("too many files");
    }
    if let Some(file) = offer.files.iter().find(|file| !is_allowed(file)) {
        return refuse(&format!("file name {:?} is not allowed", file.name));
    }
    let indexes = offer.files.iter().map(|file| file.last_index);
    if indexes
        .chain(offer.last.map(|last| last.index))
        .any(|index| index == u64::MAX)
    {
        return refuse("no entry can follow the last one");
    }
    match offer.last {
        Some(last) => Ok(store::LogId {
            term: last.term,
            index: last.index,
        }),
        None => refuse("field last is missing"),
    }
}

fn failed(error: StoreError) -> Status {
    Status::internal(error.to_string())
}
