//! TLS: the same ports, a certificate that is verified.
//!
//! `cargo run --release -p raftmq-client --example tls -- 127.0.0.1:8081 data/tls/certificate.pem`

#![allow(clippy::print_stdout, reason = "an example shows what it does")]
#![allow(
    clippy::disallowed_methods,
    reason = "an application reads its own files"
)]

use raftmq_client::{Administration, Client, ClientTls, Message, TopicSettings};

const TOPIC: &str = "example-tls";

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let seed = arguments
        .next()
        .unwrap_or_else(|| "127.0.0.1:8081".to_owned());
    let trusted = arguments
        .next()
        .unwrap_or_else(|| "data/tls/certificate.pem".to_owned());

    // Without roots of its own a client trusts those that browsers trust.
    let tls = ClientTls::new().roots_pem(std::fs::read(trusted)?);
    // The secret's file: RAFTMQ_SECRET_FILE=data/secret for `raftmq dev`. Only administration needs it.
    let administration = Administration::from_environment()?;
    let client = Client::builder()
        .seeds([seed])
        .administration(administration)
        .tls(tls)
        .build()
        .await?;
    let settings = TopicSettings {
        if_absent: true,
        ..TopicSettings::default()
    };
    client.admin().create_topic(TOPIC, &settings).await?;
    let producer = client.producer().build()?;
    let receipt = producer
        .send(Message::new(TOPIC, "nobody else read this")?)
        .await?;
    println!(
        "stored at {}/{}/{}",
        receipt.topic, receipt.queue, receipt.offset
    );
    producer.close().await?;
    Ok(())
}
