//! Consumers that live through the loss of a group and its return from a copy.

use std::collections::BTreeSet;
use std::process::Command;
use std::time::Duration;

use cli::process::Member;
use raftmq_client::{
    Client, Consumption, Filter, Message, PullConsumer, PushStream, TopicSettings,
};

use super::cluster::{Cluster, PATIENCE, eventually, program};
use super::identity::copy_directory;

const TOPIC: &str = "orders";
const RESTORED: u64 = 4;

/// Sends messages that say their numbers.
pub(crate) async fn send(client: &Client, topic: &str, numbers: std::ops::Range<u64>) {
    let producer = client.producer().send_timeout(PATIENCE).build().unwrap();
    for number in numbers {
        let message = Message::new(topic, number.to_string().into_bytes()).unwrap();
        producer.send(message).await.unwrap();
    }
}

pub(crate) fn number(body: &[u8]) -> u64 {
    String::from_utf8_lossy(body).parse().unwrap()
}

/// Reads until all these numbers have come, or nothing has for long.
pub(crate) async fn read(consumer: &PullConsumer, numbers: std::ops::Range<u64>) {
    let mut missing: BTreeSet<u64> = numbers.collect();
    let reading = async {
        while !missing.is_empty() {
            // Errors while nobody leads, or the topic is another one.
            let deliveries = consumer.poll(64, Duration::from_secs(1)).await;
            for delivery in deliveries.unwrap_or_default() {
                missing.remove(&number(delivery.message.body()));
            }
        }
    };
    let read = tokio::time::timeout(PATIENCE, reading).await;
    assert!(read.is_ok(), "the group did not get {missing:?}");
}

async fn read_alone(stream: &PushStream, numbers: std::ops::Range<u64>) {
    let mut missing: BTreeSet<u64> = numbers.collect();
    let reading = async {
        while !missing.is_empty() {
            if let Ok(Some(delivery)) = stream.next().await {
                missing.remove(&number(delivery.message.body()));
                delivery.ack();
            }
        }
    };
    let read = tokio::time::timeout(PATIENCE, reading).await;
    assert!(read.is_ok(), "who broadcasts did not get {missing:?}");
}

/// Makes the copy broker 4, alone in the group, at the address of broker 1; returns when it serves.
async fn restore(cluster: &mut Cluster, copy: &std::path::Path) {
    let plan = cluster.plan();
    let (client, peer) = (plan.client_address(1), plan.peer_address(1));
    let mut settings = plan.broker_settings(1);
    let path = plan.config(Member::Broker(1));
    let restored = Command::new(program())
        .args(["log", "restore"])
        .arg(copy)
        .args(["--broker-id", &RESTORED.to_string()])
        .args(["--client-address", &client, "--peer-address", &peer])
        .output()
        .unwrap();
    assert!(restored.status.success(), "{restored:?}");
    let member: toml::Table = [
        ("broker_id".to_owned(), (RESTORED as i64).into()),
        ("client_address".to_owned(), client.into()),
        ("peer_address".to_owned(), peer.into()),
    ]
    .into_iter()
    .collect();
    settings.insert("broker_id".to_owned(), (RESTORED as i64).into());
    settings.insert("data_dir".to_owned(), copy.display().to_string().into());
    settings.insert("members".to_owned(), vec![member].into());
    std::fs::write(path, toml::to_string(&settings).unwrap()).unwrap();
    cluster.start_broker(1).unwrap();
    let serves = eventually(PATIENCE, || async {
        cluster.status(1).await.filter(|status| status.serving)
    });
    assert!(serves.await.is_some(), "{}", cluster.last_words());
}

/// Catches consumers that ask beyond the end of what was restored, or skip what came afterwards: their places are those of
/// a history that is lost.
#[tokio::test(flavor = "multi_thread")]
async fn consumers_live_through_a_restore() {
    let mut cluster = Cluster::start().await;
    let client = cluster.client().await;
    let one_queue = TopicSettings {
        queue_count: 1,
        ..TopicSettings::default()
    };
    let admin = client.admin();
    admin.create_topic(TOPIC, &one_queue).await.unwrap();
    let consumer = client.pull_consumer("readers");
    let consumer = consumer.auto_commit(Duration::from_millis(200));
    let consumer = consumer.build().unwrap();
    consumer.subscribe(TOPIC, Filter::All).await.unwrap();
    let stream = client
        .push_consumer("everyone")
        .subscribe(TOPIC, Filter::All)
        .consumption(Consumption::Broadcasting {
            progress_file: Some(cluster.directory().join("progress")),
        })
        .stream()
        .await
        .unwrap();
    send(&client, TOPIC, 0..40).await;
    read(&consumer, 0..40).await;
    read_alone(&stream, 0..40).await;

    let id = cluster.followers().await[0];
    cluster.wait_until_caught_up(id).await;
    cluster.kill(id).await;
    let copy = cluster.directory().join("copy");
    copy_directory(&cluster.plan().broker_directory(id), &copy);
    send(&client, TOPIC, 40..120).await;
    read(&consumer, 40..120).await;
    read_alone(&stream, 40..120).await;
    for id in cluster.ids() {
        cluster.kill(id).await;
    }
    restore(&mut cluster, &copy).await;

    send(&client, TOPIC, 200..230).await;
    read(&consumer, 200..230).await;
    read_alone(&stream, 200..230).await;
    consumer.close().await.unwrap();
    stream.close().await.unwrap();
}
