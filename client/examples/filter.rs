//! Tags: brokers send a consumer only the messages that it asks for.
//!
//! `cargo run --release -p raftmq-client --example filter -- 127.0.0.1:8081`

#![allow(clippy::print_stdout, reason = "an example shows what it does")]

use std::time::Duration;

use raftmq_client::{Administration, Client, Error, Filter, Message, TopicSettings};

const TOPIC: &str = "example-filter";

#[tokio::main]
async fn main() -> Result<(), Error> {
    let seed = std::env::args().nth(1);
    let seed = seed.unwrap_or_else(|| "127.0.0.1:8081".to_owned());
    // The secret's file: RAFTMQ_SECRET_FILE=data/secret for `raftmq dev`. Only administration needs it.
    let administration = Administration::from_environment()?;
    let client = Client::builder()
        .seeds([seed])
        .administration(administration)
        .build()
        .await?;
    let settings = TopicSettings {
        if_absent: true,
        ..TopicSettings::default()
    };
    client.admin().create_topic(TOPIC, &settings).await?;

    let producer = client.producer().build()?;
    for tag in ["paid", "refused", "paid", "refunded"] {
        let message = Message::builder(TOPIC).body(tag).tag(tag).build()?;
        producer.send(message).await?;
    }

    let consumer = client.pull_consumer("example-filter").build()?;
    let wanted = Filter::Tag("paid || refunded".to_owned());
    consumer.subscribe(TOPIC, wanted).await?;
    let mut received = Vec::new();
    while received.len() < 3 {
        for delivery in consumer.poll(100, Duration::from_secs(10)).await? {
            let tag = delivery.message.tag().unwrap_or("none").to_owned();
            assert_ne!(tag, "refused", "the broker leaves it out");
            received.push(tag);
        }
    }
    println!("received: {}", received.join(", "));
    consumer.close().await
}
