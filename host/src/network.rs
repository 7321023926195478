//! How gRPC connections are made and accepted: the only caller of connect and bind.
//!
//! Everything that must be the same on both ends stands here (windows, frame sizes, keepalive), and
//! every bound that keeps strangers from exhausting a server. In the simulator madsim's network
//! stands behind the same calls. Knows no service and no message.

#[cfg(all(feature = "server", not(madsim)))]
mod account;
#[cfg(feature = "server")]
mod answer_budget;
#[cfg(feature = "server")]
mod bounds;
#[cfg(all(test, feature = "server", not(madsim)))]
mod bounds_test;
mod channel;
#[cfg(all(feature = "server", not(madsim)))]
mod connection;
#[cfg(not(madsim))]
mod connector;
#[cfg(feature = "server")]
mod guard;
#[cfg(feature = "server")]
mod listener;
#[cfg(all(feature = "server", not(madsim)))]
mod meter;
#[cfg(all(feature = "server", not(madsim)))]
mod opening;
mod options;
#[cfg(all(feature = "server", not(madsim)))]
mod places;
#[cfg(not(madsim))]
mod proof;
#[cfg(all(test, feature = "server", not(madsim)))]
mod proof_test;
mod reach;
mod secret;
#[cfg(madsim)]
pub mod simulated;
mod tls;
#[cfg(all(test, feature = "server", feature = "tls", not(madsim)))]
mod tls_test;
#[cfg(all(feature = "server", not(madsim)))]
mod transport;

use std::io;
use std::path::PathBuf;

use thiserror::Error;

#[cfg(feature = "server")]
pub use answer_budget::{AnswerBudget, AnswerHold, make_on_demand};
#[cfg(feature = "server")]
pub use bounds::{Bounds, BoundsOptions, BoundsStatus};
pub use channel::channel;
#[cfg(all(feature = "server", not(madsim)))]
pub use guard::Guarded;
#[cfg(feature = "server")]
pub use guard::guarded;
#[cfg(all(feature = "server", not(madsim)))]
pub use listener::Layers;
#[cfg(feature = "server")]
pub use listener::{Listener, Router, serve, server};
#[cfg(all(feature = "server", not(madsim)))]
pub use meter::{MeterLayer, Metered};
pub use options::ChannelOptions;
#[cfg(feature = "server")]
pub use options::{Proof, ServerOptions};
pub use reach::accepts;
pub use secret::ClusterSecret;
pub use tls::ClientTls;
#[cfg(feature = "server")]
pub use tls::ServerTls;

/// In the metadata of a refusal: nothing of the request was read, so nothing of it was done.
pub const UNREAD: &str = "x-raftmq-unread";

/// What one stream may have in flight before its reader has read: a whole large batch.
pub const STREAM_WINDOW_BYTES: u32 = 8 << 20;

/// What one connection may have in flight before its readers have read.
pub const CONNECTION_WINDOW_BYTES: u32 = 16 << 20;

/// Largest HTTP/2 frame: large enough that a batch is few frames, small enough that others get
/// their turn.
pub const FRAME_BYTES_MAX: u32 = 1 << 20;

/// What went wrong with a connection or a listener.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum NetworkError {
    /// The address is not `host:port`.
    #[error("{address:?} is not an address of the form host:port")]
    Address {
        /// The address as given.
        address: String,
    },
    /// The listener could not be bound, for example because the address is in use.
    #[error("cannot listen on {address}: {source}")]
    Bind {
        /// The address as given.
        address: String,
        /// What the operating system said.
        source: io::Error,
    },
    /// A certificate, a key or trusted roots cannot be used.
    #[error("TLS cannot use {subject}: {reason}")]
    Tls {
        /// The file, or whatever it is.
        subject: String,
        /// What is wrong with it.
        reason: String,
    },
    /// There is no secret of the cluster, or none that can be used.
    #[error("{}: {reason}", secret_subject(path))]
    Secret {
        /// Its file; empty if none is named.
        path: PathBuf,
        /// What is wrong with it, and what to do.
        reason: String,
    },
    /// The server stopped without being told to.
    #[error("server on {address} failed: {source}")]
    Serve {
        /// The address it served.
        address: String,
        /// What the transport said.
        source: tonic::transport::Error,
    },
}

fn secret_subject(path: &std::path::Path) -> String {
    match path.as_os_str().is_empty() {
        true => "the cluster's secret".to_owned(),
        false => format!("the cluster's secret in {}", path.display()),
    }
}
