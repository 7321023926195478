//! What is looked at from time to time: the disk's free space, silent clients, retention.
//!
//! Proposes nothing unless this broker serves as the leader.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::retention::Retention;
use crate::service::Service;

/// Runs until the broker stops.
pub(crate) async fn run(service: Arc<Service>) {
    let interval = Duration::from_millis(service.config.retention_interval_ms);
    let mut retention = Retention::new();
    loop {
        measure_disk(&service).await;
        service.clients.expire(Instant::now());
        service.pullers.expire(Instant::now());
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

async fn measure_disk(service: &Service) {
    let (disk, path) = (service.host.disk.clone(), service.config.data_dir.clone());
    match host::blocking::run(move || disk.free_bytes(&path)).await {
        Ok(free_bytes) => service.disk_space.measured(free_bytes),
        Err(error) => tracing::warn!(%error, "cannot measure the free space of the disk"),
    }
}
