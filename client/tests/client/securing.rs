//! TLS, and whom to trust.

#![allow(
    clippy::disallowed_methods,
    reason = "certificates are files of the machine that tests run on"
)]

use std::sync::Arc;
use std::time::Duration;

use host::network::ServerTls;
use raftmq_client::{Client, ClientTls, Error, Message, TopicQueue};
use rcgen::{CertifiedKey, generate_simple_self_signed};

use crate::fake::{FakeCluster, TOPIC};

/// A server's certificate for some name, and the text that a client trusts it by.
fn certificate(name: &str) -> (Arc<ServerTls>, String) {
    let CertifiedKey { cert, signing_key } =
        generate_simple_self_signed([name.to_owned()]).expect("a certificate");
    let directory = tempfile::tempdir().expect("a directory");
    let paths = ["certificate.pem", "key.pem"].map(|name| directory.path().join(name));
    for (path, text) in paths.iter().zip([cert.pem(), signing_key.serialize_pem()]) {
        std::fs::write(path, text).expect("written");
    }
    let tls = ServerTls::load(&paths[0], &paths[1]).expect("usable");
    (Arc::new(tls), cert.pem())
}

async fn connect(cluster: &FakeCluster, tls: Option<ClientTls>) -> Result<Client, Error> {
    let builder = Client::builder()
        .seeds(cluster.seeds())
        .attempt_timeout(Duration::from_secs(2))
        .start_timeout(Duration::from_secs(2));
    match tls {
        Some(tls) => builder.tls(tls).build().await,
        None => builder.build().await,
    }
}

async fn send_and_receive(client: &Client, body: &str) {
    let message = Message::new(TOPIC, body.to_owned()).expect("valid");
    let producer = client.producer().build().expect("valid");
    let receipt = producer.send(message).await.expect("stored");
    let consumer = client.pull_consumer("g").build().expect("valid");
    let queue = TopicQueue::new(TOPIC, receipt.queue);
    consumer.assign([queue.clone()]).await.expect("assigned");
    consumer.seek(&queue, receipt.offset).await.expect("held");
    let polled = consumer.poll(1, Duration::from_secs(10)).await;
    assert_eq!(polled.expect("no error")[0].message.body(), body);
}

/// Catches a client that says TLS and speaks plaintext, and a server that only understands one of them.
#[tokio::test]
async fn clients_in_tls_and_plaintext_share_the_ports() {
    let (server, pem) = certificate("127.0.0.1");
    let cluster = FakeCluster::start_with(2, 1, Some(server)).await;
    let trusting = ClientTls::new().roots_pem(pem);
    let secured = connect(&cluster, Some(trusting)).await.expect("trusted");
    send_and_receive(&secured, "secret").await;
    let plain = connect(&cluster, None).await.expect("connected");
    send_and_receive(&plain, "open").await;
}

/// Catches a client that talks to anybody, or to the right authority's wrong server.
#[tokio::test]
async fn a_stranger_is_not_trusted() {
    let (server, pem) = certificate("broker.example");
    let cluster = FakeCluster::start_with(1, 1, Some(server)).await;
    let (_, other) = certificate("broker.example");
    for stranger in [
        ClientTls::new(),
        ClientTls::new().roots_pem(other),
        ClientTls::new().roots_pem(pem.clone()),
    ] {
        let error = connect(&cluster, Some(stranger)).await.err();
        let error = error.expect("not trusted");
        assert!(matches!(error, Error::NoSeedAnswered { .. }), "{error}");
    }
    let named = ClientTls::new()
        .roots_pem(pem)
        .server_name("broker.example");
    let client = connect(&cluster, Some(named)).await.expect("trusted");
    send_and_receive(&client, "by name").await;
}
