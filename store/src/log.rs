//! The commit log: append returns when readable, `done` is called when durable, nothing is ever
//! lost in between without an error.
//!
//! - Entries follow each other without gaps; truncating takes back uncommitted ones only.
//! - Purging deletes nothing: it raises the floor that Raft may ask for. Dropping deletes whole
//!   full segments below that floor. Never a hole.
//! - One task writes ([`flush`]), one write and one sync for each group; readers never wait for it.
//! - A failed write or sync ends the log: every later call fails, and the replica must stop.
//!
//! Must not know what a vote or a message is. Formats: `docs/formats/segment.md`.

mod adopt;
mod append;
mod counters;
mod export;
mod flush;
#[cfg(fuzzing)]
pub(crate) mod fuzz;
pub(crate) mod inspect;
mod lru;
mod mark;
mod reader;
mod record;
mod recovery;
mod repair;
mod retention;
mod ring;
mod scan;
mod sealed_files;
mod segment;
mod segment_list;
mod space;
mod spares;
mod staging;
mod state;
mod truncate;
mod verify;

use std::future::Future;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use host::Disk;
use tokio::sync::{Notify, watch};

pub use adopt::Adoption;
pub use counters::{LogCounters, SYNC_TIME_BUCKETS};
pub use export::{SegmentExport, SegmentInfo};
pub use recovery::Recovered;
pub use space::Room;
pub use staging::{SegmentWriter, Staging};
pub use state::{Damage, Done, Positions};

use crate::config::LogConfig;
use crate::data_dir::DataDir;
use crate::entry::{Entry, LogId};
use crate::error::{Result, StoreError};
use counters::Counters;
use flush::Writer;
use lru::Lru;
use sealed_files::SealedFiles;
use space::Space;
use state::State;

/// Entries read one by one that are kept in memory, at most.
const READ_CACHE_ENTRIES_MAX: usize = 64 << 10;

/// A replica's log. Cheap to clone; the last clone that is dropped closes it.
#[derive(Clone)]
pub struct CommitLog {
    shared: Arc<Shared>,
    _owner: Arc<Owner>,
}

/// What the handles and the tasks share.
struct Shared {
    dir: Arc<DataDir>,
    config: LogConfig,
    segment_bytes: u64,
    state: Mutex<State>,
    writer: tokio::sync::Mutex<Writer>,
    /// Held by whatever changes the list of segments, so that two of them never overlap.
    maintenance: tokio::sync::Mutex<()>,
    sealed_files: SealedFiles,
    read_cache: Mutex<Lru<Entry>>,
    space: Space,
    counters: Counters,
    /// The index after the last entry that the mark tells of after a power cut too.
    marked_end: Arc<AtomicU64>,
    /// Something waits in the queue, or the log was closed.
    appended: Notify,
    /// The flusher has finished a group.
    progress: Notify,
    /// A prepared file was used, or the log was closed.
    spare_taken: Notify,
    failure: watch::Sender<Option<StoreError>>,
    /// Holds one sender for each running task; closed when all have ended.
    tasks: watch::Sender<()>,
}

/// Closes the log when the last handle goes.
struct Owner {
    shared: Arc<Shared>,
}

impl Drop for Owner {
    fn drop(&mut self) {
        self.shared.close();
    }
}

