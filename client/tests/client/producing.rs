//! Gathering, order, retries, deadlines.

use std::time::{Duration, Instant};

use raftmq_client::{Client, Code, Error, Message, Producer, SendReceipt, TopicQueue};

use crate::client;
use crate::fake::{FakeCluster, PATIENT, POISON, SendFault, TOPIC, Word};

fn message(body: impl Into<String>) -> Message {
    Message::builder(TOPIC)
        .body(body.into())
        .build()
        .expect("valid")
}

fn of_group(group: &str, body: impl Into<String>) -> Message {
    Message::builder(TOPIC)
        .body(body.into())
        .message_group(group)
        .build()
        .expect("valid")
}

async fn producer(cluster: &FakeCluster) -> Producer {
    client(cluster, "p")
        .await
        .producer()
        .build()
        .expect("valid")
}

/// Hands over without waiting in between; the outcomes in order.
async fn send_all(
    producer: &Producer,
    messages: impl IntoIterator<Item = Message>,
) -> Vec<Result<SendReceipt, Error>> {
    let mut handles = Vec::new();
    for message in messages {
        handles.push(producer.send_async(message).await.expect("room"));
    }
    let mut outcomes = Vec::new();
    for handle in handles {
        outcomes.push(handle.await);
    }
    outcomes
}

/// Catches a request for each message, and a receipt that names another message's place.
#[tokio::test]
async fn messages_sent_one_by_one_share_requests_and_get_their_own_receipts() {
    let cluster = FakeCluster::start(1, 4).await;
    cluster.world().send_takes = Duration::from_millis(2);
    let client = client(&cluster, "p").await;
    let producer = client
        .producer()
        .request_messages_max(100)
        .build()
        .expect("valid");
    let outcomes = send_all(&producer, (0..1000).map(|i| message(i.to_string()))).await;
    for (number, outcome) in outcomes.into_iter().enumerate() {
        let receipt = outcome.expect("stored");
        let world = cluster.world();
        let stored = &world.queues[receipt.queue as usize][receipt.offset as usize];
        assert_eq!(stored.body, number.to_string());
        assert_eq!(stored.id, receipt.message_id);
    }
    let world = cluster.world();
    assert!(
        world.sends.len() <= 20,
        "{} requests for 1000 messages",
        world.sends.len()
    );
    assert!(
        world.queues.iter().all(|queue| !queue.is_empty()),
        "all queues are used"
    );
}

/// Catches a message stored twice, or under a new id, because an answer was lost.
#[tokio::test]
async fn a_lost_answer_is_asked_for_again_under_the_same_ids() {
    let cluster = FakeCluster::start(1, 1).await;
    cluster.world().send_faults = [SendFault::LoseAnswer, SendFault::Hang].into();
    let receipt = producer(&cluster)
        .await
        .send(message("once"))
        .await
        .expect("stored");
    assert_eq!(receipt.offset, 0);
    let world = cluster.world();
    assert_eq!(world.queues[0].len(), 1);
    assert_eq!(world.sends, vec![vec![receipt.message_id]; 3]);
}

/// Catches a leader change that is only noticed at the next refresh of the route.
#[tokio::test]
async fn a_redirect_is_followed_at_once() {
    let cluster = FakeCluster::start(3, 1).await;
    let producer = producer(&cluster).await;
    producer.send(message("before")).await.expect("stored");
    cluster.world().leader = 2;
    let started = Instant::now();
    producer.send(message("after")).await.expect("stored");
    assert!(
        started.elapsed() < Duration::from_secs(2),
        "{:?}",
        started.elapsed()
    );
    producer.send(message("and again")).await.expect("stored");
    assert_eq!(cluster.world().misdirected, 1, "once told, always known");
    assert_eq!(cluster.bodies(0), ["before", "after", "and again"]);
}

