//! Puts a replica together and starts its tasks.

use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::time::Duration;

use host::network::{Listener, Proof, Router, ServerOptions, serve, server};
use host::{Host, Shutdown};
use store::{Checkpoints, CommitLog, DataDir, Kv};
use tokio::sync::{Mutex, watch};

use super::{Inner, RaftGroup};
use crate::address_file;
use crate::application::Application;
use crate::clocks::Clocks;
use crate::config::RaftConfig;
use crate::connections::Connections;
use crate::counters::Counters;
use crate::error::RaftError;
use crate::incarnation::Incarnation;
use crate::introductions::{Acquaintances, Introductions};
use crate::maintenance::{Maintenance, MaintenanceParts};
use crate::peers::Peers;
use crate::repair::{Fetcher, Repairer};
use crate::service::{Ballot, Service};
use crate::snapshot::{Incoming, Snapshots, SnapshotsParts};
use crate::startup::{GivenUp, Startup};
use crate::state::{State, StateParts};
use crate::storage::{Storage, first_entry, make_again};
use crate::tables::{Tables, Unusable};
use crate::types::RaftLogId;

/// Connections that peers may have open at the same time.
const PEER_CONNECTIONS_MAX: usize = 256;

/// How long calls in flight may take to end at shutdown, in milliseconds.
const SHUTDOWN_GRACE_MS: u64 = 1_000;

/// Longest wait for the disk before a replica that is refused says so.
const TAKE_BACK_TIMEOUT: Duration = Duration::from_secs(5);

impl RaftGroup {
    /// Opens the data directory, recovers it, and starts the replica.
    ///
    /// Returns when the peer port is served and no peer that answers objects: then, or later through
    /// [`RaftGroup::failed`], it is refused that another process has this broker id, that the data
    /// directory was wiped, or that a peer belongs to another group. The group may still have to be
    /// made, and the log to be repaired: see [`RaftGroup::phase`].
    ///
    /// `beside` adds to the peer port what else servers ask of each other.
    pub async fn start(
        config: RaftConfig,
        host: Host,
        application: Box<dyn Application>,
        shutdown: Shutdown,
        beside: impl FnOnce(Router) -> Router,
    ) -> Result<RaftGroup, RaftError> {
        config.validate()?;
        let listener = Listener::bind(&config.peer_listen).await?;
        let mut storage = Storage::open(&config, &host).await?;
        let base = Base::new(&config, &mut storage, &host);
        let mut parts = Parts::assemble(config, storage, base, application).await?;
        let (task, tasks) = watch::channel(());
        let task = Arc::new(task);
        // Dropped when the start fails: nothing of it is left then.
        let (trigger, stop) = Shutdown::new();
        parts.serve(listener, stop.clone(), task.clone(), beside);
        if let Err(error) = parts.introductions.round().await {
            let Startup {
                peers, data_dir, ..
            } = &parts.startup;
            take_back(peers.incarnation(), data_dir).await;
            return Err(error);
        }
        parts.startup.look_for_damage().await?;
        if parts.startup.is_ready() {
            parts.startup.start().await?;
        }
        // A replica that must not go on stops at once, whatever its process does.
        let (state, data_dir) = (parts.startup.state.clone(), parts.startup.data_dir.clone());
        let incarnation = parts.startup.peers.incarnation();
        tokio::spawn(async move {
            let (mut failure, mut refusal) = (state.failure(), state.refusal());
            tokio::select! {
                biased;
                () = shutdown.wait() => {}
                _ = failure.wait_for(Option::is_some) => {}
                _ = refusal.wait_for(Option::is_some) => {}
            }
            trigger.shut_down();
            // Also one that came with the end.
            let refused = refusal.borrow_and_update().clone();
            if let Some(reason) = refused {
                take_back(incarnation, &data_dir).await;
                state.fail(reason);
            }
        });
        Ok(parts.run(tasks, task, stop))
    }
}

/// Whoever is refused has not been started, as far as its peers will be told.
async fn take_back(incarnation: Incarnation, data_dir: &DataDir) {
    let taking = incarnation.take_back(data_dir.host(), data_dir.path());
    match tokio::time::timeout(TAKE_BACK_TIMEOUT, taking).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::warn!(%error, "a start that peers refused counts"),
        Err(_) => tracing::warn!("a start that peers refused counts: the disk does not answer"),
    }
}

