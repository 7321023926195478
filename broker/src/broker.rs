//! One running broker: its replica, its client port, and the tasks around them.

use std::sync::Arc;
use std::sync::atomic::AtomicU32;
use std::time::Duration;

use futures::future::{FutureExt, join_all};
use gateway::Forwarder;
use host::network::{self, ClusterSecret, Listener, NetworkError, Proof, ServerOptions, ServerTls};
use host::{Host, Shutdown, ShutdownTrigger};
use raft::{Member, RaftConfig, RaftGroup};
use store::{Identity, KvEngine};
use tokio::sync::{Notify, Semaphore};
use tokio::task::JoinHandle;

use crate::admin::inquiry::Inquiries;
use crate::admin::port::AdminPort;
use crate::admin_pool::AdminPool;
use crate::clients::Clients;
use crate::config::{BrokerConfig, MemberConfig};
use crate::disk_space::DiskSpace;
use crate::error::BrokerError;
use crate::grpc::Messaging;
use crate::leadership::Leadership;
use crate::log_time::LogTime;
use crate::machine::{FAMILIES, Machine};
use crate::proposer::{GroupAgreement, Proposer, ProposerConfig};
use crate::pullers::Pullers;
use crate::redelivery::RedeliveryService;
use crate::service::Service;
use crate::view::View;
use crate::{registration, ticker};

/// Longest wait for another replica to lead before this one stops.
const HAND_OVER_MAX: Duration = Duration::from_secs(1);

/// Longest time the replica's tasks may take to end.
const STOP_DURATION_MAX: Duration = Duration::from_secs(10);

/// Connections that operators may have open at the same time.
const ADMIN_CONNECTIONS_MAX: usize = 256;

/// A broker that runs until it is stopped or dropped.
pub struct Broker {
    service: Arc<Service>,
    trigger: ShutdownTrigger,
    server: JoinHandle<Result<(), NetworkError>>,
    /// What ends by itself after the trigger.
    tasks: Vec<JoinHandle<()>>,
    /// Ends when nobody can propose any more.
    proposer: JoinHandle<()>,
}

/// Runs a broker until `shutdown`.
///
/// # Errors
///
/// When it cannot start, and when its replica cannot go on: then the process must end, and end with a
/// failure, because nothing of it can be trusted before a restart has checked its disk.
pub async fn run(config: BrokerConfig, host: Host, shutdown: Shutdown) -> Result<(), BrokerError> {
    let mut broker = Broker::start(config, host).await?;
    let failure = broker.run_until(&shutdown).await;
    broker.stop().await;
    failure.map_or(Ok(()), Err)
}

impl Broker {
    /// Binds the client port, recovers the replica, and serves. Returns before a leader is known.
    pub async fn start(config: BrokerConfig, host: Host) -> Result<Broker, BrokerError> {
        let engine = store::default_engine(&host, FAMILIES);
        Broker::start_with_engine(config, host, engine).await
    }

    /// Like [`Broker::start`], with tables of another engine than the host's own: one that fails on purpose.
    pub async fn start_with_engine(
        config: BrokerConfig,
        host: Host,
        engine: Arc<dyn KvEngine>,
    ) -> Result<Broker, BrokerError> {
        config.validate()?;
        let secret = config.secret().map_err(BrokerError::Secret)?;
        let tls = config.tls()?;
        let listener = Listener::bind(&config.listen).await?;
        let admin_listener = Listener::bind(&config.admin_listen).await?;
        let (trigger, shutdown) = Shutdown::new();
        let admin = AdminPort::for_peers();
        let beside = admin.clone();
        let (machine, view) = Machine::new();
        let group = RaftGroup::start(
            raft_config(&config, engine, secret.clone()),
            host.clone(),
            Box::new(machine),
            shutdown.clone(),
            |router| router.add_service(proto::cluster::broker_admin_server(beside)),
        )
        .await?;
        let pool = AdminPool::new(secret);
        let (service, proposer) = service(config, host, (group, view), pool, shutdown.clone());
        let service = Arc::new(service);
        admin.serve(&service);
        let mut tasks = registration::start(&service);
        tasks.push(tokio::spawn(ticker::run(service.clone())));
        let for_clients = serve_clients(&service, listener, tls.clone());
        let for_operators = serve_operators(&service, admin_listener, tls, &admin);
        let server = tokio::spawn(async move {
            tokio::try_join!(for_clients, for_operators)?;
            Ok(())
        });
        tracing::info!(
            group = service.config.group,
            broker_id = service.own.broker_id,
            address = service.own.client_address,
            "broker serves"
        );
        Ok(Broker {
            service,
            trigger,
            server,
            tasks,
            proposer,
        })
    }

