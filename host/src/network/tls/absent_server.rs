//! No TLS of servers either.

use std::path::Path;

use super::implementation::refused;
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
