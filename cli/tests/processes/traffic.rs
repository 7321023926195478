//! Messages with numbers: a writer that remembers what was acknowledged, a reader that looks for it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use host::shutdown::{Shutdown, ShutdownTrigger};
use raftmq_client::{Client, ConsumeFrom, Message, Producer, TopicQueue};
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::cluster::{Cluster, PATIENCE, eventually};

/// Longer than any fault that a test makes.
const SEND_TIMEOUT: Duration = Duration::from_secs(60);
/// Bodies are sent as they are: tests count on logs that grow by what they send.
const NEVER: usize = usize::MAX;
const SEND_PAUSE: Duration = Duration::from_millis(2);
/// Message groups that the messages are dealt to: each keeps its order.
const MESSAGE_GROUPS: u64 = 4;

/// What is known of the messages that were handed to the producer.
#[derive(Default)]
struct Book {
    acked: BTreeSet<u64>,
    failed: Vec<String>,
}

/// Sends numbered messages in the background until it is told to finish.
pub(crate) struct Writer {
    book: Arc<Mutex<Book>>,
    stop: ShutdownTrigger,
    work: JoinHandle<()>,
}

impl Writer {
    /// Sends to `topic` about 500 messages a second with bodies of `body_bytes`.
    pub(crate) async fn start(cluster: &Cluster, topic: &str, body_bytes: usize) -> Writer {
        let client = cluster.client().await;
        let producer = client
            .producer()
            .send_timeout(SEND_TIMEOUT)
            .compress_from_bytes(NEVER)
            .build()
            .unwrap();
        let book = Arc::new(Mutex::new(Book::default()));
        let (stop, stopped) = Shutdown::new();
        let work = write(
            producer,
            topic.to_owned(),
            body_bytes,
            Arc::clone(&book),
            stopped,
        );
        Writer {
            book,
            stop,
            work: tokio::spawn(work),
        }
    }

    /// How many messages were acknowledged so far.
    pub(crate) fn acked(&self) -> usize {
        self.book.lock().unwrap().acked.len()
    }

    /// Waits until `more` messages are acknowledged than now.
    pub(crate) async fn wait_for_acks(&self, more: usize) {
        let goal = self.acked() + more;
        let reached = eventually(PATIENCE, || async { (self.acked() >= goal).then_some(()) });
        assert!(
            reached.await.is_some(),
            "{} acknowledged of {goal}",
            self.acked()
        );
    }

    /// Ends sending; the numbers that were acknowledged.
    pub(crate) async fn finish(self) -> BTreeSet<u64> {
        self.stop.shut_down();
        self.work.await.unwrap();
        let book = std::mem::take(&mut *self.book.lock().unwrap());
        assert!(
            book.failed.is_empty(),
            "sends failed for good: {:?}",
            &book.failed[..1]
        );
        book.acked
    }
}

async fn write(
    producer: Producer,
    topic: String,
    body_bytes: usize,
    book: Arc<Mutex<Book>>,
    stop: Shutdown,
) {
    let mut settling = Vec::new();
    for number in 0_u64.. {
        if stop.is_shut_down() {
            break;
        }
        let message = Message::builder(topic.as_str())
            .body(body(number, body_bytes))
            .message_group(format!("writer-{}", number % MESSAGE_GROUPS))
            .build()
            .unwrap();
        let handle = producer.send_async(message).await.unwrap();
        let book = Arc::clone(&book);
        settling.push(tokio::spawn(async move {
            let outcome = handle.await;
            let mut book = book.lock().unwrap();
            match outcome {
                Ok(_) => {
                    book.acked.insert(number);
                }
                Err(error) => book.failed.push(format!("{number}: {error}")),
            }
        }));
        tokio::time::sleep(SEND_PAUSE).await;
    }
    for handle in settling {
        handle.await.unwrap();
    }
    producer.close().await.unwrap();
}

