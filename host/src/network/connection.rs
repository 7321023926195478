//! One accepted connection: it has a place, is closed when its peer stays silent, when somebody else needs its place or
//! its bytes, and when the server's patience ends.

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use futures::future::BoxFuture;
use futures::{FutureExt, Stream};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::task::AbortHandle;
use tokio::time::Sleep;
use tonic::transport::server::Connected;

use super::ServerOptions;
use super::account::Account;
use super::opening::{Opened, Opening};
use super::places::{Place, Places};
use super::transport::Transport;
use crate::shutdown::Shutdown;

/// Length of the text with which every HTTP/2 connection opens.
const PREFACE_BYTES: usize = 24;

/// Pause after a failed accept. It fails when file descriptors run out, and trying again at once
/// would only spin.
const ACCEPT_RETRY: Duration = Duration::from_millis(50);

/// Connections that may be about to prove at one time, where a proof is demanded. One more ends the oldest: a proof
/// takes one round trip, so that whoever can prove does it long before, and strangers keep out each other only.
const PROVING_MAX: usize = 512;

/// The connections that `listener` accepts. Closes them itself when there are too many. Where a proof is demanded, only
/// those that have proved are among them.
pub(super) fn accept(
    listener: TcpListener,
    options: &ServerOptions,
    places: Arc<Places>,
    forced: Shutdown,
) -> impl Stream<Item = io::Result<Connection>> + use<> {
    let opening = Opening::new(options.tls.clone(), options.proof.clone());
    let acceptor = Acceptor {
        listener,
        places,
        handshake_timeout: Duration::from_millis(options.handshake_timeout_ms),
        proving: opening.demands_proof().then(Proving::new),
        opening,
        forced,
    };
    futures::stream::unfold(acceptor, |mut acceptor| async move {
        let connection = acceptor.next().await;
        Some((Ok(connection), acceptor))
    })
}

struct Acceptor {
    listener: TcpListener,
    places: Arc<Places>,
    handshake_timeout: Duration,
    opening: Opening,
    /// Present where a proof is demanded.
    proving: Option<Proving>,
    forced: Shutdown,
}

/// Connections that have not proved yet.
struct Proving {
    waiting: VecDeque<AbortHandle>,
    proven: mpsc::Sender<(Opened, SocketAddr)>,
    arrivals: mpsc::Receiver<(Opened, SocketAddr)>,
}

impl Proving {
    fn new() -> Proving {
        let (proven, arrivals) = mpsc::channel(1);
        Proving {
            waiting: VecDeque::new(),
            proven,
            arrivals,
        }
    }

    /// Has a connection prove until the deadline.
    fn begin(
        &mut self,
        (stream, peer): (TcpStream, SocketAddr),
        opening: Opening,
        deadline: Duration,
    ) {
        self.waiting.retain(|waiting| !waiting.is_finished());
        if self.waiting.len() >= PROVING_MAX
            && let Some(oldest) = self.waiting.pop_front()
        {
            oldest.abort();
        }
        let proven = self.proven.clone();
        let task = tokio::spawn(async move {
            // Who does not prove is told nothing, and a server that has ended needs no connection.
            if let Ok(Ok(opened)) = tokio::time::timeout(deadline, opening.open(stream)).await {
                let _ = proven.send((opened, peer)).await;
            }
        });
        self.waiting.push_back(task.abort_handle());
    }
}

impl Drop for Proving {
    fn drop(&mut self) {
        self.waiting.iter().for_each(AbortHandle::abort);
    }
}

impl Acceptor {
    async fn next(&mut self) -> Connection {
        loop {
            let opening = self.opening.clone();
            let Some(proving) = &mut self.proving else {
                let (stream, peer) = next_stream(&self.listener).await;
                if let Some(place) = self.places.take(peer) {
                    return self.connection(State::Opening(opening.open(stream).boxed()), place);
                }
                continue;
            };
            tokio::select! {
                biased;
                Some((opened, peer)) = proving.arrivals.recv() => if let Some(place) = self.places.take(peer) {
                    return self.connection(State::of(opened), place);
                },
                (stream, peer) = next_stream(&self.listener) => {
                    proving.begin((stream, peer), opening, self.handshake_timeout);
                }
            }
        }
    }

    fn connection(&self, state: State, place: Place) -> Connection {
        let forced = self.forced.clone();
        let is_proven = matches!(&state, State::Open { is_proven, .. } if *is_proven);
        place.account.set_proven(is_proven);
        Connection {
            state,
            handshake: Some(Handshake {
                missing_bytes: PREFACE_BYTES,
                deadline: Box::pin(tokio::time::sleep(self.handshake_timeout)),
            }),
            forced: async move { forced.wait().await }.fuse().boxed(),
            place,
        }
    }
}

