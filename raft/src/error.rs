//! What can go wrong, one enum per operation.

use std::io;
use std::path::PathBuf;

use host::network::NetworkError;
use store::StoreError;
use thiserror::Error;

use crate::member::Member;

/// The replica cannot start, or cannot go on. The process must end with a failure.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum RaftError {
    /// A setting is outside its range, or two settings contradict each other.
    #[error("invalid raft setting {setting}: {rule}")]
    Config {
        /// Name of the setting.
        setting: &'static str,
        /// The rule that it breaks.
        rule: String,
    },
    /// The disk or what is on it.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The peer port.
    #[error(transparent)]
    Network(#[from] NetworkError),
    /// A file of this crate could not be read or written.
    #[error("cannot {verb} {path}: {source}", path = path.display())]
    File {
        /// What was tried.
        verb: &'static str,
        /// On which file.
        path: PathBuf,
        /// What the disk said.
        source: io::Error,
    },
    /// A file of this crate holds something else than was written.
    #[error("{path} is damaged: {detail}", path = path.display())]
    Damaged {
        /// Which file.
        path: PathBuf,
        /// What is wrong with it.
        detail: String,
    },
    /// Another live process uses this broker id.
    #[error(
        "broker id {broker_id} is in use: {peer} hears from another process with this id ({detail})"
    )]
    DuplicateBroker {
        /// The id in question.
        broker_id: u64,
        /// Address of the peer that refused.
        peer: String,
        /// What the peer said.
        detail: String,
    },
    /// The data directory is not the one that this broker id joined the group with.
    #[error(
        "the data directory of broker {broker_id} is not the one it joined group {group} with: what it promised is gone, so it must not vote again; start a broker with an unused broker_id and an empty data_dir in its place, then `raftmq group replace --group {group} {broker_id} HOST:PORT` with that broker's peer address"
    )]
    WipedReplica {
        /// The id in question.
        broker_id: u64,
        /// Its broker group.
        group: String,
    },
    /// The data directory is older than what it has promised.
    #[error(
        "the data directory of broker {broker_id} is an older copy of what it was ({detail}): what it promised since is gone, so it must not vote again; start a broker with an unused broker_id and an empty data_dir in its place, then `raftmq group replace --group {group} {broker_id} HOST:PORT` with that broker's peer address; if so many replicas were put back that none leads, `raftmq log restore` makes a group of the newest data directory"
    )]
    RolledBack {
        /// The id in question.
        broker_id: u64,
        /// Its broker group.
        group: String,
        /// What does not fit.
        detail: String,
    },
    /// A peer belongs to another cluster or group.
    #[error("{peer} belongs to another group: {detail}")]
    ForeignPeer {
        /// Address of the peer.
        peer: String,
        /// What it said it is.
        detail: String,
    },
    /// Members were configured with different member lists.
    #[error("{peer} is configured with members {theirs:?}, this replica with {ours:?}")]
    MembersDiffer {
        /// Address of the peer.
        peer: String,
        /// The broker ids it was configured with.
        theirs: Vec<u64>,
        /// The broker ids this replica was configured with.
        ours: Vec<u64>,
    },
    /// The replica stopped because going on would not be safe.
    #[error("replica stopped: {reason}")]
    Failed {
        /// Why.
        reason: String,
    },
    /// It was told to stop.
    #[error("replica is shutting down")]
    ShutDown,
}

/// Why a proposal was not, or perhaps not, carried out.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum ProposeError {
    /// Nothing was proposed: another replica leads, if anyone.
    #[error("not the leader of the group")]
    NotLeader {
        /// Who leads, as far as this replica knows.
        leader: Option<Member>,
    },
    /// Nothing was proposed: this leader has not heard from a majority lately, or has just been
    /// elected. Worth trying again at once.
    #[error("no majority of the group answers")]
    NoQuorum,
    /// Nothing was proposed: the disk has no room left but what is held in reserve.
    #[error("disk is full")]
    Full,
    /// Nothing was proposed: the body is larger than an entry may be.
    #[error("proposal of {bytes} bytes is larger than the maximum of {bytes_max}")]
    TooLarge {
        /// Its size.
        bytes: usize,
        /// The largest size.
        bytes_max: usize,
    },
    /// It may or may not have been committed, now or later.
    #[error("outcome unknown: {reason}")]
    Unknown {
        /// Why it is not known.
        reason: String,
    },
    /// The replica is stopping or has failed; nothing was proposed.
    #[error("replica has stopped")]
    Stopped,
}

impl ProposeError {
    /// Whether the same proposal may be made again without doing it twice.
    pub fn is_retriable(&self) -> bool {
        matches!(
            self,
            ProposeError::NotLeader { .. } | ProposeError::NoQuorum | ProposeError::Full
        )
    }
}

/// Why the membership, or the leader, was not changed.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum ChangeError {
    /// Only the leader can.
    #[error("not the leader of the group")]
    NotLeader {
        /// Who leads, as far as this replica knows.
        leader: Option<Member>,
    },
    /// The change is not allowed now, or not at all.
    #[error("change refused: {reason}")]
    Refused {
        /// Why.
        reason: String,
    },
    /// It may or may not have happened.
    #[error("outcome unknown: {reason}")]
    Unknown {
        /// Why it is not known.
        reason: String,
    },
    /// The replica is stopping or has failed.
    #[error("replica has stopped")]
    Stopped,
}

/// A store error as openraft takes it; what it was is kept as the source.
pub(crate) fn to_io(error: StoreError) -> io::Error {
    io::Error::other(error)
}
