//! Order within a message group: what one producer sends in a group is stored, and read, in that order, through
//! retries and changes of leader.
//!
//! `cargo run --release -p raftmq-client --example ordered -- 127.0.0.1:8081`

#![allow(clippy::print_stdout, reason = "an example shows what it does")]

use std::collections::BTreeMap;
use std::time::Duration;

use raftmq_client::{Administration, Client, Error, Filter, Message, TopicSettings};

const TOPIC: &str = "example-ordered";
const STEPS: [&str; 3] = ["created", "paid", "shipped"];

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
    for step in STEPS {
        for order in ["order-1", "order-2"] {
            let message = Message::builder(TOPIC)
                .body(step)
                .message_group(order)
                .build()?;
            producer.send(message).await?;
        }
    }

    let consumer = client.pull_consumer("example-ordered").build()?;
    consumer.subscribe(TOPIC, Filter::All).await?;
    let mut seen: BTreeMap<String, Vec<String>> = BTreeMap::new();
    while seen.values().map(Vec::len).sum::<usize>() < 2 * STEPS.len() {
        for delivery in consumer.poll(100, Duration::from_secs(10)).await? {
            let order = delivery
                .message
                .message_group()
                .unwrap_or("none")
                .to_owned();
            let step = String::from_utf8_lossy(delivery.message.body()).into_owned();
            seen.entry(order).or_default().push(step);
        }
    }
    for (order, steps) in &seen {
        println!("{order}: {}", steps.join(", "));
        assert_eq!(steps[..], STEPS, "a group keeps its order");
    }
    consumer.close().await
}
