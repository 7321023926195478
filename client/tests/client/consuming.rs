//! Places, commits, sharing, failures.

use std::time::{Duration, Instant};

use raftmq_client::{
    Client, Code, ConsumeFrom, Delivery, Error, Filter, PullConsumer, PullConsumerBuilder, SeekTo,
    TopicQueue,
};

use crate::client;
use crate::fake::{FakeCluster, PATIENT, PullFault, TOPIC};

const PATIENCE: Duration = Duration::from_secs(10);

fn numbers(range: std::ops::Range<u32>) -> impl Iterator<Item = String> {
    range.map(|number| number.to_string())
}

fn builder(client: &Client) -> PullConsumerBuilder {
    client
        .pull_consumer("billing")
        .heartbeat_interval(Duration::from_millis(100))
        .long_polling_timeout(Duration::from_millis(500))
}

async fn subscribed(builder: PullConsumerBuilder) -> PullConsumer {
    let consumer = builder.build().expect("valid");
    consumer
        .subscribe(TOPIC, Filter::All)
        .await
        .expect("subscribed");
    consumer
}

fn bodies(deliveries: &[Delivery]) -> Vec<String> {
    deliveries
        .iter()
        .map(|delivery| String::from_utf8_lossy(delivery.message.body()).into_owned())
        .collect()
}

/// Polls until so many messages came.
async fn take(consumer: &PullConsumer, count: usize) -> Vec<Delivery> {
    let (mut taken, started) = (Vec::new(), Instant::now());
    while taken.len() < count {
        assert!(
            started.elapsed() < PATIENCE,
            "only {:?} came",
            bodies(&taken)
        );
        taken.extend(
            consumer
                .poll(count - taken.len(), Duration::from_secs(1))
                .await
                .expect("no error"),
        );
    }
    taken
}

