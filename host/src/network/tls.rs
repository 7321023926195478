//! TLS on both ends of a connection: rustls with ring, TLS 1.2 and 1.3, HTTP/2 by ALPN.
//!
//! A server takes TLS and plaintext on one port: the first byte of a connection tells them apart. Without the feature
//! `tls`, and in the simulator, there is no TLS: asking for it is an error, never plaintext instead.

#[cfg(any(madsim, not(feature = "tls")))]
#[path = "tls/absent.rs"]
mod implementation;
#[cfg(all(feature = "tls", not(madsim)))]
#[path = "tls/present.rs"]
mod implementation;

#[cfg(all(feature = "server", any(madsim, not(feature = "tls"))))]
#[path = "tls/absent_server.rs"]
mod server;
#[cfg(all(feature = "server", feature = "tls", not(madsim)))]
#[path = "tls/present_server.rs"]
mod server;

#[cfg(not(madsim))]
pub(super) use implementation::Securing;
pub(super) use implementation::secure;
#[cfg(feature = "server")]
pub use server::ServerTls;

/// How a client verifies the servers that it connects to.
///
/// A server's certificate must lead to a trusted root and name the host that was connected to. There is no way to trust
/// anybody.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClientTls {
    pub(super) roots_pem: Option<Vec<u8>>,
    pub(super) server_name: Option<String>,
}

impl ClientTls {
    /// Trusts the roots that browsers trust (Mozilla's list), and expects the host's name.
    pub fn new() -> ClientTls {
        ClientTls::default()
    }

    /// Trusts these certificates (PEM, one or several) and no others: the roots of one's own authority, or a
    /// certificate that signed itself.
    #[must_use]
    pub fn roots_pem(mut self, pem: impl Into<Vec<u8>>) -> Self {
        self.roots_pem = Some(pem.into());
        self
    }

    /// Expects this name in certificates, instead of the host's.
    #[must_use]
    pub fn server_name(mut self, name: impl Into<String>) -> Self {
        self.server_name = Some(name.into());
        self
    }
}