impl CommitLog {
    /// Opens the log of a data directory, makes it if there is none, cuts a torn tail, and starts
    /// the tasks that write it. Reads no full segment: its cost does not grow with the log.
    ///
    /// A damaged log opens too: [`Recovered::damage`] says what is missing, and appends are refused
    /// until it is repaired.
    pub async fn open(dir: &Arc<DataDir>, config: LogConfig) -> Result<(CommitLog, Recovered)> {
        config.validate()?;
        let (state, writer, recovered) = recovery::recover(dir, &config).await?;
        state.assert_positions();
        let shared = Arc::new(Shared {
            dir: dir.clone(),
            segment_bytes: dir.superblock().segment_bytes,
            sealed_files: SealedFiles::new(config.index_cache_bytes),
            read_cache: Mutex::new(Lru::new(config.read_cache_bytes, READ_CACHE_ENTRIES_MAX)),
            space: Space::new(config.reserve_bytes),
            marked_end: writer.mark.durable_end().clone(),
            config,
            state: Mutex::new(state),
            writer: tokio::sync::Mutex::new(writer),
            maintenance: tokio::sync::Mutex::new(()),
            counters: Counters::default(),
            appended: Notify::new(),
            progress: Notify::new(),
            spare_taken: Notify::new(),
            failure: watch::channel(None).0,
            tasks: watch::channel(()).0,
        });
        shared.spawn(shared.clone().flush_groups());
        shared.spawn(shared.clone().prepare_spares());
        let owner = Arc::new(Owner {
            shared: shared.clone(),
        });
        Ok((
            CommitLog {
                shared,
                _owner: owner,
            },
            recovered,
        ))
    }

    /// How far the log has come.
    pub fn positions(&self) -> Positions {
        self.shared.state().positions
    }

    /// The last entry: readable, and not synced yet perhaps.
    pub fn last(&self) -> Option<LogId> {
        self.positions().appended
    }

    /// The floor that Raft may ask for.
    pub fn purged(&self) -> Option<LogId> {
        self.positions().purged
    }

    /// What is missing, if anything is.
    pub fn damage(&self) -> Option<Damage> {
        self.shared.state().damages.first().copied()
    }

    /// Whether nobody knows how far this log was synced, because the note of it cannot be read. Ends with
    /// [`CommitLog::learn_promise`].
    pub fn is_mark_lost(&self) -> bool {
        self.shared.state().mark_lost
    }

    /// The index after the last entry that this replica has, or had before it was damaged: what it may have
    /// promised. The highest index there is, if nobody knows.
    pub fn promised_end(&self) -> u64 {
        let state = self.shared.state();
        if state.mark_lost {
            return u64::MAX;
        }
        let positions = state.positions;
        let last = positions.appended.max(positions.purged);
        let damaged = state.damages.iter().map(|damage| damage.synced_index);
        let last = damaged.chain(last.map(|last| last.index)).max();
        last.map_or(0, |last| last + 1)
    }

    /// The last entry that this replica has, or had before it was damaged, or one above it: of the highest term and index
    /// of which there is a trace. None if there was none, or nobody knows.
    pub fn promised(&self) -> Option<LogId> {
        let end = self.promised_end();
        let state = self.shared.state();
        if state.mark_lost {
            return None;
        }
        let positions = state.positions;
        let known = positions.appended.max(positions.purged);
        let terms = [known, state.promised].into_iter().flatten();
        let term = terms.map(|known| known.term).max()?;
        let index = end.checked_sub(1)?;
        Some(LogId { term, index })
    }

    /// The index after the last entry of which this log will always know that it had synced it, whatever a power cut takes.
    /// Follows what is synced by a second, or as long as the disk takes.
    pub fn marked_end(&self) -> u64 {
        self.shared.marked_end.load(Ordering::Relaxed)
    }

    /// Whether a log that ends with `last` is at least as far as all that was ever promised here, also where it is damaged.
    /// Never, while nobody knows what was.
    pub fn is_covered_by(&self, last: Option<LogId>) -> bool {
        let state = self.shared.state();
        let positions = state.positions;
        let own = positions.appended.max(positions.purged).max(state.promised);
        !state.mark_lost && last >= own
    }

    /// Grows whenever entries are taken back: what was read before and after it grew need not be of one log.
    pub fn epoch(&self) -> u64 {
        self.shared.state().epoch
    }

    /// Free bytes of the disk, looked at lately.
    pub fn free_bytes(&self) -> Result<u64> {
        let dir = self.shared.dir.path();
        self.shared.space.free_bytes(&**self.shared.disk(), dir)
    }

