//! Connections that prove that they hold the cluster's secret before they speak HTTP/2.

use std::io;
use std::sync::Arc;
use std::task::{Context, Poll};

use futures::FutureExt;
use futures::future::BoxFuture;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tonic::codegen::Service;
use tonic::transport::Uri;

use super::tls::Securing;
use super::{ChannelOptions, ClusterSecret, NetworkError, proof};

/// What bytes are sent and received over.
pub(super) trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> Stream for S {}

/// Opens connections to one address. Whoever asks bounds the time.
#[derive(Clone)]
pub(super) struct Connector {
    address: Arc<str>,
    secret: ClusterSecret,
    securing: Option<Securing>,
}

impl Connector {
    /// To `address`, which is `host:port`.
    ///
    /// # Errors
    /// [`NetworkError::Tls`]: trusted roots cannot be used.
    pub(super) fn new(
        address: &str,
        host: &str,
        secret: &ClusterSecret,
        options: &ChannelOptions,
    ) -> Result<Connector, NetworkError> {
        let securing = (options.tls.as_ref())
            .map(|tls| Securing::new(tls, host))
            .transpose()?;
        Ok(Connector {
            address: address.into(),
            secret: secret.clone(),
            securing,
        })
    }

    async fn open(self) -> io::Result<TokioIo<Box<dyn Stream>>> {
        let address = &self.address;
        let failed = |error: io::Error| {
            // Readers know by these words that nothing was sent.
            let text = format!("tcp connect error: {address}: {error}");
            io::Error::new(error.kind(), text)
        };
        let stream = TcpStream::connect(&**address).await.map_err(failed)?;
        stream.set_nodelay(true).map_err(failed)?;
        let mut stream: Box<dyn Stream> = match self.securing {
            Some(securing) => securing.secure(stream).await.map_err(failed)?,
            None => Box::new(stream),
        };
        let proved = proof::connect(&mut stream, &self.secret).await;
        proved.map_err(failed)?;
        Ok(TokioIo::new(stream))
    }
}

impl Service<Uri> for Connector {
    type Response = TokioIo<Box<dyn Stream>>;
    type Error = io::Error;
    type Future = BoxFuture<'static, io::Result<Self::Response>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Uri) -> Self::Future {
        self.clone().open().boxed()
    }
}
