//! How fast one consumer of the SDK reads: a backlog, and at the tail while a producer sends.

use std::time::Duration;

use raftmq_client::{ConsumeFrom, Filter, PullConsumer};
use tokio::time::Instant;

use super::{Measured, Scene, SdkLoad, SendLoad, sdk_send, send};
use crate::failure::Failure;

const POLL_MESSAGES: usize = 4096;
const POLL_WAIT: Duration = Duration::from_millis(500);
/// Silence after which there is nothing more.
const SILENCE: Duration = Duration::from_secs(3);
/// How a backlog is stored.
const FILL_BATCH: usize = 256;
const FILL_IN_FLIGHT: usize = 16;
const FILL_STEP: Duration = Duration::from_secs(1);
const FILL_QUEUES: u32 = 4;

/// Stores at least `messages`; how many there are then.
///
/// # Errors
///
/// If a call fails.
pub async fn fill(
    scene: &Scene,
    topic: &str,
    message_bytes: usize,
    messages: u64,
) -> Result<u64, Failure> {
    let client = scene.client().await?;
    let mut stored = 0;
    while stored < messages {
        let load = SendLoad {
            message_bytes,
            batch: FILL_BATCH,
            in_flight: FILL_IN_FLIGHT,
            duration: FILL_STEP,
        };
        send(scene, topic, FILL_QUEUES, load).await?;
        let description = client.admin().topic(topic).await?;
        let queues = description.map_or_else(Vec::new, |topic| topic.queues);
        stored = queues
            .iter()
            .map(|queue| queue.max_offset - queue.min_offset)
            .sum();
    }
    Ok(stored)
}

/// Reads `messages` of a topic from its start with a consumer group of its own.
///
/// # Errors
///
/// If there are fewer.
pub async fn catch_up(
    scene: &Scene,
    topic: &str,
    messages: u64,
    message_bytes: usize,
) -> Result<Measured, Failure> {
    let group = format!("bench-catch-up-{}", scene.next_load());
    // The consumer reads ahead as soon as it knows its queues: the time runs from before that.
    let started = Instant::now();
    let consumer = consumer(scene, topic, &group, ConsumeFrom::Earliest).await?;
    let measured = read(&consumer, messages, message_bytes, Some(started)).await?;
    consumer.close().await?;
    if measured.messages < messages {
        let found = measured.messages;
        return Err(Failure::Operation(format!(
            "{found} messages of {messages} in {topic}"
        )));
    }
    Ok(measured)
}

/// Reads at the tail while the SDK's producer sends `load`.
///
/// # Errors
///
/// If a message is not stored or not received.
pub async fn tail(scene: &Scene, topic: &str, load: SdkLoad) -> Result<Measured, Failure> {
    let group = format!("bench-tail-{}", scene.next_load());
    let consumer = consumer(scene, topic, &group, ConsumeFrom::Latest).await?;
    // The consumer stands at the tail before the first message is sent.
    consumer.poll(POLL_MESSAGES, POLL_WAIT).await?;
    let (sent, received) = tokio::join!(
        sdk_send(scene, topic, load),
        read(&consumer, u64::MAX, load.message_bytes, None)
    );
    consumer.close().await?;
    let (sent, received) = (sent?, received?);
    if received.messages < sent.messages {
        let (sent, received) = (sent.messages, received.messages);
        return Err(Failure::Operation(format!(
            "{received} received of {sent} sent to {topic}"
        )));
    }
    Ok(received)
}

async fn consumer(
    scene: &Scene,
    topic: &str,
    group: &str,
    from: ConsumeFrom,
) -> Result<PullConsumer, Failure> {
    let client = scene.client().await?;
    let consumer = client.pull_consumer(group).consume_from(from).build()?;
    consumer.subscribe(topic, Filter::All).await?;
    Ok(consumer)
}

/// Counts up to `messages`, or until nothing comes any more; the time runs from `started`, else from the
/// first message, to the last.
async fn read(
    consumer: &PullConsumer,
    messages: u64,
    message_bytes: usize,
    started: Option<Instant>,
) -> Result<Measured, Failure> {
    let mut measured = Measured::default();
    let mut first = started;
    let mut last = Instant::now();
    while measured.messages < messages {
        let deliveries = consumer.poll(POLL_MESSAGES, POLL_WAIT).await?;
        let now = Instant::now();
        if deliveries.is_empty() {
            if now - last > SILENCE {
                break;
            }
            continue;
        }
        first.get_or_insert(now);
        last = now;
        measured.count(deliveries.len() as u64, message_bytes);
    }
    measured.elapsed = first.map_or(Duration::ZERO, |first| last - first);
    Ok(measured)
}
