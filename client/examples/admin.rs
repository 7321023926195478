//! Topics, consumer groups and brokers from a program.
//!
//! `cargo run --release -p raftmq-client --example admin -- 127.0.0.1:8081`

#![allow(clippy::print_stdout, reason = "an example shows what it does")]

use raftmq_client::{Administration, Client, Error, GroupSettings, TopicSettings};

const TOPIC: &str = "example-admin";
const GROUP: &str = "example-admin";

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
    let admin = client.admin();

    let mut settings = TopicSettings {
        queue_count: 2,
        if_absent: true,
        ..TopicSettings::default()
    };
    admin.create_topic(TOPIC, &settings).await?;
    settings.queue_count = 6;
    admin.alter_topic(TOPIC, &settings).await?;
    if let Some(topic) = admin.topic(TOPIC).await? {
        println!("{TOPIC} has {} queues", topic.queues.len());
        assert_eq!(topic.queues.len(), 6);
    }

    let settings = GroupSettings {
        if_absent: true,
        ..GroupSettings::default()
    };
    admin.create_group(GROUP, &settings).await?;
    println!("members of {GROUP}: {:?}", admin.members(GROUP).await?);

    for broker in admin.brokers().await? {
        println!(
            "broker {} serves clients at {}",
            broker.broker_id, broker.client_address
        );
    }
    admin.delete_group(GROUP).await?;
    admin.delete_topic(TOPIC).await
}
