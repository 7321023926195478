//! TLS of servers, by rustls.

use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};

use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};

use super::implementation::ALPN;
use crate::network::NetworkError;

/// A server's certificate and key.
pub struct ServerTls {
    certificate: PathBuf,
    key: PathBuf,
    current: RwLock<Loaded>,
}

/// What the files held.
#[derive(Clone)]
struct Loaded {
    pem: (Vec<u8>, Vec<u8>),
    config: Arc<ServerConfig>,
}

impl ServerTls {
    /// Reads a certificate chain, the server's own first, and its private key, both PEM. Blocks.
    ///
    /// # Errors
    /// [`NetworkError::Tls`]: a file cannot be read, holds nothing of the kind, or the two do not belong together.
    pub fn load(certificate: &Path, key: &Path) -> Result<ServerTls, NetworkError> {
        Ok(ServerTls {
            certificate: certificate.to_owned(),
            key: key.to_owned(),
            current: RwLock::new(read(certificate, key)?),
        })
    }

    /// Reads the files again; connections that come from now on get what they hold now. Returns whether that is new.
    /// Blocks.
    ///
    /// # Errors
    /// As [`ServerTls::load`]; what was loaded before goes on.
    pub fn reload(&self) -> Result<bool, NetworkError> {
        let loaded = read(&self.certificate, &self.key)?;
        let mut current = self.current.write().unwrap_or_else(PoisonError::into_inner);
        let is_new = current.pem != loaded.pem;
        if is_new {
            *current = loaded;
        }
        Ok(is_new)
    }

    pub(in crate::network) fn acceptor(&self) -> TlsAcceptor {
        let current = self.current.read().unwrap_or_else(PoisonError::into_inner);
        current.config.clone().into()
    }
}

impl std::fmt::Debug for ServerTls {
    /// The files' names, never what they hold.
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("ServerTls")
            .field("certificate", &self.certificate)
            .field("key", &self.key)
            .finish_non_exhaustive()
    }
}

#[allow(
    clippy::disallowed_methods,
    reason = "a certificate is configuration, not data of a replica"
)]
fn read(certificate: &Path, key: &Path) -> Result<Loaded, NetworkError> {
    let bytes = |path: &Path| std::fs::read(path).map_err(|error| failed(path, error));
    let pem = (bytes(certificate)?, bytes(key)?);
    let chain: Vec<CertificateDer<'static>> = CertificateDer::pem_slice_iter(&pem.0)
        .collect::<Result<_, _>>()
        .map_err(|error| failed(certificate, error))?;
    if chain.is_empty() {
        return Err(failed(certificate, "it holds no certificate"));
    }
    let private = PrivateKeyDer::from_pem_slice(&pem.1)
        .map_err(|error| failed(key, format!("it holds no private key: {error}")))?;
    let mut config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .and_then(|builder| {
            builder
                .with_no_client_auth()
                .with_single_cert(chain, private)
        })
        .map_err(|error| failed(certificate, error))?;
    config.alpn_protocols = vec![ALPN.to_vec()];
    let config = Arc::new(config);
    Ok(Loaded { pem, config })
}

fn failed(path: &Path, reason: impl std::fmt::Display) -> NetworkError {
    NetworkError::Tls {
        subject: path.display().to_string(),
        reason: reason.to_string(),
    }
}
