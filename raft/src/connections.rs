//! Connections to peers, one per peer and class of traffic.
//!
//! A vote or a heartbeat must not queue behind megabytes of entries, so each class has a connection
//! of its own. Connections are lazy, shared and kept: openraft makes a client per election round.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use host::network::{ChannelOptions, ClusterSecret, NetworkError};
use proto::raft::raft_client::RaftClient;
use tonic::transport::Channel;

/// Longest wait for a connection to a peer, in milliseconds.
const CONNECT_TIMEOUT_MS: u64 = 1_000;

/// What travels together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Class {
    /// Votes, heartbeats, introductions, leadership transfer: small and urgent.
    Control,
    /// Entries.
    Replication,
    /// Snapshots and repair: large and patient.
    Bulk,
}

/// Every connection of this replica to a peer. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Connections {
    secret: ClusterSecret,
    channels: Arc<Mutex<BTreeMap<(String, Class), Channel>>>,
}

impl Connections {
    /// Connections on which each end proves that it holds `secret`.
    pub(crate) fn new(secret: ClusterSecret) -> Connections {
        Connections {
            secret,
            channels: Arc::default(),
        }
    }

    /// Whether this can be an address.
    pub(crate) fn check(&self, address: &str) -> Result<(), NetworkError> {
        self.client(address, Class::Control).map(drop)
    }

    /// A client over the connection to `address`; connects at the first call.
    pub(crate) fn client(
        &self,
        address: &str,
        class: Class,
    ) -> Result<RaftClient<Channel>, NetworkError> {
        // A map of handles: nothing is half done if a holder panicked.
        let mut channels = self
            .channels
            .lock()
            .unwrap_or_else(|error| error.into_inner());
        let key = (address.to_string(), class);
        if let Some(channel) = channels.get(&key) {
            return Ok(proto::raft::raft_client(channel.clone()));
        }
        let options = ChannelOptions {
            connect_timeout_ms: CONNECT_TIMEOUT_MS,
            secret: Some(self.secret.clone()),
            ..ChannelOptions::default()
        };
        let channel = host::network::channel(address, &options)?;
        channels.insert(key, channel.clone());
        Ok(proto::raft::raft_client(channel))
    }
}
