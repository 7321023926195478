//! A three-replica group on loopback, with temporary directories and a tiny application.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
#![allow(unreachable_pub, missing_docs, reason = "part of a test")]

pub mod application;
pub mod line;
#[path = "../../../../cli/src/process/ports.rs"]
mod ports;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use host::testing::ManualClock;
use host::{Host, Shutdown, ShutdownTrigger};
use raftmq_raft::{Member, Phase, ProposeError, Proposed, RaftConfig, RaftError, RaftGroup};
use store::{Identity, KvEngine, LogConfig, MemEngine};
use tokio::time::Instant;

pub use application::{Rows, TestApplication};
pub use line::Line;

/// Longest wait for anything that must happen.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// Pause between looks at a condition that nothing announces.
const PAUSE: Duration = Duration::from_millis(20);

/// Several times as long as an election takes.
const ELECTIONS: Duration = Duration::from_secs(2);

/// Bytes of a segment: small, so that there are many.
pub const SEGMENT_BYTES: u64 = 16 << 10;

/// One running replica.
pub struct Replica {
    pub group: RaftGroup,
    pub rows: Rows,
    trigger: ShutdownTrigger,
}

/// Replicas that form a group, and where they live.
pub struct Cluster {
    dir: tempfile::TempDir,
    pub members: Vec<Member>,
    engine: Arc<dyn KvEngine>,
    pub running: BTreeMap<u64, Replica>,
    /// Changes the settings of every replica that is started from now on.
    pub adjust: fn(&mut RaftConfig),
    /// The clocks of replicas that have not the machine's.
    pub clocks: BTreeMap<u64, Arc<ManualClock>>,
}

/// Addresses that nobody uses right now, and that no connection gets by chance.
pub fn free_addresses(count: usize) -> Vec<String> {
    let ports = ports::free_ports(count).unwrap().into_iter();
    ports.map(|port| format!("127.0.0.1:{port}")).collect()
}

pub fn member(broker_id: u64, peer_address: String) -> Member {
    Member {
        broker_id,
        client_address: format!("client-{broker_id}:1"),
        peer_address,
    }
}

impl Cluster {
    /// Members with ids from 1 on; none is running yet.
    pub fn new(count: usize) -> Cluster {
        let host = Host::real();
        Cluster::with_engine(count, Arc::new(MemEngine::new(host.disk.clone())))
    }

    pub fn with_engine(count: usize, engine: Arc<dyn KvEngine>) -> Cluster {
        let members = free_addresses(count)
            .into_iter()
            .enumerate()
            .map(|(place, address)| member(place as u64 + 1, address))
            .collect();
        Cluster {
            dir: tempfile::tempdir().unwrap(),
            members,
            engine,
            running: BTreeMap::new(),
            adjust: |_| {},
            clocks: BTreeMap::new(),
        }
    }

    /// A group of three that has elected a leader.
    pub async fn three() -> Cluster {
        let mut cluster = Cluster::new(3);
        cluster.start_all().await;
        cluster.leader().await;
        cluster
    }

    pub fn data_dir(&self, broker_id: u64) -> PathBuf {
        self.dir.path().join(broker_id.to_string())
    }

    pub fn config(&self, broker_id: u64) -> RaftConfig {
        let identity = Identity {
            cluster_id: "test".into(),
            group: "group".into(),
            broker_id,
        };
        let listen = self.member(broker_id).peer_address.clone();
        let mut config = RaftConfig::new(
            identity,
            self.data_dir(broker_id),
            listen,
            self.members.clone(),
            self.engine.clone(),
            host::testing::cluster_secret(),
        );
        config.heartbeat_interval_ms = 60;
        config.election_timeout_ms_min = 200;
        config.election_timeout_ms_max = 400;
        config.log = LogConfig {
            segment_bytes: SEGMENT_BYTES,
            reserve_bytes: 1 << 20,
            cache_bytes: 32 << 10,
            read_cache_bytes: 0,
            prefill: false,
            ..LogConfig::default()
        };
        (self.adjust)(&mut config);
        config
    }

    pub fn member(&self, broker_id: u64) -> &Member {
        self.members
            .iter()
            .find(|member| member.broker_id == broker_id)
            .unwrap()
    }

    pub async fn start_all(&mut self) {
        let ids: Vec<u64> = self.members.iter().map(|member| member.broker_id).collect();
        for broker_id in ids {
            self.start(broker_id).await;
        }
    }

    pub async fn start(&mut self, broker_id: u64) {
        let replica = self.try_start(self.config(broker_id)).await.unwrap();
        self.running.insert(broker_id, replica);
    }

    /// Starts a replica that listens elsewhere than the others look for it.
    pub async fn start_behind(&mut self, broker_id: u64, listen: &str) {
        let mut config = self.config(broker_id);
        config.peer_listen = listen.to_owned();
        let replica = self.try_start(config).await.unwrap();
        self.running.insert(broker_id, replica);
    }

    /// A replica that does not come to lead, for several times as long as an election takes. Whom its last vote was for is
    /// no sign: it stays known as the leader while nobody else is elected.
    pub async fn expect_no_leader(&self, broker_id: u64) {
        let mut leadership = self.group(broker_id).leadership();
        let led = leadership.wait_for(|leadership| leadership.is_leader);
        let led = tokio::time::timeout(ELECTIONS, led).await;
        assert!(led.is_err(), "broker {broker_id} leads: {led:?}");
    }

    /// Starts a replica; waits for the port and the lock of one that has just ended.
    pub async fn try_start(&self, config: RaftConfig) -> Result<Replica, RaftError> {
        let mut host = Host::real();
        if let Some(clock) = self.clocks.get(&config.identity.broker_id) {
            host.clock = clock.clone();
        }
        start(config, host).await
    }

