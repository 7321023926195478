//! Why a name server cannot start, or stopped.

use host::network::NetworkError;
use thiserror::Error;

use crate::config::ConfigError;

/// What ends a name server.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum NameServerError {
    /// The configuration cannot work.
    #[error("configuration: {0}")]
    Config(#[from] ConfigError),
    /// The address cannot be listened on, or the server failed.
    #[error(transparent)]
    Network(#[from] NetworkError),
    /// A task of the name server ended by a defect.
    #[error("the name server's task failed: {0}")]
    Task(#[from] tokio::task::JoinError),
}