/// Catches a choice that is ignored, and one that is not there.
#[tokio::test]
async fn a_selector_chooses_the_queue() {
    let cluster = FakeCluster::start(1, 3).await;
    let client = client(&cluster, "c").await;
    let by_tag = |message: &Message, queues: &[u32]| match message.body().first() {
        Some(b'!') => 99,
        _ => queues[message.body().len() % queues.len()],
    };
    let builder = client.producer().queue_selector(by_tag);
    let producer = builder.build().expect("valid");
    for body in ["a", "bb", "ccc"] {
        let receipt = producer.send(message(body)).await.expect("stored");
        assert_eq!(receipt.queue as usize, body.len() % 3);
    }
    let error = producer.send(message("!")).await.expect_err("no queue 99");
    assert!(error.to_string().contains("99"), "{error}");
    let of_batch = producer.send_batch(vec![message("dd"), message("!")]).await;
    assert!(of_batch[0].is_ok() && of_batch[1].is_err());
}

/// Catches a body that is sent as it is although it is large, and one that others could not read.
#[tokio::test]
async fn large_bodies_travel_compressed() {
    let cluster = FakeCluster::start(1, 1).await;
    let producer = producer(&cluster).await;
    let (small, large) = ("x".repeat(4095), "x".repeat(4096));
    producer.send(message(&small)).await.expect("stored");
    producer.send(message(&large)).await.expect("stored");
    let stored = |number: usize| cluster.world().queues[0][number].body.len();
    assert_eq!(stored(0), small.len());
    assert!(stored(1) < 200, "{} bytes", stored(1));
    let client = client(&cluster, "c").await;
    let consumer = client.pull_consumer("g").build().expect("valid");
    let queue = TopicQueue::new(TOPIC, 0);
    consumer.assign([queue]).await.expect("assigned");
    let mut bodies = Vec::new();
    while bodies.len() < 2 {
        let polled = consumer
            .poll(2, Duration::from_secs(5))
            .await
            .expect("polled");
        assert!(!polled.is_empty());
        bodies.extend(polled.into_iter().map(|one| one.message.body().clone()));
    }
    assert_eq!(bodies, [small, large]);
}

/// Catches a linger that is not waited out, and one that holds up a request which is full.
#[tokio::test]
async fn a_request_lingers_until_it_is_full() {
    let cluster = FakeCluster::start(1, 1).await;
    let client = client(&cluster, "c").await;
    let long = Duration::from_secs(8);
    let builder = client.producer().linger(long).request_messages_max(3);
    let producer = builder.build().expect("valid");
    let started = Instant::now();
    let hand_over = |body: &'static str| producer.send_async(message(body));
    let handles = [
        hand_over("1").await,
        hand_over("2").await,
        hand_over("3").await,
    ];
    for handle in handles {
        handle.expect("room").await.expect("stored");
    }
    assert!(started.elapsed() < long, "{:?}", started.elapsed());
    assert_eq!(cluster.world().sends.len(), 1, "all in one");
    let builder = client.producer().linger(Duration::from_millis(300));
    let producer = builder.build().expect("valid");
    let started = Instant::now();
    producer.send_one_way(message("4")).await.expect("room");
    producer.flush().await.expect("flushed");
    assert!(started.elapsed() >= Duration::from_millis(300));
    assert_eq!(cluster.bodies(0), ["1", "2", "3", "4"]);
}

/// Catches a producer that stays with a leader which is gone without a word.
#[tokio::test]
async fn a_silent_leader_is_left_for_another_replica() {
    let cluster = FakeCluster::start(3, 1).await;
    let producer = producer(&cluster).await;
    producer.send(message("before")).await.expect("stored");
    cluster.world().silent.insert(0);
    cluster.world().leader = 1;
    producer.send(message("after")).await.expect("stored");
    assert_eq!(cluster.bodies(0), ["before", "after"]);
}

/// A producer that would wait for an answer for longer than any test takes.
async fn patient_producer(cluster: &FakeCluster) -> Producer {
    let client = cluster.patient_client().await;
    let builder = client.producer().send_timeout(PATIENT);
    builder.build().expect("valid")
}

