//! What both ends may choose. Plain data.

#[cfg(feature = "server")]
use std::sync::Arc;

#[cfg(feature = "server")]
use super::{Bounds, ServerTls};
use super::{CONNECTION_WINDOW_BYTES, ClientTls, ClusterSecret, STREAM_WINDOW_BYTES};

/// How to connect.
#[derive(Clone, Debug)]
pub struct ChannelOptions {
    /// Longest wait for a connection.
    pub connect_timeout_ms: u64,
    /// Time between keepalive pings, sent with and without calls in flight.
    pub keepalive_interval_ms: u64,
    /// Longest wait for a ping's answer before the connection is given up.
    pub keepalive_timeout_ms: u64,
    /// What one call's answer may have in flight before it is read.
    pub stream_window_bytes: u32,
    /// What all of them may.
    pub connection_window_bytes: u32,
    /// TLS, and whom to trust; plaintext without.
    pub tls: Option<ClientTls>,
    /// Proves that it holds this secret, and has the other end prove it, before anything else is said. Without, it is a
    /// stranger.
    pub secret: Option<ClusterSecret>,
}

impl Default for ChannelOptions {
    fn default() -> ChannelOptions {
        ChannelOptions {
            connect_timeout_ms: 3_000,
            keepalive_interval_ms: 10_000,
            keepalive_timeout_ms: 5_000,
            stream_window_bytes: STREAM_WINDOW_BYTES,
            connection_window_bytes: CONNECTION_WINDOW_BYTES,
            tls: None,
            secret: None,
        }
    }
}

/// Whether those who connect prove that they hold the cluster's secret.
#[cfg(feature = "server")]
#[derive(Clone, Debug, Default)]
pub enum Proof {
    /// Nobody does: the port is for everybody.
    #[default]
    None,
    /// Who wants to; services behind [`guarded`](super::guarded) are there for those only.
    Accepted(ClusterSecret),
    /// Everybody: who does not is told nothing, and nothing else of it is read.
    Demanded(ClusterSecret),
}

/// How to serve.
#[cfg(feature = "server")]
#[derive(Clone, Debug)]
pub struct ServerOptions {
    /// Connections open at the same time. For a further one an idle one gives way, of the address that has most.
    pub connections_max: usize,
    /// Calls in flight on one connection.
    pub streams_per_connection_max: u32,
    /// A connection that has not sent its HTTP/2 preface by then is closed.
    pub handshake_timeout_ms: u64,
    /// How long calls in flight may take to end once the server was told to stop.
    pub shutdown_grace_ms: u64,
    /// Certificate and key for those who speak TLS. Without, they are not understood; plaintext always is.
    pub tls: Option<Arc<ServerTls>>,
    /// Who proves that it holds the cluster's secret. In the simulator everybody counts as if it had.
    pub proof: Proof,
    /// What is held of the requests and answers of those who have not proved; without, nothing is counted. Not in the
    /// simulator.
    pub bounds: Option<Bounds>,
}

#[cfg(feature = "server")]
impl Default for ServerOptions {
    fn default() -> ServerOptions {
        ServerOptions {
            connections_max: 10_000,
            streams_per_connection_max: 4_096,
            handshake_timeout_ms: 10_000,
            shutdown_grace_ms: 5_000,
            tls: None,
            proof: Proof::None,
            bounds: None,
        }
    }
}
