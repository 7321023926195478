//! A replica as configuration and clients know it.

use proto::raft as wire;
use serde::{Deserialize, Serialize};

use crate::types::Node;

/// One replica of the broker group.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Member {
    /// Its number in the group, above 0. A number is never used again for another data directory.
    pub broker_id: u64,
    /// `host:port` that its peers connect to.
    pub peer_address: String,
    /// `host:port` that clients are told.
    pub client_address: String,
}

impl Member {
    pub(crate) fn from_node(broker_id: u64, node: &Node) -> Member {
        Member {
            broker_id,
            peer_address: node.peer_address.clone(),
            client_address: node.client_address.clone(),
        }
    }

    pub(crate) fn from_status(status: &wire::MemberStatus) -> Member {
        Member {
            broker_id: status.broker_id,
            peer_address: status.peer_address.clone(),
            client_address: status.client_address.clone(),
        }
    }

    pub(crate) fn to_node(&self, replica_id: u64) -> Node {
        Node {
            peer_address: self.peer_address.clone(),
            client_address: self.client_address.clone(),
            replica_id,
        }
    }
}
