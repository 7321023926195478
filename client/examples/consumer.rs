//! Reads a topic as a member of a consumer group, until nothing has come for ten seconds. Start it twice: the two share
//! the topic's queues.
//!
//! `cargo run --release -p raftmq-client --example consumer -- 127.0.0.1:8081 orders billing`

#![allow(clippy::print_stdout, reason = "an example shows what it does")]

use std::time::Duration;

use raftmq_client::{Client, ConsumeFrom, Error, Filter};

#[tokio::main]
async fn main() -> Result<(), Error> {
    let mut arguments = std::env::args().skip(1);
    let seed = arguments
        .next()
        .unwrap_or_else(|| "127.0.0.1:8081".to_owned());
    let topic = arguments.next().unwrap_or_else(|| "orders".to_owned());
    let group = arguments.next().unwrap_or_else(|| "billing".to_owned());

    let client = Client::builder().seeds([seed]).build().await?;
    let consumer = client
        .pull_consumer(group)
        .consume_from(ConsumeFrom::Earliest)
        .auto_commit(Duration::from_secs(1))
        .build()?;
    consumer.subscribe(&topic, Filter::All).await?;

    loop {
        // This poll says that what the one before handed out is finished with.
        let deliveries = consumer.poll(100, Duration::from_secs(10)).await?;
        if deliveries.is_empty() {
            break;
        }
        for delivery in deliveries {
            let body = String::from_utf8_lossy(delivery.message.body());
            println!(
                "{}/{}/{}: {body}",
                delivery.topic, delivery.queue, delivery.offset
            );
        }
    }
    consumer.close().await
}
