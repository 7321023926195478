//! openraft's log storage on the commit log and the superblock.
//!
//! openraft takes the completion of a write for the completion of every write before it. Entries are
//! synced in the background, votes are not, so a vote waits for the entries appended before it.
//! Must never report an entry as durable before the log's flusher did, and never delete a record
//! when openraft purges: that only raises the floor.

mod reader;

use std::io;
use std::sync::Arc;
use std::time::Duration;

use openraft::OptionalSend;
use openraft::storage::{IOFlushed, LogState, RaftLogStorage};
use store::{Adoption, CommitLog, DataDir, Entry, LogId, StoreError};
use tokio::sync::watch;
use tokio::time::Instant;

pub(crate) use reader::LogReader;

use crate::convert::{entry_to_store, log_id_from_store, log_id_to_store, vote_to_bytes};
use crate::error::to_io;
use crate::types::{RaftEntry, RaftLogId, RaftVote, TypeConfig};

/// Longest wait for entries on their way to the disk, before a vote is saved or room is found for
/// more. A disk that takes longer is a broken disk.
const DISK_TIMEOUT: Duration = Duration::from_secs(30);

/// Pause before a full disk is tried again.
const ROOM_PAUSE: Duration = Duration::from_millis(200);

/// The write side of the log, as openraft's core uses it: one caller at a time.
pub(crate) struct LogStorage {
    log: CommitLog,
    data_dir: Arc<DataDir>,
    reader: LogReader,
    /// Appends handed to the log so far.
    submitted: u64,
    /// Appends that the flusher has answered, well or badly. Answers come in order.
    answered: Arc<watch::Sender<u64>>,
}

impl LogStorage {
    pub(crate) fn new(log: CommitLog, data_dir: Arc<DataDir>, reader: LogReader) -> LogStorage {
        let (answered, _) = watch::channel(0);
        LogStorage {
            log,
            data_dir,
            reader,
            submitted: 0,
            answered: Arc::new(answered),
        }
    }

    /// Returns when every append before this call was answered by the flusher.
    async fn appends_answered(&self) -> Result<(), io::Error> {
        let submitted = self.submitted;
        self.answered_at_least(submitted).await
    }

    async fn answered_at_least(&self, count: u64) -> Result<(), io::Error> {
        let mut answered = self.answered.subscribe();
        let waiting = answered.wait_for(|answered| *answered >= count);
        match tokio::time::timeout(DISK_TIMEOUT, waiting).await {
            Ok(_) => Ok(()),
            Err(_) => {
                let error = format!("log was not synced within {DISK_TIMEOUT:?}");
                Err(io::Error::new(io::ErrorKind::TimedOut, error))
            }
        }
    }

    /// An empty log above `purged`. Installing a snapshot brings the entries up to its end, so only
    /// openraft's conformance suite comes here.
    async fn begin_after(&self, purged: LogId) -> Result<(), StoreError> {
        let staging = self.log.stage("floor")?;
        let adoption = Adoption {
            segments: Vec::new(),
            last: purged,
            purged: Some(purged),
            promised: None,
        };
        self.log.adopt(&staging, adoption).await
    }

    /// Appends, waiting for room if too much is on its way to the disk already.
    async fn append_entries(
        &mut self,
        entries: Vec<Entry>,
        callback: IOFlushed<TypeConfig>,
    ) -> Result<(), io::Error> {
        let callback: Pending = Arc::new(std::sync::Mutex::new(Some(callback)));
        let deadline = Instant::now() + DISK_TIMEOUT;
        loop {
            let answered = self.answered.clone();
            let pending = callback.clone();
            let done = Box::new(move |result: Result<(), StoreError>| {
                complete(&pending, result);
                answered.send_modify(|answered| *answered += 1);
            });
            match self.log.append(entries.clone(), done) {
                Ok(()) => {
                    self.submitted += 1;
                    return Ok(());
                }
                // Nothing was written: there is room again once something was synced.
                Err(StoreError::Busy { .. }) => {
                    let answered = *self.answered.borrow();
                    self.answered_at_least(answered + 1).await?;
                }
                // Nor now: it takes another file. Whoever ends for it is no help to those who make room.
                Err(error @ StoreError::DiskFull { .. }) => {
                    if Instant::now() >= deadline {
                        return Err(to_io(error));
                    }
                    tokio::time::sleep(ROOM_PAUSE).await;
                }
                Err(error) => return Err(to_io(error)),
            }
        }
    }
}

/// Who waits for an append, until they were told.
type Pending = Arc<std::sync::Mutex<Option<IOFlushed<TypeConfig>>>>;

fn complete(pending: &Pending, result: Result<(), StoreError>) {
    let callback = pending
        .lock()
        .unwrap_or_else(|error| error.into_inner())
        .take();
    if let Some(callback) = callback {
        callback.io_completed(result.map_err(to_io));
    }
}

impl RaftLogStorage<TypeConfig> for LogStorage {
    type LogReader = LogReader;

    async fn get_log_state(&mut self) -> Result<LogState<TypeConfig>, io::Error> {
        let purged = self.log.purged().map(log_id_from_store);
        let last = self.log.last().map(log_id_from_store);
        Ok(LogState {
            last_purged_log_id: purged,
            last_log_id: last.max(purged),
        })
    }

    async fn get_log_reader(&mut self) -> LogReader {
        self.reader.clone()
    }

    async fn save_vote(&mut self, vote: &RaftVote) -> Result<(), io::Error> {
        self.appends_answered().await?;
        self.data_dir
            .save_vote(vote_to_bytes(vote))
            .await
            .map_err(to_io)
    }

    async fn append<I>(
        &mut self,
        entries: I,
        callback: IOFlushed<TypeConfig>,
    ) -> Result<(), io::Error>
    where
        I: IntoIterator<Item = RaftEntry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let entries: Vec<Entry> = entries.into_iter().map(entry_to_store).collect();
        self.append_entries(entries, callback).await
    }

    async fn truncate_after(&mut self, last: Option<RaftLogId>) -> Result<(), io::Error> {
        self.log
            .truncate_after(last.map(|log_id| log_id.index()))
            .await
            .map_err(to_io)
    }

    async fn purge(&mut self, log_id: RaftLogId) -> Result<(), io::Error> {
        // The floor must not rise above what is synced.
        self.appends_answered().await?;
        let purged = log_id_to_store(&log_id);
        if self.log.last().is_none_or(|last| last.index < purged.index) {
            return self.begin_after(purged).await.map_err(to_io);
        }
        self.log.purge_to(purged).await.map_err(to_io)
    }
}
