//! From the moment a message is due to the moment a consumer has it, at a fixed rate.
//!
//! The time runs from when the message was due, not from when it was sent: if the system stands
//! still, everything that should have been sent meanwhile is late too.

use std::time::Duration;

use bytes::Bytes;
use raftmq_client::{ConsumeFrom, Filter, Message, PullConsumer};
use tokio::time::{Instant, MissedTickBehavior, interval};

use super::{Measured, Scene};
use crate::failure::Failure;

const POLL_MESSAGES: usize = 1024;
const POLL_WAIT: Duration = Duration::from_millis(500);
const SILENCE: Duration = Duration::from_secs(5);
/// The time at which a message was due, nanoseconds since the start, stands at the front of its body.
const STAMP_BYTES: usize = size_of::<u64>();

/// Sends `rate` messages of `message_bytes` a second for `duration` and times each to its consumer.
///
/// # Errors
///
/// If a message is not stored or not received.
pub async fn end_to_end(
    scene: &Scene,
    topic: &str,
    message_bytes: usize,
    rate: u32,
    duration: Duration,
) -> Result<Measured, Failure> {
    let group = format!("bench-latency-{}", scene.next_load());
    let client = scene.client().await?;
    let consumer = client
        .pull_consumer(group)
        .consume_from(ConsumeFrom::Latest)
        .build()?;
    consumer.subscribe(topic, Filter::All).await?;
    consumer.poll(POLL_MESSAGES, POLL_WAIT).await?;
    let started = Instant::now();
    let count = u64::from(rate) * duration.as_secs();
    let (sent, received) = tokio::join!(
        send_at_rate(scene, topic, message_bytes, rate, started, count),
        receive(&consumer, message_bytes, started, count)
    );
    consumer.close().await?;
    sent?;
    let mut measured = received?;
    measured.elapsed = duration;
    if measured.messages < count {
        let received = measured.messages;
        return Err(Failure::Operation(format!(
            "{received} received of {count} sent to {topic}"
        )));
    }
    Ok(measured)
}

async fn send_at_rate(
    scene: &Scene,
    topic: &str,
    message_bytes: usize,
    rate: u32,
    started: Instant,
    count: u64,
) -> Result<(), Failure> {
    let producer = scene.client().await?.producer().build()?;
    let step = Duration::from_secs(1) / rate;
    let mut due = interval(step);
    due.set_missed_tick_behavior(MissedTickBehavior::Burst);
    let mut handles = Vec::new();
    for _ in 0..count {
        let at = due.tick().await;
        let stamp = u64::try_from((at - started).as_nanos()).unwrap_or(u64::MAX);
        let mut body = vec![0; message_bytes.max(STAMP_BYTES)];
        body[..STAMP_BYTES].copy_from_slice(&stamp.to_be_bytes());
        handles.push(
            producer
                .send_async(Message::new(topic, Bytes::from(body))?)
                .await?,
        );
    }
    for handle in handles {
        handle.await?;
    }
    Ok(producer.close().await?)
}

async fn receive(
    consumer: &PullConsumer,
    message_bytes: usize,
    started: Instant,
    count: u64,
) -> Result<Measured, Failure> {
    let mut measured = Measured::default();
    let mut last = Instant::now();
    while measured.messages < count && last.elapsed() < SILENCE {
        let deliveries = consumer.poll(POLL_MESSAGES, POLL_WAIT).await?;
        let now = Instant::now();
        for delivery in &deliveries {
            let stamp = delivery
                .message
                .body()
                .first_chunk()
                .map(|bytes| u64::from_be_bytes(*bytes));
            let due = started + Duration::from_nanos(stamp.unwrap_or(0));
            measured.took(now.saturating_duration_since(due));
            last = now;
        }
        measured.count(deliveries.len() as u64, message_bytes);
    }
    Ok(measured)
}
