//! The leader tells its name servers: who leads, at which term, with which topics.
#![allow(
    clippy::unwrap_used,
    clippy::too_many_lines,
    reason = "a story told in one piece; what fails, panics"
)]

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::support::{Cluster, PATIENCE};
use futures::StreamExt;
use futures::stream::{self, BoxStream};
use host::network::{self, Listener, Proof, ServerOptions};
use host::{Shutdown, ShutdownTrigger};
use proto::cluster::name_server_server::NameServer;
use proto::cluster::{
    GossipRequest, GossipResponse, QueryTableRequest, QueryTableResponse, RegisterRequest,
    RegisterResponse,
};
use tokio::sync::mpsc;
use tonic::{Request, Response, Status};

/// Takes down what is registered; pretends to hold `newer` versions of every term.
#[derive(Clone)]
struct Recorder {
    registered: mpsc::UnboundedSender<RegisterRequest>,
    newer: Arc<AtomicU64>,
}

#[tonic::async_trait]
impl NameServer for Recorder {
    async fn register(
        &self,
        request: Request<RegisterRequest>,
    ) -> Result<Response<RegisterResponse>, Status> {
        let request = request.into_inner();
        let registration = request.registration.clone().unwrap();
        let _ = self.registered.send(request);
        let version = self.newer.load(Ordering::Relaxed);
        Ok(Response::new(RegisterResponse {
            accepted: registration.version > version,
            epoch: registration.epoch,
            version,
            ..Default::default()
        }))
    }

    async fn gossip(&self, _: Request<GossipRequest>) -> Result<Response<GossipResponse>, Status> {
        Ok(Response::new(Default::default()))
    }

    async fn query_table(
        &self,
        _: Request<QueryTableRequest>,
    ) -> Result<Response<QueryTableResponse>, Status> {
        Ok(Response::new(Default::default()))
    }

    type WatchTableStream = BoxStream<'static, Result<QueryTableResponse, Status>>;

    async fn watch_table(
        &self,
        _: Request<QueryTableRequest>,
    ) -> Result<Response<Self::WatchTableStream>, Status> {
        Ok(Response::new(stream::pending().boxed()))
    }
}

struct Registry {
    address: String,
    newer: Arc<AtomicU64>,
    registered: mpsc::UnboundedReceiver<RegisterRequest>,
    _trigger: ShutdownTrigger,
}

impl Registry {
    async fn start() -> Registry {
        let (sender, registered) = mpsc::unbounded_channel();
        let newer = Arc::new(AtomicU64::new(0));
        let (trigger, shutdown) = Shutdown::new();
        let listener = Listener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_address().to_string();
        let options = ServerOptions {
            proof: Proof::Accepted(host::testing::cluster_secret()),
            ..ServerOptions::default()
        };
        let service = Recorder {
            registered: sender,
            newer: newer.clone(),
        };
        let router = network::server(&options).add_service(network::guarded(
            proto::cluster::name_server_server(service),
        ));
        tokio::spawn(network::serve(listener, router, options, shutdown));
        Registry {
            address,
            newer,
            registered,
            _trigger: trigger,
        }
    }

    /// Waits for a registration that is as wanted.
    async fn wait_for(&mut self, wanted: impl Fn(&RegisterRequest) -> bool) -> RegisterRequest {
        let wait = async {
            loop {
                let request = self.registered.recv().await.unwrap();
                if wanted(&request) {
                    return request;
                }
            }
        };
        tokio::time::timeout(PATIENCE, wait)
            .await
            .expect("registered in time")
    }
}

fn topics(request: &RegisterRequest) -> Vec<&str> {
    let registration = request.registration.as_ref().unwrap();
    registration
        .topics
        .iter()
        .map(|topic| &*topic.name)
        .collect()
}

/// Catches a route that is never registered, stays as it was, or ends because nobody renews it.
#[tokio::test]
async fn changes_are_registered_at_once_and_renewed() {
    let mut registry = Registry::start().await;
    let address = registry.address.clone();
    // The lease is too long for a renewal to bring the changes.
    let cluster = Cluster::start(1, |config| {
        // One of them never answers, and must not hold up the other.
        config.name_servers = vec!["127.0.0.1:1".to_owned(), address.clone()];
        config.registration_lease_ms = 3_000_000;
    })
    .await;
    let client = cluster.leader_client().await;
    let first = registry.wait_for(|_| true).await;
    assert_eq!(first.lease_ms, 3_000_000);
    let registration = first.registration.unwrap();
    assert_eq!(
        (&*registration.group, &*registration.cluster_id),
        ("broker-a", "test")
    );
    assert_eq!((registration.leader, registration.replicas.len()), (1, 1));
    assert_eq!(registration.replicas[0].client_address, cluster.address(0));
    client.create_topic("orders", 3).await;
    let second = registry
        .wait_for(|request| topics(request) == ["orders"])
        .await;
    let second = second.registration.unwrap();
    assert_eq!(second.topics[0].queue_count, 3);
    assert!((second.epoch, second.version) > (registration.epoch, registration.version));
}

/// Catches a lease that runs out under a living leader.
#[tokio::test]
async fn a_registration_is_renewed_within_its_lease() {
    let mut registry = Registry::start().await;
    let address = registry.address.clone();
    let _cluster = Cluster::start(1, |config| {
        config.name_servers = vec![address.clone()];
        config.registration_lease_ms = 300;
    })
    .await;
    let first = registry.wait_for(|_| true).await.registration.unwrap();
    for _ in 0..3 {
        let renewed = registry.wait_for(|_| true).await.registration.unwrap();
        assert_eq!(
            (renewed.epoch, renewed.version),
            (first.epoch, first.version)
        );
    }
}

/// Catches a leader that gives up because a name server holds a higher version of its own term.
#[tokio::test]
async fn a_newer_version_is_overtaken() {
    let mut registry = Registry::start().await;
    registry.newer.store(41, Ordering::Relaxed);
    let address = registry.address.clone();
    let _cluster = Cluster::start(1, |config| {
        config.name_servers = vec![address.clone()];
        config.registration_lease_ms = 30_000;
    })
    .await;
    let higher = |request: &RegisterRequest| request.registration.as_ref().unwrap().version > 41;
    registry.wait_for(higher).await;
}

/// Catches a new leader that waits for the old one's lease before it registers.
#[tokio::test]
async fn a_new_leader_registers_with_its_term() {
    let mut registry = Registry::start().await;
    let address = registry.address.clone();
    let mut cluster = Cluster::start(3, |config| {
        config.name_servers = vec![address.clone()];
        config.registration_lease_ms = 3_000_000;
    })
    .await;
    let old = cluster.leader().await;
    let old_id = cluster.configs[old].broker_id;
    let by = |request: &RegisterRequest| request.registration.as_ref().unwrap().leader;
    let first = registry
        .wait_for(|request| by(request) == old_id)
        .await
        .registration
        .unwrap();
    cluster.stop(old).await;
    let new = cluster.leader().await;
    let new_id = cluster.configs[new].broker_id;
    let second = registry
        .wait_for(|request| by(request) == new_id)
        .await
        .registration
        .unwrap();
    assert!(second.epoch > first.epoch);
}
