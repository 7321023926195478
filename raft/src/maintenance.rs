//! What a running replica does beside agreement: checkpoints, the floor, dropping, scrubbing.
//!
//! Checkpoints are made after so many bytes were applied, when one turns out to be damaged, and when the disk is short of
//! room that retention has given up. A leader whose disk is full hands over to a replica that has room. The floor (`purged`) follows the checkpoint
//! at a distance, so that a follower who was away for a while still finds its entries, and closer
//! when retention wants the space. Segments are dropped when nothing needs them: not the tables, not
//! the newest checkpoint, not Raft, not a snapshot under way.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use host::Shutdown;
use store::{CommitLog, StoreError};
use tokio::sync::{Mutex, watch};
use tokio::time::Instant;

use crate::config::RaftConfig;
use crate::counters::Counters;
use crate::error::RaftError;
use crate::group::hand_over;
use crate::introductions::Acquaintances;
use crate::repair::Repairer;
use crate::snapshot::{Incoming, Snapshots};
use crate::state::State;
use crate::state_machine::Raft;
use crate::tables::Tables;

/// Time between looks at what there is to do.
const INTERVAL: Duration = Duration::from_millis(500);

/// Time between looks whether a replica with more room should lead, and the longest wait for it to.
const LEAD_INTERVAL: Duration = Duration::from_secs(1);

/// Longest wait for a checkpoint that the background asked for.
const CHECKPOINT_TIMEOUT: Duration = Duration::from_secs(600);

/// Most checkpoints that are remembered for the distance of the floor.
const MARKS_MAX: usize = 1_024;

/// Keeps the log and the tables in bounds.
pub(crate) struct Maintenance {
    state: Arc<State>,
    log: CommitLog,
    tables: Arc<Mutex<Tables>>,
    snapshots: Arc<Snapshots>,
    incoming: Arc<Incoming>,
    repairer: Repairer,
    /// What peers say of themselves.
    known: watch::Receiver<Acquaintances>,
    /// Free bytes below which a leader takes no messages.
    sends_need_bytes: u64,
    checkpoint_log_bytes: u64,
    catch_up_log_bytes: u64,
    scrub_interval: Option<Duration>,
    /// The checkpoints made since the start, oldest first.
    marks: Mutex<VecDeque<Mark>>,
}

/// A checkpoint, and the bytes that had been applied when it was made.
#[derive(Clone, Copy, Debug)]
struct Mark {
    index: u64,
    applied_bytes: u64,
}

/// What [`Maintenance`] works on.
pub(crate) struct MaintenanceParts {
    pub(crate) state: Arc<State>,
    pub(crate) log: CommitLog,
    pub(crate) tables: Arc<Mutex<Tables>>,
    pub(crate) snapshots: Arc<Snapshots>,
    pub(crate) incoming: Arc<Incoming>,
    pub(crate) repairer: Repairer,
    pub(crate) known: watch::Receiver<Acquaintances>,
}

impl Maintenance {
    pub(crate) fn new(config: &RaftConfig, parts: MaintenanceParts) -> Maintenance {
        let scrub_interval = match config.scrub_interval_ms {
            0 => None,
            interval_ms => Some(Duration::from_millis(interval_ms)),
        };
        Maintenance {
            state: parts.state,
            log: parts.log,
            tables: parts.tables,
            snapshots: parts.snapshots,
            incoming: parts.incoming,
            repairer: parts.repairer,
            known: parts.known,
            sends_need_bytes: config
                .log
                .reserve_bytes
                .saturating_add(config.log.segment_bytes),
            checkpoint_log_bytes: config.checkpoint_log_bytes,
            catch_up_log_bytes: config.catch_up_log_bytes,
            scrub_interval,
            marks: Mutex::new(VecDeque::new()),
        }
    }

    /// Works until shutdown. An error of the disk ends the replica.
    pub(crate) async fn run(&self, raft: Raft, shutdown: Shutdown) {
        let result = tokio::select! {
            biased;
            () = shutdown.wait() => return,
            result = self.watch_room() => result,
            () = self.lead_with_room() => return,
            result = self.work(&raft) => result,
            result = self.scrub_regularly() => result,
        };
        if let Err(error) = result {
            self.state.fail(error.to_string());
        }
    }

    /// Looks at the disk's free space, however long other work takes.
    async fn watch_room(&self) -> Result<(), RaftError> {
        loop {
            tokio::time::sleep(INTERVAL).await;
            self.look_at_room()?;
        }
    }

    /// Looks at the disk's free space once.
    pub(crate) fn look_at_room(&self) -> Result<(), RaftError> {
        self.log.make_room()?;
        let (room, free_bytes) = (self.log.room()?, self.log.free_bytes()?);
        self.state.set_room(room, free_bytes);
        Ok(())
    }

    fn is_short(&self) -> bool {
        self.state.free_bytes() < self.sends_need_bytes
    }

