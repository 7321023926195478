//! Two members of a consumer group share a topic's queues; when one leaves, the other takes them all.
//!
//! `cargo run --release -p raftmq-client --example sharing -- 127.0.0.1:8081`

#![allow(clippy::print_stdout, reason = "an example shows what it does")]

use std::time::Duration;

use raftmq_client::{
    Administration, AveragelyByCircle, Client, Error, Filter, PullConsumer, TopicSettings,
};

const TOPIC: &str = "example-sharing";

/// Waits until a member holds so many queues.
async fn holds(member: &PullConsumer, queues: usize) {
    while member.assignment().len() != queues {
        tokio::time::sleep(Duration::from_millis(50)).await;
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
        queue_count: 5,
        if_absent: true,
        ..TopicSettings::default()
    };
    client.admin().create_topic(TOPIC, &settings).await?;

    // All members of a group use the same strategy.
    let member = || {
        client
            .pull_consumer("example-sharing")
            .allocation(AveragelyByCircle)
            .build()
    };
    let (one, other) = (member()?, member()?);
    one.subscribe(TOPIC, Filter::All).await?;
    other.subscribe(TOPIC, Filter::All).await?;
    holds(&one, 3).await;
    holds(&other, 2).await;
    let numbers = |member: &PullConsumer| {
        let held = member.assignment().into_iter();
        held.map(|queue| queue.queue).collect::<Vec<u32>>()
    };
    println!("queues {:?} and {:?}", numbers(&one), numbers(&other));

    other.close().await?;
    holds(&one, 5).await;
    println!("queues {:?}", numbers(&one));
    one.close().await
}
