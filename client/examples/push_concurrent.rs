//! A listener works on the messages of a topic, up to eight at once.
//!
//! `cargo run --release -p raftmq-client --example push_concurrent -- 127.0.0.1:8081`

#![allow(clippy::print_stdout, reason = "an example shows what it does")]

use raftmq_client::{Administration, Client, Delivery, Error, Filter, Message, TopicSettings};
use tokio::sync::mpsc;

const TOPIC: &str = "example-push-concurrent";
const MESSAGES: usize = 20;

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

    let (done, mut worked_on) = mpsc::channel(MESSAGES);
    let consumer = client
        .push_consumer("example-push-concurrent")
        .subscribe(TOPIC, Filter::Tag("new || changed".to_owned()))
        .concurrency(8)
        .listen(move |delivery: Delivery| {
            let done = done.clone();
            async move {
                let body = String::from_utf8_lossy(delivery.message.body()).into_owned();
                // An error means: deliver it again later. So does a panic.
                done.send(body).await
            }
        })
        .await?;

    let producer = client.producer().build()?;
    for number in 0..MESSAGES {
        let message = Message::builder(TOPIC)
            .tag("new")
            .body(format!("order {number}"));
        producer.send(message.build()?).await?;
    }
    for _ in 0..MESSAGES {
        println!("worked on {:?}", worked_on.recv().await);
    }
    // Waits for what is worked on, commits, and lets others take over at once.
    consumer.close().await
}