    /// What the log has done since it was opened.
    pub fn counters(&self) -> LogCounters {
        self.shared.counters.snapshot()
    }

    /// Gives up files that are ready and not needed yet, if the disk is so full that no more are made.
    pub fn make_room(&self) -> Result<()> {
        if self.free_bytes()? < self.shared.config.reserve_bytes / 2 {
            self.shared.give_up_spares();
        }
        Ok(())
    }

    /// What the disk has room for. Appends themselves are refused only where they need another file and less than half the
    /// reserve is free, so that entries which make space again still fit.
    pub fn room(&self) -> Result<Room> {
        let dir = self.shared.dir.path();
        self.shared.space.room(&**self.shared.disk(), dir)
    }

    /// Returns once the log is broken for good, with the reason. The replica must stop then.
    pub async fn failed(&self) -> StoreError {
        let mut failure = self.shared.failure.subscribe();
        match failure.wait_for(Option::is_some).await {
            Ok(failure) => failure.clone().unwrap_or(StoreError::Closed),
            Err(_) => StoreError::Closed,
        }
    }

    /// Writes what is appended, then ends the tasks. Later appends are refused; reading goes on.
    pub async fn close(&self) {
        self.shared.close();
        self.shared.tasks.closed().await;
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state
            .lock()
            .expect("nobody panics while holding the log's state")
    }

    fn disk(&self) -> &Arc<dyn Disk> {
        self.dir.disk()
    }

    fn failure(&self) -> Option<StoreError> {
        self.state().failure.clone()
    }

    /// Breaks the log for good.
    fn fail(&self, error: &StoreError) {
        self.state().failure.get_or_insert_with(|| error.clone());
        self.announce_failure(error);
    }

    fn announce_failure(&self, error: &StoreError) {
        self.failure.send_if_modified(|failure| {
            let first = failure.is_none();
            if first {
                tracing::error!(%error, "the log is broken and will not be written again");
                *failure = Some(error.clone());
            }
            first
        });
        self.spare_taken.notify_one();
    }

    fn close(&self) {
        self.state().closed = true;
        self.appended.notify_one();
        self.spare_taken.notify_one();
    }

    fn spawn(self: &Arc<Shared>, task: impl Future<Output = ()> + Send + 'static) {
        let running = self.tasks.subscribe();
        tokio::spawn(async move {
            task.await;
            drop(running);
        });
    }

    /// Runs `work` in a task of its own, so that a caller who stops waiting does not stop it
    /// half-way. An error from the disk breaks the log.
    async fn uninterrupted<T: Send + 'static>(
        self: &Arc<Shared>,
        work: impl Future<Output = Result<T>> + Send + 'static,
    ) -> Result<T> {
        let running = self.tasks.subscribe();
        let task = tokio::spawn(async move {
            let _running = running;
            work.await
        });
        let result = match task.await {
            Ok(result) => result,
            // The runtime is being torn down, or the work hit a bug: either way it stopped
            // half-way.
            Err(_) => Err(StoreError::Closed),
        };
        if let Err(error @ (StoreError::Io { .. } | StoreError::Closed)) = &result {
            self.fail(error);
        }
        result
    }

    /// Waits until everything appended is synced, then keeps appends out until the guard is
    /// dropped.
    async fn begin_exclusive(self: &Arc<Shared>) -> Result<Exclusive> {
        loop {
            let progress = self.progress.notified();
            {
                let mut state = self.state();
                if let Some(failure) = &state.failure {
                    return Err(failure.clone());
                }
                if state.is_idle() {
                    assert!(!state.exclusive, "maintenance is held");
                    state.exclusive = true;
                    return Ok(Exclusive {
                        shared: self.clone(),
                    });
                }
            }
            progress.await;
        }
    }
}

/// Keeps appends out while it lives.
struct Exclusive {
    shared: Arc<Shared>,
}

impl Drop for Exclusive {
    fn drop(&mut self) {
        self.shared.state().exclusive = false;
    }
}
