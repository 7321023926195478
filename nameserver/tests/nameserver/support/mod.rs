//! Name servers in one process over loopback, with a network between them that can be cut.
#![allow(
    unreachable_pub,
    missing_docs,
    clippy::unwrap_used,
    reason = "part of a test"
)]

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::StreamExt;
use futures::stream::BoxStream;
use host::network::{self, ChannelOptions, Listener, Proof, ServerOptions};
use host::{Host, Shutdown, ShutdownTrigger};
use nameserver::route_table::RouteTable;
use nameserver::{NameServer, NameServerConfig};
use proto::cluster::{
    self, GossipRequest, GossipResponse, NameServerClient, QueryTableRequest, QueryTableResponse,
    RegisterRequest, RegisterResponse, Registration, Replica, TopicRoute,
};
use tonic::{Request, Response, Status};

/// Nothing in these tests takes this long unless it hangs.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// A lease that outlasts any test.
pub const LONG_LEASE_MS: u64 = 100_000;

/// Which name servers cannot talk to which.
#[derive(Clone, Default)]
pub struct Cuts(Arc<Mutex<BTreeSet<(String, String)>>>);

impl Cuts {
    /// From now on nothing passes between the two, in either direction.
    pub fn cut(&self, one: &Node, other: &Node) {
        let mut cuts = self.0.lock().unwrap();
        cuts.insert((one.address.clone(), other.address.clone()));
        cuts.insert((other.address.clone(), one.address.clone()));
    }

    pub fn heal(&self) {
        self.0.lock().unwrap().clear();
    }

    fn holds(&self, from: &str, to: &str) -> bool {
        self.0
            .lock()
            .unwrap()
            .contains(&(from.to_owned(), to.to_owned()))
    }
}

/// What other name servers reach a name server through. Requests across a cut get no answer, as on a real network.
struct Gate {
    address: String,
    cuts: Cuts,
    inner: Arc<Mutex<Option<NameServerClient>>>,
}

#[tonic::async_trait]
impl cluster::name_server_server::NameServer for Gate {
    async fn gossip(
        &self,
        request: Request<GossipRequest>,
    ) -> Result<Response<GossipResponse>, Status> {
        let from = request.get_ref().from.clone();
        if self.cuts.holds(&from, &self.address) {
            std::future::pending::<()>().await;
        }
        let inner = self.inner.lock().unwrap().clone();
        let mut inner = inner.ok_or_else(|| Status::unavailable("not started"))?;
        let answer = inner.gossip(request.into_inner()).await;
        if self.cuts.holds(&from, &self.address) {
            std::future::pending::<()>().await;
        }
        answer
    }

    async fn register(
        &self,
        _: Request<RegisterRequest>,
    ) -> Result<Response<RegisterResponse>, Status> {
        Err(Status::unimplemented("only gossip passes"))
    }

    async fn query_table(
        &self,
        _: Request<QueryTableRequest>,
    ) -> Result<Response<QueryTableResponse>, Status> {
        Err(Status::unimplemented("only gossip passes"))
    }

    type WatchTableStream = BoxStream<'static, Result<QueryTableResponse, Status>>;

    async fn watch_table(
        &self,
        _: Request<QueryTableRequest>,
    ) -> Result<Response<Self::WatchTableStream>, Status> {
        Err(Status::unimplemented("only gossip passes"))
    }
}

/// A name server behind a gate. The gate outlives restarts.
pub struct Node {
    /// The gate's address: what the others know.
    pub address: String,
    inner: Arc<Mutex<Option<NameServerClient>>>,
    pub running: Option<Running>,
    _gate: ShutdownTrigger,
}

/// One run of a name server. Dropping it stops it.
pub struct Running {
    pub server: NameServer,
    pub client: NameServerClient,
    trigger: ShutdownTrigger,
}

/// Quick rounds, and leases as short as a test asks for.
pub fn config() -> NameServerConfig {
    NameServerConfig {
        listen: "127.0.0.1:0".to_owned(),
        secret_file: host::testing::secret_file(),
        gossip_interval_ms: 30,
        gossip_timeout_ms: 200,
        fill_wait_ms: 1_000,
        lease_ms_min: 1,
        ..NameServerConfig::default()
    }
}

impl Running {
    pub async fn start(config: NameServerConfig) -> Running {
        let (trigger, shutdown) = Shutdown::new();
        let server = NameServer::start(config, Host::real(), shutdown)
            .await
            .unwrap();
        let address = server.address().to_string();
        let options = ChannelOptions {
            secret: Some(host::testing::cluster_secret()),
            ..ChannelOptions::default()
        };
        let channel = network::channel(&address, &options).unwrap();
        Running {
            server,
            client: cluster::name_server_client(channel),
            trigger,
        }
    }

    pub async fn stop(self) {
        self.trigger.shut_down();
        soon(self.server.stopped()).await.unwrap();
    }