    /// `host:port` at which clients reach this broker.
    pub fn client_address(&self) -> &str {
        &self.service.own.client_address
    }

    /// What is applied here; for tests.
    pub fn view(&self) -> &View {
        &self.service.view
    }

    /// The replica; for tests.
    pub fn group(&self) -> &RaftGroup {
        &self.service.group
    }

    /// Runs until `shutdown`, and then has another replica lead if this one does, so that clients need not wait for an
    /// election. If it cannot go on: why.
    pub async fn run_until(&mut self, shutdown: &Shutdown) -> Option<BrokerError> {
        tokio::select! {
            biased;
            failure = self.failed() => return Some(failure),
            () = shutdown.wait() => {}
        }
        match self.service.group.hand_over(HAND_OVER_MAX).await {
            Ok(None) => {}
            Ok(Some(leader)) => tracing::info!(leader, "handed over before stopping"),
            // There will be an election, as after a crash.
            Err(error) => tracing::warn!(%error, "could not hand over before stopping"),
        }
        self.failed().now_or_never()
    }

    /// Waits until the broker cannot go on.
    pub async fn failed(&mut self) -> BrokerError {
        tokio::select! {
            biased;
            failure = self.service.group.failed() => failure.into(),
            ended = &mut self.server => match ended {
                Ok(Err(error)) => error.into(),
                _ => BrokerError::TaskEnded("a server of the broker's ports"),
            },
        }
    }

    /// Stops, letting calls under way end within the server's grace. The data directory can be opened
    /// again when this returns.
    pub async fn stop(self) {
        let Broker {
            service,
            trigger,
            server,
            tasks,
            proposer,
        } = self;
        trigger.shut_down();
        if !server.is_finished()
            && let Ok(Err(error)) = server.await
        {
            tracing::warn!(%error, "the client port did not close in order");
        }
        let ended = async move {
            service.group.closed().await;
            // A task that panicked has ended too.
            let _ = join_all(tasks).await;
            drop(service);
            let _ = proposer.await;
        };
        if tokio::time::timeout(STOP_DURATION_MAX, ended)
            .await
            .is_err()
        {
            tracing::warn!("the replica did not stop in time");
        }
    }
}

/// The clients' port, until the broker stops.
fn serve_clients(
    service: &Arc<Service>,
    listener: Listener,
    tls: Option<Arc<ServerTls>>,
) -> impl Future<Output = Result<(), NetworkError>> + Send + use<> {
    let options = ServerOptions {
        connections_max: service.config.connections_max as usize,
        tls,
        bounds: Some(service.bounds.clone()),
        // Who passes clients' calls on proves, and is neither held back nor cut for what they do. An operator who takes this
        // broker for a name server hears that it is none.
        proof: Proof::Accepted(service.admin_pool.secret().clone()),
        ..ServerOptions::default()
    };
    let router = network::server(&options)
        .add_service(proto::opaque::messaging_server(Messaging(service.clone())))
        .add_service(proto::cluster::inquiry_server(Inquiries(service.clone())))
        .add_service(proto::redelivery::redelivery_server(RedeliveryService(
            service.clone(),
        )));
    network::serve(listener, router, options, service.shutdown.clone())
}

