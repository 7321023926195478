//! Accepting connections and serving a router on them.

use std::net::SocketAddr;
#[cfg(not(madsim))]
use std::sync::Arc;
use std::time::Duration;

#[cfg(not(madsim))]
use tonic::transport::Server;

#[cfg(madsim)]
use super::simulated::{self, Services};
#[cfg(not(madsim))]
use super::{
    CONNECTION_WINDOW_BYTES, FRAME_BYTES_MAX, STREAM_WINDOW_BYTES, ServerTls, bounds,
    meter::MeterLayer,
};
use super::{NetworkError, ServerOptions};
use crate::shutdown::Shutdown;

/// Time between the server's own pings, which find peers that went away without a word.
#[cfg(not(madsim))]
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(60);

/// Longest wait for a ping's answer before the connection is closed.
#[cfg(not(madsim))]
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(20);

/// How old a certificate in use may be while its files hold another.
#[cfg(not(madsim))]
const CERTIFICATE_AGE_MAX: Duration = Duration::from_secs(60);

/// What one call, and one connection, may have in flight towards a server that counts what it holds, and how large a frame
/// may be: what lies in the transport before it is counted.
#[cfg(not(madsim))]
const BOUNDED: Windows = Windows {
    stream_bytes: bounds::STREAM_WINDOW_BYTES,
    connection_bytes: bounds::CONNECTION_WINDOW_BYTES,
    frame_bytes: 64 << 10,
};

/// The same between servers.
#[cfg(not(madsim))]
const UNBOUNDED: Windows = Windows {
    stream_bytes: STREAM_WINDOW_BYTES,
    connection_bytes: CONNECTION_WINDOW_BYTES,
    frame_bytes: FRAME_BYTES_MAX,
};

#[cfg(not(madsim))]
struct Windows {
    stream_bytes: u32,
    connection_bytes: u32,
    frame_bytes: u32,
}

/// The services of one port.
#[cfg(not(madsim))]
pub type Router = tonic::transport::server::Router<Layers>;

/// What stands around the services of one port.
#[cfg(not(madsim))]
pub type Layers = tower_layer::Stack<MeterLayer, tower_layer::Identity>;

/// The services of one port.
#[cfg(madsim)]
pub type Router = Services;

/// A server builder with our settings; add services to it and hand the router to [`serve`].
///
/// Clients may ping an idle connection as often as they like: neither tonic nor h2 counts pings
/// against them.
#[cfg(not(madsim))]
pub fn server(options: &ServerOptions) -> Server<Layers> {
    let windows = match options.bounds {
        Some(_) => BOUNDED,
        None => UNBOUNDED,
    };
    Server::builder()
        .layer(MeterLayer)
        .initial_stream_window_size(windows.stream_bytes)
        .initial_connection_window_size(windows.connection_bytes)
        .max_frame_size(windows.frame_bytes)
        .max_concurrent_streams(options.streams_per_connection_max)
        .http2_keepalive_interval(Some(KEEPALIVE_INTERVAL))
        .http2_keepalive_timeout(Some(KEEPALIVE_TIMEOUT))
}

/// The simulator's server; its connections have none of these settings.
#[cfg(madsim)]
pub fn server(_options: &ServerOptions) -> Router {
    Services::default()
}

/// A bound address that is not served yet.
#[derive(Debug)]
pub struct Listener {
    address: SocketAddr,
    #[cfg(not(madsim))]
    listener: tokio::net::TcpListener,
}

impl Listener {
    /// Binds `host:port`, so that an address in use is known before anything else is started. In
    /// the simulator the address is only resolved; [`serve`] binds it.
    #[allow(
        clippy::disallowed_methods,
        reason = "this is the seam that others must ask"
    )]
    pub async fn bind(address: &str) -> Result<Listener, NetworkError> {
        let failed = |source| NetworkError::Bind {
            address: address.to_string(),
            source,
        };
        #[cfg(not(madsim))]
        {
            let listener = tokio::net::TcpListener::bind(address)
                .await
                .map_err(failed)?;
            let address = listener.local_addr().map_err(failed)?;
            Ok(Listener { address, listener })
        }
        #[cfg(madsim)]
        {
            let mut addresses = tokio::net::lookup_host(address).await.map_err(failed)?;
            let address = addresses.next().ok_or_else(|| NetworkError::Address {
                address: address.to_string(),
            })?;
            Ok(Listener { address })
        }
    }

    /// The address that was bound; tells the port if port 0 was asked for.
    pub fn local_address(&self) -> SocketAddr {
        self.address
    }
}

/// Serves `router` until `shutdown`. Then accepts nothing more, waits `shutdown_grace_ms` for calls
/// in flight, and closes what is left.
#[cfg(not(madsim))]
pub async fn serve(
    listener: Listener,
    router: Router,
    options: ServerOptions,
    shutdown: Shutdown,
) -> Result<(), NetworkError> {
    use super::connection::accept;
    use super::places::Places;

    let address = listener.address;
    let (force, forced) = Shutdown::new();
    let places = Places::new(options.connections_max, options.bounds.clone());
    let incoming = accept(listener.listener, &options, places.clone(), forced);
    let mut watching = std::pin::pin!(places.watch());
    let reloading = async {
        match &options.tls {
            Some(tls) => keep_current(tls.clone()).await,
            None => std::future::pending().await,
        }
    };
    tokio::pin!(reloading);
    let stop = shutdown.clone();
    let mut serving = std::pin::pin!(
        router.serve_with_incoming_shutdown(incoming, async move { stop.wait().await })
    );
    let grace = async {
        shutdown.wait().await;
        tokio::time::sleep(Duration::from_millis(options.shutdown_grace_ms)).await;
    };
    let result = tokio::select! {
        biased;
        result = &mut serving => result,
        never = &mut reloading => never,
        never = &mut watching => never,
        () = grace => {
            tracing::warn!(%address, "closing connections that did not end in time");
            force.shut_down();
            serving.await
        }
    };
    result.map_err(|source| NetworkError::Serve {
        address: address.to_string(),
        source,
    })
}

