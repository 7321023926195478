//! TLS and plaintext on one port, and certificates that change.

#![allow(
    clippy::disallowed_methods,
    reason = "certificates are files of the machine that tests run on"
)]

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use rcgen::{CertifiedKey, generate_simple_self_signed};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

use super::*;
use crate::{Shutdown, ShutdownTrigger};

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00";

/// A certificate for `localhost` in files.
struct Files {
    directory: tempfile::TempDir,
}

impl Files {
    fn new() -> (Files, CertificateDer<'static>) {
        let directory = tempfile::tempdir().expect("a directory");
        let files = Files { directory };
        let certificate = files.renew();
        (files, certificate)
    }

    fn certificate(&self) -> PathBuf {
        self.directory.path().join("certificate.pem")
    }

    fn key(&self) -> PathBuf {
        self.directory.path().join("key.pem")
    }

    fn renew(&self) -> CertificateDer<'static> {
        let names = vec!["localhost".to_owned()];
        let CertifiedKey { cert, signing_key } =
            generate_simple_self_signed(names).expect("a certificate");
        std::fs::write(self.certificate(), cert.pem()).expect("written");
        std::fs::write(self.key(), signing_key.serialize_pem()).expect("written");
        cert.der().clone()
    }

    fn load(&self) -> ServerTls {
        ServerTls::load(&self.certificate(), &self.key()).expect("usable")
    }
}

async fn start(tls: Arc<ServerTls>) -> (SocketAddr, ShutdownTrigger) {
    let (trigger, shutdown) = Shutdown::new();
    let listener = Listener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_address();
    let options = ServerOptions {
        handshake_timeout_ms: 500,
        shutdown_grace_ms: 0,
        tls: Some(tls),
        ..ServerOptions::default()
    };
    let router = server(&options).add_routes(Default::default());
    tokio::spawn(serve(listener, router, options, shutdown));
    (address, trigger)
}

/// Whether an HTTP/2 server answers on the stream.
async fn speaks_http2(mut stream: impl AsyncRead + AsyncWrite + Unpin) -> bool {
    let mut frame = [0; 9];
    let exchange = async {
        stream.write_all(PREFACE).await?;
        stream.read_exact(&mut frame).await
    };
    let answered = tokio::time::timeout(Duration::from_secs(10), exchange).await;
    // The first frame is SETTINGS, type 4.
    answered.is_ok_and(|exchange| exchange.is_ok()) && frame[3] == 4
}

async fn connect_tls(address: SocketAddr, root: &CertificateDer<'static>) -> std::io::Result<bool> {
    let mut roots = RootCertStore::empty();
    roots.add(root.clone()).expect("a root");
    let mut config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"h2".to_vec()];
    let name = ServerName::try_from("localhost").expect("a name");
    let stream = TcpStream::connect(address).await?;
    let stream = TlsConnector::from(Arc::new(config))
        .connect(name, stream)
        .await?;
    Ok(speaks_http2(stream).await)
}

/// Catches a port that understands only one of the two, and a certificate that is not the one of the files.
#[tokio::test]
async fn one_port_takes_tls_and_plaintext() {
    let (files, certificate) = Files::new();
    let (address, _running) = start(Arc::new(files.load())).await;
    for _ in 0..3 {
        assert!(connect_tls(address, &certificate).await.expect("trusted"));
        let plain = TcpStream::connect(address).await.expect("connected");
        assert!(speaks_http2(plain).await);
    }
    let (_others, other) = Files::new();
    assert!(connect_tls(address, &other).await.is_err(), "not trusted");
}

/// Catches a half handshake that holds a place for ever.
#[tokio::test]
async fn a_handshake_that_stops_is_closed() {
    let (files, _) = Files::new();
    let (address, _running) = start(Arc::new(files.load())).await;
    for opening in [&b""[..], b"\x16", b"\x16\x03\x01\x02\x00\x01\x00"] {
        let mut stream = TcpStream::connect(address).await.expect("connected");
        stream.write_all(opening).await.expect("written");
        let mut rest = Vec::new();
        let closed = tokio::time::timeout(Duration::from_secs(10), stream.read_to_end(&mut rest));
        assert!(closed.await.is_ok(), "still open after {opening:?}");
    }
}

/// Catches a certificate that only a restart would replace, and one that is lost because its successor is no good.
#[tokio::test]
async fn a_renewed_certificate_is_taken_up_and_a_broken_one_is_not() {
    let (files, _) = Files::new();
    let tls = Arc::new(files.load());
    let (address, _running) = start(tls.clone()).await;
    assert!(!tls.reload().expect("unchanged"));
    let renewed = files.renew();
    assert!(tls.reload().expect("usable"));
    assert!(connect_tls(address, &renewed).await.expect("trusted"));
    std::fs::write(files.certificate(), "no certificate").expect("written");
    let error = tls.reload().expect_err("not usable");
    assert!(error.to_string().contains("certificate.pem"), "{error}");
    assert!(connect_tls(address, &renewed).await.expect("trusted"));
}

/// Catches a key that does not fit and is found out by the first client.
#[test]
fn what_does_not_belong_together_is_refused() {
    let ((one, _), (other, _)) = (Files::new(), Files::new());
    for (certificate, key) in [
        (one.certificate(), other.key()),
        (one.key(), one.key()),
        (one.certificate(), one.certificate()),
        (one.certificate(), one.key().with_extension("gone")),
    ] {
        let error = ServerTls::load(&certificate, &key).expect_err("not usable");
        let directory = certificate.parent().expect("a directory").display();
        assert!(
            error.to_string().contains(&directory.to_string()),
            "{error}"
        );
    }
}