    /// Ends a replica and waits until its data directory is free.
    pub async fn stop(&mut self, broker_id: u64) {
        let replica = self.running.remove(&broker_id).unwrap();
        replica.stop().await;
    }

    pub async fn stop_all(&mut self) {
        for (_, replica) in std::mem::take(&mut self.running) {
            replica.stop().await;
        }
    }

    pub fn group(&self, broker_id: u64) -> &RaftGroup {
        &self.running[&broker_id].group
    }

    /// The replica that leads and serves.
    pub async fn leader(&self) -> u64 {
        eventually("a leader that serves", || {
            let serving = |(id, replica): (&u64, &Replica)| {
                replica.group.leadership().borrow().serving.then_some(*id)
            };
            self.running.iter().find_map(serving)
        })
        .await
    }

    pub async fn follower(&self) -> u64 {
        let leader = self.leader().await;
        *self.running.keys().find(|id| **id != leader).unwrap()
    }

    /// Proposes through whoever leads until it is done.
    pub async fn propose(&self, body: impl Into<Bytes>) -> Proposed {
        let body = body.into();
        let deadline = Instant::now() + PATIENCE;
        loop {
            let leader = self.leader().await;
            match self.group(leader).propose(body.clone()).await {
                Ok(proposed) => return proposed,
                Err(error) if error.is_retriable() && Instant::now() < deadline => {}
                Err(error) => panic!("{error}"),
            }
        }
    }

    /// Proposes bodies of `bytes` bytes each, so that the log fills segments.
    pub async fn fill(&self, count: usize, bytes: usize) -> u64 {
        let mut last = 0;
        for number in 0..count {
            let mut body = format!("put {number} ").into_bytes();
            body.resize(bytes.max(body.len()), b'.');
            last = self.propose(body).await.log_id.index;
        }
        last
    }

    /// Waits until every running replica has applied `index`, then compares their tables.
    pub async fn settle(&self, index: u64) {
        for (id, replica) in &self.running {
            eventually(&format!("replica {id} applies {index}"), || {
                let status = replica.group.status();
                status
                    .applied
                    .is_some_and(|applied| applied >= index)
                    .then_some(())
            })
            .await;
        }
        let mut dumps: Vec<_> = self
            .running
            .iter()
            .map(|(id, replica)| (id, replica.rows.dump()))
            .collect();
        let (first, expected) = dumps.remove(0);
        for (id, dump) in dumps {
            assert!(
                dump == expected,
                "tables of {id} differ from those of {first}"
            );
        }
    }

    pub fn voters(&self, broker_id: u64) -> BTreeSet<u64> {
        let status = self.group(broker_id).status();
        let voters = status.members.into_iter().filter(|member| member.voter);
        voters.map(|member| member.member.broker_id).collect()
    }
}

/// Starts a replica; waits for the port and the lock of one that has just ended.
pub async fn start(config: RaftConfig, host: Host) -> Result<Replica, RaftError> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let rows = Rows::default();
        let application = Box::new(TestApplication::new(rows.clone()));
        let (trigger, shutdown) = Shutdown::new();
        match RaftGroup::start(
            config.clone(),
            host.clone(),
            application,
            shutdown,
            |router| router,
        )
        .await
        {
            Ok(group) => {
                return Ok(Replica {
                    group,
                    rows,
                    trigger,
                });
            }
            Err(RaftError::Network(_) | RaftError::Store(store::StoreError::Locked { .. }))
                if Instant::now() < deadline =>
            {
                tokio::time::sleep(PAUSE).await;
            }
            Err(error) => return Err(error),
        }
    }
}

impl Replica {
    pub async fn stop(self) {
        self.trigger.shut_down();
        tokio::time::timeout(PATIENCE, self.group.closed())
            .await
            .unwrap();
    }

    pub async fn wait_phase(&self, phase: Phase) {
        let mut phases = self.group.phase();
        let reached = phases.wait_for(|current| *current == phase);
        tokio::time::timeout(PATIENCE, reached)
            .await
            .unwrap()
            .unwrap();
    }
}

/// Waits for a condition that nothing announces.
pub async fn eventually<T>(what: &str, mut condition: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(value) = condition() {
            return value;
        }
        assert!(Instant::now() < deadline, "it never came true: {what}");
        tokio::time::sleep(PAUSE).await;
    }
}

/// Whether an error says that the proposal may be made again elsewhere.
pub fn is_not_leader(error: &ProposeError) -> bool {
    matches!(
        error,
        ProposeError::NotLeader { .. } | ProposeError::NoQuorum
    )
}

/// The files of a log directory that end so, sorted.
pub fn log_files(data_dir: &Path, suffix: &str) -> Vec<PathBuf> {
    let disk = Host::real().disk;
    let dirs = disk.list(data_dir).unwrap();
    let log = dirs
        .into_iter()
        .find(|path| {
            path.file_name()
                .unwrap()
                .to_string_lossy()
                .starts_with("log-")
        })
        .unwrap();
    let files = disk.list(&log).unwrap().into_iter();
    files
        .filter(|path| path.to_string_lossy().ends_with(suffix))
        .collect()
}

/// Turns every byte of a part of a file around.
pub fn damage(path: &Path, position: u64, len: usize) {
    let file = Host::real().disk.open(path).unwrap();
    let mut bytes = vec![0; len];
    let read = file.read_at(position, &mut bytes).unwrap();
    assert_eq!(read, len, "{} is too short", path.display());
    bytes.iter_mut().for_each(|byte| *byte = !*byte);
    file.write_at(position, &[Bytes::from(bytes)]).unwrap();
}
