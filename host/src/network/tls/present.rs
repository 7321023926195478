//! TLS of clients, by rustls.

use std::sync::Arc;

use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, RootCertStore};
use tonic::transport::{Certificate, ClientTlsConfig, Endpoint};

use super::ClientTls;
use crate::network::NetworkError;
use crate::network::connector::Stream;

/// The application protocol of gRPC.
pub(super) const ALPN: &[u8] = b"h2";

/// Has the endpoint's connections speak TLS.
pub(in crate::network) fn secure(
    endpoint: Endpoint,
    tls: &ClientTls,
) -> Result<Endpoint, NetworkError> {
    let mut config = match &tls.roots_pem {
        Some(pem) => ClientTlsConfig::new().ca_certificate(Certificate::from_pem(pem)),
        None => ClientTlsConfig::new().with_webpki_roots(),
    };
    if let Some(name) = &tls.server_name {
        config = config.domain_name(name);
    }
    endpoint
        .tls_config(config)
        .map_err(|error| NetworkError::Tls {
            subject: "a connection".to_owned(),
            reason: error.to_string(),
        })
}

/// TLS for connections that prove before they speak HTTP/2; the same as tonic makes of [`secure`].
#[derive(Clone)]
pub(in crate::network) struct Securing {
    connector: TlsConnector,
    name: ServerName<'static>,
}

impl Securing {
    /// Connections to `host`.
    ///
    /// # Errors
    /// [`NetworkError::Tls`]: the trusted roots cannot be used, or the host's name is none.
    pub(in crate::network) fn new(tls: &ClientTls, host: &str) -> Result<Securing, NetworkError> {
        let unusable = |reason: String| NetworkError::Tls {
            subject: "a connection".to_owned(),
            reason,
        };
        let mut roots = RootCertStore::empty();
        match &tls.roots_pem {
            Some(pem) => {
                for certificate in CertificateDer::pem_slice_iter(pem) {
                    let certificate = certificate.map_err(|error| unusable(error.to_string()))?;
                    roots
                        .add(certificate)
                        .map_err(|error| unusable(error.to_string()))?;
                }
            }
            None => roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned()),
        }
        let mut config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(|error| unusable(error.to_string()))?
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.alpn_protocols = vec![ALPN.to_vec()];
        let host = tls.server_name.as_deref().unwrap_or(host);
        let name = host.trim_start_matches('[').trim_end_matches(']');
        let name = ServerName::try_from(name.to_owned())
            .map_err(|error| unusable(format!("{name:?}: {error}")))?;
        Ok(Securing {
            connector: Arc::new(config).into(),
            name,
        })
    }

    /// Speaks TLS over `stream`. The caller bounds the time.
    ///
    /// # Errors
    /// The server could not be verified, or the connection failed.
    pub(in crate::network) async fn secure(
        self,
        stream: TcpStream,
    ) -> std::io::Result<Box<dyn Stream>> {
        let stream = self.connector.connect(self.name, stream).await?;
        Ok(Box::new(stream))
    }
}
