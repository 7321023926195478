//! How a member leaves its group: its queues are committed, and each broker group hears the goodbye as soon as that is so
//! there. One that is away must not keep the others' queues from their next owners.

use std::collections::BTreeSet;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures::stream::{FuturesUnordered, StreamExt};
use host::ShutdownTrigger;

use crate::consumer::delivery::TopicQueue;
use crate::consumer::member_calls::say_goodbye;
use crate::consumer::rebalancer::Rebalancer;
use crate::consumer::shared::Shared;
use crate::deadline;
use crate::error::Error;

/// How long commits to one broker group may hold up the goodbye to another: whoever hears that takes over the queues of both.
const COMMITS_ARRIVE_WITHIN: Duration = Duration::from_secs(1);

/// Gives up these queues, which are all that the consumer holds: waits for those who work on their messages, but not longer
/// than `timeout`, commits, and says goodbye. The first of what failed.
pub(crate) async fn leave(
    shared: &Arc<Shared>,
    rebalancer: &tokio::sync::Mutex<Rebalancer>,
    running: &ShutdownTrigger,
    (held, timeout): (Vec<TopicQueue>, Duration),
) -> Result<(), Error> {
    shared.close();
    let groups = shared.by_group(held.clone());
    let mut uncommitted: BTreeSet<Arc<str>> = groups.keys().cloned().collect();
    let releases = groups.into_iter().map(|(broker_group, queues)| async move {
        let released = shared.release(&queues, timeout).await;
        (broker_group, released)
    });
    let mut releases: FuturesUnordered<_> = releases.collect();
    let mut results = Vec::new();
    let mut patience = pin!(async {
        let idle = shared.idle(&held);
        let _ = tokio::time::timeout(timeout.min(deadline::LONGEST), idle).await;
        tokio::time::sleep(COMMITS_ARRIVE_WITHIN).await;
    });
    loop {
        tokio::select! {
            biased;
            released = releases.next() => match released {
                Some((broker_group, released)) => {
                    uncommitted.remove(&broker_group);
                    results.push(released);
                }
                None => break,
            },
            () = &mut patience => break,
        }
    }
    let first = async {
        // A round that is under way ends.
        let mut rebalancer = rebalancer.lock().await;
        running.shut_down();
        let (now, mut later) = rebalancer.end();
        later.extend(now.intersection(&uncommitted).cloned());
        let full = shared.core.connection.request_timeout;
        let left = say_goodbye(shared, &(&now - &later), full).await;
        (left, later)
    };
    // An earlier commit may be under way, and each takes its time: whoever closes waits for one.
    let rest = releases.map(|(_, released)| released).collect::<Vec<_>>();
    let rest = tokio::time::timeout(shared.core.connection.request_timeout, rest);
    let ((left, later), rest) = tokio::join!(first, rest);
    // Those that could not be committed in time are given up all the same.
    shared.holdings().close();
    let brief = shared.brief_timeout();
    let left_later = say_goodbye(shared, &later, brief).await;
    results.extend(rest.unwrap_or_else(|_| vec![Err(not_committed(shared))]));
    results.extend([left, left_later]);
    results.into_iter().collect()
}

fn not_committed(shared: &Shared) -> Error {
    let timeout = shared.core.connection.request_timeout;
    Error::TimedOut {
        operation: "commit",
        subject: format!("group {}", shared.group),
        address: "nobody".to_owned(),
        reason: format!(
            "not through after {timeout:?}: what was done since the last commit is delivered again"
        ),
    }
}
