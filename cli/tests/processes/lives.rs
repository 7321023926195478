//! Consumers that live through what becomes of their topics: made again, grown, shared by halves.

use std::time::Duration;

use raftmq_client::{
    Client, ConsumeFrom, Filter, PullConsumer, PullConsumerBuilder, TopicSettings,
};

use super::cluster::Cluster;
use super::restored::{read, send};

fn of(queue_count: u32) -> TopicSettings {
    TopicSettings {
        queue_count,
        ..TopicSettings::default()
    }
}

fn quick(builder: PullConsumerBuilder) -> PullConsumer {
    let builder = builder.heartbeat_interval(Duration::from_millis(300));
    let builder = builder.auto_commit(Duration::from_millis(200));
    builder.build().unwrap()
}

async fn member(client: &Client, group: &str, topics: &[&str]) -> PullConsumer {
    let consumer = quick(client.pull_consumer(group));
    for topic in topics {
        consumer.subscribe(topic, Filter::All).await.unwrap();
    }
    consumer
}

/// Catches a consumer whose place in a topic that is gone counts in the one that has its name now: it waits for the offset that it
/// had reached, and skips what is below.
#[tokio::test(flavor = "multi_thread")]
async fn a_topic_that_is_made_again_is_read_from_its_beginning() {
    let cluster = Cluster::start().await;
    let client = cluster.client().await;
    let admin = client.admin();
    admin.create_topic("orders", &of(2)).await.unwrap();
    let consumer = member(&client, "readers", &["orders"]).await;
    send(&client, "orders", 0..60).await;
    read(&consumer, 0..60).await;
    admin.delete_topic("orders").await.unwrap();
    admin.create_topic("orders", &of(2)).await.unwrap();
    // Fewer than before: all of them lie below the places that the consumer had.
    send(&client, "orders", 100..120).await;
    read(&consumer, 100..120).await;
    consumer.close().await.unwrap();
    let next = member(&client, "readers", &["orders"]).await;
    send(&client, "orders", 120..140).await;
    read(&next, 120..140).await;
}

/// Catches a group that starts at the latest message and so skips what is in queues that its topic gets afterwards.
#[tokio::test(flavor = "multi_thread")]
async fn queues_that_are_added_are_read_from_their_beginning() {
    let cluster = Cluster::start().await;
    let client = cluster.client().await;
    let admin = client.admin();
    admin.create_topic("orders", &of(1)).await.unwrap();
    send(&client, "orders", 0..10).await;
    let late = client.pull_consumer("late");
    let consumer = quick(late.consume_from(ConsumeFrom::Latest));
    consumer.subscribe("orders", Filter::All).await.unwrap();
    // Nothing of before comes; then the group exists.
    let before = consumer.poll(64, Duration::from_secs(1)).await.unwrap();
    assert!(before.is_empty(), "{before:?}");
    admin.alter_topic("orders", &of(8)).await.unwrap();
    let other = cluster.client().await;
    send(&other, "orders", 10..90).await;
    read(&consumer, 10..90).await;
}

/// Catches queues that are given to a member which does not read their topic, and so to nobody.
#[tokio::test(flavor = "multi_thread")]
async fn each_topic_is_shared_among_those_who_read_it() {
    let cluster = Cluster::start().await;
    let client = cluster.client().await;
    let admin = client.admin();
    for topic in ["orders", "refunds"] {
        admin.create_topic(topic, &of(4)).await.unwrap();
    }
    let (first, second) = (cluster.client().await, cluster.client().await);
    let both = member(&first, "readers", &["orders", "refunds"]).await;
    let refunds_only = member(&second, "readers", &["refunds"]).await;
    send(&client, "orders", 0..40).await;
    read(&both, 0..40).await;
    send(&client, "refunds", 100..140).await;
    let (mut missing, mut polls) = ((100..140).collect::<std::collections::BTreeSet<u64>>(), 0);
    while !missing.is_empty() {
        assert!(polls < 60, "nobody reads {missing:?}");
        polls += 1;
        for member in [&both, &refunds_only] {
            let deliveries = member.poll(64, Duration::from_millis(500)).await.unwrap();
            for delivery in deliveries {
                missing.remove(&super::restored::number(delivery.message.body()));
            }
        }
    }
}
