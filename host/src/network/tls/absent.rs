//! No TLS: whoever asks for it is refused.

use tonic::transport::Endpoint;

use super::ClientTls;
use crate::network::NetworkError;

pub(in crate::network) fn secure(
    _endpoint: Endpoint,
    _tls: &ClientTls,
) -> Result<Endpoint, NetworkError> {
    Err(refused("a connection".to_owned()))
}

/// TLS for connections that prove before they speak HTTP/2: there is none.
#[cfg(not(madsim))]
#[derive(Clone)]
pub(in crate::network) enum Securing {}

#[cfg(not(madsim))]
impl Securing {
    pub(in crate::network) fn new(_tls: &ClientTls, _host: &str) -> Result<Securing, NetworkError> {
        Err(refused("a connection".to_owned()))
    }

    pub(in crate::network) async fn secure(
        self,
        _stream: tokio::net::TcpStream,
    ) -> std::io::Result<Box<dyn crate::network::connector::Stream>> {
        match self {}
    }
}

pub(super) fn refused(subject: String) -> NetworkError {
    NetworkError::Tls {
        subject,
        reason: "this build has no TLS".to_owned(),
    }
}
