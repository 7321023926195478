//! What a consumer does in the background for as long as it is there: share the queues, commit what is done, measure.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use host::Shutdown;

use crate::consumer::rebalancer::Rebalancer;
use crate::consumer::shared::Shared;
use crate::measure;
use crate::offsets;

/// Starts all of it, until the consumer is closed or dropped.
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
    if let Some(interval) = shared
        .settings
        .lag_interval
        .filter(|_| cfg!(feature = "metrics"))
    {
        let looks = measure_lag(shared.clone(), interval);
        tokio::spawn(until(shutdown.clone(), looks));
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
        let cached = shared.holdings().cached();
        for (topic, (messages, bytes)) in cached {
            measure::cached(shared.group.as_str(), &topic, messages, bytes);
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

/// Asks for the ends of the queues that are held, now and again: a pull does not tell them.
async fn measure_lag(shared: Arc<Shared>, interval: Duration) {
    while !shared.holdings().is_closed() {
        tokio::time::sleep(interval).await;
        let mut lags: BTreeMap<Arc<str>, u64> = BTreeMap::new();
        let done = shared.holdings().done();
        for (queue, done) in done {
            match offsets::query(&shared.core, &queue, offsets::Place::Next).await {
                Ok(end) => *lags.entry(queue.topic).or_default() += end.saturating_sub(done),
                Err(error) => tracing::debug!(%queue, %error, "lag not measured"),
            }
        }
        for (topic, lag) in lags {
            measure::lag(shared.group.as_str(), &topic, lag);
        }
    }
}
