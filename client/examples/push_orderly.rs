//! Deliveries in order: one of each queue at a time, and one that fails comes again before the next.
//!
//! `cargo run --release -p raftmq-client --example push_orderly -- 127.0.0.1:8081`

#![allow(clippy::print_stdout, reason = "an example shows what it does")]

use std::time::Duration;

use raftmq_client::{Administration, Client, Error, Filter, Message, TopicSettings};

const TOPIC: &str = "example-push-orderly";
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
        for order in ["order 1", "order 2"] {
            // Messages of one message group go to one queue, in the order in which they are sent.
            let message = Message::builder(TOPIC).message_group(order);
            let message = message.body(format!("{order} {step}")).build()?;
            producer.send(message).await?;
        }
    }

    // A stream instead of a listener: whoever takes a delivery says what became of it.
    let stream = client
        .push_consumer("example-push-orderly")
        .subscribe(TOPIC, Filter::All)
        .in_order()
        .retry_pause(Duration::from_millis(100))
        .stream()
        .await?;
    let mut worked_on = 0;
    while worked_on < 2 * STEPS.len()
        && let Some(delivery) = stream.next().await?
    {
        let body = String::from_utf8_lossy(delivery.message.body());
        if body.ends_with("paid") && delivery.attempt == 1 {
            println!("{body}: not now");
            delivery.retry_later();
            continue;
        }
        println!("{body}");
        delivery.ack();
        worked_on += 1;
    }
    stream.close().await
}
