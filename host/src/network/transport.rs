//! What an accepted connection speaks: TLS or plaintext, told apart by its first byte.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

use super::ServerTls;

/// First byte of every TLS connection: a handshake record. HTTP/2 begins with the letter P, a proof with 0xf0.
#[cfg(feature = "tls")]
const TLS_HANDSHAKE: u8 = 0x16;

/// An accepted connection of which it is known what it speaks.
pub(super) enum Transport {
    #[cfg(feature = "tls")]
    Tls(Box<tokio_rustls::server::TlsStream<TcpStream>>),
    Plain(TcpStream),
}

impl Transport {
    /// Waits until it is known what the connection speaks. The caller bounds the time.
    ///
    /// # Errors
    /// It ended before, or speaks TLS badly.
    pub(super) async fn accept(
        stream: TcpStream,
        tls: Option<Arc<ServerTls>>,
    ) -> io::Result<Transport> {
        match tls {
            #[cfg(feature = "tls")]
            Some(tls) => {
                let mut first = [0];
                let peeked = stream.peek(&mut first).await?;
                if peeked == 1 && first == [TLS_HANDSHAKE] {
                    let stream = tls.acceptor().accept(stream).await?;
                    return Ok(Transport::Tls(Box::new(stream)));
                }
                Ok(Transport::Plain(stream))
            }
            _ => Ok(Transport::Plain(stream)),
        }
    }
}

/// Polls whichever stream it is.
macro_rules! poll_stream {
    ($transport:expr, $stream:ident => $poll:expr) => {
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
        }
    };
}

impl AsyncRead for Transport {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        poll_stream!(self, stream => stream.poll_read(context, buffer))
    }
}

impl AsyncWrite for Transport {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        poll_stream!(self, stream => stream.poll_write(context, bytes))
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        poll_stream!(self, stream => stream.poll_flush(context))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        poll_stream!(self, stream => stream.poll_shutdown(context))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffers: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        poll_stream!(self, stream => stream.poll_write_vectored(context, buffers))
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            #[cfg(feature = "tls")]
            Transport::Tls(stream) => stream.is_write_vectored(),
            Transport::Plain(stream) => stream.is_write_vectored(),
        }
    }
}