    /// Hands the lead over while this disk is too full for messages and another one is not. Never ends.
    async fn lead_with_room(&self) {
        loop {
            tokio::time::sleep(LEAD_INTERVAL).await;
            if !self.is_short() || !self.state.leadership().borrow().is_leader {
                continue;
            }
            let roomy: BTreeSet<u64> = {
                let known = self.known.borrow();
                let roomy = known.iter().filter(|(_, peer)| {
                    peer.answers() && peer.status.free_bytes >= self.sends_need_bytes
                });
                roomy.map(|(broker_id, _)| *broker_id).collect()
            };
            let may = |broker_id| roomy.contains(&broker_id);
            match hand_over(&self.state, may, LEAD_INTERVAL).await {
                Ok(Some(to)) => {
                    tracing::warn!(to, "the disk is full here: another replica leads");
                }
                Ok(None) => {}
                Err(error) => tracing::warn!(%error, "the disk is full, and nobody else leads yet"),
            }
        }
    }

    async fn work(&self, raft: &Raft) -> Result<(), RaftError> {
        loop {
            tokio::time::sleep(INTERVAL).await;
            self.round(raft).await?;
        }
    }

    /// Reads everything from time to time. That takes long, and other work does not wait for it.
    async fn scrub_regularly(&self) -> Result<(), RaftError> {
        let Some(interval) = self.scrub_interval else {
            return std::future::pending().await;
        };
        loop {
            tokio::time::sleep(interval).await;
            self.scrub().await?;
        }
    }

    /// The last entry in the tables, and the digest of their rows if the engine keeps one.
    pub(crate) async fn tables(&self) -> (Option<store::LogId>, Option<u64>) {
        let tables = self.tables.lock().await;
        let applied = tables.applied().log_id();
        (
            applied.as_ref().map(crate::convert::log_id_to_store),
            tables.kv().digest(),
        )
    }

    async fn round(&self, raft: &Raft) -> Result<(), RaftError> {
        // A peer that did not take a segment of a snapshot would not take it next time either.
        for first_index in self.snapshots.take_refused() {
            self.check_segment(first_index).await?;
        }
        // Of tables that are damaged themselves another checkpoint would be no better.
        if self.snapshots.take_damaged() && !self.tables.lock().await.are_damaged() {
            self.renew_checkpoint(raft).await?;
            self.look_at_renewed().await;
        }
        let applied_bytes = self.tables.lock().await.applied_bytes();
        let at_checkpoint = self
            .marks
            .lock()
            .await
            .back()
            .map_or(0, |mark| mark.applied_bytes);
        if applied_bytes - at_checkpoint >= self.checkpoint_log_bytes
            || (self.is_short() && self.checkpoint_keeps_segments().await?)
        {
            self.checkpoint(CHECKPOINT_TIMEOUT).await?;
        }
        if let Some(upto) = self.purge_target(applied_bytes).await
            && self.log.purged().is_none_or(|purged| purged.index < upto)
        {
            raft.trigger().purge_log(upto).await.map_err(failed)?;
        }
        self.incoming.forget_abandoned();
        self.drop_log().await?;
        Ok(())
    }

    /// Makes a checkpoint through openraft, which must know it before it raises the floor.
    pub(crate) async fn checkpoint(&self, timeout: Duration) -> Result<u64, RaftError> {
        let raft = self.state.raft().ok_or_else(|| not_running(&self.state))?;
        let Some(applied) = self.state.applied_index() else {
            return Err(RaftError::Failed {
                reason: "nothing was applied yet".to_string(),
            });
        };
        let applied_bytes = self.tables.lock().await.applied_bytes();
        let deadline = Instant::now() + timeout;
        let mut made = self.snapshots.made();
        while made.borrow_and_update().is_none_or(|made| made < applied) {
            // One that was being made already reaches less far: ask again after it.
            if !another_checkpoint(&raft, &mut made, deadline).await? {
                let reason = format!("no checkpoint was made within {timeout:?}");
                return Err(RaftError::Failed { reason });
            }
        }
        let index = made.borrow().unwrap_or(applied);
        let mut marks = self.marks.lock().await;
        marks.push_back(Mark {
            index,
            applied_bytes,
        });
        if marks.len() > MARKS_MAX {
            marks.pop_front();
        }
        Ok(index)
    }

    /// Makes a checkpoint in the place of one that is damaged, also if nothing was applied since.
    async fn renew_checkpoint(&self, raft: &Raft) -> Result<(), RaftError> {
        let mut made = self.snapshots.made();
        made.mark_unchanged();
        let deadline = Instant::now() + CHECKPOINT_TIMEOUT;
        match another_checkpoint(raft, &mut made, deadline).await? {
            true => Ok(()),
            false => Err(RaftError::Failed {
                reason: format!("no checkpoint was made within {CHECKPOINT_TIMEOUT:?}"),
            }),
        }
    }

    /// A checkpoint that was just made and is damaged all the same shares its files with the tables: those are.
    async fn look_at_renewed(&self) {
        let verified = self.snapshots.verify_newest().await;
        self.tables.lock().await.note(&verified);
        match verified {
            Err(error) if !error.is_corruption() => not_now(&error),
            _ => {}
        }
    }