    pub async fn register(&self, registration: Registration, lease_ms: u64) -> RegisterResponse {
        let request = RegisterRequest {
            registration: Some(registration),
            lease_ms,
        };
        soon(self.client.clone().register(request))
            .await
            .unwrap()
            .into_inner()
    }

    pub async fn query(&self, known_instance: u64, known_version: u64) -> QueryTableResponse {
        let request = QueryTableRequest {
            known_instance,
            known_version,
            ..Default::default()
        };
        soon(self.client.clone().query_table(request))
            .await
            .unwrap()
            .into_inner()
    }

    /// Waits until the table is as `wanted`.
    pub async fn until(&self, what: &str, wanted: impl Fn(&RouteTable) -> bool) {
        let mut tables = self.server.tables();
        let reached = tokio::time::timeout(PATIENCE, tables.wait_for(|table| wanted(table))).await;
        assert!(reached.is_ok(), "never {what}: {:?}", self.server.table());
    }
}

impl Node {
    async fn new(cuts: &Cuts) -> Node {
        let listener = Listener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_address().to_string();
        let inner = Arc::default();
        let gate = Gate {
            address: address.clone(),
            cuts: cuts.clone(),
            inner: Arc::clone(&inner),
        };
        let (trigger, shutdown) = Shutdown::new();
        let options = ServerOptions {
            shutdown_grace_ms: 1,
            proof: Proof::Accepted(host::testing::cluster_secret()),
            ..ServerOptions::default()
        };
        let router = network::server(&options).add_service(cluster::name_server_server(gate));
        tokio::spawn(network::serve(listener, router, options, shutdown));
        Node {
            address,
            inner,
            running: None,
            _gate: trigger,
        }
    }

    /// Starts the name server behind the gate.
    pub async fn start(&mut self, peers: &[String]) {
        self.start_with(peers, |_| {}).await;
    }

    /// Starts it with settings of its own.
    pub async fn start_with(&mut self, peers: &[String], set: impl FnOnce(&mut NameServerConfig)) {
        let peers = peers
            .iter()
            .filter(|peer| **peer != self.address)
            .cloned()
            .collect();
        let mut config = NameServerConfig {
            advertise: self.address.clone(),
            peers,
            ..config()
        };
        set(&mut config);
        let running = Running::start(config).await;
        *self.inner.lock().unwrap() = Some(running.client.clone());
        self.running = Some(running);
    }

    pub async fn stop(&mut self) {
        *self.inner.lock().unwrap() = None;
        self.running.take().unwrap().stop().await;
    }

    pub fn run(&self) -> &Running {
        self.running.as_ref().unwrap()
    }
}

/// `count` name servers that do not run yet.
pub async fn nodes(count: usize) -> (Vec<Node>, Vec<String>, Cuts) {
    let cuts = Cuts::default();
    let mut nodes = Vec::new();
    for _ in 0..count {
        nodes.push(Node::new(&cuts).await);
    }
    let addresses = nodes.iter().map(|node| node.address.clone()).collect();
    (nodes, addresses, cuts)
}

/// `count` name servers that run and know each other.
pub async fn started(count: usize) -> (Vec<Node>, Cuts) {
    let (mut nodes, addresses, cuts) = nodes(count).await;
    for node in &mut nodes {
        node.start(&addresses).await;
    }
    (nodes, cuts)
}

/// A group of three replicas at addresses of no consequence, with the topic `t`.
pub fn registration(group: &str, epoch: u64, version: u64, leader: u64) -> Registration {
    let replica = |broker_id: u64| Replica {
        broker_id,
        client_address: format!("127.0.0.1:{}", 2_000 + broker_id),
        peer_address: String::new(),
    };
    Registration {
        group: group.into(),
        epoch,
        version,
        leader,
        replicas: (1..=3).map(replica).collect(),
        topics: vec![topic("t")],
        cluster_id: "c".into(),
    }
}

pub fn topic(name: &str) -> TopicRoute {
    TopicRoute {
        name: name.into(),
        queue_count: 2,
        message_type: 0,
        first_queue: 0,
    }
}

/// Who leads what, at which epoch.
pub fn leaders(table: &RouteTable) -> Vec<(String, u64, u64)> {
    let leader = |registration: &Arc<Registration>| {
        (
            registration.group.clone(),
            registration.epoch,
            registration.leader,
        )
    };
    table.registrations().iter().map(leader).collect()
}

pub fn led(group: &str, epoch: u64, leader: u64) -> (String, u64, u64) {
    (group.to_owned(), epoch, leader)
}

/// Fails the test instead of hanging it.
pub async fn soon<T>(what: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, what).await.expect("in time")
}

/// The next item of a stream that must not end.
pub async fn next<T>(stream: &mut (impl futures::Stream<Item = Result<T, Status>> + Unpin)) -> T {
    soon(stream.next())
        .await
        .expect("the stream goes on")
        .unwrap()
}
