//! The demo's producer: every line, in order, as fast as receipts come back.

use bytes::Bytes;
use raftmq_client::{Client, Message, SendHandle};
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::{SharedTally, TOPIC, envelope, lock};
use crate::failure::Failure;
use crate::terminal::note;

/// Message groups that the lines are dealt to: order is promised within each.
const MESSAGE_GROUPS: usize = 8;
/// Messages handed over and not yet acknowledged, at most: the kill must come in the middle.
const IN_FLIGHT_MAX: usize = 256;
/// Longer than an election and the restart of a broker together.
const SEND_TIMEOUT: std::time::Duration = std::time::Duration::from_secs(60);

/// Sends every line; the longest time without a receipt, in milliseconds.
pub(crate) async fn send_all(
    client: Client,
    lines: Vec<Bytes>,
    tally: SharedTally,
) -> Result<u64, Failure> {
    let producer = client
        .producer()
        .send_timeout(SEND_TIMEOUT)
        .max_in_flight(IN_FLIGHT_MAX)
        .build()?;
    let (handles, waiting) = mpsc::channel(IN_FLIGHT_MAX);
    let settling = tokio::spawn(settle(waiting, SharedTally::clone(&tally)));
    for (number, line) in lines.iter().enumerate() {
        let message = Message::builder(TOPIC)
            .body(envelope::wrap(number, line))
            .message_group(message_group(number))
            .build()
            .map_err(|error| Failure::during(format!("line {}", number + 1), error))?;
        lock(&tally).sent();
        let handle = producer.send_async(message).await?;
        if handles.send((number, handle)).await.is_err() {
            break;
        }
    }
    drop(handles);
    let gap_ms = settling
        .await
        .map_err(|error| Failure::during("waiting for receipts", error))?;
    producer.close().await?;
    Ok(gap_ms)
}

fn message_group(number: usize) -> String {
    format!("demo-{}", number % MESSAGE_GROUPS)
}

async fn settle(mut waiting: mpsc::Receiver<(usize, SendHandle)>, tally: SharedTally) -> u64 {
    let mut last = Instant::now();
    let mut longest = 0;
    while let Some((number, handle)) = waiting.recv().await {
        match handle.await {
            Ok(_) => lock(&tally).acked(number),
            Err(error) => note(format_args!("line {}: {error}", number + 1)),
        }
        let gap = last.elapsed().as_millis();
        longest = longest.max(u64::try_from(gap).unwrap_or(u64::MAX));
        last = Instant::now();
    }
    longest
}
