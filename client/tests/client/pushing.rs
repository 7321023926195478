//! Listeners and streams: bounds, order, failures, progress.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use futures::StreamExt;
use raftmq_client::{
    Client, Code, ConsumeFrom, Consumption, Delivery, Error, Filter, PushConsumer,
    PushConsumerBuilder, PushDelivery, PushStream,
};

use crate::client;
use crate::fake::{FakeCluster, TOPIC};
use crate::fake_redelivery::SendBackFault;

const PATIENCE: Duration = Duration::from_secs(10);
const SHORT: Duration = Duration::from_millis(50);

fn numbers(range: std::ops::Range<u32>) -> impl Iterator<Item = String> {
    range.map(|number| number.to_string())
}

fn builder(client: &Client) -> PushConsumerBuilder {
    client
        .push_consumer("billing")
        .subscribe(TOPIC, Filter::All)
        .heartbeat_interval(Duration::from_millis(100))
        .long_polling_timeout(Duration::from_millis(500))
        .commit_interval(Duration::from_millis(20))
        .retry_pause(SHORT)
}

/// Waits for a condition.
async fn until(what: &str, condition: impl Fn() -> bool) {
    let started = Instant::now();
    while !condition() {
        assert!(started.elapsed() < PATIENCE, "{what} did not happen");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

async fn next(stream: &PushStream) -> PushDelivery {
    let next = tokio::time::timeout(PATIENCE, stream.next()).await;
    let delivery = next.expect("a delivery comes").expect("no error");
    delivery.expect("the stream goes on")
}

/// Nothing comes for a while.
async fn expect_nothing(stream: &PushStream) {
    let next = tokio::time::timeout(4 * SHORT, stream.next()).await;
    assert!(next.is_err(), "{next:?}");
}

/// What a listener saw: queue, offset and attempt of each call, in order.
#[derive(Clone, Default)]
struct Calls(Arc<Mutex<Vec<(u32, u64, u32)>>>);

impl Calls {
    fn seen(&self) -> MutexGuard<'_, Vec<(u32, u64, u32)>> {
        self.0.lock().expect("no listener panics while it holds it")
    }

    fn note(&self, delivery: &Delivery) {
        let call = (delivery.queue, delivery.offset, delivery.attempt);
        self.seen().push(call);
    }

    fn count(&self) -> usize {
        self.seen().len()
    }

    fn attempts_at(&self, queue: u32, offset: u64) -> Vec<u32> {
        let seen = self.seen();
        let at = seen
            .iter()
            .filter(|call| (call.0, call.1) == (queue, offset));
        at.map(|call| call.2).collect()
    }
}

/// A consumer whose listener notes each call and then fails those that `fails` names.
async fn listening(
    builder: PushConsumerBuilder,
    fails: impl Fn(&Delivery) -> bool + Send + Sync + 'static,
) -> (PushConsumer, Calls) {
    let calls = Calls::default();
    let (noted, fails) = (calls.clone(), Arc::new(fails));
    let consumer = builder
        .listen(move |delivery: Delivery| {
            let (noted, fails) = (noted.clone(), fails.clone());
            async move {
                noted.note(&delivery);
                match fails(&delivery) {
                    true => Err("told to fail"),
                    false => Ok(()),
                }
            }
        })
        .await
        .expect("starts");
    (consumer, calls)
}

/// Catches a message that is not given to the listener, or twice without need, and progress that is not committed.
#[tokio::test]
async fn each_message_is_worked_on_once_and_progress_is_committed() {
    let cluster = FakeCluster::start(3, 2).await;
    cluster.fill(0, numbers(0..100));
    cluster.fill(1, numbers(100..200));
    let client = client(&cluster, "c").await;
    let (consumer, calls) = listening(builder(&client), |_| false).await;
    until("work on all messages", || calls.count() == 200).await;
    consumer.close().await.expect("closes");
    assert_eq!(calls.count(), 200);
    let committed = cluster.world().offsets.clone();
    let of = |queue| committed.get(&("billing".to_owned(), queue)).copied();
    assert_eq!((of(0), of(1)), (Some(100), Some(100)));
    assert!(cluster.world().members.is_empty(), "it said goodbye");
    assert!(cluster.world().redelivery.handed_back.is_empty());
}

/// Catches more messages at work than wanted, and fewer: then concurrency would be a promise only.
#[tokio::test]
async fn as_many_as_wanted_are_worked_on_at_once() {
    let cluster = FakeCluster::start(1, 2).await;
    cluster.fill(0, numbers(0..40));
    let client = client(&cluster, "c").await;
    let (running, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let (now, peak) = (running.clone(), most.clone());
    let worked = Arc::new(AtomicUsize::new(0));
    let count = worked.clone();
    let consumer = builder(&client)
        .concurrency(7)
        .listen(move |_: Delivery| {
            let (now, peak, count) = (now.clone(), peak.clone(), count.clone());
            async move {
                peak.fetch_max(now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                tokio::time::sleep(Duration::from_millis(20)).await;
                now.fetch_sub(1, Ordering::SeqCst);
                count.fetch_add(1, Ordering::SeqCst);
                Ok::<(), Error>(())
            }
        })
        .await
        .expect("starts");
    until("work on all messages", || {
        worked.load(Ordering::SeqCst) == 40
    })
    .await;
    assert_eq!(most.load(Ordering::SeqCst), 7);
    consumer.close().await.expect("closes");
}

/// Catches progress that passes a message which is still worked on, and one that is lost when its consumer dies then.
#[tokio::test]
async fn an_unfinished_message_holds_progress_back() {
    let cluster = FakeCluster::start(1, 1).await;
    cluster.fill(0, numbers(0..5));
    let first_client = client(&cluster, "c").await;
    let stream = builder(&first_client).stream().await.expect("starts");
    let slow = next(&stream).await;
    assert_eq!(slow.message.body(), "0");
    for _ in 0..4 {
        next(&stream).await.ack();
    }
    expect_nothing(&stream).await;
    assert!(
        cluster
            .world()
            .commits
            .iter()
            .all(|commit| *commit == (0, 0))
    );
    drop(stream);
    drop(slow);
    cluster.world().members.clear();
    let client = client(&cluster, "d").await;
    let (consumer, calls) = listening(builder(&client), |_| false).await;
    until("work on the message again", || calls.count() == 5).await;
    consumer.close().await.expect("closes");
    assert_eq!(cluster.world().commits.last(), Some(&(0, 5)));
}

/// Catches a failed message that is lost, that comes too often, or that holds the others up.
#[tokio::test]
async fn a_failed_message_comes_again_from_the_servers_and_dies_in_the_end() {
    let cluster = FakeCluster::start(3, 2).await;
    cluster.fill(0, numbers(0..10));
    let client = client(&cluster, "c").await;
    let fails = |delivery: &Delivery| match delivery.offset {
        3 => delivery.attempt < 2,
        5 => true,
        _ => false,
    };
    let (consumer, calls) = listening(builder(&client), fails).await;
    until("the last attempt", || {
        cluster.world().redelivery.dead == [(0, 5)]
    })
    .await;
    until("the end of the other", || {
        !cluster.world().redelivery.settled.is_empty()
    })
    .await;
    consumer.close().await.expect("closes");
    assert_eq!(calls.attempts_at(0, 3), [1, 2]);
    assert_eq!(calls.attempts_at(0, 5), [1, 2, 3]);
    assert_eq!(calls.count(), 10 + 1 + 2);
    let world = cluster.world();
    assert_eq!(world.redelivery.settled, [(0, 3, 2)]);
    assert!(world.redelivery.rows.is_empty());
    let committed = world.offsets[&("billing".to_owned(), 0)];
    assert_eq!(committed, 10, "progress passed them");
}

/// Catches progress that passes a failed message which no server has.
#[tokio::test]
async fn a_message_that_cannot_be_handed_back_is_tried_again_here() {
    let cluster = FakeCluster::start(1, 1).await;
    cluster.fill(0, numbers(0..3));
    cluster.world().redelivery.faults = [SendBackFault::Refuse(Code::Unauthorized); 2].into();
    let client = client(&cluster, "c").await;
    let healed = Arc::new(AtomicUsize::new(0));
    let calls_of_first = healed.clone();
    let fails = move |delivery: &Delivery| {
        delivery.offset == 0 && calls_of_first.fetch_add(1, Ordering::SeqCst) < 2
    };
    let (consumer, calls) = listening(builder(&client), fails).await;
    until("the second failure", || healed.load(Ordering::SeqCst) == 2).await;
    assert!(
        cluster
            .world()
            .commits
            .iter()
            .all(|commit| *commit == (0, 0))
    );
    until("progress", || {
        cluster.world().commits.last() == Some(&(0, 3))
    })
    .await;
    consumer.close().await.expect("closes");
    assert_eq!(calls.attempts_at(0, 0), [1, 1, 1], "no attempt was counted");
    assert!(cluster.world().redelivery.rows.is_empty());
}

/// Catches a message that comes back for ever because the answer to its hand-back was lost.
#[tokio::test]
async fn a_lost_answer_to_a_hand_back_leaves_nothing_behind() {
    let cluster = FakeCluster::start(1, 1).await;
    cluster.fill(0, numbers(0..1));
    cluster.world().redelivery.faults = [SendBackFault::LoseAnswer; 1000].into();
    cluster.world().redelivery.back_off = Duration::ZERO;
    let client = Client::builder()
        .seeds(cluster.seeds())
        .client_id("c")
        .request_timeout(Duration::from_millis(300))
        .build()
        .await
        .expect("a seed answers");
    let first = AtomicUsize::new(0);
    let fails = move |_: &Delivery| first.fetch_add(1, Ordering::SeqCst) == 0;
    let (consumer, calls) = listening(builder(&client), fails).await;
    until("progress", || {
        cluster.world().commits.last() == Some(&(0, 1))
    })
    .await;
    consumer.close().await.expect("closes");
    assert!(calls.count() >= 2);
    let world = cluster.world();
    assert!(world.redelivery.handed_back.len() > 1, "it was tried again");
    assert!(world.redelivery.rows.is_empty(), "it was settled");
}

/// Catches order that is lost: two of one queue at once, or one that passes a failed one before it.
#[tokio::test]
async fn in_order_nothing_passes_a_failed_message() {
    let cluster = FakeCluster::start(1, 2).await;
    cluster.fill(0, numbers(0..6));
    cluster.fill(1, numbers(10..14));
    let client = client(&cluster, "c").await;
    let fails = |delivery: &Delivery| match (delivery.queue, delivery.offset) {
        (0, 2) => delivery.attempt < 3,
        (0, 4) => true,
        _ => false,
    };
    let consumer = builder(&client).in_order().max_attempts(4);
    let (consumer, calls) = listening(consumer, fails).await;
    until("progress", || {
        let world = cluster.world();
        [(0, 6), (1, 4)]
            .iter()
            .all(|commit| world.commits.contains(commit))
    })
    .await;
    consumer.close().await.expect("closes");
    let of = |queue| -> Vec<(u64, u32)> {
        let seen = calls.seen();
        let of = seen.iter().filter(|call| call.0 == queue);
        of.map(|call| (call.1, call.2)).collect()
    };
    assert_eq!(
        of(0),
        [
            (0, 1),
            (1, 1),
            (2, 1),
            (2, 2),
            (2, 3),
            (3, 1),
            (4, 1),
            (4, 2),
            (4, 3),
            (4, 4),
            (5, 1)
        ]
    );
    assert_eq!(of(1), [(0, 1), (1, 1), (2, 1), (3, 1)]);
    let world = cluster.world();
    assert_eq!(world.redelivery.handed_back, [(0, 4, 4)]);
    assert_eq!(world.redelivery.dead, [(0, 4)]);
}

/// Catches a listener that panics or hangs and takes the consumer, or its message, with it.
#[tokio::test]
async fn a_panic_and_a_hang_are_failures() {
    let cluster = FakeCluster::start(1, 1).await;
    cluster.fill(0, numbers(0..3));
    let client = client(&cluster, "c").await;
    let consumer = builder(&client)
        .listener_timeout(SHORT)
        .listen(|delivery: Delivery| async move {
            match (delivery.offset, delivery.attempt) {
                (0, 1) => panic!("a listener's own trouble"),
                (1, 1) => std::future::pending::<()>().await,
                _ => {}
            }
            Ok::<(), Error>(())
        })
        .await
        .expect("starts");
    until("the second attempts", || {
        cluster.world().redelivery.settled.len() == 2
    })
    .await;
    consumer.close().await.expect("closes");
    let world = cluster.world();
    let mut handed_back = world.redelivery.handed_back.clone();
    handed_back.sort_unstable();
    assert_eq!(handed_back, [(0, 0, 1), (0, 1, 1)]);
    assert_eq!(world.commits.last(), Some(&(0, 3)));
}

/// Catches a stream whose deliveries are settled in another way than its user says.
#[tokio::test]
async fn a_stream_does_what_its_user_says_of_each_delivery() {
    let cluster = FakeCluster::start(1, 1).await;
    cluster.fill(0, numbers(0..5));
    let client = client(&cluster, "c").await;
    let stream = builder(&client)
        .concurrency(4)
        .stream()
        .await
        .expect("starts");
    let mut taken = Vec::new();
    for _ in 0..4 {
        taken.push(next(&stream).await);
    }
    expect_nothing(&stream).await;
    let mut taken = taken.into_iter();
    taken.next().expect("the first").ack();
    taken.next().expect("the second").dead_letter();
    taken.next().expect("the third").retry_after(4 * SHORT);
    drop(taken.next().expect("the fourth"));
    let failed_at = Instant::now();
    let mut came = BTreeMap::new();
    while came.len() < 3 {
        let delivery = next(&stream).await;
        came.insert(delivery.offset, (delivery.attempt, failed_at.elapsed()));
        delivery.ack();
    }
    let attempts: Vec<(u64, u32)> = came
        .iter()
        .map(|(offset, came)| (*offset, came.0))
        .collect();
    assert_eq!(attempts, [(2, 2), (3, 2), (4, 1)]);
    assert!(came[&2].1 >= 4 * SHORT, "{came:?}");
    until("progress", || {
        cluster.world().commits.last() == Some(&(0, 5))
    })
    .await;
    assert_eq!(cluster.world().redelivery.dead, [(0, 1)]);
    stream.close().await.expect("closes");
    assert!(stream.next().await.expect("no error").is_none());
    assert!(stream.deliveries().boxed().next().await.is_none());
}

/// Catches messages that both members work on, and a queue whose progress is left behind, when a second member comes
/// while the first is at work.
#[tokio::test]
async fn a_queue_changes_hands_when_the_work_on_it_is_done() {
    let cluster = FakeCluster::start(1, 2).await;
    cluster.fill(0, numbers(0..2));
    cluster.fill(1, numbers(10..12));
    let client = client(&cluster, "c").await;
    let member = || builder(&client).in_order().heartbeat_interval(6 * SHORT);
    let one = member().stream().await.expect("starts");
    let (first, second) = (next(&one).await, next(&one).await);
    assert_eq!((first.queue, second.queue), (0, 1));
    let (other, calls) = listening(member(), |_| false).await;
    assert!(
        other.assignment().is_empty(),
        "both queues are the first member's"
    );
    second.ack();
    until("the exchange", || {
        one.assignment().len() == 1 && other.assignment().len() == 1
    })
    .await;
    until("the rest", || calls.count() == 1).await;
    assert_eq!(
        calls.seen().clone(),
        [(1, 1, 1)],
        "message 0 of queue 1 was committed before"
    );
    first.ack();
    one.close().await.expect("closes");
    until("the last", || calls.count() == 2).await;
    assert_eq!(calls.seen()[1], (0, 1, 1), "taken at once: nobody holds it");
    other.close().await.expect("closes");
}

/// Catches a new queue that nobody reads until routes are fetched for some other reason.
#[tokio::test]
async fn a_new_queue_is_read_as_soon_as_it_is_there() {
    let cluster = FakeCluster::start(1, 1).await;
    let client = client(&cluster, "c").await;
    let (consumer, calls) = listening(builder(&client), |_| false).await;
    until("its first queue", || consumer.assignment().len() == 1).await;
    cluster.world().queues.push(Vec::new());
    cluster.fill(1, numbers(0..2));
    until("work on its messages", || calls.count() == 2).await;
    consumer.close().await.expect("closes");
}

/// Catches members that share what each should read, progress on the servers, and a restart that forgets.
#[tokio::test]
async fn a_broadcast_message_comes_to_each_member_and_each_keeps_its_place() {
    let cluster = FakeCluster::start(1, 2).await;
    cluster.fill(0, numbers(0..3));
    cluster.fill(1, numbers(10..12));
    let directory = tempfile::tempdir().expect("a directory");
    let client = client(&cluster, "c").await;
    let broadcasting = |name: Option<&str>| {
        let progress_file = name.map(|name| directory.path().join(name));
        builder(&client).consumption(Consumption::Broadcasting { progress_file })
    };
    let fails = |delivery: &Delivery| (delivery.queue, delivery.offset) == (0, 1);
    let failing = broadcasting(Some("one")).max_attempts(2);
    let (one, of_one) = listening(failing, fails).await;
    let (other, of_other) = listening(broadcasting(None), |_| false).await;
    until("work of both", || {
        (of_one.count(), of_other.count()) == (6, 5)
    })
    .await;
    assert_eq!(of_one.attempts_at(0, 1), [1, 2]);
    one.close().await.expect("closes");
    other.close().await.expect("closes");
    assert!(cluster.world().commits.is_empty());
    assert!(cluster.world().redelivery.handed_back.is_empty());

    cluster.fill(1, numbers(12..13));
    let (one, of_one) = listening(broadcasting(Some("one")), |_| false).await;
    // Its group is another one: a group keeps its start.
    let latest = client.push_consumer("latest").subscribe(TOPIC, Filter::All);
    let latest = latest.heartbeat_interval(Duration::from_millis(100));
    let progress_file = None;
    let latest = latest.consumption(Consumption::Broadcasting { progress_file });
    let latest = latest.consume_from(ConsumeFrom::Latest);
    let (other, of_other) = listening(latest, |_| false).await;
    until("what is new", || of_one.count() == 1).await;
    assert_eq!(of_one.seen().clone(), [(1, 2, 1)]);
    until("a place in each queue", || other.assignment().len() == 2).await;
    one.close().await.expect("closes");
    other.close().await.expect("closes");
    assert_eq!(of_other.count(), 0);
}

/// Catches a progress file that is believed although it speaks of another topic: its consumer would ask beyond the end for
/// ever, or skip what is new.
#[tokio::test]
async fn own_progress_in_a_former_topic_means_nothing() {
    let cluster = FakeCluster::start(1, 1).await;
    cluster.fill(0, numbers(0..5));
    let client = client(&cluster, "c").await;
    let directory = tempfile::tempdir().expect("a directory");
    let broadcasting = || {
        let progress_file = Some(directory.path().join("one"));
        builder(&client).consumption(Consumption::Broadcasting { progress_file })
    };
    let (one, of_one) = listening(broadcasting(), |_| false).await;
    until("all", || of_one.count() == 5).await;
    one.close().await.expect("closes");
    cluster.world().make_again();
    cluster.fill(0, numbers(20..27));
    let (one, of_one) = listening(broadcasting(), |_| false).await;
    until("all of the other topic", || of_one.count() == 7).await;
    // Beyond the end of the same topic: some of it was lost.
    one.close().await.expect("closes");
    cluster.world().queues[0].truncate(4);
    let (one, of_one) = listening(broadcasting(), |_| false).await;
    until("what is left", || of_one.count() == 4).await;
    one.close().await.expect("closes");
}

/// Catches a start that succeeds although nothing can ever be delivered.
#[tokio::test]
async fn what_cannot_work_is_refused_at_once() {
    let cluster = FakeCluster::start(1, 1).await;
    let client = client(&cluster, "c").await;
    let none = client.push_consumer("billing").stream().await;
    assert!(matches!(none.err(), Some(Error::Invalid { .. })));
    let absent = client
        .push_consumer("billing")
        .subscribe("absent", Filter::All);
    let refused = absent.stream().await.err().expect("no such topic");
    assert_eq!(refused.code(), Some(Code::TopicNotFound));
    let idle = builder(&client).concurrency(0).stream().await;
    assert!(matches!(idle.err(), Some(Error::Invalid { .. })));
}