/// Waits for a condition.
async fn until(what: &str, condition: impl Fn() -> bool) {
    let started = Instant::now();
    while !condition() {
        assert!(started.elapsed() < PATIENCE, "{what} did not happen");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Catches a message that is skipped or delivered twice because a stream broke, a server erred or the leader changed.
#[tokio::test]
async fn every_message_comes_once_and_in_order_through_failures() {
    let cluster = FakeCluster::start(3, 1).await;
    cluster.fill(0, numbers(0..100));
    cluster.world().pull_faults = [
        PullFault::BreakAfter(7),
        PullFault::Refuse(Code::HaNotAvailable),
        PullFault::BreakAfter(0),
        PullFault::Refuse(Code::InternalServerError),
        PullFault::BreakAfter(20),
    ]
    .into();
    let client = client(&cluster, "c").await;
    let consumer = subscribed(builder(&client).pull_messages_max(30)).await;
    let mut came = take(&consumer, 60).await;
    cluster.world().leader = 2;
    cluster.fill(0, numbers(100..120));
    came.extend(take(&consumer, 60).await);
    assert_eq!(bodies(&came), numbers(0..120).collect::<Vec<_>>());
    assert!(
        came.iter()
            .zip(0..)
            .all(|(delivery, offset)| delivery.offset == offset && delivery.queue == 0)
    );
    assert_eq!(
        consumer
            .poll(1, Duration::from_millis(50))
            .await
            .expect("no error")
            .len(),
        0
    );
}

/// A cluster whose topic has queue 1 in another one.
async fn with_queue_elsewhere() -> (FakeCluster, FakeCluster) {
    let (here, there) = (
        FakeCluster::start(1, 2).await,
        FakeCluster::start(1, 2).await,
    );
    there.world().name = "h".to_owned();
    (here, there)
}

/// What the name servers tell of it.
fn hear_of(here: &FakeCluster, there: &FakeCluster) {
    let leader = there.world().addresses[0].clone();
    here.world().elsewhere = Some(("h".to_owned(), leader, 1..2));
}

/// Catches a queue that is read from its beginning again, or in a queue of the same number, when its broker group is away for so
/// long that no route has it any more: another group was asked, and did not know this topic's life.
#[tokio::test]
async fn a_broker_group_that_no_route_has_any_more_keeps_its_queues() {
    let (here, there) = with_queue_elsewhere().await;
    hear_of(&here, &there);
    there.fill(1, numbers(0..3));
    let client = client(&here, "c").await;
    let consumer = builder(&client).manual_commit().build().expect("valid");
    let queue = TopicQueue::new(TOPIC, 1);
    consumer.assign([queue.clone()]).await.expect("assigned");
    assert_eq!(bodies(&take(&consumer, 3).await), ["0", "1", "2"]);
    there.world().silent = [0].into();
    here.world().elsewhere = None;
    here.world().queues.truncate(1);
    client.queues(TOPIC).await.expect("a fresh route");
    let asked = tokio::time::timeout(Duration::from_millis(500), consumer.committed(&queue)).await;
    assert!(!matches!(asked, Ok(Ok(_))), "another answered: {asked:?}");
    there.world().silent.clear();
    there.fill(1, numbers(3..5));
    assert_eq!(bodies(&take(&consumer, 2).await), ["3", "4"]);
}

/// Catches a queue that is looked for in the topic's first broker group for as long as a route is kept, because the group that
/// has it was not heard of when the route was fetched.
#[tokio::test]
async fn a_queue_that_the_route_lacks_is_looked_for_again() {
    let (here, there) = with_queue_elsewhere().await;
    here.fill(0, numbers(0..1));
    there.fill(1, numbers(1..3));
    let client = client(&here, "c").await;
    let consumer = builder(&client).build().expect("valid");
    let queue = |number| TopicQueue::new(TOPIC, number);
    here.world().queues.truncate(1);
    consumer.assign([queue(0)]).await.expect("assigned");
    assert_eq!(bodies(&take(&consumer, 1).await), ["0"]);
    here.world().queues.push(Vec::new());
    hear_of(&here, &there);
    // Longer than routes are believed that lack something.
    let none = consumer.poll(1, Duration::from_millis(500)).await;
    assert_eq!(none.expect("no error").len(), 0);
    consumer
        .assign([queue(0), queue(1)])
        .await
        .expect("assigned");
    assert_eq!(bodies(&take(&consumer, 2).await), ["1", "2"]);
}

/// Catches a long poll that answers late, or a consumer that asks in a tight loop.
#[tokio::test]
async fn a_message_arrives_as_soon_as_it_is_stored() {
    let cluster = FakeCluster::start(1, 1).await;
    let consumer = subscribed(builder(&client(&cluster, "c").await)).await;
    assert_eq!(
        consumer
            .poll(1, Duration::from_millis(700))
            .await
            .expect("no error")
            .len(),
        0
    );
    let started = Instant::now();
    let (came, ()) = tokio::join!(take(&consumer, 1), async { cluster.fill(0, numbers(0..1)) });
    assert_eq!(bodies(&came), ["0"]);
    assert!(
        started.elapsed() < Duration::from_millis(400),
        "{:?}",
        started.elapsed()
    );
}

/// Catches an automatic commit of what the user had in its hands when it died: those messages would be lost.
#[tokio::test]
async fn what_was_not_finished_comes_again() {
    let cluster = FakeCluster::start(1, 1).await;
    cluster.fill(0, numbers(0..10));
    let client = client(&cluster, "c").await;
    let often = Duration::from_millis(20);
    let first = subscribed(builder(&client).auto_commit(often)).await;
    assert_eq!(bodies(&take(&first, 4).await), ["0", "1", "2", "3"]);
    assert_eq!(
        bodies(&first.poll(2, PATIENCE).await.expect("no error")),
        ["4", "5"]
    );
    until("the commit of what is done", || {
        cluster.world().commits.contains(&(0, 4))
    })
    .await;
    drop(first);
    cluster.world().members.clear();
    let second = subscribed(builder(&client)).await;
    assert_eq!(
        bodies(&take(&second, 6).await),
        ["4", "5", "6", "7", "8", "9"]
    );
    second.close().await.expect("closed");
    assert_eq!(
        cluster.world().offsets.values().collect::<Vec<_>>(),
        [&10],
        "close finishes what was handed out"
    );
}

/// Catches a commit that the user did not ask for.
#[tokio::test]
async fn manual_commits_are_the_only_ones() {
    let cluster = FakeCluster::start(1, 1).await;
    cluster.fill(0, numbers(0..10));
    let client = client(&cluster, "c").await;
    let consumer = subscribed(builder(&client).manual_commit()).await;
    take(&consumer, 3).await;
    consumer.commit().await.expect("committed");
    take(&consumer, 3).await;
    let queue = TopicQueue::new(TOPIC, 0);
    assert_eq!(
        consumer.committed(&queue).await.expect("an answer"),
        Some(3)
    );
    assert_eq!(consumer.position(&queue), Some(6));
    consumer.close().await.expect("closed");
    assert_eq!(cluster.world().commits, [(0, 3)]);
    assert!(consumer.poll(1, Duration::ZERO).await.is_err(), "closed");
}

/// Catches a queue that two members read for longer than a moment, one that nobody reads, and messages lost in between.
#[tokio::test]
async fn members_share_the_queues_and_take_over_from_each_other() {
    let cluster = FakeCluster::start(1, 5).await;
    let client = client(&cluster, "c").await;
    let first = subscribed(builder(&client)).await;
    assert_eq!(first.assignment().len(), 5, "alone");
    let second = subscribed(builder(&client)).await;
    until("an even share", || {
        first.assignment().len() == 3 && second.assignment().len() == 2
    })
    .await;
    let all = [first.assignment(), second.assignment()].concat();
    assert_eq!(
        all,
        (0..5)
            .map(|queue| TopicQueue::new(TOPIC, queue))
            .collect::<Vec<_>>()
    );

    for queue in 0..5 {
        cluster.fill(queue, numbers(queue * 10..queue * 10 + 10));
    }
    let (mut of_first, of_second) = tokio::join!(take(&first, 30), take(&second, 20));
    second.close().await.expect("closed");
    until("the takeover", || first.assignment().len() == 5).await;
    for queue in 0..5 {
        cluster.fill(queue, numbers(queue * 10 + 100..queue * 10 + 110));
    }
    of_first.extend(take(&first, 50).await);
    let mut everything: Vec<u32> = bodies(&[of_first, of_second].concat())
        .iter()
        .map(|body| body.parse().expect("a number"))
        .collect();
    everything.sort_unstable();
    assert_eq!(
        everything,
        (0..50).chain(100..150).collect::<Vec<_>>(),
        "each once: the leaver had committed"
    );
}

/// Catches a rebalance storm at each election: the new leader knows nobody at first.
#[tokio::test]
async fn a_new_leader_that_forgot_the_members_does_not_unsettle_them() {
    let cluster = FakeCluster::start(2, 4).await;
    let client = client(&cluster, "c").await;
    let interval = Duration::from_millis(200);
    let first = subscribed(builder(&client).heartbeat_interval(interval)).await;
    tokio::time::sleep(interval / 2).await;
    let second = subscribed(builder(&client).heartbeat_interval(interval)).await;
    until("an even share", || {
        first.assignment().len() == 2 && second.assignment().len() == 2
    })
    .await;
    let shares = (first.assignment(), second.assignment());
    {
        let mut world = cluster.world();
        world.leader = 1;
        world.members.clear();
    }
    until("the first one's heartbeat", || {
        !cluster.world().members.is_empty()
    })
    .await;
    until("the second one's heartbeat", || {
        assert_eq!(shares, (first.assignment(), second.assignment()));
        cluster.world().members.len() == 2
    })
    .await;
}

/// Catches a consumer that starts elsewhere at each restart until its first commit, one that passes by what is in a queue
/// that was added after its group, and one whose wish counts although its group starts elsewhere.
#[tokio::test]
async fn a_start_at_the_end_is_the_group_s() {
    let cluster = FakeCluster::start(1, 1).await;
    cluster.fill(0, numbers(0..10));
    let client = client(&cluster, "c").await;
    let late = |client| {
        builder(client)
            .consume_from(ConsumeFrom::Latest)
            .manual_commit()
    };
    let first = subscribed(late(&client)).await;
    let queue = TopicQueue::new(TOPIC, 0);
    until("the first place", || first.position(&queue) == Some(10)).await;
    first.close().await.expect("closed");
    cluster.fill(0, numbers(10..12));
    let second = subscribed(late(&client)).await;
    assert_eq!(bodies(&take(&second, 2).await), ["10", "11"]);
    cluster.world().queues.push(Vec::new());
    cluster.fill(1, numbers(20..23));
    assert_eq!(bodies(&take(&second, 3).await), ["20", "21", "22"]);
    second.close().await.expect("closed");
    let wishes = late(&client).consume_from(ConsumeFrom::Earliest);
    let third = subscribed(wishes).await;
    until("its place", || third.position(&queue) == Some(10)).await;
}

/// Catches a consumer that asks beyond the end of a topic that was made again, or skips its beginning, and a commit in the
/// former topic that counts in it.
#[tokio::test]
async fn a_topic_that_is_made_again_is_another_one() {
    let cluster = FakeCluster::start(1, 1).await;
    cluster.fill(0, numbers(0..10));
    let client = client(&cluster, "c").await;
    let consumer = subscribed(builder(&client).manual_commit()).await;
    let before = take(&consumer, 10).await;
    consumer.commit().await.expect("committed");
    cluster.world().make_again();
    cluster.fill(0, numbers(20..23));
    assert_eq!(bodies(&take(&consumer, 3).await), ["20", "21", "22"]);
    let late = consumer.commit_offset(&before[9].topic_queue(), 10).await;
    let code = late.expect_err("another topic's").code();
    assert_eq!(code, Some(Code::PreconditionFailed));
    assert!(cluster.world().commits.is_empty());
    consumer.commit().await.expect("committed");
    assert_eq!(cluster.world().commits, [(0, 3)]);
}

/// Catches a seek that delivers what was prefetched before it, and one that takes until the end of a long poll.
#[tokio::test]
async fn a_seek_takes_effect_at_once() {
    let cluster = FakeCluster::start(1, 1).await;
    cluster.fill(0, numbers(0..10));
    let client = client(&cluster, "c").await;
    let consumer = builder(&client)
        .long_polling_timeout(Duration::from_secs(30))
        .build()
        .expect("valid");
    let queue = TopicQueue::new(TOPIC, 0);
    consumer.assign([queue.clone()]).await.expect("assigned");
    take(&consumer, 10).await;
    consumer.seek(&queue, 7).await.expect("held");
    assert_eq!(bodies(&take(&consumer, 3).await), ["7", "8", "9"]);
    consumer.seek(&queue, 2).await.expect("held");
    assert_eq!(consumer.position(&queue), Some(2));
    assert_eq!(bodies(&take(&consumer, 1).await), ["2"]);
    assert!(consumer.seek(&TopicQueue::new(TOPIC, 9), 0).await.is_err());
    assert!(
        consumer.subscribe(TOPIC, Filter::All).await.is_err(),
        "either or"
    );
}

/// Catches a place that is asked for and then not gone to.
#[tokio::test]
async fn a_seek_finds_the_begin_the_end_and_a_time() {
    let cluster = FakeCluster::start(1, 1).await;
    cluster.fill(0, numbers(0..10));
    cluster.world().min_offset = 3;
    let client = client(&cluster, "c").await;
    let consumer = builder(&client).build().expect("valid");
    let queue = TopicQueue::new(TOPIC, 0);
    consumer.assign([queue.clone()]).await.expect("assigned");
    for (to, offset) in [
        (SeekTo::TimeMs(7_000), 7),
        (SeekTo::Begin, 3),
        (SeekTo::End, 10),
        (SeekTo::Offset(5), 5),
    ] {
        consumer.seek(&queue, to).await.expect("held");
        assert_eq!(consumer.position(&queue), Some(offset), "{to:?}");
    }
    assert_eq!(bodies(&take(&consumer, 1).await), ["5"]);
}

/// Catches a pause that delivers, one that holds up other queues, and a resume that loses what was fetched.
#[tokio::test]
async fn a_paused_queue_waits_and_the_others_do_not() {
    let cluster = FakeCluster::start(1, 2).await;
    cluster.fill(0, numbers(0..5));
    let client = client(&cluster, "c").await;
    let consumer = builder(&client).build().expect("valid");
    let (paused, other) = (TopicQueue::new(TOPIC, 0), TopicQueue::new(TOPIC, 1));
    let both = [paused.clone(), other.clone()];
    consumer.assign(both.clone()).await.expect("assigned");
    consumer.pause(std::slice::from_ref(&paused)).expect("held");
    assert_eq!(consumer.paused(), std::slice::from_ref(&paused));
    cluster.fill(1, numbers(10..12));
    assert_eq!(bodies(&take(&consumer, 2).await), ["10", "11"]);
    let nothing = consumer.poll(1, Duration::from_millis(50)).await;
    assert_eq!(bodies(&nothing.expect("no error")), [""; 0]);
    consumer.resume(&both).expect("held");
    assert_eq!(bodies(&take(&consumer, 5).await), ["0", "1", "2", "3", "4"]);
    let foreign = [paused, TopicQueue::new(TOPIC, 9)];
    assert!(consumer.pause(&foreign).is_err());
    assert_eq!(consumer.paused(), [], "all or none");
}

/// Catches a consumer that is stuck where retention has been, and one that jumps back by itself.
#[tokio::test]
async fn an_offset_outside_the_queue_is_handled_by_which_side() {
    let cluster = FakeCluster::start(1, 1).await;
    cluster.fill(0, numbers(0..10));
    cluster.world().min_offset = 4;
    cluster.world().offsets.insert(("billing".to_owned(), 0), 1);
    let client = client(&cluster, "c").await;
    let consumer = subscribed(builder(&client)).await;
    assert_eq!(
        bodies(&take(&consumer, 6).await),
        ["4", "5", "6", "7", "8", "9"]
    );
    let queue = TopicQueue::new(TOPIC, 0);
    consumer.seek(&queue, 12).await.expect("held");
    let error = consumer
        .poll(1, PATIENCE)
        .await
        .expect_err("beyond the end");
    assert_eq!(error.code(), Some(Code::IllegalOffset), "{error}");
    cluster.fill(0, numbers(10..13));
    let started = Instant::now();
    loop {
        assert!(started.elapsed() < PATIENCE);
        if let Ok(deliveries) = consumer.poll(1, Duration::from_secs(1)).await
            && !deliveries.is_empty()
        {
            assert_eq!(bodies(&deliveries), ["12"]);
            break;
        }
    }
}

/// Catches a prefetch without bound.
#[tokio::test]
async fn no_more_is_fetched_than_may_be_kept() {
    let cluster = FakeCluster::start(1, 1).await;
    cluster.fill(0, numbers(0..100));
    let client = client(&cluster, "c").await;
    let consumer = subscribed(builder(&client).prefetch_messages(10).pull_messages_max(4)).await;
    let came = take(&consumer, 100).await;
    assert_eq!(bodies(&came), numbers(0..100).collect::<Vec<_>>());
}

/// Catches a filter that is taken and never evaluated: every pull failed, and the log alone said so.
#[tokio::test]
async fn a_filter_that_no_broker_evaluates_is_refused_at_once() {
    let cluster = FakeCluster::start(1, 1).await;
    let client = client(&cluster, "c").await;
    let sql = || Filter::Sql("amount > 5".to_owned());
    let consumer = builder(&client).build().expect("valid");
    let error = consumer.subscribe(TOPIC, sql()).await;
    let error = error.expect_err("not supported");
    assert!(matches!(error, Error::Invalid { .. }), "{error}");
    assert!(error.to_string().contains("amount > 5"), "{error}");
    assert_eq!(consumer.subscriptions().await, [""; 0]);
    let push = client.push_consumer("billing").subscribe(TOPIC, sql());
    let error = push.stream().await.err().expect("not supported");
    assert!(matches!(error, Error::Invalid { .. }), "{error}");
}

/// Catches two processes with one client id that are one member to the servers: both took all queues, and both got everything.
#[tokio::test]
async fn of_two_processes_with_one_client_id_one_reads_and_the_other_is_told() {
    let cluster = FakeCluster::start(1, 2).await;
    let (one, other) = (client(&cluster, "c").await, client(&cluster, "c").await);
    let first = subscribed(builder(&one)).await;
    let second = builder(&other).build().expect("valid");
    let error = second.subscribe(TOPIC, Filter::All).await;
    let error = error.expect_err("the id is taken");
    assert_eq!(error.code(), Some(Code::PreconditionFailed), "{error}");
    assert!(!error.is_retriable(), "{error}");
    let push = other.push_consumer("billing").subscribe(TOPIC, Filter::All);
    cluster
        .world()
        .processes
        .insert("c-2".into(), "another".into());
    let error = push.stream().await.err().expect("the id is taken");
    assert_eq!(error.code(), Some(Code::PreconditionFailed), "{error}");
    assert_eq!(
        (first.assignment().len(), second.assignment().len()),
        (2, 0)
    );
    let again = second.poll(1, PATIENCE).await;
    let again = again.expect_err("told as long as it is so");
    assert_eq!(again.code(), Some(Code::PreconditionFailed), "{again}");

    // It does not have to be made anew when the other one is gone.
    first.close().await.expect("closed");
    until("the takeover", || second.assignment().len() == 2).await;
    cluster.fill(0, numbers(0..1));
    let came = loop {
        // What was refused before may still have to be told.
        match second.poll(1, PATIENCE).await {
            Ok(came) => break came,
            Err(error) => assert_eq!(error.code(), Some(Code::PreconditionFailed), "{error}"),
        }
    };
    assert_eq!(bodies(&came), ["0"]);

    // A leader that heard another one first: who has read so far is told and stops.
    cluster
        .world()
        .processes
        .insert("c".into(), "another".into());
    until("the queues are given up", || second.assignment().is_empty()).await;
    let error = second.poll(1, PATIENCE).await.expect_err("the id is taken");
    assert_eq!(error.code(), Some(Code::PreconditionFailed), "{error}");
}

/// Catches one description that makes two consumers which the servers take for one.
#[tokio::test]
async fn consumers_of_one_description_are_two_members() {
    let cluster = FakeCluster::start(1, 4).await;
    let client = client(&cluster, "c").await;
    let described = builder(&client);
    let first = subscribed(described.clone()).await;
    let second = subscribed(described).await;
    until("an even share", || {
        first.assignment().len() == 2 && second.assignment().len() == 2
    })
    .await;
}

/// Catches a hand-over that delivers what was in hand twice, and one in which both members read the queue for a while: of a
/// stream of messages a quarter came twice when a member joined.
#[tokio::test]
async fn nothing_is_delivered_twice_when_a_member_joins() {
    let cluster = FakeCluster::start(1, 4).await;
    let client = client(&cluster, "c").await;
    let often = || builder(&client).heartbeat_interval(Duration::from_millis(500));
    let first = subscribed(often()).await;
    let mut sent = 0;
    let mut came = Vec::new();
    let fill = |sent: &mut u32| {
        for queue in 0..4 {
            cluster.fill(queue, numbers(*sent..*sent + 10));
            *sent += 10;
        }
    };
    fill(&mut sent);
    came.extend(take(&first, 10).await);
    let second = subscribed(often()).await;
    let started = Instant::now();
    while first.assignment().len() > 2 || second.assignment().len() < 2 {
        assert!(started.elapsed() < PATIENCE, "no even share");
        fill(&mut sent);
        let wait = Duration::from_millis(20);
        came.extend(first.poll(16, wait).await.expect("no error"));
        came.extend(second.poll(16, wait).await.expect("no error"));
    }
    while came.len() < sent as usize {
        assert!(started.elapsed() < PATIENCE, "{} of {sent}", came.len());
        let wait = Duration::from_millis(20);
        came.extend(first.poll(1000, wait).await.expect("no error"));
        came.extend(second.poll(1000, wait).await.expect("no error"));
    }
    let mut everything: Vec<u32> = bodies(&came)
        .iter()
        .map(|body| body.parse().expect("a number"))
        .collect();
    everything.sort_unstable();
    assert_eq!(everything, (0..sent).collect::<Vec<_>>(), "each once");
}

/// Catches a consumer whose pull waits for messages at a machine that has vanished, while another one has them.
#[tokio::test]
async fn a_pull_is_not_left_at_a_leader_that_fell_silent() {
    let cluster = FakeCluster::start(3, 1).await;
    let client = cluster.patient_client().await;
    let consumer = client
        .pull_consumer("billing")
        .long_polling_timeout(PATIENT)
        .build()
        .expect("valid");
    let queue = TopicQueue::new(TOPIC, 0);
    consumer.assign([queue]).await.expect("assigned");
    cluster.fill(0, ["before".to_owned()]);
    assert_eq!(bodies(&take(&consumer, 1).await), ["before"]);
    cluster.replicas_are_known().await;
    cluster.world().silent.insert(0);
    cluster.world().leader = 1;
    cluster.fill(0, ["after".to_owned()]);
    let polled = consumer.poll(1, Duration::from_secs(30)).await;
    assert_eq!(bodies(&polled.expect("no error")), ["after"]);
}

/// A consumer of a topic with a queue here and one there, which took both messages of each; then those there fell silent.
async fn with_one_group_silent() -> (FakeCluster, FakeCluster, PullConsumer) {
    let (here, there) = with_queue_elsewhere().await;
    hear_of(&here, &there);
    here.fill(0, numbers(0..2));
    there.fill(1, numbers(2..4));
    let client = Client::builder()
        .seeds(here.seeds())
        .client_id("c")
        .attempt_timeout(Duration::from_millis(300))
        .request_timeout(PATIENT)
        .build()
        .await
        .expect("a seed answers");
    let often = Duration::from_millis(20);
    let consumer = subscribed(builder(&client).auto_commit(often)).await;
    take(&consumer, 4).await;
    there.world().silent = [0].into();
    (here, there, consumer)
}

/// Catches commits that wait for those to a broker group that does not answer.
#[tokio::test]
async fn a_broker_group_that_is_away_holds_up_no_commits_to_another() {
    let (here, _there, consumer) = with_one_group_silent().await;
    let committed = |offset| {
        let world = here.world();
        world.commits.contains(&(0, offset))
    };
    let none = consumer.poll(1, Duration::ZERO).await;
    assert_eq!(bodies(&none.expect("no error")), [""; 0]);
    until("the commit of what was done", || committed(2)).await;
    here.fill(0, numbers(4..5));
    assert_eq!(bodies(&take(&consumer, 1).await), ["4"]);
    let none = consumer.poll(1, Duration::ZERO).await;
    assert_eq!(bodies(&none.expect("no error")), [""; 0]);
    until("another commit", || committed(3)).await;
}

/// Catches a member that says goodbye to no broker group before one that does not answer has its commits: the queues of all
/// others are nobody's meanwhile.
#[tokio::test]
async fn a_broker_group_that_is_away_holds_up_no_goodbye_to_another() {
    let (here, there, consumer) = with_one_group_silent().await;
    let goodbye = || here.world().members.is_empty() && here.world().commits.contains(&(0, 2));
    let mut closing = Box::pin(consumer.close());
    tokio::select! {
        closed = &mut closing => panic!("nobody there has heard it: {closed:?}"),
        () = until("the goodbye", goodbye) => {}
    }
    assert!(!there.world().members.is_empty());
    there.world().silent.clear();
    closing.await.expect("closed");
    assert!(there.world().members.is_empty(), "it hears it in the end");
    assert!(there.world().commits.contains(&(1, 2)));
}
