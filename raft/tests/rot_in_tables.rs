//! Rot in the tables: they are derived, so a replica makes them again, by itself, and hands over first if it leads.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use common::{Cluster, PATIENCE};
use futures::FutureExt;
use futures::future::BoxFuture;
use host::Host;
use raftmq_raft::Phase;
use store::{Batch, Kv, KvCounters, KvEngine, MemEngine, Pair, StoreError};

/// Directories whose tables cannot be read.
type Rotten = Arc<Mutex<BTreeSet<PathBuf>>>;

/// Tables of which some have rotted.
struct RottenEngine {
    inner: Arc<dyn KvEngine>,
    rotten: Rotten,
}

impl KvEngine for RottenEngine {
    fn open(&self, dir: PathBuf) -> BoxFuture<'static, Result<Arc<dyn Kv>, StoreError>> {
        let (opening, rotten) = (self.inner.open(dir.clone()), self.rotten.clone());
        async move {
            let inner = opening.await?;
            let kv: Arc<dyn Kv> = Arc::new(RottenKv { inner, dir, rotten });
            Ok(kv)
        }
        .boxed()
    }

    fn restore(
        &self,
        checkpoint: PathBuf,
        live: PathBuf,
    ) -> BoxFuture<'static, Result<(), StoreError>> {
        // What is rotten there is rotten here.
        let mut rotten = self.rotten.lock().unwrap();
        if rotten.contains(&checkpoint) {
            rotten.insert(live.clone());
        }
        self.inner.restore(checkpoint, live)
    }

    fn check(&self, dir: PathBuf) -> BoxFuture<'static, Result<(), StoreError>> {
        let checked = is_whole(&self.rotten, &dir);
        let checking = self.inner.check(dir);
        async move {
            checked?;
            checking.await
        }
        .boxed()
    }
}

fn is_whole(rotten: &Rotten, dir: &Path) -> Result<(), StoreError> {
    match rotten.lock().unwrap().contains(dir) {
        true => Err(StoreError::corrupt(dir, "block checksum mismatch")),
        false => Ok(()),
    }
}

struct RottenKv {
    inner: Arc<dyn Kv>,
    dir: PathBuf,
    rotten: Rotten,
}

impl RottenKv {
    fn check(&self) -> Result<(), StoreError> {
        is_whole(&self.rotten, &self.dir)
    }
}

impl Kv for RottenKv {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
        self.check()?;
        self.inner.get(key)
    }

    fn scan(&self, from: &[u8], to: &[u8], limit: usize) -> Result<Vec<Pair>, StoreError> {
        self.check()?;
        self.inner.scan(from, to, limit)
    }

    fn last_at_or_before(
        &self,
        key: &[u8],
        lower_bound: &[u8],
    ) -> Result<Option<Pair>, StoreError> {
        self.check()?;
        self.inner.last_at_or_before(key, lower_bound)
    }

    fn ready(self: Arc<Self>) -> BoxFuture<'static, ()> {
        self.inner.clone().ready()
    }

    fn write(&self, batch: Batch) -> Result<(), StoreError> {
        self.inner.write(batch)
    }

    fn flush(self: Arc<Self>) -> BoxFuture<'static, Result<(), StoreError>> {
        self.inner.clone().flush()
    }

    fn checkpoint(
        self: Arc<Self>,
        dir: PathBuf,
        key: Bytes,
    ) -> BoxFuture<'static, Result<Option<Bytes>, StoreError>> {
        let making = self.inner.clone().checkpoint(dir, key);
        async move {
            self.check()?;
            making.await
        }
        .boxed()
    }

    fn counters(&self) -> KvCounters {
        self.inner.counters()
    }
}

async fn cluster() -> (Cluster, Rotten) {
    let rotten = Rotten::default();
    let engine = RottenEngine {
        inner: Arc::new(MemEngine::new(Host::real().disk)),
        rotten: rotten.clone(),
    };
    let mut cluster = Cluster::with_engine(3, Arc::new(engine));
    cluster.start_all().await;
    let last = cluster.fill(30, 1_000).await;
    cluster.settle(last).await;
    (cluster, rotten)
}