/// Catches a producer that waits for a silent leader as long as an attempt may take when others say that there is another
/// one, and messages that lose their order when it goes there.
#[tokio::test]
async fn a_silent_leader_is_not_waited_for_once_another_leads() {
    let cluster = FakeCluster::start(3, 1).await;
    let producer = patient_producer(&cluster).await;
    producer.send(message("before")).await.expect("stored");
    cluster.replicas_are_known().await;
    cluster.world().silent.insert(0);
    let sending = send_all(
        &producer,
        (0..50).map(|number| of_group("g", number.to_string())),
    );
    let electing = async {
        // Nobody leads for a while, so that peers are asked more than once.
        tokio::time::sleep(Duration::from_millis(800)).await;
        cluster.world().leader = 1;
    };
    let both = async { tokio::join!(sending, electing).0 };
    let sent = tokio::time::timeout(Duration::from_secs(30), both).await;
    let sent = sent.expect("nobody waits for the one that is silent");
    assert!(sent.iter().all(Result::is_ok), "{sent:?}");
    let numbers = (0..50).map(|number| number.to_string());
    let expected: Vec<String> = std::iter::once("before".to_owned())
        .chain(numbers)
        .collect();
    assert_eq!(cluster.bodies(0), expected);
}

/// Catches a slow leader to which everything is sent twice because it is slow.
#[tokio::test]
async fn a_leader_that_is_only_slow_is_waited_for() {
    let cluster = FakeCluster::start(3, 1).await;
    let producer = patient_producer(&cluster).await;
    producer.send(message("before")).await.expect("stored");
    cluster.world().send_takes = Duration::from_millis(1_500);
    producer.send(message("after")).await.expect("stored");
    let world = cluster.world();
    assert_eq!(world.sends.len(), 2, "each once");
    assert_eq!(world.misdirected, 0);
}

/// Catches a slow leader that is left, by all at once and again and again, because one of its peers is cut off and names a
/// leader of long ago, or because another group's broker has a peer's address and names its own leader.
#[tokio::test]
async fn a_slow_leader_is_not_left_for_one_of_long_ago_or_of_another_group() {
    let cluster = FakeCluster::start(3, 1).await;
    let producer = patient_producer(&cluster).await;
    cluster.world().term = 7;
    producer.send(message("before")).await.expect("stored");
    cluster.replicas_are_known().await;
    let word = |group, leader, term| Word {
        group,
        leader,
        term,
    };
    {
        let mut world = cluster.world();
        world.words = [(1, word("g", 1, 6)), (2, word("h", 2, 99))].into();
        world.send_takes = Duration::from_millis(1_500);
    }
    producer.send(message("after")).await.expect("stored");
    let world = cluster.world();
    assert!(world.listed >= 3, "both were asked");
    assert_eq!(world.sends.len(), 2, "each once");
    assert_eq!(world.misdirected, 0);
}

/// Catches a client that stays with a leader because one peer has not heard of the next one yet, or is cut off with it.
#[tokio::test]
async fn a_leader_of_a_later_term_counts_although_one_peer_names_the_former() {
    let cluster = FakeCluster::start(3, 1).await;
    let producer = patient_producer(&cluster).await;
    cluster.world().term = 7;
    producer.send(message("before")).await.expect("stored");
    cluster.replicas_are_known().await;
    {
        let mut world = cluster.world();
        let former = Word {
            group: "g",
            leader: 0,
            term: 7,
        };
        world.words = [(2, former)].into();
        world.silent.insert(0);
        (world.leader, world.term) = (1, 8);
    }
    let sending = producer.send(message("after"));
    let sent = tokio::time::timeout(Duration::from_secs(30), sending).await;
    sent.expect("nobody waits for the one that is silent")
        .expect("stored");
    assert_eq!(cluster.bodies(0), ["before", "after"]);
}

/// Catches a client that waits for one server's route as long as an attempt may take, although another would answer.
#[tokio::test]
async fn a_seed_that_hangs_is_not_waited_for() {
    let cluster = FakeCluster::start(3, 1).await;
    cluster.world().silent.extend([0, 1]);
    cluster.world().leader = 2;
    let sending = async {
        let producer = patient_producer(&cluster).await;
        producer.send(message("sent")).await
    };
    let sent = tokio::time::timeout(PATIENT / 10, sending).await;
    sent.expect("nobody waits for those that hang")
        .expect("stored");
    assert_eq!(cluster.bodies(0), ["sent"]);
}