struct Parts {
    startup: Startup,
    introductions: Introductions,
    service: Service,
}

/// The tables that were found, or new ones if the application cannot read these.
async fn open_tables(
    config: &RaftConfig,
    stored: (&DataDir, &Checkpoints, &CommitLog),
    kv: Arc<dyn Kv>,
    application: Box<dyn Application>,
) -> Result<Tables, RaftError> {
    let (data_dir, checkpoints, log) = stored;
    match Tables::open(kv, log.clone(), application) {
        Ok(tables) => Ok(tables),
        Err(Unusable { error, application }) => {
            tracing::error!(%error, "tables cannot be read; making them again");
            let (engine, begin) = (&config.engine, first_entry(log));
            let kv = make_again(data_dir, engine, checkpoints, begin, Some(error)).await?;
            let opened = Tables::open(kv, log.clone(), application);
            Ok(opened.map_err(|unusable| unusable.error)?)
        }
    }
}

/// What stands on the disk, and what keeps it.
struct Stored {
    data_dir: Arc<DataDir>,
    log: CommitLog,
    tables: Arc<Mutex<Tables>>,
    applied: Arc<watch::Sender<Option<RaftLogId>>>,
    snapshots: Arc<Snapshots>,
    incoming: Arc<Incoming>,
    state: Arc<State>,
    maintenance: Arc<Maintenance>,
    tables_given_up: bool,
}

/// What every other part needs.
struct Base {
    peers: Peers,
    connections: Connections,
    counters: Arc<Counters>,
    known: watch::Sender<Acquaintances>,
    clocks: Arc<Clocks>,
    fetcher: Fetcher,
    repairer: Repairer,
}

impl Base {
    fn new(config: &RaftConfig, storage: &mut Storage, host: &Host) -> Base {
        let counters = Arc::new(Counters::default());
        let promises = std::mem::take(&mut storage.promises);
        let identity = config.identity.clone();
        let peers = Peers::new(identity, storage.own, promises, &config.members);
        for (broker_id, address) in address_file::read(host, &config.data_dir) {
            peers.addresses().set(broker_id, Some(&address));
        }
        let connections = Connections::new(config.secret.clone());
        let fetcher = Fetcher::new(peers.clone(), connections.clone());
        let own_id = config.identity.broker_id;
        let clocks = Clocks::new(own_id, host.clock.clone(), config.configured_ids());
        let clocks = Arc::new(clocks);
        let (known, receiver) = watch::channel(Acquaintances::new());
        let log = storage.log.clone();
        let repairer = Repairer::new(log, fetcher.clone(), receiver, counters.clone());
        Base {
            peers,
            connections,
            counters,
            known,
            clocks,
            fetcher,
            repairer,
        }
    }
}

impl Parts {
    async fn assemble(
        config: RaftConfig,
        storage: Storage,
        base: Base,
        application: Box<dyn Application>,
    ) -> Result<Parts, RaftError> {
        let Storage {
            data_dir,
            log,
            checkpoints,
            kv,
            tables_given_up,
            ..
        } = storage;
        let tables = open_tables(&config, (&data_dir, &checkpoints, &log), kv, application).await?;
        let (applied_id, membership) = (
            tables.applied().log_id(),
            tables.applied().membership().clone(),
        );
        let applied = Arc::new(watch::channel(applied_id).0);
        let tables = Arc::new(Mutex::new(tables));
        let snapshots = Arc::new(Snapshots::new(SnapshotsParts {
            data_dir: data_dir.clone(),
            log: log.clone(),
            checkpoints,
            engine: config.engine.clone(),
            tables: tables.clone(),
            connections: base.connections.clone(),
            counters: base.counters.clone(),
        })?);
        let state = Arc::new(State::new(StateParts {
            peers: base.peers.clone(),
            configured: config.configured_ids(),
            log: log.clone(),
            data_dir: data_dir.clone(),
            applied: applied.clone(),
            membership,
            checkpoint: snapshots.made(),
            clocks: base.clocks.clone(),
            counters: base.counters.clone(),
        }));
        let incoming = Arc::new(Incoming::new(
            data_dir.clone(),
            log.clone(),
            snapshots.holds(),
            config.log.reserve_bytes,
        ));
        let maintenance_parts = MaintenanceParts {
            state: state.clone(),
            log: log.clone(),
            tables: tables.clone(),
            snapshots: snapshots.clone(),
            incoming: incoming.clone(),
            repairer: base.repairer.clone(),
            known: base.known.subscribe(),
        };
        let maintenance = Arc::new(Maintenance::new(&config, maintenance_parts));
        let stored = Stored {
            data_dir,
            log,
            tables,
            applied,
            snapshots,
            incoming,
            state,
            maintenance,
            tables_given_up,
        };
        Ok(Parts::connect(config, base, stored))
    }