    /// Up to where Raft's floor may rise: retention's wish or the distance kept for followers,
    /// whichever is further, and never above the newest checkpoint.
    async fn purge_target(&self, applied_bytes: u64) -> Option<u64> {
        let checkpoint = self.state.checkpoint_index()?;
        let retention = self.tables.lock().await.log_floor().checked_sub(1);
        let far_enough = applied_bytes.checked_sub(self.catch_up_log_bytes);
        let marks = self.marks.lock().await;
        let behind = |mark: &&Mark| far_enough.is_some_and(|bytes| mark.applied_bytes <= bytes);
        let distance = marks.iter().rev().find(behind).map(|mark| mark.index);
        Some(retention.max(distance)?.min(checkpoint))
    }

    /// Whether retention has given up a segment that only an older checkpoint still needs.
    async fn checkpoint_keeps_segments(&self) -> Result<bool, RaftError> {
        let Some(checkpoint) = self.state.checkpoint_index() else {
            return Ok(self.tables.lock().await.log_floor() > self.log.positions().dropped);
        };
        let floor = self.tables.lock().await.log_floor();
        if floor <= checkpoint + 1 {
            return Ok(false);
        }
        let segments = self.log.segments().await?;
        let given_up = segments.iter().filter(|segment| segment.last_index < floor);
        Ok(given_up
            .into_iter()
            .any(|segment| segment.sealed && segment.last_index > checkpoint))
    }

    /// Drops segments that nothing needs; returns the first index kept.
    pub(crate) async fn drop_log(&self) -> Result<u64, RaftError> {
        let dropped = self.log.positions().dropped;
        let (Some(checkpoint), Some(purged)) = (self.state.checkpoint_index(), self.log.purged())
        else {
            return Ok(dropped);
        };
        let floor = self.tables.lock().await.log_floor();
        let floor = floor.min(checkpoint + 1).min(purged.index + 1);
        // Whoever sends or receives a snapshot needs the segments as they are.
        let floor = self
            .snapshots
            .lowest_held()
            .map_or(floor, |held| held.min(floor));
        if floor > dropped {
            self.log.drop_to(floor).await?;
        }
        Ok(self.log.positions().dropped)
    }

    /// Reads every full segment and the newest checkpoint once and repairs what is damaged; returns how
    /// many segments were.
    pub(crate) async fn scrub(&self) -> Result<u64, RaftError> {
        if let Some(raft) = self.state.raft() {
            match self.snapshots.newest_is_whole().await {
                Ok(true) => {}
                Ok(false) => {
                    self.renew_checkpoint(&raft).await?;
                    self.look_at_renewed().await;
                }
                Err(error) => not_now(&error),
            }
        }
        let mut repaired = 0;
        for segment in self.log.segments().await? {
            if !segment.sealed {
                continue;
            }
            if self.check_segment(segment.first_index).await? {
                repaired += 1;
            }
            Counters::add(&self.state.counters.segments_scrubbed, 1);
        }
        Ok(repaired)
    }

    /// Reads a full segment and repairs it if it is damaged; whether it was.
    async fn check_segment(&self, first_index: u64) -> Result<bool, RaftError> {
        let error = match self.log.verify_segment(first_index).await {
            // Or dropped in the meantime.
            Ok(_) | Err(StoreError::OutOfRange { .. }) => return Ok(false),
            Err(error) if error.is_corruption() => error,
            Err(error) => {
                not_now(&error);
                return Ok(false);
            }
        };
        match self.repairer.repair(&error, first_index).await {
            Ok(()) => Ok(true),
            // It stays refused to readers, and the next pass tries again.
            Err(error) if error.is_corruption() => Ok(false),
            Err(error) => Err(error.into()),
        }
    }
}

/// Waits until a checkpoint is made; false: not before the deadline. Raft forgets a wish that it hears while it has not
/// noticed yet that the checkpoint before is done, so it is told again.
async fn another_checkpoint(
    raft: &Raft,
    made: &mut watch::Receiver<Option<u64>>,
    deadline: Instant,
) -> Result<bool, RaftError> {
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(false);
        }
        raft.trigger().snapshot().await.map_err(failed)?;
        match tokio::time::timeout(left.min(INTERVAL), made.changed()).await {
            Ok(Ok(())) => return Ok(true),
            Ok(Err(_)) => return Ok(false),
            Err(_) => {}
        }
    }
}

/// The system did not let somebody look, for another reason than that something is damaged: that may pass.
fn not_now(error: &StoreError) {
    tracing::warn!(%error, "cannot be looked at now");
}

fn failed(error: impl std::fmt::Display) -> RaftError {
    RaftError::Failed {
        reason: error.to_string(),
    }
}

fn not_running(state: &State) -> RaftError {
    RaftError::Failed {
        reason: format!("replica is {}", state.phase().name()),
    }
}
