//! Rot in the tables: they are derived, so a replica makes them again, by itself, and hands over first if it leads.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use crate::common::{Cluster, PATIENCE, damage, eventually};
use bytes::Bytes;
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
    found.map(|path| path.join("tables")).collect()
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
    let copies = copies_of(&cluster, id);
    assert!(!copies.is_empty());
    let spoiled = [tables_of(&cluster, id), copies].concat();
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

/// A replica of which no peer has the log's first entries any more, and neither it: the tables are all that is left of them.
async fn purged(count: usize) -> (Cluster, Rotten) {
    let rotten = Rotten::default();
    let engine = RottenEngine {
        inner: Arc::new(MemEngine::new(Host::real().disk)),
        rotten: rotten.clone(),
    };
    let mut cluster = Cluster::with_engine(count, Arc::new(engine));
    cluster.adjust = |config| config.catch_up_log_bytes = 1;
    cluster.start_all().await;
    for _ in 0..2 {
        let last = cluster.fill(30, 1_000).await;
        cluster.settle(last).await;
        for replica in cluster.running.values() {
            replica.group.checkpoint(PATIENCE).await.unwrap();
        }
    }
    for replica in cluster.running.values() {
        let purged = || replica.group.log().purged().map(drop);
        eventually("entries that Raft may not ask for", purged).await;
    }
    (cluster, rotten)
}

/// The tables of a replica rot, and its checkpoint, whose files are theirs.
fn rot(cluster: &Cluster, rotten: &Rotten, id: u64) -> PathBuf {
    let disk = Host::real().disk;
    rotten.lock().unwrap().extend(tables_of(cluster, id));
    let checkpoints = disk
        .list(&cluster.data_dir(id).join("checkpoints"))
        .unwrap();
    let newest = checkpoints.last().unwrap();
    let files = disk.list(&newest.join("tables")).unwrap();
    damage(&files[0], 20, 3);
    tables_of(cluster, id).pop().unwrap()
}

/// Catches a replica that destroys the tables and the checkpoint that it has for one block that cannot be read, and waits
/// for peers that there are not.
#[tokio::test(flavor = "multi_thread")]
async fn alone_tables_that_rotted_are_used_as_they_are() {
    let (mut cluster, rotten) = purged(1).await;
    let tables = rot(&cluster, &rotten, 1);
    assert!(cluster.running[&1].rows.read(1).is_err());
    // What is written goes on being written, and the end keeps what there is.
    let last = cluster.fill(5, 100).await;
    rotten.lock().unwrap().clear();
    cluster.stop(1).await;
    assert!(Host::real().disk.exists(&tables));
    cluster.start(1).await;
    cluster.settle(last).await;
    assert_eq!(tables_of(&cluster, 1), [tables]);
    assert!(cluster.running[&1].rows.read(1).is_ok());
}

/// Catches tables, and a checkpoint, that are destroyed before a peer has given others.
#[tokio::test(flavor = "multi_thread")]
async fn what_rotted_is_kept_until_a_peer_has_given_other_tables() {
    for opens in [true, false] {
        let (mut cluster, rotten) = purged(3).await;
        let id = cluster.follower().await;
        let replica = cluster.running.remove(&id).unwrap();
        let tables = rot(&cluster, &rotten, id);
        assert!(replica.rows.read(1).is_err());
        let failed = tokio::time::timeout(PATIENCE, replica.group.failed()).await;
        failed.expect("its peers have what it lacks");
        replica.stop().await;
        let others: Vec<u64> = cluster.running.keys().copied().collect();
        cluster.stop_all().await;
        if opens {
            rotten.lock().unwrap().clear();
        }
        cluster.start(id).await;
        cluster.running[&id].wait_phase(Phase::Repairing).await;
        let disk = Host::real().disk;
        let kept = disk
            .list(&cluster.data_dir(id).join("checkpoints"))
            .unwrap();
        assert!(
            disk.exists(&tables) && !kept.is_empty(),
            "{opens}: {kept:?}"
        );
        for other in others {
            cluster.start(other).await;
        }
        cluster.running[&id].wait_phase(Phase::Running).await;
        let last = cluster.fill(5, 100).await;
        cluster.settle(last).await;
        assert_eq!(cluster.group(id).status().snapshots_installed, 1);
        assert!(!disk.exists(&tables), "what was replaced goes");
        let kept = disk
            .list(&cluster.data_dir(id).join("checkpoints"))
            .unwrap();
        let damaged = |path: &PathBuf| path.extension().is_some();
        assert!(!kept.iter().any(damaged), "{kept:?}");
    }
}
