//! Strangers, and who is none, at a server that asks for a proof.

#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "a test fails by panicking, and writes files of its own"
)]

use std::convert::Infallible;
use std::future::{Ready, poll_fn, ready};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tonic::body::Body;
use tonic::codegen::{Service, http};
use tonic::server::NamedService;
use tonic::transport::Channel;
use tonic::{Code, Status};

use super::*;
use crate::{Shutdown, ShutdownTrigger};

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00";

const PATIENCE: Duration = Duration::from_secs(10);

/// Answers every call, and counts them.
#[derive(Clone, Default)]
struct Counts {
    calls: Arc<AtomicUsize>,
}

impl NamedService for Counts {
    const NAME: &'static str = "test.Counts";
}

impl Service<http::Request<Body>> for Counts {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = Ready<Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: http::Request<Body>) -> Self::Future {
        self.calls.fetch_add(1, Ordering::SeqCst);
        ready(Ok(Status::new(Code::Ok, "").into_http()))
    }
}

fn secret(seed: &str) -> ClusterSecret {
    let text = format!("{seed}{}", "0123456789abcdef".repeat(4));
    ClusterSecret::from_text(&text).unwrap()
}

async fn start(options: ServerOptions) -> (SocketAddr, Counts, ShutdownTrigger) {
    let (trigger, shutdown) = Shutdown::new();
    let listener = Listener::bind("127.0.0.1:0").await.unwrap();
    let (address, counts) = (listener.local_address(), Counts::default());
    let router = server(&options).add_service(guarded(counts.clone()));
    tokio::spawn(serve(listener, router, options, shutdown));
    (address, counts, trigger)
}

fn connect(address: &str, secret: Option<ClusterSecret>, tls: Option<ClientTls>) -> Channel {
    let options = ChannelOptions {
        secret,
        tls,
        ..ChannelOptions::default()
    };
    channel(address, &options).unwrap()
}

/// The answer's headers in order, or why there is none.
async fn call(mut channel: Channel, path: &str) -> Result<Vec<(String, String)>, String> {
    let uri = format!("http://server{path}");
    let request = http::Request::post(uri).body(Body::empty()).unwrap();
    let asking = async {
        poll_fn(|context| channel.poll_ready(context)).await?;
        channel.call(request).await
    };
    let answer = tokio::time::timeout(PATIENCE, asking).await;
    let answer = answer
        .expect("an answer or an error")
        .map_err(|error| format!("{:?}", Status::from_error(error.into())))?;
    let text = |value: &http::HeaderValue| value.to_str().unwrap().to_owned();
    let headers = answer.headers().iter();
    let mut headers: Vec<(String, String)> = headers
        .filter(|(name, _)| *name != "date")
        .map(|(name, value)| (name.to_string(), text(value)))
        .collect();
    headers.sort();
    Ok(headers)
}

fn code(answer: &Result<Vec<(String, String)>, String>) -> &str {
    let headers = answer.as_ref().unwrap();
    let status = headers.iter().find(|(name, _)| name == "grpc-status");
    &status.unwrap().1
}

/// Catches a stranger who reaches a service for servers, and an answer by which he could tell that there is one.
#[tokio::test]
async fn a_guarded_service_is_there_for_the_proven_only() {
    let options = ServerOptions {
        proof: Proof::Accepted(secret("a")),
        ..ServerOptions::default()
    };
    let (address, counts, _trigger) = start(options).await;
    let address = address.to_string();
    let stranger = connect(&address, None, None);
    let guarded = call(stranger.clone(), "/test.Counts/Any").await;
    assert_eq!(code(&guarded), "12");
    assert_eq!(guarded, call(stranger, "/test.Unknown/Any").await);
    let error = call(
        connect(&address, Some(secret("b")), None),
        "/test.Counts/Any",
    )
    .await;
    let error = error.unwrap_err();
    assert!(error.contains("did not prove"), "{error}");
    assert_eq!(counts.calls.load(Ordering::SeqCst), 0);

    let proven = connect(&address, Some(secret("a")), None);
    assert_eq!(code(&call(proven, "/test.Counts/Any").await), "0");
    assert_eq!(counts.calls.load(Ordering::SeqCst), 1);
}