fn body(number: u64, body_bytes: usize) -> Vec<u8> {
    let mut body = number.to_string().into_bytes();
    body.push(b' ');
    body.resize(body.len().max(body_bytes), b'.');
    body
}

pub(crate) fn number(body: &[u8]) -> u64 {
    let digits = body.split(|byte| *byte == b' ').next().unwrap();
    std::str::from_utf8(digits).unwrap().parse().unwrap()
}

/// Sends `count` numbered messages and waits for all; none may fail.
pub(crate) async fn send(
    client: &Client,
    topic: &str,
    numbers: std::ops::Range<u64>,
    body_bytes: usize,
) {
    let producer = client
        .producer()
        .send_timeout(SEND_TIMEOUT)
        .compress_from_bytes(NEVER)
        .build()
        .unwrap();
    let mut handles = Vec::new();
    for number in numbers {
        let message = Message::builder(topic)
            .body(body(number, body_bytes))
            .message_group(format!("writer-{}", number % MESSAGE_GROUPS))
            .build()
            .unwrap();
        handles.push(producer.send_async(message).await.unwrap());
    }
    for handle in handles {
        handle.await.unwrap();
    }
    producer.close().await.unwrap();
}

/// Everything in a topic, queue by queue, in the order of the offsets.
pub(crate) async fn read_all(client: &Client, topic: &str) -> BTreeMap<u32, Vec<(u64, u64)>> {
    let queues = client.queues(topic).await.unwrap();
    let consumer = client
        .pull_consumer("reader")
        .consume_from(ConsumeFrom::Earliest)
        .manual_commit()
        .build()
        .unwrap();
    consumer.assign(queues.iter().cloned()).await.unwrap();
    let mut wanted: BTreeMap<TopicQueue, u64> = BTreeMap::new();
    for queue in &queues {
        let min = client.min_offset(queue).await.unwrap();
        consumer.seek(queue, min).await.unwrap();
        wanted.insert(queue.clone(), client.max_offset(queue).await.unwrap());
    }
    let mut found: BTreeMap<u32, Vec<(u64, u64)>> = BTreeMap::new();
    let deadline = Instant::now() + PATIENCE;
    while wanted
        .iter()
        .any(|(queue, max)| consumer.position(queue).is_some_and(|at| at < *max))
    {
        assert!(
            Instant::now() < deadline,
            "reading {topic} stopped before its end"
        );
        for delivery in consumer
            .poll(1024, Duration::from_millis(500))
            .await
            .unwrap()
        {
            let numbers = found.entry(delivery.queue).or_default();
            numbers.push((delivery.offset, number(delivery.message.body())));
        }
    }
    consumer.close().await.unwrap();
    found
}

/// Requires that every acknowledged message is in the topic, once, and in the order of its message group.
pub(crate) async fn expect_nothing_lost(cluster: &Cluster, topic: &str, acked: &BTreeSet<u64>) {
    assert!(
        !acked.is_empty(),
        "nothing was acknowledged: the test shows nothing"
    );
    let found = read_all(&cluster.client().await, topic).await;
    let mut seen: BTreeMap<u64, u64> = BTreeMap::new();
    for (queue, entries) in &found {
        let mut newest: BTreeMap<u64, u64> = BTreeMap::new();
        for ((offset, number), place) in entries.iter().zip(entries[0].0..) {
            assert_eq!(
                *offset, place,
                "queue {queue} has a gap or a repeated offset"
            );
            *seen.entry(*number).or_default() += 1;
            let before = newest.insert(number % MESSAGE_GROUPS, *number);
            assert!(
                before < Some(*number),
                "queue {queue}: {number} after {before:?}"
            );
        }
    }
    let lost: Vec<_> = acked
        .iter()
        .filter(|number| !seen.contains_key(number))
        .collect();
    assert!(
        lost.is_empty(),
        "{} acknowledged messages are gone, first {:?}",
        lost.len(),
        lost[0]
    );
    let twice = seen.values().filter(|times| **times > 1).count();
    assert_eq!(twice, 0, "messages were stored twice");
}
