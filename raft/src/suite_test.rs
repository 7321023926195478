//! openraft's own conformance suite on our log storage and state machine.
//!
//! The suite applies entries that it never appended, and hands one replica's snapshot to another as
//! a value. A real replica has every applied entry in its log and receives a snapshot by files, so a
//! thin wrapper puts the entries there and makes the transfer.

mod log;

use std::io;
use std::sync::Arc;

use bytes::Bytes;
use futures::Stream;
use host::{Disk, Host};
use openraft::storage::{EntryResponder, RaftStateMachine};
use openraft::testing::log::{StoreBuilder, Suite};
use openraft::{EntryPayload, OptionalSend, StorageError};
use store::{CommitLog, Entry, EntryKind, Identity, Kv, LogConfig, MemEngine, StoreError};
use tokio::sync::{Mutex, watch};

use self::log::SuiteLog;
use crate::application::{Application, Commit, Committed};
use crate::config::RaftConfig;
use crate::connections::Connections;
use crate::counters::Counters;
use crate::introductions::Acquaintances;
use crate::log_storage::{LogReader, LogStorage};
use crate::peers::Peers;
use crate::repair::{Fetcher, Repairer};
use crate::snapshot::{
    RaftSnapshot, SnapshotBuilder, SnapshotData, Snapshots, SnapshotsParts, hand_over,
};
use crate::state_machine::StateMachine;
use crate::storage::Storage;
use crate::tables::Tables;
use crate::types::{RaftEntry, RaftLogId, SnapshotMeta, StoredMembership, TypeConfig};

/// An application without rules.
pub(crate) struct Nothing;

impl Application for Nothing {
    fn apply(
        &mut self,
        entries: &[Committed],
        _commit: &mut Commit<'_>,
    ) -> Result<Vec<Bytes>, StoreError> {
        Ok(entries.iter().map(|_| Bytes::new()).collect())
    }

    fn restore(&mut self, _kv: Arc<dyn Kv>, _log: CommitLog) -> Result<(), StoreError> {
        Ok(())
    }

    fn log_floor(&self) -> u64 {
        0
    }
}

struct SuiteMachine {
    inner: StateMachine,
    log: CommitLog,
    disk: Arc<dyn Disk>,
}

impl SuiteMachine {
    /// What was purged was applied before; the suite skips that.
    async fn apply_purged(&mut self) {
        let (applied, _) = self.inner.applied_state().await.unwrap();
        if let (None, Some(purged)) = (applied, self.log.purged()) {
            let log_id = crate::convert::log_id_from_store(purged);
            let blank = RaftEntry {
                log_id,
                payload: EntryPayload::Blank,
            };
            let entries = futures::stream::iter([Ok((blank, None))]);
            self.inner.apply(entries).await.unwrap();
        }
    }

    /// Puts entries into the log where a real replica would have them.
    async fn fill_log(&mut self) {
        self.apply_purged().await;
        let (applied, _) = self.inner.applied_state().await.unwrap();
        let Some(applied) = applied else { return };
        let next = self.log.last().map_or(0, |last| last.index + 1);
        let blank = |index| Entry {
            term: *applied.leader_id,
            index,
            kind: EntryKind::Blank,
            body: Bytes::new(),
        };
        let entries: Vec<Entry> = (next..=applied.index()).map(blank).collect();
        if !entries.is_empty() {
            self.log
                .append(entries, Box::new(|result| result.unwrap()))
                .unwrap();
        }
    }
}

impl RaftStateMachine<TypeConfig> for SuiteMachine {
    type SnapshotData = SnapshotData;
    type SnapshotBuilder = SnapshotBuilder;

    async fn applied_state(&mut self) -> Result<(Option<RaftLogId>, StoredMembership), io::Error> {
        self.inner.applied_state().await
    }

    async fn apply<S>(&mut self, entries: S) -> Result<(), io::Error>
    where
        S: Stream<Item = Result<EntryResponder<TypeConfig>, io::Error>> + Unpin + OptionalSend,
    {
        self.inner.apply(entries).await
    }

    async fn try_create_snapshot_builder(&mut self, force: bool) -> Option<SnapshotBuilder> {
        self.fill_log().await;
        self.inner.try_create_snapshot_builder(force).await
    }

    async fn get_snapshot_builder(&mut self) -> SnapshotBuilder {
        self.fill_log().await;
        self.inner.get_snapshot_builder().await
    }

    async fn install_snapshot(
        &mut self,
        meta: &SnapshotMeta,
        snapshot: SnapshotData,
    ) -> Result<(), io::Error> {
        let received = hand_over(&snapshot, &self.log, &self.disk).await.unwrap();
        self.inner.install_snapshot(meta, received).await
    }

    async fn get_current_snapshot(&mut self) -> Result<Option<RaftSnapshot>, io::Error> {
        self.inner.get_current_snapshot().await
    }
}

struct Builder;

impl StoreBuilder<TypeConfig, SuiteLog, SuiteMachine, tempfile::TempDir> for Builder {
    async fn build(
        &self,
    ) -> Result<(tempfile::TempDir, SuiteLog, SuiteMachine), StorageError<TypeConfig>> {
        let dir = tempfile::tempdir().unwrap();
        let host = Host::real();
        let identity = Identity {
            cluster_id: "c".into(),
            group: "g".into(),
            broker_id: 1,
        };
        let engine = Arc::new(MemEngine::new(host.disk.clone()));
        let mut config = RaftConfig::new(
            identity.clone(),
            dir.path().join("data"),
            "",
            Vec::new(),
            engine,
            host::testing::cluster_secret(),
        );
        config.log = LogConfig {
            segment_bytes: 4 << 10,
            reserve_bytes: 1,
            prefill: false,
            ..LogConfig::default()
        };
        let storage = Storage::open(&config, &host).await.unwrap();
        let (log, data_dir) = (storage.log, storage.data_dir);
        let tables = Tables::open(storage.kv, log.clone(), Box::new(Nothing));
        let tables = tables.map_err(|unusable| unusable.error).unwrap();
        let tables = Arc::new(Mutex::new(tables));
        let counters = Arc::new(Counters::default());
        let connections = Connections::new(config.secret.clone());
        let promises = crate::promises::Promises::default();
        let peers = Peers::new(identity, storage.own, promises, &[]);
        let known = watch::channel(Acquaintances::new()).1;
        let fetcher = Fetcher::new(peers, connections.clone());
        let repairer = Repairer::new(log.clone(), fetcher, known, counters.clone());
        let snapshots = Snapshots::new(SnapshotsParts {
            data_dir: data_dir.clone(),
            log: log.clone(),
            checkpoints: storage.checkpoints,
            engine: config.engine.clone(),
            tables: tables.clone(),
            connections,
            counters,
        });
        let reader = LogReader::new(log.clone(), data_dir.clone(), repairer);
        let inner = LogStorage::new(log.clone(), data_dir, reader);
        let log_storage = SuiteLog {
            inner,
            hidden: Arc::default(),
        };
        let applied = Arc::new(watch::channel(None).0);
        let inner = StateMachine::new(tables, Arc::new(snapshots.unwrap()), applied);
        Ok((
            dir,
            log_storage,
            SuiteMachine {
                inner,
                log,
                disk: host.disk.clone(),
            },
        ))
    }
}

/// Catches a storage that breaks what openraft assumes: holes, entries that are not readable when an
/// append returns, a floor that is forgotten, a snapshot that is not the state it was taken of.
#[tokio::test]
async fn passes_openrafts_storage_suite() {
    Suite::test_all(Builder).await.unwrap();
}
