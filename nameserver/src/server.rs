//! A running name server.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use gateway::Forwarder;
use host::network::{
    self, Bounds, BoundsOptions, ClusterSecret, Listener, Proof, ServerOptions, ServerTls,
};
use host::{Host, Shutdown};
use proto::{cluster, opaque};
use tokio::task::JoinHandle;
use tracing::info;

use crate::config::NameServerConfig;
use crate::directory::Directory;
use crate::error::NameServerError;
use crate::gossip::Gossip;
use crate::messaging::Messaging;
use crate::registry::RegistryLimits;
use crate::relay::Relay;
use crate::route_table::RouteTable;
use crate::service::Service;

/// What is held of the requests and answers of those who have not proved: what they ask here is little, and what goes on to
/// brokers is at most a large send.
const BOUNDS: BoundsOptions = BoundsOptions {
    bytes_max: 128 << 20,
    request_bytes_max: 32 << 20,
    answer_bytes_max: 4 << 20,
};

/// Serves until `shutdown`.
///
/// # Errors
///
/// The configuration cannot work, the address cannot be listened on, or the server failed.
pub async fn run(
    config: NameServerConfig,
    host: Host,
    shutdown: Shutdown,
) -> Result<(), NameServerError> {
    NameServer::start(config, host, shutdown)
        .await?
        .stopped()
        .await
}

/// A name server that was started. Dropping the handle does not stop it; the shutdown does.
pub struct NameServer {
    address: SocketAddr,
    directory: Arc<Directory>,
    gossip: Arc<Gossip>,
    task: JoinHandle<Result<(), NameServerError>>,
}

impl NameServer {
    /// Listens, and begins to serve. Clients are answered once the table is filled from a peer, or after
    /// `fill_wait_ms`; brokers and other name servers at once.
    ///
    /// # Errors
    ///
    /// The configuration cannot work, or the address cannot be listened on.
    pub async fn start(
        config: NameServerConfig,
        host: Host,
        shutdown: Shutdown,
    ) -> Result<NameServer, NameServerError> {
        config.validate()?;
        let secret = config.secret()?;
        let tls = config.tls()?;
        let listener = Listener::bind(&config.listen).await?;
        let address = listener.local_address();
        let own = match config.advertise.as_str() {
            "" => address.to_string(),
            advertise => advertise.to_owned(),
        };
        let limits = RegistryLimits {
            cluster_id: config.cluster_id.clone(),
            groups_max: config.groups_max,
            lease_ms_min: config.lease_ms_min,
            lease_ms_max: config.lease_ms_max,
        };
        let fill_wait = Duration::from_millis(config.fill_wait_ms);
        let directory = Arc::new(Directory::new(limits, fill_wait, host.clock));
        let gossip = Arc::new(Gossip::new(&own, &config, &secret, directory.clone()));
        info!(%address, advertise = own, peers = ?config.peers, "name server listens");
        let work = serve(
            config,
            (listener, tls, secret),
            directory.clone(),
            gossip.clone(),
            shutdown,
        );
        let task = tokio::spawn(work);
        Ok(NameServer {
            address,
            directory,
            gossip,
            task,
        })
    }

    /// The address it listens on; tells the port if port 0 was asked for.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The table it has now.
    pub fn table(&self) -> Arc<RouteTable> {
        self.directory.table()
    }

    /// The table it has now, and each later one.
    pub fn tables(&self) -> tokio::sync::watch::Receiver<Arc<RouteTable>> {
        self.directory.watch()
    }

    /// The name servers it tells others of, itself first.
    pub fn members(&self) -> Vec<String> {
        self.gossip.members()
    }

    /// Waits until it has stopped.
    ///
    /// # Errors
    ///
    /// It stopped without being told to.
    pub async fn stopped(self) -> Result<(), NameServerError> {
        self.task.await?
    }
}

async fn serve(
    config: NameServerConfig,
    (listener, tls, secret): (Listener, Option<Arc<ServerTls>>, ClusterSecret),
    directory: Arc<Directory>,
    gossip: Arc<Gossip>,
    shutdown: Shutdown,
) -> Result<(), NameServerError> {
    let options = ServerOptions {
        connections_max: config.connections_max,
        tls,
        bounds: Some(Bounds::new(&BOUNDS)),
        proof: Proof::Accepted(secret.clone()),
        ..ServerOptions::default()
    };
    let service = Service::new(
        directory.clone(),
        gossip.clone(),
        config.watchers_max,
        shutdown.clone(),
    );
    let relay = Relay {
        directory: directory.clone(),
        forwarder: Forwarder::proving(secret),
        shutdown: shutdown.clone(),
    };
    let router = network::server(&options)
        .add_service(network::guarded(cluster::name_server_server(service)))
        .add_service(opaque::messaging_server(Messaging::new(relay)));
    let gossiping = async {
        gossip
            .fill(Duration::from_millis(config.fill_wait_ms))
            .await;
        gossip.run(&shutdown).await;
    };
    let serving = network::serve(listener, router, options, shutdown.clone());
    // One task for all: if any part has a defect, the process ends instead of limping on.
    let (served, (), ()) = tokio::join!(serving, gossiping, directory.expire_until(&shutdown));
    Ok(served?)
}