/// Follows changes of the certificate's files.
#[cfg(not(madsim))]
async fn keep_current(tls: Arc<ServerTls>) -> ! {
    loop {
        tokio::time::sleep(CERTIFICATE_AGE_MAX).await;
        let reading = tls.clone();
        match crate::blocking::run(move || reading.reload()).await {
            Ok(true) => tracing::info!(?tls, "a new certificate is in use"),
            Ok(false) => {}
            Err(error) => {
                tracing::warn!(%error, "the certificate was not read again; the old one goes on");
            }
        }
    }
}

/// Serves `router` until `shutdown`, in the simulator. Calls in flight have `shutdown_grace_ms` there
/// too.
#[cfg(madsim)]
pub async fn serve(
    listener: Listener,
    router: Router,
    options: ServerOptions,
    shutdown: Shutdown,
) -> Result<(), NetworkError> {
    let grace = Duration::from_millis(options.shutdown_grace_ms);
    simulated::serve(router, listener.address, grace, shutdown).await
}

#[cfg(test)]
#[cfg(not(madsim))]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpStream;

    use super::*;

    const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00";

    async fn start(
        options: ServerOptions,
    ) -> (
        SocketAddr,
        crate::ShutdownTrigger,
        tokio::task::JoinHandle<()>,
    ) {
        let (trigger, shutdown) = Shutdown::new();
        let listener = Listener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_address();
        let router = server(&options).add_routes(Default::default());
        let task =
            tokio::spawn(async move { serve(listener, router, options, shutdown).await.unwrap() });
        (address, trigger, task)
    }

    async fn closed_by_peer(stream: &mut TcpStream) -> bool {
        let mut buffer = [0; 4096];
        let read = async {
            loop {
                match stream.read(&mut buffer).await {
                    Ok(0) | Err(_) => return,
                    Ok(_) => {}
                }
            }
        };
        tokio::time::timeout(Duration::from_secs(10), read)
            .await
            .is_ok()
    }

    /// Catches a second process on the same port that starts and then serves nobody.
    #[tokio::test]
    async fn an_address_in_use_is_a_clear_error() {
        let first = Listener::bind("127.0.0.1:0").await.unwrap();
        let error = Listener::bind(&first.local_address().to_string())
            .await
            .unwrap_err();
        assert!(matches!(error, NetworkError::Bind { .. }), "{error}");
        assert!(error.to_string().contains("in use"), "{error}");
    }

    /// Catches connections that hold a place without ever speaking.
    #[tokio::test]
    async fn a_silent_connection_is_closed_and_a_speaking_one_is_not() {
        let options = ServerOptions {
            handshake_timeout_ms: 50,
            ..ServerOptions::default()
        };
        let (address, _trigger, _task) = start(options).await;
        let mut speaking = TcpStream::connect(address).await.unwrap();
        speaking.write_all(PREFACE).await.unwrap();
        let mut silent = TcpStream::connect(address).await.unwrap();
        assert!(closed_by_peer(&mut silent).await);
        // The speaking one is older than the silent one, and still answers a ping.
        speaking
            .write_all(b"\x00\x00\x08\x06\x00\x00\x00\x00\x0012345678")
            .await
            .unwrap();
        let mut seen = Vec::new();
        while !seen.windows(8).any(|window| window == b"12345678") {
            let count =
                tokio::time::timeout(Duration::from_secs(10), speaking.read_buf(&mut seen)).await;
            assert!(count.unwrap().unwrap() > 0, "closed");
        }
    }

    /// Catches a bound that is not one, a newcomer that idle connections keep out, and a place that is not given back.
    #[tokio::test]
    async fn above_the_bound_an_idle_connection_gives_way() {
        let options = ServerOptions {
            connections_max: 1,
            ..ServerOptions::default()
        };
        let (address, _trigger, _task) = start(options).await;
        let mut first = TcpStream::connect(address).await.unwrap();
        first.write_all(PREFACE).await.unwrap();
        let mut byte = [0; 1];
        first.read_exact(&mut byte).await.unwrap();
        let mut second = TcpStream::connect(address).await.unwrap();
        second.write_all(PREFACE).await.unwrap();
        second.read_exact(&mut byte).await.unwrap();
        assert!(closed_by_peer(&mut first).await);
        drop(second);
        // The place comes back once the server has noticed.
        for attempt in 0.. {
            let mut third = TcpStream::connect(address).await.unwrap();
            let _ = third.write_all(PREFACE).await;
            if third.read_exact(&mut byte).await.is_ok() {
                break;
            }
            assert!(attempt < 1_000, "the place was never given back");
        }
    }

    /// Catches a server that waits forever for a client that does not hang up.
    #[tokio::test]
    async fn shutdown_has_a_deadline() {
        let options = ServerOptions {
            shutdown_grace_ms: 50,
            ..ServerOptions::default()
        };
        let (address, trigger, task) = start(options).await;
        let mut open = TcpStream::connect(address).await.unwrap();
        // Half a preface: the server cannot end this connection gracefully.
        open.write_all(&PREFACE[..10]).await.unwrap();
        tokio::task::yield_now().await;
        trigger.shut_down();
        tokio::time::timeout(Duration::from_secs(10), task)
            .await
            .unwrap()
            .unwrap();
    }
}