    /// Puts what talks to peers around what is stored.
    fn connect(config: RaftConfig, base: Base, stored: Stored) -> Parts {
        let Stored {
            data_dir,
            log,
            tables,
            applied,
            snapshots,
            incoming,
            state,
            maintenance,
            tables_given_up,
        } = stored;
        let ballot = Ballot::new(state.clone(), log.clone(), data_dir.clone(), config.lease());
        let ballot = Arc::new(ballot);
        let service = Service {
            peers: base.peers.clone(),
            state: state.clone(),
            log: log.clone(),
            snapshots: snapshots.clone(),
            incoming,
            ballot: ballot.clone(),
        };
        let known = base.known.subscribe();
        let introductions = Introductions::new(
            base.peers.clone(),
            base.connections.clone(),
            state.clone(),
            config.configured_ids(),
            base.known,
            data_dir.clone(),
        );
        let startup = Startup {
            config,
            data_dir,
            log,
            tables,
            applied,
            snapshots,
            state,
            peers: base.peers,
            connections: base.connections,
            known,
            fetcher: base.fetcher,
            repairer: base.repairer,
            maintenance,
            ballot,
            asked: AtomicUsize::new(0),
            given_up: GivenUp::new(tables_given_up),
        };
        Parts {
            startup,
            introductions,
            service,
        }
    }

    /// Serves the peer port until shutdown.
    fn serve(
        &self,
        listener: Listener,
        shutdown: Shutdown,
        task: Arc<watch::Sender<()>>,
        beside: impl FnOnce(Router) -> Router,
    ) {
        let options = ServerOptions {
            connections_max: PEER_CONNECTIONS_MAX,
            shutdown_grace_ms: SHUTDOWN_GRACE_MS,
            proof: Proof::Demanded(self.startup.config.secret.clone()),
            ..ServerOptions::default()
        };
        let service = proto::raft::raft_server(self.service.clone());
        let router = beside(server(&options).add_service(service));
        let state = self.startup.state.clone();
        tokio::spawn(async move {
            let _task = task;
            let served = serve(listener, router, options, shutdown.clone()).await;
            if let Err(error) = served
                && !shutdown.is_shut_down()
            {
                state.fail(error.to_string());
            }
        });
    }

    /// Starts the remaining tasks and makes the handle.
    fn run(
        self,
        tasks: watch::Receiver<()>,
        task: Arc<watch::Sender<()>>,
        shutdown: Shutdown,
    ) -> RaftGroup {
        let startup = self.startup;
        let inner = Inner {
            state: startup.state.clone(),
            log: startup.log.clone(),
            repairer: startup.repairer.clone(),
            maintenance: startup.maintenance.clone(),
            connections: startup.connections.clone(),
            peers: startup.peers.clone(),
            propose_timeout: Duration::from_millis(startup.config.propose_timeout_ms),
            tasks,
        };
        let introductions = self.introductions;
        let (introduced, listening) = (task.clone(), shutdown.clone());
        tokio::spawn(async move {
            let _task = introduced;
            introductions.run(listening).await;
        });
        tokio::spawn(async move {
            let _task = task;
            startup.run(shutdown).await;
        });
        RaftGroup {
            inner: Arc::new(inner),
        }
    }
}
