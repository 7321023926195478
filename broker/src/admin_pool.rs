//! Channels to other servers for what the gateway does not forward, one per address, opened when needed.
//!
//! All of them prove that they hold the cluster's secret: what a client asked was counted where it came in, and says whose
//! it is.

use std::collections::BTreeMap;
use std::sync::Mutex;

use host::network::{self, ChannelOptions, ClusterSecret};
use proto::cluster::{BrokerAdminClient, InquiryClient, NameServerClient};
use proto::redelivery::RedeliveryClient;
use tonic::transport::Channel;
use tonic::{Request, Status};

/// Addresses remembered at most.
const CHANNELS_MAX: usize = 64;

/// Longest wait for a connection, in milliseconds; an address that needs longer is as good as dead.
const CONNECT_TIMEOUT_MS: u64 = 1_500;

/// The channels.
#[derive(Debug)]
pub(crate) struct AdminPool {
    secret: ClusterSecret,
    open: Mutex<BTreeMap<String, Channel>>,
}

impl AdminPool {
    /// Proves with this secret.
    pub(crate) fn new(secret: ClusterSecret) -> AdminPool {
        AdminPool {
            secret,
            open: Mutex::default(),
        }
    }

    /// What this broker proves with.
    pub(crate) fn secret(&self) -> &ClusterSecret {
        &self.secret
    }

    /// A client of the administration service of the broker whose peer port is at `address`.
    pub(crate) fn client(&self, address: &str) -> Result<BrokerAdminClient, Status> {
        self.channel(address)
            .map(proto::cluster::broker_admin_client)
    }

    /// A client of the name server at `address`.
    pub(crate) fn name_server_client(&self, address: &str) -> Result<NameServerClient, Status> {
        self.channel(address)
            .map(proto::cluster::name_server_client)
    }

    /// A client of the redelivery service of the broker whose client port is at `address`.
    pub(crate) fn redelivery_client(&self, address: &str) -> Result<RedeliveryClient, Status> {
        self.channel(address)
            .map(proto::redelivery::redelivery_client)
    }

    /// A client of what SDKs ask the broker whose client port is at `address`.
    pub(crate) fn inquiry_client(&self, address: &str) -> Result<InquiryClient, Status> {
        self.channel(address).map(proto::cluster::inquiry_client)
    }

    fn channel(&self, address: &str) -> Result<Channel, Status> {
        let mut open = self
            .open
            .lock()
            .expect("nothing panics while the pool is locked");
        if let Some(channel) = open.get(address) {
            return Ok(channel.clone());
        }
        if open.len() >= CHANNELS_MAX {
            open.clear();
        }
        let options = ChannelOptions {
            connect_timeout_ms: CONNECT_TIMEOUT_MS,
            secret: Some(self.secret.clone()),
            ..ChannelOptions::default()
        };
        let channel = network::channel(address, &options)
            .map_err(|error| Status::unavailable(error.to_string()))?;
        open.insert(address.to_owned(), channel.clone());
        Ok(channel)
    }
}

/// Counts one more hop, or refuses to go on in a circle.
pub(crate) fn onward<M>(request: &mut Request<M>) -> Result<(), Status> {
    let counted = request
        .metadata()
        .get(gateway::HOPS)
        .and_then(|value| value.to_str().ok());
    let hops: u32 = counted.and_then(|text| text.parse().ok()).unwrap_or(0);
    if hops >= gateway::HOPS_MAX {
        return Err(Status::unavailable(format!(
            "the call was forwarded {hops} times"
        )));
    }
    request
        .metadata_mut()
        .insert(gateway::HOPS, (hops + 1).into());
    Ok(())
}
