//! One accepted connection: counted, closed when its peer stays silent, closed when the server's
//! patience ends.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures::future::BoxFuture;
use futures::{FutureExt, Stream};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Sleep;
use tonic::transport::server::{Connected, TcpConnectInfo};

use super::ServerOptions;
use super::transport::Transport;
use crate::shutdown::Shutdown;

/// Length of the text with which every HTTP/2 connection opens.
const PREFACE_BYTES: usize = 24;

/// Pause after a failed accept. It fails when file descriptors run out, and trying again at once
/// would only spin.
const ACCEPT_RETRY: Duration = Duration::from_millis(50);

/// The connections that `listener` accepts. Closes them itself when there are too many.
pub(super) fn accept(
    listener: TcpListener,
    options: &ServerOptions,
    forced: Shutdown,
) -> impl Stream<Item = io::Result<Connection>> + use<> {
    let places = Arc::new(Semaphore::new(options.connections_max));
    let handshake_timeout = Duration::from_millis(options.handshake_timeout_ms);
    let state = (listener, places, forced, options.tls.clone());
    futures::stream::unfold(state, move |state| async move {
        let (listener, places, forced, tls) = &state;
        let (stream, place) = next(listener, places).await;
        let forced = forced.clone();
        let connection = Connection {
            info: stream.connect_info(),
            stream: Transport::new(stream, tls.clone()),
            handshake: Some(Handshake {
                missing_bytes: PREFACE_BYTES,
                deadline: Box::pin(tokio::time::sleep(handshake_timeout)),
            }),
            forced: async move { forced.wait().await }.fuse().boxed(),
            _place: place,
        };
        Some((Ok(connection), state))
    })
}

async fn next(
    listener: &TcpListener,
    places: &Arc<Semaphore>,
) -> (TcpStream, OwnedSemaphorePermit) {
    loop {
        match listener.accept().await {
            Ok((stream, peer)) => match places.clone().try_acquire_owned() {
                Ok(place) => {
                    if let Err(error) = stream.set_nodelay(true) {
                        tracing::debug!(%peer, %error, "cannot set nodelay");
                    }
                    return (stream, place);
                }
                Err(_) => tracing::warn!(%peer, "refusing a connection: too many are open"),
            },
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection");
                tokio::time::sleep(ACCEPT_RETRY).await;
            }
        }
    }
}

/// An accepted connection, in TLS or plaintext. Its handshake counts what arrives inside of TLS.
pub(super) struct Connection {
    info: TcpConnectInfo,
    stream: Transport,
    /// Present until the peer has sent its preface.
    handshake: Option<Handshake>,
    /// Resolves when the connection must end whatever its peer does.
    forced: BoxFuture<'static, ()>,
    _place: OwnedSemaphorePermit,
}

struct Handshake {
    missing_bytes: usize,
    deadline: Pin<Box<Sleep>>,
}

impl Connection {
    /// What waits while the peer owes its preface waits until the deadline only. Before it is known whether the peer
    /// speaks TLS, writing waits too.
    fn or_late<T>(
        &mut self,
        context: &mut Context<'_>,
        poll: Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        if let Some(handshake) = &mut self.handshake
            && poll.is_pending()
            && handshake.deadline.as_mut().poll(context).is_ready()
        {
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        poll
    }
}

impl Connected for Connection {
    type ConnectInfo = TcpConnectInfo;

    fn connect_info(&self) -> TcpConnectInfo {
        self.info.clone()
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.forced.poll_unpin(context).is_ready() {
            return Poll::Ready(Err(io::ErrorKind::ConnectionAborted.into()));
        }
        let filled_before = buffer.filled().len();
        let poll = Pin::new(&mut self.stream).poll_read(context, buffer);
        if let Some(handshake) = &mut self.handshake {
            let filled = buffer.filled().len() - filled_before;
            handshake.missing_bytes = handshake.missing_bytes.saturating_sub(filled);
            if handshake.missing_bytes == 0 {
                self.handshake = None;
            }
        }
        self.or_late(context, poll)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let poll = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.or_late(context, poll)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let poll = Pin::new(&mut self.stream).poll_flush(context);
        self.or_late(context, poll)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let poll = Pin::new(&mut self.stream).poll_shutdown(context);
        self.or_late(context, poll)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffers: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let poll = Pin::new(&mut self.stream).poll_write_vectored(context, buffers);
        self.or_late(context, poll)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}
