//! Push consumers on real processes: failures, dead letters and order while the leader is killed.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use raftmq_client::{Client, Delivery, Filter, GroupSettings};

use super::cluster::{Cluster, LEADER_PATIENCE, PATIENCE, eventually};
use super::traffic::{read_all, send};

const MAX_ATTEMPTS: u32 = 4;
/// Each message fails as often as its number says: 0 to 2 times.
const FAILING: u64 = 3;
/// This one always does.
const POISON: u64 = 50;

/// The calls of a listener, in order: queue, offset, number, attempt, whether it went well.
#[derive(Clone, Default)]
struct Calls(Arc<Mutex<Vec<Call>>>);

#[derive(Clone, Copy, Debug)]
struct Call {
    queue: u32,
    offset: u64,
    number: u64,
    went_well: bool,
}

impl Calls {
    fn all(&self) -> MutexGuard<'_, Vec<Call>> {
        self.0.lock().unwrap()
    }

    fn work(&self, delivery: &Delivery) -> Result<(), &'static str> {
        let body = std::str::from_utf8(delivery.message.body()).unwrap();
        let number: u64 = body.split(' ').next().unwrap().parse().unwrap();
        let failures = number % FAILING;
        let went_well = number != POISON && u64::from(delivery.attempt) > failures;
        self.all().push(Call {
            queue: delivery.queue,
            offset: delivery.offset,
            number,
            went_well,
        });
        match went_well {
            true => Ok(()),
            false => Err("told to fail"),
        }
    }

    fn failures(&self) -> usize {
        self.all().iter().filter(|call| !call.went_well).count()
    }

    fn worked_on(&self) -> BTreeSet<u64> {
        let calls = self.all();
        let well = calls.iter().filter(|call| call.went_well);
        well.map(|call| call.number).collect()
    }

    async fn wait_for_failures(&self, count: usize) {
        let reached = eventually(PATIENCE, || async {
            (self.failures() >= count).then_some(())
        });
        assert!(reached.await.is_some(), "{} failures", self.failures());
    }

    /// Waits until all of these but the poisonous one were worked on.
    async fn wait_for_all(&self, count: u64) {
        let mut expected: BTreeSet<u64> = (0..count).collect();
        expected.remove(&POISON);
        let missing = || &expected - &self.worked_on();
        let reached = eventually(PATIENCE, || async { missing().is_empty().then_some(()) });
        assert!(reached.await.is_some(), "not worked on: {:?}", missing());
    }
}

async fn group(client: &Client, name: &str) {
    let settings = GroupSettings {
        max_attempts: MAX_ATTEMPTS,
        attributes: [("retry.backoff".to_owned(), "300ms".to_owned())].into(),
        ..GroupSettings::default()
    };
    client.admin().create_group(name, &settings).await.unwrap();
}

/// Kills the leader, waits for the next one and starts the process again.
async fn replace_leader(cluster: &mut Cluster) {
    let led = cluster.led().await;
    cluster.kill(led.broker_id).await;
    let next = cluster.wait_for_leader_after(led.term, LEADER_PATIENCE);
    next.await.unwrap();
    cluster.start_broker(led.broker_id).unwrap();
}

/// The dead letters of a group by their numbers; waits for the first.
async fn dead_letters(client: &Client, group: &str) -> Vec<u64> {
    let topic = format!("%DLQ%{group}");
    let made = eventually(PATIENCE, || async { client.queues(&topic).await.ok() });
    assert!(made.await.is_some(), "{topic} was never made");
    let found = read_all(client, &topic).await;
    let letters = found.into_values().flatten();
    letters.map(|(_, number)| number).collect()
}

/// Requires that a group has committed the end of every queue.
async fn expect_all_committed(client: &Client, topic: &str, group: &str) {
    let reader = client.pull_consumer(group).build().unwrap();
    for queue in client.queues(topic).await.unwrap() {
        let committed = reader.committed(&queue).await.unwrap();
        let end = client.max_offset(&queue).await.unwrap();
        assert_eq!(committed.unwrap_or(0), end, "{queue}");
    }
}

/// Catches failed messages that are lost with the leader which took them back, that are passed before anybody has them,
/// and dead letters that are missing, doubled, or somebody else.
#[tokio::test(flavor = "multi_thread")]
async fn failed_messages_come_again_whoever_leads_and_die_in_the_end() {
    let mut cluster = Cluster::start().await;
    cluster.topic("orders").await;
    let client = cluster.client().await;
    group(&client, "billing").await;
    let calls = Calls::default();
    let noted = calls.clone();
    let consumer = client
        .push_consumer("billing")
        .subscribe("orders", Filter::All)
        .commit_interval(Duration::from_millis(200))
        .listen(move |delivery: Delivery| {
            let outcome = noted.work(&delivery);
            async move { outcome }
        })
        .await
        .unwrap();
    send(&client, "orders", 0..150, 100).await;
    calls.wait_for_failures(30).await;
    replace_leader(&mut cluster).await;
    send(&client, "orders", 150..300, 100).await;
    calls.wait_for_failures(200).await;
    replace_leader(&mut cluster).await;
    calls.wait_for_all(300).await;
    assert_eq!(dead_letters(&client, "billing").await, [POISON]);
    consumer.close().await.unwrap();
    expect_all_committed(&client, "orders", "billing").await;
    let calls = calls.all();
    let of = |number| calls.iter().filter(|call| call.number == number).count();
    assert!(
        of(POISON) >= MAX_ATTEMPTS as usize,
        "{} attempts",
        of(POISON)
    );
}

/// Catches a message that passes a failed one before it in its queue, and one that is skipped, when the leader changes.
#[tokio::test(flavor = "multi_thread")]
async fn order_is_kept_past_failures_and_leaders() {
    let mut cluster = Cluster::start().await;
    cluster.topic("orders").await;
    let client = cluster.client().await;
    group(&client, "shipping").await;
    let calls = Calls::default();
    let noted = calls.clone();
    let consumer = client
        .push_consumer("shipping")
        .subscribe("orders", Filter::All)
        .in_order()
        .retry_pause(Duration::from_millis(20))
        .listen(move |delivery: Delivery| {
            let outcome = noted.work(&delivery);
            async move { outcome }
        })
        .await
        .unwrap();
    send(&client, "orders", 0..100, 100).await;
    calls.wait_for_failures(20).await;
    replace_leader(&mut cluster).await;
    send(&client, "orders", 100..200, 100).await;
    calls.wait_for_all(200).await;
    assert_eq!(dead_letters(&client, "shipping").await, [POISON]);
    consumer.close().await.unwrap();
    expect_all_committed(&client, "orders", "shipping").await;
    let mut places: BTreeMap<u32, Vec<u64>> = BTreeMap::new();
    for call in calls.all().iter() {
        let of_queue = places.entry(call.queue).or_default();
        if of_queue.last() != Some(&call.offset) {
            of_queue.push(call.offset);
        }
    }
    for (queue, offsets) in places {
        let expected: Vec<u64> = (0..offsets.len() as u64).collect();
        assert_eq!(
            offsets, expected,
            "queue {queue}: each one until it went well, then the next"
        );
    }
}
