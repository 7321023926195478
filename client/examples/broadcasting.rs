//! Each member of a group gets every message, and keeps its own place: here in a file, to go on from after a restart.
//!
//! `cargo run --release -p raftmq-client --example broadcasting -- 127.0.0.1:8081`

#![allow(clippy::print_stdout, reason = "an example shows what it does")]

use std::path::PathBuf;

use raftmq_client::{
    Administration, Client, Consumption, Error, Filter, Message, PushStream, TopicSettings,
};

const TOPIC: &str = "example-broadcasting";
const MESSAGES: usize = 3;

async fn member(client: &Client, progress_file: Option<PathBuf>) -> Result<PushStream, Error> {
    client
        .push_consumer("example-broadcasting")
        .subscribe(TOPIC, Filter::All)
        .consumption(Consumption::Broadcasting { progress_file })
        .stream()
        .await
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
        if_absent: true,
        ..TopicSettings::default()
    };
    client.admin().create_topic(TOPIC, &settings).await?;

    let file = format!("raftmq-example-broadcasting-{}", std::process::id());
    let file = std::env::temp_dir().join(file);
    let members = [
        member(&client, Some(file)).await?,
        member(&client, None).await?,
    ];
    let producer = client.producer().build()?;
    for number in 0..MESSAGES {
        producer
            .send(Message::new(TOPIC, format!("news {number}"))?)
            .await?;
    }
    for stream in &members {
        for _ in 0..MESSAGES {
            let Some(delivery) = stream.next().await? else {
                break;
            };
            let body = String::from_utf8_lossy(delivery.message.body());
            println!("{}: {body}", stream.member_id());
            delivery.ack();
        }
        stream.close().await?;
    }
    Ok(())
}
