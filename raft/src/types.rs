//! openraft's type parameters, chosen once, and plain names for the types used in this crate.

use std::fmt;

use bytes::Bytes;
use openraft::type_config::alias;
use serde::{Deserialize, Serialize};

use crate::runtime::Runtime;

/// What a proposer wants in the log: opaque here, but for the empty one, which no application gets.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Payload(pub Bytes);

impl Payload {
    /// Has the log begin a segment with this entry.
    pub(crate) const ROLL: Payload = Payload(Bytes::new());

    pub(crate) fn is_roll(&self) -> bool {
        self.0.is_empty()
    }
}

impl fmt::Debug for Payload {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "[{} bytes]", self.0.len())
    }
}

impl fmt::Display for Payload {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, formatter)
    }
}

/// What applying an entry answers to its proposer: opaque here.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Reply(pub Bytes);

/// What the membership in the log says of one replica.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Node {
    /// `host:port` that peers connect to.
    pub peer_address: String,
    /// `host:port` that clients are told.
    pub client_address: String,
    /// The data directory that made this replica's promises; another one must not speak for it.
    pub replica_id: u64,
}

openraft::declare_raft_types!(
    /// One leader per term, one broker group per process.
    pub(crate) TypeConfig:
        D = Payload,
        R = Reply,
        NodeId = u64,
        Node = Node,
        LeaderId = openraft::impls::leader_id_std::LeaderId<Self::Term, Self::NodeId>,
        AsyncRuntime = Runtime,
);

pub(crate) type RaftEntry = alias::EntryOf<TypeConfig>;
pub(crate) type RaftLogId = alias::LogIdOf<TypeConfig>;
pub(crate) type RaftVote = alias::VoteOf<TypeConfig>;
pub(crate) type RaftMembership = openraft::Membership<u64, Node>;
pub(crate) type StoredMembership = alias::StoredMembershipOf<TypeConfig>;
pub(crate) type SnapshotMeta = alias::SnapshotMetaOf<TypeConfig>;
