//! What a replica writes to its disk for a byte of payload, tables included.
//!
//! A short load would leave the tables in memory and flatter: this one is long enough for several
//! checkpoints, and ends with one on every replica, after which nothing of it is in memory only.

use std::time::Duration;

use serde_json::Value;
use tokio::time::Instant;

use super::send::{SendLoad, send};
use super::{Measured, Observation, Scene};
use crate::failure::Failure;

/// Payload that is sent at least.
const PAYLOAD_BYTES: u64 = 1 << 30;
const ROUND: Duration = Duration::from_secs(2);
/// Longest time that sending it may take.
const PATIENCE: Duration = Duration::from_secs(300);
const CHECKPOINT_PATIENCE: Duration = Duration::from_secs(60);

/// Sends a gibibyte as messages of `message_bytes`, `batch` in a request, takes a checkpoint everywhere,
/// and says what each process wrote.
///
/// # Errors
///
/// If a call fails or takes too long.
pub async fn written(
    scene: &mut Scene,
    topic: &str,
    message_bytes: usize,
    batch: usize,
) -> Result<(Measured, Value), Failure> {
    let queues = scene.topic(topic).await?;
    let load = SendLoad {
        message_bytes,
        batch,
        in_flight: 64,
        duration: ROUND,
    };
    let observation = Observation::begin(&mut scene.group).await;
    let started = Instant::now();
    let mut measured = Measured::default();
    while measured.all_bytes < PAYLOAD_BYTES {
        if started.elapsed() > PATIENCE {
            let bytes = measured.all_bytes;
            return Err(Failure::Operation(format!(
                "sending took too long: {bytes} of {PAYLOAD_BYTES} bytes after {PATIENCE:?}"
            )));
        }
        let part = send(scene, topic, queues, load).await?;
        measured.merge(&part);
        measured.elapsed += part.elapsed;
    }
    for id in scene.group.ids() {
        scene.wait_until_caught_up(id).await?;
        let address = scene.group.plan().client_address(id);
        let admin = scene.client().await?.admin().timeout(CHECKPOINT_PATIENCE);
        admin.checkpoint(&address).await?;
    }
    let usage = observation.end(&scene.group, &measured).await;
    Ok((measured, usage))
}
