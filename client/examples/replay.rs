//! Moving about in queues that were chosen: read again from a time or an offset, pause, resume.
//!
//! `cargo run --release -p raftmq-client --example replay -- 127.0.0.1:8081`

#![allow(clippy::print_stdout, reason = "an example shows what it does")]

use std::time::Duration;

use raftmq_client::{Administration, Client, Error, Message, SeekTo, TopicQueue, TopicSettings};

const TOPIC: &str = "example-replay";
const PATIENCE: Duration = Duration::from_secs(10);

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
        queue_count: 1,
        if_absent: true,
        ..TopicSettings::default()
    };
    client.admin().create_topic(TOPIC, &settings).await?;

    let producer = client.producer().build()?;
    let mut last = None;
    for number in 0..10 {
        let message = Message::new(TOPIC, format!("number {number}"))?;
        last = Some(producer.send(message).await?.offset);
    }

    // A group commits its own progress; this one only looks, so it commits nothing.
    let consumer = client
        .pull_consumer("example-replay")
        .manual_commit()
        .build()?;
    let queue = TopicQueue::new(TOPIC, 0);
    consumer.assign([queue.clone()]).await?;
    consumer.seek(&queue, SeekTo::Begin).await?;
    let first = consumer.poll(1, PATIENCE).await?;
    println!("oldest: offset {}", first[0].offset);

    // An hour ago; with milliseconds since the Unix epoch as brokers stamp them.
    let hour_ago = first[0].message.stored_ms().saturating_sub(3_600_000);
    consumer.seek(&queue, SeekTo::TimeMs(hour_ago)).await?;
    println!("an hour ago: offset {:?}", consumer.position(&queue));

    consumer.pause(std::slice::from_ref(&queue))?;
    assert!(
        consumer
            .poll(1, Duration::from_millis(200))
            .await?
            .is_empty()
    );
    consumer.resume(std::slice::from_ref(&queue))?;

    let last = last.unwrap_or(0);
    consumer.seek(&queue, last).await?;
    let again = consumer.poll(1, PATIENCE).await?;
    println!("last: {:?} at {}", again[0].message.body(), again[0].offset);
    assert_eq!(again[0].offset, last);
    consumer.close().await
}
