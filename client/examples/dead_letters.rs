//! A message that fails comes again after the group's back-off; one that always fails goes to the dead letters, where it
//! is read like any other.
//!
//! `cargo run --release -p raftmq-client --example dead_letters -- 127.0.0.1:8081`

#![allow(clippy::print_stdout, reason = "an example shows what it does")]

use std::time::Duration;

use raftmq_client::{
    Administration, Client, Delivery, Error, Filter, GroupSettings, Message, TopicQueue,
    TopicSettings,
};

const TOPIC: &str = "example-dead-letters";
const GROUP: &str = "example-dead-letters";

/// Shakes its head at bad orders always, and at good ones the first time.
async fn work(delivery: Delivery) -> Result<(), &'static str> {
    let body = String::from_utf8_lossy(delivery.message.body());
    println!("attempt {} at {body}", delivery.attempt);
    match &*body {
        "a bad order" => Err("nobody can work on this"),
        _ if delivery.attempt == 1 => Err("not now"),
        _ => Ok(()),
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
    let topic = TopicSettings {
        if_absent: true,
        ..TopicSettings::default()
    };
    client.admin().create_topic(TOPIC, &topic).await?;
    // Three attempts, the second after 200 ms and the third after another second.
    let group = GroupSettings {
        max_attempts: 3,
        attributes: [("retry.backoff".to_owned(), "200ms,1s".to_owned())].into(),
        if_absent: true,
        ..GroupSettings::default()
    };
    client.admin().create_group(GROUP, &group).await?;

    let consumer = client.push_consumer(GROUP).subscribe(TOPIC, Filter::All);
    let consumer = consumer.listen(work).await?;
    let producer = client.producer().build()?;
    for body in ["a good order", "a bad order"] {
        producer.send(Message::new(TOPIC, body)?).await?;
    }

    // The topic of the dead letters is made when the first message dies.
    let dead = format!("%DLQ%{GROUP}");
    let reader = client
        .pull_consumer("example-dead-letters-reader")
        .build()?;
    while client.queues(&dead).await.is_err() {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    reader.assign([TopicQueue::new(dead, 0)]).await?;
    for delivery in reader.poll(1, Duration::from_secs(10)).await? {
        let body = String::from_utf8_lossy(delivery.message.body());
        println!("dead: {body}");
    }
    reader.close().await?;
    consumer.close().await
}