/// What a server says to `bytes` before it hangs up.
async fn said(address: SocketAddr, bytes: &[u8]) -> Vec<u8> {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(bytes).await.unwrap();
    let mut said = Vec::new();
    // That it hung up with bytes unread is told as a reset.
    let _ = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut said))
        .await
        .expect("it hangs up");
    said
}

/// Catches a port for servers that says a word to anybody else.
#[tokio::test]
async fn where_a_proof_is_demanded_strangers_are_told_nothing() {
    let options = ServerOptions {
        proof: Proof::Demanded(secret("a")),
        handshake_timeout_ms: 1_000,
        ..ServerOptions::default()
    };
    let (address, counts, _trigger) = start(options).await;
    for bytes in [PREFACE, b"\x16\x03\x01", b"GET / HTTP/1.1\r\n\r\n", b""] {
        assert_eq!(said(address, bytes).await, b"");
    }
    let proven = connect(&address.to_string(), Some(secret("a")), None);
    assert_eq!(code(&call(proven, "/test.Counts/Any").await), "0");
    assert_eq!(counts.calls.load(Ordering::SeqCst), 1);
}

/// Catches strangers who take the places of servers by saying nothing.
#[tokio::test]
async fn strangers_keep_out_nobody() {
    let options = ServerOptions {
        proof: Proof::Demanded(secret("a")),
        connections_max: 1,
        handshake_timeout_ms: 60_000,
        ..ServerOptions::default()
    };
    let (address, _, _trigger) = start(options).await;
    let mut silent = Vec::new();
    for _ in 0..600 {
        silent.push(TcpStream::connect(address).await.unwrap());
    }
    let proven = connect(&address.to_string(), Some(secret("a")), None);
    assert_eq!(code(&call(proven, "/test.Counts/Any").await), "0");
    // The oldest had to go, long before its deadline.
    let first = silent[0].read_u8();
    let ended = tokio::time::timeout(PATIENCE, first).await;
    assert!(ended.expect("it was ended").is_err());
}

/// Catches a proof that is made outside of TLS, where somebody in between could make it his own, and TLS that is given
/// up for it.
#[cfg(feature = "tls")]
#[tokio::test]
async fn under_tls_the_proof_is_inside() {
    use rcgen::{CertifiedKey, generate_simple_self_signed};

    let CertifiedKey { cert, signing_key } =
        generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    let directory = tempfile::tempdir().unwrap();
    let file = |name: &str, text: String| {
        let path = directory.path().join(name);
        std::fs::write(&path, text).unwrap();
        path
    };
    let tls = ServerTls::load(
        &file("certificate.pem", cert.pem()),
        &file("key.pem", signing_key.serialize_pem()),
    )
    .unwrap();
    let options = ServerOptions {
        proof: Proof::Demanded(secret("a")),
        tls: Some(Arc::new(tls)),
        ..ServerOptions::default()
    };
    let (address, _, _trigger) = start(options).await;
    let address = format!("localhost:{}", address.port());
    let trusting = ClientTls::new().roots_pem(cert.pem());
    let proven = connect(&address, Some(secret("a")), Some(trusting.clone()));
    assert_eq!(code(&call(proven, "/test.Counts/Any").await), "0");
    let stranger = connect(&address, None, Some(trusting));
    assert!(call(stranger, "/test.Counts/Any").await.is_err());
    let doubting = connect(&address, Some(secret("a")), Some(ClientTls::new()));
    let error = call(doubting, "/test.Counts/Any").await.unwrap_err();
    assert!(error.contains("certificate"), "{error}");
}
