//! No TLS: whoever asks for it is refused.

use std::path::Path;

use tonic::transport::Endpoint;

use super::ClientTls;
use crate::network::NetworkError;

/// A server's certificate and key, of which this build can make nothing.
#[derive(Debug)]
pub struct ServerTls {}

impl ServerTls {
    /// # Errors
    /// Always [`NetworkError::Tls`]: this build has no TLS.
    pub fn load(certificate: &Path, _key: &Path) -> Result<ServerTls, NetworkError> {
        Err(refused(certificate.display().to_string()))
    }

    /// # Errors
    /// Never called: there is no value of this type.
    pub fn reload(&self) -> Result<bool, NetworkError> {
        Ok(false)
    }
}

pub(in crate::network) fn secure(
    _endpoint: Endpoint,
    _tls: &ClientTls,
) -> Result<Endpoint, NetworkError> {
    Err(refused("a connection".to_owned()))
}

fn refused(subject: String) -> NetworkError {
    NetworkError::Tls {
        subject,
        reason: "this build has no TLS".to_owned(),
    }
}
