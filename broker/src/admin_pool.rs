//! Channels to the other brokers for what the gateway does not forward, one per address, opened when needed.

use std::collections::BTreeMap;
use std::sync::Mutex;

use host::network::{self, ChannelOptions};
use proto::cluster::BrokerAdminClient;
use proto::redelivery::RedeliveryClient;
use tonic::transport::Channel;
use tonic::{Request, Status};

/// Addresses remembered at most; a group has fewer replicas than this.
const CHANNELS_MAX: usize = 16;

/// The channels.
#[derive(Debug, Default)]
pub(crate) struct AdminPool {
    open: Mutex<BTreeMap<String, Channel>>,
}

impl AdminPool {
    /// A client of the administration service of the broker at `address`.
    pub(crate) fn client(&self, address: &str) -> Result<BrokerAdminClient, Status> {
        self.channel(address)
            .map(proto::cluster::broker_admin_client)
    }

    /// A client of the redelivery service of the broker at `address`.
    pub(crate) fn redelivery_client(&self, address: &str) -> Result<RedeliveryClient, Status> {
        self.channel(address)
            .map(proto::redelivery::redelivery_client)
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
        let channel = network::channel(address, &ChannelOptions::default())
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
