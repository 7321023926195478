//! Many messages at once: a batch with a result for each, handles to wait for later, and messages that nobody waits for.
//!
//! `cargo run --release -p raftmq-client --example batch -- 127.0.0.1:8081`

#![allow(clippy::print_stdout, reason = "an example shows what it does")]

use std::time::Duration;

use raftmq_client::{Administration, Client, Error, Message, TopicSettings};

const TOPIC: &str = "example-batch";

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

    // Requests of up to 256 messages or 512 KiB, which wait 5 ms for company; bodies from 1 KiB on are compressed.
    let producer = client
        .producer()
        .request_messages_max(256)
        .request_bytes_max(512 * 1024)
        .linger(Duration::from_millis(5))
        .compress_from_bytes(1024)
        .build()?;

    let batch = (0..100).map(|number| Message::new(TOPIC, format!("batch {number}")));
    let batch = batch.collect::<Result<Vec<_>, Error>>()?;
    for result in producer.send_batch(batch).await {
        match result {
            Ok(_) => {}
            // Sent again under the same id within two minutes, it would be stored once.
            Err(error) if error.is_outcome_unknown() => println!("perhaps stored: {error}"),
            Err(error) if error.is_retriable() => println!("not stored, try again: {error}"),
            Err(error) => return Err(error),
        }
    }

    let mut handles = Vec::new();
    for number in 0..100 {
        let message = Message::new(TOPIC, format!("handle {number} {}", "-".repeat(2000)))?;
        handles.push(producer.send_async(message).await?);
    }
    for handle in handles {
        handle.await?;
    }

    producer
        .send_one_way(Message::new(TOPIC, "nobody waits for this one")?)
        .await?;
    producer.close().await?;
    println!("201 messages sent");
    Ok(())
}
