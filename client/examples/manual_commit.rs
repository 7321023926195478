//! Progress by hand: what was not committed comes again, to whoever reads next in the group.
//!
//! `cargo run --release -p raftmq-client --example manual_commit -- 127.0.0.1:8081`

#![allow(clippy::print_stdout, reason = "an example shows what it does")]

use std::time::Duration;

use raftmq_client::{
    Administration, Client, Error, Message, PullConsumer, TopicQueue, TopicSettings,
};

const TOPIC: &str = "example-manual-commit";

/// The next message of the queue for this consumer.
async fn next(consumer: &PullConsumer) -> Result<u64, Error> {
    loop {
        if let Some(delivery) = consumer.poll(1, Duration::from_secs(10)).await?.pop() {
            return Ok(delivery.offset);
        }
    }
}

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
    for number in 0..3 {
        producer
            .send(Message::new(TOPIC, format!("number {number}"))?)
            .await?;
    }

    let queue = TopicQueue::new(TOPIC, 0);
    let reader = || {
        client
            .pull_consumer("example-manual-commit")
            .manual_commit()
            .build()
    };

    let first = reader()?;
    first.assign([queue.clone()]).await?;
    let done = next(&first).await?;
    // On the disks of a majority when this returns.
    first.commit().await?;
    let unfinished = next(&first).await?;
    first.close().await?;

    let second = reader()?;
    second.assign([queue]).await?;
    let again = next(&second).await?;
    println!("{done} was committed, {unfinished} was not and came again as {again}");
    assert_eq!(again, unfinished);
    second.commit().await?;
    second.close().await
}
