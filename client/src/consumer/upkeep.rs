//! What a consumer does in the background for as long as it is there: share the queues, commit what is done.

use std::sync::Arc;
use std::time::Duration;

use host::Shutdown;

use crate::consumer::rebalancer::Rebalancer;
use crate::consumer::shared::Shared;

/// Starts both, until the consumer is closed or dropped.
pub(crate) fn start(
    shared: &Arc<Shared>,
    rebalancer: &Arc<tokio::sync::Mutex<Rebalancer>>,
    shutdown: &Shutdown,
) {
    let beats = rebalance(shared.clone(), rebalancer.clone());
    tokio::spawn(until(shutdown.clone(), beats));
    if let Some(interval) = shared.settings.auto_commit {
        let commits = commit_at_intervals(shared.clone(), interval);
        tokio::spawn(until(shutdown.clone(), commits));
    }
}

pub(crate) async fn until(shutdown: Shutdown, task: impl Future<Output = ()>) {
    tokio::select! {
        biased;
        () = shutdown.wait() => {}
        () = task => {}
    }
}

async fn rebalance(shared: Arc<Shared>, rebalancer: Arc<tokio::sync::Mutex<Rebalancer>>) {
    loop {
        tokio::time::sleep(shared.settings.heartbeat_interval).await;
        if shared.holdings().is_closed() {
            return;
        }
        if let Err(error) = rebalancer.lock().await.round(&shared).await {
            tracing::debug!(group = %shared.group, %error, "queues not shared out");
        }
    }
}

async fn commit_at_intervals(shared: Arc<Shared>, interval: Duration) {
    while !shared.holdings().is_closed() {
        tokio::time::sleep(interval).await;
        if let Err(error) = shared.commit_due().await {
            tracing::debug!(group = %shared.group, %error, "offsets not committed");
        }
    }
}
