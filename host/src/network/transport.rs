//! What an accepted connection speaks: TLS or plaintext, told apart by its first byte.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

use super::ServerTls;

/// First byte of every TLS connection: a handshake record. HTTP/2 begins with the letter P.
#[cfg(feature = "tls")]
const TLS_HANDSHAKE: u8 = 0x16;

/// An accepted connection. Reading and writing wait until it is known what it speaks.
pub(super) enum Transport {
    #[cfg(feature = "tls")]
    Undecided(Option<TcpStream>, Arc<ServerTls>),
    #[cfg(feature = "tls")]
    Handshake(Box<tokio_rustls::Accept<TcpStream>>),
    #[cfg(feature = "tls")]
    Tls(Box<tokio_rustls::server::TlsStream<TcpStream>>),
    Plain(TcpStream),
}

impl Transport {
    pub(super) fn new(stream: TcpStream, tls: Option<Arc<ServerTls>>) -> Transport {
        match tls {
            #[cfg(feature = "tls")]
            Some(tls) => Transport::Undecided(Some(stream), tls),
            _ => Transport::Plain(stream),
        }
    }

    /// Ready when bytes can flow.
    #[cfg(feature = "tls")]
    fn poll_decided(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            *self = match self {
                Transport::Tls(_) | Transport::Plain(_) => return Poll::Ready(Ok(())),
                Transport::Handshake(accept) => {
                    let stream = ready!(Pin::new(accept).poll(context))?;
                    Transport::Tls(Box::new(stream))
                }
                Transport::Undecided(stream, tls) => {
                    let waiting = stream.as_ref().ok_or(io::ErrorKind::BrokenPipe)?;
                    let mut first = [0];
                    let mut buffer = ReadBuf::new(&mut first);
                    ready!(waiting.poll_peek(context, &mut buffer))?;
                    let speaks_tls = buffer.filled() == [TLS_HANDSHAKE];
                    let stream = stream.take().ok_or(io::ErrorKind::BrokenPipe)?;
                    match speaks_tls {
                        true => Transport::Handshake(Box::new(tls.acceptor().accept(stream))),
                        false => Transport::Plain(stream),
                    }
                }
            };
            // Whoever waits to write waits for this too, and is not asked again by what is read.
            context.waker().wake_by_ref();
        }
    }

    #[cfg(not(feature = "tls"))]
    fn poll_decided(&mut self, _context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// Polls whichever stream it is by now.
macro_rules! poll_stream {
    ($transport:expr, $context:expr, $stream:ident => $poll:expr) => {{
        ready!($transport.poll_decided($context))?;
        match &mut *$transport {
            #[cfg(feature = "tls")]
            Transport::Tls($stream) => {
                let $stream = Pin::new($stream.as_mut());
                $poll
            }
            Transport::Plain($stream) => {
                let $stream = Pin::new($stream);
                $poll
            }
            #[cfg(feature = "tls")]
            Transport::Undecided(..) | Transport::Handshake(_) => {
                unreachable!("poll_decided is ready when it is known what is spoken")
            }
        }
    }};
}

impl AsyncRead for Transport {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        poll_stream!(self, context, stream => stream.poll_read(context, buffer))
    }
}

impl AsyncWrite for Transport {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        poll_stream!(self, context, stream => stream.poll_write(context, bytes))
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        poll_stream!(self, context, stream => stream.poll_flush(context))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        poll_stream!(self, context, stream => stream.poll_shutdown(context))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffers: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        poll_stream!(self, context, stream => stream.poll_write_vectored(context, buffers))
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            #[cfg(feature = "tls")]
            Transport::Tls(stream) => stream.is_write_vectored(),
            // Right for plaintext, and no harm before it is known: the default takes the first buffer.
            _ => true,
        }
    }
}