/// The operators' port, until the broker stops.
fn serve_operators(
    service: &Arc<Service>,
    listener: Listener,
    tls: Option<Arc<ServerTls>>,
    admin: &AdminPort,
) -> impl Future<Output = Result<(), NetworkError>> + Send + use<> {
    let options = ServerOptions {
        connections_max: ADMIN_CONNECTIONS_MAX,
        tls,
        proof: Proof::Demanded(service.admin_pool.secret().clone()),
        ..ServerOptions::default()
    };
    let admin = proto::cluster::broker_admin_server(admin.for_operators());
    let router = network::server(&options).add_service(admin);
    network::serve(listener, router, options, service.shutdown.clone())
}

fn raft_config(
    config: &BrokerConfig,
    engine: Arc<dyn KvEngine>,
    secret: ClusterSecret,
) -> RaftConfig {
    let identity = Identity {
        cluster_id: config.cluster_id.clone(),
        group: config.group.clone(),
        broker_id: config.broker_id,
    };
    let members = config.initial_members().into_iter().map(member).collect();
    let mut raft = RaftConfig::new(
        identity,
        config.data_dir.clone(),
        config.peer_listen.clone(),
        members,
        engine,
        secret,
    );
    raft.log.segment_bytes = config.segment_bytes;
    raft.log.reserve_bytes = config.disk_reserve_bytes;
    raft.heartbeat_interval_ms = config.heartbeat_interval_ms;
    raft.election_timeout_ms_min = config.election_timeout_ms_min;
    raft.election_timeout_ms_max = config.election_timeout_ms_max;
    raft.checkpoint_log_bytes = config.checkpoint_log_bytes;
    raft
}

fn member(member: MemberConfig) -> Member {
    Member {
        broker_id: member.broker_id,
        peer_address: member.peer_address,
        client_address: member.client_address,
    }
}

fn service(
    config: BrokerConfig,
    host: Host,
    (group, view): (RaftGroup, View),
    admin_pool: AdminPool,
    shutdown: Shutdown,
) -> (Service, JoinHandle<()>) {
    let proposer_config = ProposerConfig {
        entry_bytes_target: config.entry_bytes_target as usize,
        proposals_inflight_max: config.proposals_inflight_max as usize,
        inflight_bytes_max: config.inflight_bytes_max,
        inflight_requests_max: config.inflight_requests_max as usize,
        dedup_window_ms: config.dedup_window_ms,
        dedup_bytes_max: config.dedup_bytes_max,
    };
    let agreement = GroupAgreement {
        group: group.clone(),
        view: view.clone(),
    };
    let leader_wait = Duration::from_millis(config.leader_wait_ms);
    let clocks = group.clone();
    let agreed = Box::new(move || clocks.clocks().agreed_ms);
    let leadership = group.leadership();
    let leads = Box::new(move || {
        let leadership = leadership.borrow();
        leadership.serving.then_some(leadership.term)
    });
    let log_time = Arc::new(LogTime::new(host.clock.clone(), agreed, leads));
    let (proposer, worker) = Proposer::start(proposer_config, agreement, log_time.clone());
    let service = Service {
        own: member(config.own_member()),
        proposer,
        leadership: Leadership::new(group.leadership(), config.broker_id, leader_wait),
        forwarder: Forwarder::proving(admin_pool.secret().clone()),
        admin_pool,
        clients: Clients::new(
            Duration::from_millis(config.client_expiry_ms),
            config.clients_max as usize,
        ),
        // A pull that waits for a message is heard of only when it ends.
        pullers: Pullers::new(Duration::from_millis(
            (config.client_expiry_ms).saturating_add(config.long_polling_ms_max),
        )),
        disk_space: DiskSpace::new(
            config
                .disk_reserve_bytes
                .saturating_add(config.segment_bytes),
        ),
        bounds: config.bounds(),
        long_polls: Semaphore::new(config.long_polls_max as usize),
        log_time,
        queue_turn: AtomicU32::new(0),
        members_changed: Notify::new(),
        started: tokio::time::Instant::now(),
        config,
        host,
        group,
        view,
        shutdown,
    };
    (service, worker)
}
