//! A replica with a large log: how soon after its start it may vote.
//!
//! One broker that is a group of its own: whether it may vote is a matter of its own log only, and the
//! log of three would need three times the disk. It is killed, never stopped, so that each start recovers
//! a log that nobody closed; and what the kernel remembers of the log is forgotten first, so that each
//! start reads from the disk. Must never count a start as ready that only answers: a status counts when the
//! replica takes part in elections.

use std::path::Path;
use std::time::Duration;

use tokio::time::Instant;

use super::send::{SendLoad, send};
use super::{Measured, Scene};
use crate::failure::Failure;
use crate::files;

const KIB: usize = 1024;
/// Large messages: the log is what is measured, not what it takes to fill it.
const FILL_MESSAGE_BYTES: usize = 16 * KIB;
const FILL_BATCH: usize = 64;
const FILL_IN_FLIGHT: usize = 16;
/// How long the log is filled before it is looked at again.
const FILL_ROUND: Duration = Duration::from_secs(2);
/// Longest time that filling may take.
const FILL_PATIENCE: Duration = Duration::from_secs(900);
/// Longest wait for a started replica.
const READY_PATIENCE: Duration = Duration::from_secs(60);
const LOOK_INTERVAL: Duration = Duration::from_millis(5);
const TOPIC: &str = "large-log";
const BROKER: u64 = 1;

/// How long starts took.
pub struct LargeLog {
    /// From the start of the process to a replica that votes.
    pub to_vote: Measured,
    /// From there on to one that serves: it has applied what its checkpoint did not have.
    pub to_serve: Measured,
    /// Bytes in the log's files.
    pub log_bytes: u64,
}

/// Fills the log of a group of one below `directory` with `log_bytes`, then kills and starts it `starts` times.
///
/// # Errors
///
/// If the log cannot be filled, or a start takes over a minute.
pub async fn large_log(
    program: &Path,
    directory: &Path,
    log_bytes: u64,
    starts: u32,
) -> Result<LargeLog, Failure> {
    let keep_everything = [("log_retain_bytes".to_owned(), toml::Value::Integer(0))];
    let (mut scene, _) = Scene::alone(program, directory, &keep_everything).await?;
    fill(&scene, log_bytes).await?;
    let log_directory = scene.group.plan().broker_directory(BROKER);
    let mut found = LargeLog {
        to_vote: Measured::default(),
        to_serve: Measured::default(),
        log_bytes: 0,
    };
    for _ in 0..starts {
        scene.group.broker(BROKER).destroy().await;
        found.log_bytes = files::forget_cached(&log_directory)
            .map_err(|error| Failure::during(log_directory.display(), error))?;
        let started = Instant::now();
        scene.group.start_broker(BROKER)?;
        wait_until(&scene, started, |state, _| votes(state)).await?;
        found.to_vote.took(started.elapsed());
        found.to_vote.messages += 1;
        wait_until(&scene, started, |_, serving| serving).await?;
        found.to_serve.took(started.elapsed());
        found.to_serve.messages += 1;
    }
    scene.group.end().await;
    Ok(found)
}

/// What a replica calls itself when it takes part in elections.
fn votes(state: &str) -> bool {
    matches!(state, "leader" | "follower" | "candidate")
}

async fn fill(scene: &Scene, log_bytes: u64) -> Result<(), Failure> {
    let queues = scene.topic(TOPIC).await?;
    let started = Instant::now();
    let load = SendLoad {
        message_bytes: FILL_MESSAGE_BYTES,
        batch: FILL_BATCH,
        in_flight: FILL_IN_FLIGHT,
        duration: FILL_ROUND,
    };
    let mut sent_bytes = 0;
    while sent_bytes < log_bytes {
        if started.elapsed() > FILL_PATIENCE {
            let bytes = format!("{sent_bytes} of {log_bytes} bytes");
            return Err(Failure::Operation(format!(
                "filling a log took too long: {bytes} were stored after {FILL_PATIENCE:?}"
            )));
        }
        sent_bytes += send(scene, TOPIC, queues, load).await?.all_bytes;
    }
    Ok(())
}

/// Asks the broker until `holds` of its state and of whether it serves.
async fn wait_until(
    scene: &Scene,
    started: Instant,
    holds: impl Fn(&str, bool) -> bool,
) -> Result<(), Failure> {
    loop {
        if let Some(status) = scene.group.status(BROKER).await
            && holds(&status.state, status.serving)
        {
            return Ok(());
        }
        if started.elapsed() > READY_PATIENCE {
            return Err(Failure::Operation(format!(
                "a broker with a large log was not ready {READY_PATIENCE:?} after its start"
            )));
        }
        tokio::time::sleep(LOOK_INTERVAL).await;
    }
}