async fn next_stream(listener: &TcpListener) -> (TcpStream, SocketAddr) {
    loop {
        match listener.accept().await {
            Ok((stream, peer)) => {
                if let Err(error) = stream.set_nodelay(true) {
                    tracing::debug!(%peer, %error, "cannot set nodelay");
                }
                return (stream, peer);
            }
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection");
                tokio::time::sleep(ACCEPT_RETRY).await;
            }
        }
    }
}

/// What requests are told of the connection on which they came: tonic puts it into their extensions.
#[derive(Clone, Debug)]
pub(super) struct ConnectionInfo {
    account: Arc<Account>,
}

impl ConnectionInfo {
    /// Whether it proved that it holds the cluster's secret.
    pub(super) fn is_proven(&self) -> bool {
        self.account.is_proven()
    }

    /// What it may take, and what runs on it.
    pub(super) fn account(&self) -> &Arc<Account> {
        &self.account
    }
}

/// An accepted connection, in TLS or plaintext. Its handshake counts what arrives inside of TLS.
pub(super) struct Connection {
    state: State,
    /// Present until the peer has sent its preface.
    handshake: Option<Handshake>,
    /// Resolves when the connection must end whatever its peer does.
    forced: BoxFuture<'static, ()>,
    place: Place,
}

/// How far a connection has come. Reading and writing wait until it is open.
enum State {
    Opening(BoxFuture<'static, io::Result<Opened>>),
    Open {
        stream: Transport,
        /// Read already, and not handed on yet.
        first: Option<u8>,
        is_proven: bool,
    },
    /// It did not open.
    Failed,
}

impl State {
    fn of(opened: Opened) -> State {
        State::Open {
            stream: opened.stream,
            first: opened.first,
            is_proven: opened.is_proven,
        }
    }
}

struct Handshake {
    missing_bytes: usize,
    deadline: Pin<Box<Sleep>>,
}

impl Connection {
    /// Whether it must end now.
    fn ends(&mut self, context: &mut Context<'_>) -> bool {
        self.place.account.poll_cut(context) || self.forced.poll_unpin(context).is_ready()
    }

    /// What waits while the peer owes its preface waits until the deadline only. Before it is known what the peer
    /// speaks, writing waits too.
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

    /// Ready when bytes can flow: the stream, and what was read of it already.
    fn poll_open(
        &mut self,
        context: &mut Context<'_>,
    ) -> Poll<io::Result<(Pin<&mut Transport>, &mut Option<u8>)>> {
        if let State::Opening(opening) = &mut self.state {
            match ready!(opening.as_mut().poll(context)) {
                Ok(opened) => {
                    self.place.account.set_proven(opened.is_proven);
                    self.state = State::of(opened);
                }
                Err(error) => {
                    self.state = State::Failed;
                    return Poll::Ready(Err(error));
                }
            }
            // Whoever waits to write waits for this too, and is not asked again by what is read.
            context.waker().wake_by_ref();
        }
        match &mut self.state {
            State::Open { stream, first, .. } => Poll::Ready(Ok((Pin::new(stream), first))),
            _ => Poll::Ready(Err(io::ErrorKind::NotConnected.into())),
        }
    }

    fn poll_read_open(
        &mut self,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let (stream, first) = ready!(self.poll_open(context))?;
        if buffer.remaining() > 0
            && let Some(byte) = first.take()
        {
            buffer.put_slice(&[byte]);
            return Poll::Ready(Ok(()));
        }
        stream.poll_read(context, buffer)
    }
}

impl Connected for Connection {
    type ConnectInfo = ConnectionInfo;

    fn connect_info(&self) -> ConnectionInfo {
        ConnectionInfo {
            account: self.place.account.clone(),
        }
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.ends(context) {
            return Poll::Ready(Err(io::ErrorKind::ConnectionAborted.into()));
        }
        let filled_before = buffer.filled().len();
        let poll = self.poll_read_open(context, buffer);
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

/// Does something with the stream, once it is open.
macro_rules! when_open {
    ($connection:expr, $context:expr, $stream:ident => $poll:expr) => {{
        // A peer that does not read stops our reading too: the end must be heard of here as well.
        if $connection.ends($context) {
            return Poll::Ready(Err(io::ErrorKind::ConnectionAborted.into()));
        }
        let poll = match $connection.poll_open($context) {
            Poll::Ready(Ok(($stream, _))) => $poll,
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            Poll::Pending => Poll::Pending,
        };
        $connection.or_late($context, poll)
    }};
}

impl AsyncWrite for Connection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        when_open!(self, context, stream => stream.poll_write(context, bytes))
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        when_open!(self, context, stream => stream.poll_flush(context))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        when_open!(self, context, stream => stream.poll_shutdown(context))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffers: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        when_open!(self, context, stream => stream.poll_write_vectored(context, buffers))
    }

    fn is_write_vectored(&self) -> bool {
        match &self.state {
            State::Open { stream, .. } => stream.is_write_vectored(),
            // Right for plaintext, and no harm before it is known: the default takes the first buffer.
            _ => true,
        }
    }
}