/// The directories of a replica's tables. It may be running, or about to give up its lock.
fn tables_of(cluster: &Cluster, id: u64) -> Vec<PathBuf> {
    let found = Host::real().disk.list(&cluster.data_dir(id)).unwrap();
    let tables = found.into_iter();
    let tables: Vec<_> = tables
        .filter(|path| path.to_string_lossy().contains("tables-"))
        .collect();
    assert!(!tables.is_empty());
    tables
}

/// Catches a replica that ends at every start because its tables rotted, although they can be made again.
#[tokio::test(flavor = "multi_thread")]
async fn tables_that_rotted_are_made_again_at_the_start() {
    let (mut cluster, rotten) = cluster().await;
    let id = cluster.follower().await;
    cluster.stop(id).await;
    let tables = tables_of(&cluster, id);
    rotten.lock().unwrap().extend(tables.clone());
    cluster.start(id).await;
    let last = cluster.fill(5, 100).await;
    cluster.settle(last).await;
    let now = tables_of(&cluster, id);
    assert!(now.iter().all(|dir| !tables.contains(dir)), "{now:?}");
}

/// The tables in a replica's checkpoints.
fn copies_of(cluster: &Cluster, id: u64) -> Vec<PathBuf> {
    let dir = cluster.data_dir(id).join("checkpoints");
    let found = Host::real().disk.list(&dir).unwrap().into_iter();
    let copies: Vec<_> = found.map(|path| path.join("tables")).collect();
    assert!(!copies.is_empty());
    copies
}

/// Catches a replica that makes its tables of a checkpoint as rotten as they are, at every start: the checksums of a
/// checkpoint say nothing if its files rotted before they were taken.
#[tokio::test(flavor = "multi_thread")]
async fn a_checkpoint_of_rotten_tables_is_not_made_tables_again() {
    let (mut cluster, rotten) = cluster().await;
    let id = cluster.follower().await;
    let replica = &cluster.running[&id];
    replica.group.checkpoint(PATIENCE).await.unwrap();
    cluster.stop(id).await;
    let spoiled = [tables_of(&cluster, id), copies_of(&cluster, id)].concat();
    rotten.lock().unwrap().extend(spoiled.clone());
    cluster.start(id).await;
    let last = cluster.fill(5, 100).await;
    cluster.settle(last).await;
    let now = [tables_of(&cluster, id), copies_of(&cluster, id)].concat();
    let rotten = rotten.lock().unwrap();
    assert!(now.iter().all(|dir| !rotten.contains(dir)), "{now:?}");
}

/// Catches a leader that goes on with tables that cannot be read, for ever, and one that ends for it at every start.
#[tokio::test(flavor = "multi_thread")]
async fn a_leader_whose_tables_rot_hands_over_and_makes_them_again() {
    let (mut cluster, rotten) = cluster().await;
    for what in ["read", "checkpoint"] {
        let id = cluster.leader().await;
        let replica = cluster.running.remove(&id).unwrap();
        rotten.lock().unwrap().extend(tables_of(&cluster, id));
        match what {
            "read" => assert!(replica.rows.read(1).is_err()),
            _ => assert!(replica.group.checkpoint(PATIENCE).await.is_err()),
        }
        let failed = tokio::time::timeout(PATIENCE, replica.group.failed()).await;
        failed.expect("the replica ends in order");
        let voted = replica.group.status().leadership.term;
        replica.stop().await;
        let led = cluster.leader().await;
        assert_ne!(led, id, "another one leads after term {voted}");
        cluster.start(id).await;
        cluster.running[&id].wait_phase(Phase::Running).await;
        let last = cluster.fill(5, 100).await;
        cluster.settle(last).await;
    }
}
