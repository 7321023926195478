//! What is looked at from time to time: the disk's free space, silent clients, what has passed, retention.
//!
//! Proposes nothing unless this broker serves as the leader.

use std::sync::Arc;
use std::time::Duration;

use proto::command::{self, command::Body};
use tokio::time::Instant;

use crate::retention::Retention;
use crate::service::Service;

/// Time that may pass along the log without an entry that says so, in milliseconds: what a group forgets at most when all
/// of its replicas stop.
const UNWRITTEN_MS_MAX: u64 = 60_000;

/// Runs until the broker stops.
pub(crate) async fn run(service: Arc<Service>) {
    let interval_ms = (service.config.retention_interval_ms).min(UNWRITTEN_MS_MAX);
    let interval = Duration::from_millis(interval_ms);
    let mut retention = Retention::new();
    loop {
        measure_disk(&service).await;
        service.clients.expire(Instant::now());
        service.pullers.expire(Instant::now());
        // Also on followers: whoever is to lead must have been there while time passed.
        let written_ms = service.view.last_moment().passed_ms;
        let unwritten_ms = service.now().passed_ms.saturating_sub(written_ms);
        if service.leadership.is_serving() && unwritten_ms >= UNWRITTEN_MS_MAX {
            note_time(&service).await;
        }
        if service.leadership.is_serving()
            && let Err(error) = retention.enforce(&service).await
        {
            tracing::warn!(%error, "cannot tell which log segments may be dropped");
        }
        tokio::select! {
            biased;
            () = service.shutdown.wait() => return,
            () = tokio::time::sleep(interval) => {}
        }
    }
}

/// Has an entry written that changes nothing: each says how much has passed.
async fn note_time(service: &Service) {
    let nothing = Body::DropLog(command::DropLog { first_index: 0 });
    if let Err(error) = service.propose_upkeep(nothing).await {
        tracing::debug!(?error, "the time was not noted, it is tried again");
    }
}

async fn measure_disk(service: &Service) {
    let (disk, path) = (service.host.disk.clone(), service.config.data_dir.clone());
    match host::blocking::run(move || disk.free_bytes(&path)).await {
        Ok(free_bytes) => service.disk_space.measured(free_bytes),
        Err(error) => tracing::warn!(%error, "cannot measure the free space of the disk"),
    }
}
