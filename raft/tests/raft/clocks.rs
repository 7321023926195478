//! Replicas whose clocks are set to anything, on loopback.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::sync::Arc;
use std::time::Duration;

use crate::common::{Cluster, eventually};
use host::testing::ManualClock;
use tokio::time::Instant;

const NOW_MS: u64 = 1_800_000_000_000;
const HOUR_MS: u64 = 3_600_000;

async fn three() -> Cluster {
    let mut cluster = Cluster::new(3);
    for id in 1..=3 {
        let clock = Arc::new(ManualClock::new(NOW_MS));
        cluster.clocks.insert(id, clock);
    }
    cluster.start_all().await;
    cluster.leader().await;
    cluster
}

fn apart_ms(cluster: &Cluster, id: u64) -> Option<i64> {
    cluster.group(id).clocks().apart_ms()
}

/// Catches a replica that leads although a majority says that its clock is wrong, one that does not know it, and one that is
/// elected all the same when the next leader ends; and a group that has no leader because only such a one is left to be.
#[tokio::test(flavor = "multi_thread")]
async fn who_has_a_wrong_clock_does_not_lead_where_another_can() {
    let mut cluster = three().await;
    let wrong = cluster.leader().await;
    cluster.clocks[&wrong].advance_ms(73 * HOUR_MS);
    let successor = eventually("another leads", || {
        let leads = |id: &u64| cluster.group(*id).leadership().borrow().serving;
        let mut others = cluster.running.keys().filter(|id| **id != wrong);
        others.find(|id| leads(id)).copied()
    })
    .await;
    assert!(apart_ms(&cluster, wrong).unwrap() > 72 * HOUR_MS as i64);
    assert_eq!(apart_ms(&cluster, successor), None);
    let agreed_ms = cluster.group(wrong).clocks().agreed_ms.unwrap();
    assert!(
        (NOW_MS..NOW_MS + HOUR_MS).contains(&agreed_ms),
        "{agreed_ms}"
    );
    cluster.propose("an entry").await;

    // The third one is elected, the wrong one waits.
    let stopped = Instant::now();
    cluster.stop(successor).await;
    let third = cluster.leader().await;
    assert!(third != wrong || stopped.elapsed() > Duration::from_secs(3));

    // Of two that differ nobody knows who is right.
    eventually("nothing is agreed on", || {
        let status = cluster.group(wrong).clocks();
        status.agreed_ms.is_none().then_some(())
    })
    .await;
    cluster.propose("another entry").await;
    cluster.start(successor).await;
    cluster.clocks[&wrong].set_ms(NOW_MS);
    eventually("every clock is right", || {
        let wrong = cluster
            .running
            .keys()
            .any(|id| apart_ms(&cluster, *id).is_some());
        (!wrong).then_some(())
    })
    .await;
    cluster.stop_all().await;
}