/// Catches a retry that is overtaken by messages handed over after it.
#[tokio::test]
async fn order_within_a_group_survives_refusals_lost_answers_and_a_change_of_leader() {
    let cluster = FakeCluster::start(3, 4).await;
    let refuse = SendFault::Refuse(Code::HaNotAvailable);
    cluster.world().send_faults = [
        refuse,
        SendFault::LoseAnswer,
        refuse,
        SendFault::Hang,
        refuse,
        SendFault::LoseAnswer,
    ]
    .into();
    let producer = producer(&cluster).await;
    let mut handles = Vec::new();
    for number in 0..300 {
        if number == 150 {
            cluster.world().leader = 1;
        }
        let group = format!("group-{}", number % 3);
        handles.push((
            number,
            producer
                .send_async(of_group(&group, number.to_string()))
                .await
                .expect("room"),
        ));
        if number % 20 == 0 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
    let mut queues = std::collections::BTreeMap::new();
    for (number, handle) in handles {
        let receipt = handle.await.expect("stored");
        let queue = *queues.entry(number % 3).or_insert(receipt.queue);
        assert_eq!(receipt.queue, queue, "one group, one queue");
    }
    for group in 0..3 {
        let bodies = cluster.bodies(queues[&group] as usize);
        let numbers: Vec<i32> = bodies
            .iter()
            .map(|body| body.parse().expect("a number"))
            .filter(|n| n % 3 == group)
            .collect();
        assert_eq!(
            numbers,
            (0..300).filter(|n| n % 3 == group).collect::<Vec<_>>()
        );
    }
}

/// Catches a sender that waits for longer than it asked to, or is told that a message is not stored which is.
#[tokio::test]
async fn a_deadline_ends_the_wait_and_says_what_is_known() {
    let cluster = FakeCluster::start(1, 1).await;
    cluster.world().send_faults = vec![SendFault::Hang; 50].into();
    let client = client(&cluster, "p").await;
    let producer = client
        .producer()
        .send_timeout(Duration::from_millis(700))
        .build()
        .expect("valid");
    let started = Instant::now();
    let first = producer.send_async(message("sent")).await.expect("room");
    tokio::time::sleep(Duration::from_millis(100)).await;
    let behind = producer
        .send_async(message("never sent"))
        .await
        .expect("room");
    let error = first.await.expect_err("no answer");
    assert!(error.is_outcome_unknown(), "{error}");
    assert!(
        error.to_string().contains(TOPIC) && error.to_string().contains("127.0.0.1:"),
        "{error}"
    );
    assert!(
        (600..1200).contains(&started.elapsed().as_millis()),
        "{:?}",
        started.elapsed()
    );
    let error = behind.await.expect_err("no answer either");
    // It may have been sent in the moment that the first left it.
    assert!(
        matches!(error, Error::TimedOut { .. } | Error::OutcomeUnknown { .. }),
        "{error}"
    );
    assert!(started.elapsed() < Duration::from_millis(1500));
}

/// Catches a refusal that is called unknown, or retried in vain.
#[tokio::test]
async fn a_final_refusal_is_told_at_once() {
    let cluster = FakeCluster::start(1, 1).await;
    cluster.world().send_faults = [SendFault::Refuse(Code::Forbidden); 3].into();
    let producer = producer(&cluster).await;
    let error = producer.send(message("x")).await.expect_err("refused");
    assert_eq!(error.code(), Some(Code::Forbidden), "{error}");
    assert_eq!(
        cluster.world().sends.len(),
        3,
        "twice more, as the model has it"
    );
    cluster.world().send_faults = [SendFault::Refuse(Code::IllegalTopic)].into();
    let error = producer.send(message("x")).await.expect_err("refused");
    assert!(
        !error.is_retriable() && !error.is_outcome_unknown(),
        "{error}"
    );
    assert_eq!(cluster.world().sends.len(), 4);
    let error = producer
        .send(Message::new("nowhere", "x").expect("valid"))
        .await
        .expect_err("no such topic");
    assert_eq!(error.code(), Some(Code::TopicNotFound), "{error}");
}

/// Catches an election that the users of the producer notice as errors.
#[tokio::test]
async fn a_second_without_a_leader_is_waited_out() {
    let cluster = FakeCluster::start(1, 2).await;
    let producer = producer(&cluster).await;
    cluster.world().send_faults = vec![SendFault::Refuse(Code::HaNotAvailable); 6].into();
    for outcome in send_all(&producer, (0..10).map(|i| message(i.to_string()))).await {
        outcome.expect("stored");
    }
}

/// Catches a receipt that names the queue that was asked for instead of the one where the message is.
#[tokio::test]
async fn a_receipt_tells_where_the_message_is() {
    let cluster = FakeCluster::start(1, 4).await;
    let producer = producer(&cluster).await;
    let to = |queue| {
        Message::builder(TOPIC)
            .body("x")
            .message_id("7")
            .queue(queue)
            .build()
    };
    let first = producer.send(to(2).expect("valid")).await.expect("stored");
    assert_eq!((first.queue, first.offset), (2, 0));
    let again = producer
        .send(to(1).expect("valid"))
        .await
        .expect("stored before");
    assert_eq!((again.queue, again.offset), (2, 0));
    assert!(cluster.bodies(1).is_empty());
    producer.send(message("y")).await.expect("stored");
    assert_eq!(
        cluster.world().sequenced,
        [false, false, true],
        "ids of the user's own do not count"
    );
}

/// Catches a message that is stored somewhere else because the queue that was chosen does not exist.
#[tokio::test]
async fn a_queue_that_does_not_exist_is_refused() {
    let cluster = FakeCluster::start(1, 4).await;
    let producer = producer(&cluster).await;
    let message = Message::builder(TOPIC)
        .body("x")
        .queue(77)
        .build()
        .expect("valid");
    let error = producer
        .send(message.clone())
        .await
        .expect_err("no such queue");
    assert!(matches!(error, Error::Invalid { .. }), "{error}");
    assert!(error.to_string().contains("no queue 77"), "{error}");
    assert!(error.to_string().contains("0 to 3"), "{error}");
    let outcomes = producer.send_batch(vec![message, self::message("y")]).await;
    assert!(outcomes[0].is_err() && outcomes[1].is_ok(), "{outcomes:?}");
    assert_eq!(cluster.world().sends.len(), 1);
}

/// Catches one bad message that takes the others of its request with it.
#[tokio::test]
async fn one_bad_message_does_not_spoil_the_others() {
    let cluster = FakeCluster::start(1, 1).await;
    let body = |i| {
        if i == 13 {
            POISON.to_vec()
        } else {
            format!("{i}").into_bytes()
        }
    };
    let messages = (0..30).map(|i| {
        Message::builder(TOPIC)
            .body(body(i))
            .queue(0)
            .build()
            .expect("valid")
    });
    let outcomes = send_all(&producer(&cluster).await, messages).await;
    for (number, outcome) in outcomes.iter().enumerate() {
        assert_eq!(outcome.is_ok(), number != 13, "{number}: {outcome:?}");
    }
    assert_eq!(
        outcomes[13].as_ref().err().and_then(Error::code),
        Some(Code::MessageCorrupted)
    );
    let expected: Vec<String> = (0..30)
        .filter(|i| *i != 13)
        .map(|i| i.to_string())
        .collect();
    assert_eq!(cluster.bodies(0), expected);
}

/// Catches a batch that is torn over several queues, or stored out of order.
#[tokio::test]
async fn a_batch_goes_to_one_queue_in_order() {
    let cluster = FakeCluster::start(1, 4).await;
    let client = client(&cluster, "p").await;
    let producer = client
        .producer()
        .max_in_flight(8)
        .request_messages_max(5)
        .build()
        .expect("valid");
    let outcomes = producer
        .send_batch((0..40).map(|i| message(i.to_string())).collect())
        .await;
    let receipts: Vec<SendReceipt> = outcomes
        .into_iter()
        .map(|outcome| outcome.expect("stored"))
        .collect();
    let queue = receipts[0].queue as usize;
    assert_eq!(
        receipts
            .iter()
            .map(|receipt| receipt.offset)
            .collect::<Vec<_>>(),
        (0..40).collect::<Vec<_>>()
    );
    assert_eq!(
        cluster.bodies(queue),
        (0..40).map(|i| i.to_string()).collect::<Vec<_>>()
    );
}

/// Catches a start that fails because one of several seeds is down, and one that waits for ever.
#[tokio::test]
async fn any_one_seed_is_enough_and_none_is_an_error() {
    let cluster = FakeCluster::start(1, 1).await;
    let dead = "127.0.0.1:1".to_owned();
    let seeds = [vec![dead.clone()], cluster.seeds()].concat();
    let client = Client::builder()
        .seeds(seeds)
        .build()
        .await
        .expect("the second answers");
    client
        .producer()
        .build()
        .expect("valid")
        .send(message("x"))
        .await
        .expect("stored");

    let started = Instant::now();
    let built = Client::builder()
        .seeds([dead.clone()])
        .start_timeout(Duration::from_millis(300))
        .build()
        .await;
    let error = built.err().expect("nobody is there");
    assert!(
        matches!(error, Error::NoSeedAnswered { .. }) && error.to_string().contains(&dead),
        "{error}"
    );
    assert!(started.elapsed() < Duration::from_secs(2));
}

/// Catches a close that loses what was handed over, and a producer that goes on after it.
#[tokio::test]
async fn close_settles_what_was_handed_over() {
    let cluster = FakeCluster::start(1, 1).await;
    cluster.world().send_takes = Duration::from_millis(20);
    let producer = producer(&cluster).await;
    let handles: Vec<_> =
        futures::future::join_all((0..50).map(|i| producer.send_async(message(i.to_string()))))
            .await;
    producer.close().await.expect("closed");
    assert_eq!(cluster.bodies(0).len(), 50);
    for handle in handles {
        handle.expect("room").await.expect("stored");
    }
    let error = producer.send(message("late")).await.expect_err("closed");
    assert!(matches!(error, Error::Closed { .. }), "{error}");
}

/// Catches a producer whose memory grows with its senders instead of making them wait.
#[tokio::test]
async fn handing_over_waits_for_room() {
    let cluster = FakeCluster::start(1, 1).await;
    cluster.world().send_faults = vec![SendFault::HangBefore; 50].into();
    let client = client(&cluster, "p").await;
    let producer = client
        .producer()
        .max_in_flight(2)
        .send_timeout(Duration::from_millis(400))
        .build()
        .expect("valid");
    let first = producer.send_async(message("1")).await.expect("room");
    let second = producer.send_async(message("2")).await.expect("room");
    tokio::time::sleep(Duration::from_millis(100)).await;
    let third = producer
        .send_async(message("3"))
        .await
        .expect("room once the others have given up");
    let outcomes = (first.await, second.await, third.await);
    assert!(outcomes.0.is_err() && outcomes.1.is_err() && outcomes.2.is_err());
}

/// Catches a future that cannot be spawned.
#[tokio::test]
async fn futures_can_move_between_threads() {
    fn movable<T: Send>(value: T) -> T {
        value
    }
    let cluster = FakeCluster::start(1, 1).await;
    let client = client(&cluster, "p").await;
    let producer = client.producer().build().expect("valid");
    let consumer = client.pull_consumer("g").build().expect("valid");
    drop(movable(producer.send(message("x"))));
    drop(movable(producer.send_batch(Vec::new())));
    drop(movable(consumer.poll(1, Duration::ZERO)));
    drop(movable(
        consumer.subscribe(TOPIC, raftmq_client::Filter::All),
    ));
    drop(movable(consumer.close()));
    let admin = client.admin();
    drop(movable(admin.list_topics()));
    drop(movable(
        admin.create_topic("x", &raftmq_client::TopicSettings::default()),
    ));
}

/// Catches a program that sends to a topic that nobody made, for ever and without a pause, because it is told to try again.
#[tokio::test]
async fn a_topic_that_does_not_exist_is_nothing_to_try_again() {
    let cluster = FakeCluster::start(1, 1).await;
    let producer = producer(&cluster).await;
    let message = Message::builder("nothing").body("x").build();
    let error = producer.send(message.expect("valid")).await;
    let error = error.expect_err("there is no such topic");
    assert_eq!(error.code(), Some(Code::TopicNotFound), "{error}");
    assert!(!error.is_retriable() && !error.is_outcome_unknown());
}
