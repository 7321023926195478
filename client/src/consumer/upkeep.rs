//! What a consumer does in the background for as long as it is there: share the queues, commit what is done, measure.

use std::collections::{BTreeMap, BTreeSet};
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

/// Topics of which something was measured: what is held no more must not keep its last value for ever.
#[derive(Default)]
struct Measured(BTreeSet<Arc<str>>);

impl Measured {
    /// The topics that are held now. Returns those that were before and are not any more.
    fn gone(&mut self, held: BTreeSet<Arc<str>>) -> Vec<Arc<str>> {
        let before = std::mem::replace(&mut self.0, held);
        before.difference(&self.0).cloned().collect()
    }
}

async fn rebalance(shared: Arc<Shared>, rebalancer: Arc<tokio::sync::Mutex<Rebalancer>>) {
    let mut measured = Measured::default();
    loop {
        tokio::time::sleep(shared.settings.heartbeat_interval).await;
        if shared.holdings().is_closed() {
            return;
        }
        if let Err(error) = rebalancer.lock().await.round(&shared).await {
            tracing::debug!(group = %shared.group, %error, "queues not shared out");
        }
        let cached = shared.holdings().cached();
        for topic in measured.gone(cached.keys().cloned().collect()) {
            measure::cached(shared.group.as_str(), &topic, 0, 0);
        }
        for (topic, (messages, bytes)) in cached {
            measure::cached(shared.group.as_str(), &topic, messages, bytes);
        }
    }
}

async fn commit_at_intervals(shared: Arc<Shared>, interval: Duration) {
    while !shared.holdings().is_closed() {
        tokio::time::sleep(interval).await;
        shared.begin_commits();
    }
}

/// Asks for the ends of the queues that are held, now and again: a pull does not tell them.
async fn measure_lag(shared: Arc<Shared>, interval: Duration) {
    let mut measured = Measured::default();
    while !shared.holdings().is_closed() {
        tokio::time::sleep(interval).await;
        let mut lags: BTreeMap<Arc<str>, u64> = BTreeMap::new();
        let (held, done) = {
            let holdings = shared.holdings();
            (holdings.held(), holdings.done())
        };
        for topic in measured.gone(held.into_iter().map(|queue| queue.topic).collect()) {
            measure::lag(shared.group.as_str(), &topic, 0);
        }
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

#[cfg(test)]
mod tests {
    use super::*;

    /// Catches a gauge that shows a lag for ever after the last queue of its topic went to another member.
    #[test]
    fn a_topic_that_is_lost_is_told_once() {
        let held = |topics: &str| -> BTreeSet<Arc<str>> {
            topics.split_whitespace().map(Arc::from).collect()
        };
        let mut measured = Measured::default();
        assert!(measured.gone(held("a b")).is_empty());
        assert_eq!(measured.gone(held("b c")), vec![Arc::<str>::from("a")]);
        assert!(measured.gone(held("b c")).is_empty());
    }
}
