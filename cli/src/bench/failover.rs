//! What the death of a leader costs producers, and how long a start takes.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use host::shutdown::Shutdown;
use raftmq_client::{Message, Producer};
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::{Measured, Scene};
use crate::failure::Failure;

const MESSAGE_BYTES: usize = 128;
const LEADER_PATIENCE: Duration = Duration::from_secs(30);
/// The producer sends this long before each kill and after each new leader.
const STEADY: Duration = Duration::from_millis(500);
/// Longest wait for the first receipt after a kill.
const RECEIPT_PATIENCE: Duration = Duration::from_secs(30);
const LOOK_INTERVAL: Duration = Duration::from_millis(5);
const SEND_PAUSE: Duration = Duration::from_millis(1);
const SEND_TIMEOUT: Duration = Duration::from_secs(60);

/// When the last receipt came, and the longest pause between two.
struct Receipts {
    last: Instant,
    longest_gap: Duration,
}

type SharedReceipts = Arc<Mutex<Receipts>>;

/// Kills the leader `kills` times under a producer; the longest time without a receipt around each.
///
/// # Errors
///
/// If no leader or no receipt comes in time.
pub async fn failovers(scene: &mut Scene, topic: &str, kills: u32) -> Result<Measured, Failure> {
    let producer = scene
        .client()
        .await?
        .producer()
        .send_timeout(SEND_TIMEOUT)
        .build()?;
    let receipts = Arc::new(Mutex::new(Receipts {
        last: Instant::now(),
        longest_gap: Duration::ZERO,
    }));
    let (stop, stopped) = Shutdown::new();
    let sending = start_sending(producer, topic, &receipts, stopped);
    let started = Instant::now();
    let mut measured = Measured::default();
    for _ in 0..kills {
        tokio::time::sleep(STEADY).await;
        lock(&receipts).longest_gap = Duration::ZERO;
        let led = scene.leader().await?;
        scene.group.broker(led.broker_id).destroy().await;
        scene
            .group
            .wait_for_leader_after(led.term, LEADER_PATIENCE)
            .await?;
        // A receipt before this may have been on its way when the old leader died.
        wait_for_receipt_after(&receipts, Instant::now()).await?;
        tokio::time::sleep(STEADY).await;
        measured.took(lock(&receipts).longest_gap);
        measured.messages += 1;
        scene.group.start_broker(led.broker_id)?;
        scene.wait_until_caught_up(led.broker_id).await?;
    }
    measured.elapsed = started.elapsed();
    stop.shut_down();
    sending
        .await
        .map_err(|error| Failure::during("the producer", error))??;
    Ok(measured)
}

/// Ends every broker and starts them again, `times` times; from the start to an elected leader.
///
/// # Errors
///
/// If no leader comes in time.
pub async fn starts(scene: &mut Scene, times: u32) -> Result<Measured, Failure> {
    let mut measured = Measured::default();
    for _ in 0..times {
        scene.group.end().await;
        let started = Instant::now();
        for member in scene.group.plan().members() {
            scene.group.start_member(member)?;
        }
        scene.group.wait_for_leader(LEADER_PATIENCE).await?;
        measured.took(started.elapsed());
        measured.elapsed += started.elapsed();
        measured.messages += 1;
    }
    Ok(measured)
}

fn start_sending(
    producer: Producer,
    topic: &str,
    receipts: &SharedReceipts,
    stop: Shutdown,
) -> JoinHandle<Result<(), Failure>> {
    let topic: Arc<str> = topic.into();
    let body = Bytes::from(vec![b'x'; MESSAGE_BYTES]);
    let receipts = Arc::clone(receipts);
    tokio::spawn(async move {
        while !stop.is_shut_down() {
            let handle = producer
                .send_async(Message::new(Arc::clone(&topic), body.clone())?)
                .await?;
            let receipts = Arc::clone(&receipts);
            tokio::spawn(async move {
                if handle.await.is_ok() {
                    let now = Instant::now();
                    let mut receipts = lock(&receipts);
                    receipts.longest_gap = receipts.longest_gap.max(now - receipts.last);
                    receipts.last = now;
                }
            });
            tokio::time::sleep(SEND_PAUSE).await;
        }
        producer.close().await.map_err(Failure::from)
    })
}

async fn wait_for_receipt_after(receipts: &SharedReceipts, after: Instant) -> Result<(), Failure> {
    while lock(receipts).last <= after {
        if after.elapsed() > RECEIPT_PATIENCE {
            return Err(Failure::Operation(
                "no receipt after the leader was killed".to_owned(),
            ));
        }
        tokio::time::sleep(LOOK_INTERVAL).await;
    }
    Ok(())
}

fn lock(receipts: &SharedReceipts) -> std::sync::MutexGuard<'_, Receipts> {
    receipts.lock().expect("nothing panics while it holds this")
}
