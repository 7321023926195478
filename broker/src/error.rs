//! Why a broker does not start, or ends.

use host::network::NetworkError;
use raft::RaftError;

use crate::config::ConfigError;

/// The broker cannot start, or had to stop. A process that gets this must end with a failure.
#[derive(Debug, thiserror::Error)]
pub enum BrokerError {
    /// The configuration breaks a rule.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// There is no secret of the cluster, or none that can be used.
    #[error(transparent)]
    Secret(NetworkError),
    /// The clients' or the operators' port cannot be served.
    #[error(transparent)]
    Network(#[from] NetworkError),
    /// The replica cannot start or go on: its disk failed, its identity does not match, or worse.
    #[error(transparent)]
    Raft(#[from] RaftError),
    /// A task of the broker ended though nobody told it to.
    #[error("{0} ended unexpectedly")]
    TaskEnded(&'static str),
}
