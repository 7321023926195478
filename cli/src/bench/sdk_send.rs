//! Messages handed to the SDK one by one, as a program would: it gathers them into requests by itself.

use std::time::Duration;

use bytes::Bytes;
use futures::stream::{FuturesUnordered, StreamExt};
use raftmq_client::{Message, Producer};
use tokio::time::Instant;

use super::{Measured, Scene};
use crate::failure::Failure;

const WARM_UP: Duration = Duration::from_millis(500);

/// One load of single messages.
#[derive(Clone, Copy, Debug)]
pub struct SdkLoad {
    /// Body of each message, bytes.
    pub message_bytes: usize,
    /// Messages handed over and not yet acknowledged.
    pub in_flight: usize,
    /// How long it is measured.
    pub duration: Duration,
}

/// Sends until the time is over.
///
/// # Errors
///
/// If a message is not stored.
pub async fn sdk_send(scene: &Scene, topic: &str, load: SdkLoad) -> Result<Measured, Failure> {
    let client = scene.client().await?;
    let producer = client.producer().max_in_flight(load.in_flight).build()?;
    let measured = send_for(&producer, topic, load).await?;
    producer.close().await?;
    Ok(measured)
}

async fn send_for(producer: &Producer, topic: &str, load: SdkLoad) -> Result<Measured, Failure> {
    let body = Bytes::from(vec![b'x'; load.message_bytes]);
    let topic: std::sync::Arc<str> = topic.into();
    let begin = Instant::now() + WARM_UP;
    let end = begin + load.duration;
    let mut measured = Measured::over(load.duration);
    let mut waiting = FuturesUnordered::new();
    loop {
        let now = Instant::now();
        while waiting.len() < load.in_flight && now < end {
            let message = Message::new(std::sync::Arc::clone(&topic), body.clone())?;
            let handle = producer.send_async(message).await?;
            waiting.push(async move { (now, handle.await) });
        }
        let Some((sent, outcome)) = waiting.next().await else {
            return Ok(measured);
        };
        outcome?;
        let answered = Instant::now();
        if answered >= begin && answered < end {
            measured.count(1, load.message_bytes);
            measured.took(answered - sent);
        } else {
            measured.count_outside(1, load.message_bytes);
        }
    }
}
