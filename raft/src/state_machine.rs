//! openraft's state machine over the tables.
//!
//! Takes whatever entries are ready, up to a bound, and applies them in one batch: under load an
//! entry costs a share of a write, at rest it waits for nobody. Replies are sent after the write.

use std::io;
use std::sync::Arc;

use bytes::Bytes;
use futures::{FutureExt, Stream, StreamExt};
use openraft::storage::{ApplyResponder, EntryResponder, RaftStateMachine};
use openraft::{EntryPayload, OptionalSend};
use tokio::sync::{Mutex, watch};

use crate::error::to_io;
use crate::snapshot::{RaftSnapshot, SnapshotBuilder, SnapshotData, Snapshots};
use crate::tables::Tables;
use crate::types::{RaftEntry, RaftLogId, Reply, SnapshotMeta, StoredMembership, TypeConfig};

/// Most entries that are applied in one batch.
const APPLY_ENTRIES_MAX: usize = 1_024;

/// Bytes of bodies after which a batch takes no further entry.
const APPLY_BYTES_MAX: usize = 4 << 20;

pub(crate) type Raft = openraft::Raft<TypeConfig, StateMachine>;

/// The one writer of the tables.
pub(crate) struct StateMachine {
    tables: Arc<Mutex<Tables>>,
    snapshots: Arc<Snapshots>,
    /// The last entry in the tables; published after they were written and before replies.
    applied: Arc<watch::Sender<Option<RaftLogId>>>,
}

/// Entries about to be applied together, and who waits for each.
#[derive(Default)]
struct Round {
    entries: Vec<RaftEntry>,
    responders: Vec<Option<ApplyResponder<TypeConfig>>>,
    bytes: usize,
}

impl Round {
    fn push(&mut self, (entry, responder): EntryResponder<TypeConfig>) {
        if let EntryPayload::Normal(payload) = &entry.payload {
            self.bytes += payload.0.len();
        }
        self.entries.push(entry);
        self.responders.push(responder);
    }

    fn is_full(&self) -> bool {
        self.entries.len() >= APPLY_ENTRIES_MAX || self.bytes >= APPLY_BYTES_MAX
    }
}

impl StateMachine {
    pub(crate) fn new(
        tables: Arc<Mutex<Tables>>,
        snapshots: Arc<Snapshots>,
        applied: Arc<watch::Sender<Option<RaftLogId>>>,
    ) -> StateMachine {
        StateMachine {
            tables,
            snapshots,
            applied,
        }
    }

    async fn apply_round(&mut self, round: Round) -> Result<(), io::Error> {
        let last = round.entries.last().map(|entry| entry.log_id);
        // Whoever reads waits for whoever applies, so the wait for the disk comes before.
        let kv = self.tables.lock().await.kv().clone();
        kv.ready().await;
        let replies = self.tables.lock().await.apply(round.entries);
        let replies: Vec<Bytes> = replies.map_err(to_io)?;
        self.applied.send_replace(last);
        for (responder, reply) in round.responders.into_iter().zip(replies) {
            if let Some(responder) = responder {
                responder.send(Reply(reply));
            }
        }
        Ok(())
    }
}

impl RaftStateMachine<TypeConfig> for StateMachine {
    type SnapshotData = SnapshotData;
    type SnapshotBuilder = SnapshotBuilder;

    async fn applied_state(&mut self) -> Result<(Option<RaftLogId>, StoredMembership), io::Error> {
        let tables = self.tables.lock().await;
        Ok((
            tables.applied().log_id(),
            tables.applied().membership().clone(),
        ))
    }

    async fn apply<S>(&mut self, mut entries: S) -> Result<(), io::Error>
    where
        S: Stream<Item = Result<EntryResponder<TypeConfig>, io::Error>> + Unpin + OptionalSend,
    {
        while let Some(first) = entries.next().await {
            let mut round = Round::default();
            round.push(first?);
            while !round.is_full() {
                match entries.next().now_or_never() {
                    Some(Some(next)) => round.push(next?),
                    Some(None) | None => break,
                }
            }
            self.apply_round(round).await?;
        }
        Ok(())
    }

    /// There is nothing to take a snapshot of before the first entry.
    async fn try_create_snapshot_builder(&mut self, force: bool) -> Option<SnapshotBuilder> {
        let applied = self.tables.lock().await.applied().log_id();
        (force || applied.is_some()).then(|| self.snapshots.builder())
    }

    async fn get_snapshot_builder(&mut self) -> SnapshotBuilder {
        self.snapshots.builder()
    }

    async fn install_snapshot(
        &mut self,
        meta: &SnapshotMeta,
        snapshot: SnapshotData,
    ) -> Result<(), io::Error> {
        self.snapshots.install(snapshot).await.map_err(to_io)?;
        self.applied.send_replace(meta.last_log_id);
        Ok(())
    }

    async fn get_current_snapshot(&mut self) -> Result<Option<RaftSnapshot>, io::Error> {
        self.snapshots.current().await.map_err(to_io)
    }
}
