//! A topic on two broker groups: where a message goes when one of them does not take it.

use std::time::Duration;

use raftmq_client::{Code, Message, Producer, ProducerBuilder, SendReceipt};

use crate::client;
use crate::fake::{FakeCluster, SendFault, TOPIC};

/// Two groups: the first has queues 0 and 1 and knows of the second's, 2 and 3.
struct Groups {
    first: FakeCluster,
    second: FakeCluster,
}

impl Groups {
    async fn start() -> Groups {
        let first = FakeCluster::start(1, 2).await;
        let second = FakeCluster::start(1, 4).await;
        second.world().name = "h".to_owned();
        let leader = second.world().addresses[0].clone();
        first.world().elsewhere = Some(("h".to_owned(), leader, 2..4));
        Groups { first, second }
    }

    async fn producer(
        &self,
        describe: impl FnOnce(ProducerBuilder) -> ProducerBuilder,
    ) -> Producer {
        let client = client(&self.first, "p").await;
        describe(client.producer()).build().expect("valid")
    }

    /// Every body that was stored, by both.
    fn bodies(&self) -> Vec<String> {
        let of_first = (0..2).flat_map(|queue| self.first.bodies(queue));
        let of_second = (0..4).flat_map(|queue| self.second.bodies(queue));
        let mut bodies: Vec<String> = of_first.chain(of_second).collect();
        bodies.sort();
        bodies
    }
}

fn message(body: &str) -> Message {
    let message = Message::builder(TOPIC).body(body.to_owned()).build();
    message.expect("valid")
}

async fn send(producer: &Producer, body: &str) -> SendReceipt {
    let sent = producer.send(message(body)).await;
    sent.expect("one of the groups takes it")
}

/// Catches a message that waits for one group's election although another group would take it.
#[tokio::test]
async fn what_one_group_refuses_goes_to_another_at_once() {
    let groups = Groups::start().await;
    groups.first.world().send_faults = [SendFault::Refuse(Code::HaNotAvailable); 100].into();
    let producer = groups.producer(|builder| builder).await;
    for body in ["0", "1", "2", "3", "4", "5"] {
        let receipt = send(&producer, body).await;
        assert!(receipt.queue >= 2, "{receipt:?}");
        let stored = groups.second.bodies(receipt.queue as usize);
        assert_eq!(
            stored[receipt.offset as usize], body,
            "the receipt names its place"
        );
    }
    assert_eq!(groups.bodies(), ["0", "1", "2", "3", "4", "5"]);
    assert!(!groups.first.world().sends.is_empty(), "it has its turns");
}

/// Catches a message that is stored by two groups because the answer of the first was lost.
#[tokio::test]
async fn what_may_be_stored_stays_with_its_queue() {
    let groups = Groups::start().await;
    let faults = [
        SendFault::LoseAnswer,
        SendFault::Hang,
        SendFault::Refuse(Code::HaNotAvailable),
    ];
    groups.first.world().send_faults = faults.into();
    groups.second.world().send_faults = faults.into();
    let producer = groups.producer(|builder| builder).await;
    for body in ["0", "1", "2", "3"] {
        send(&producer, body).await;
    }
    assert_eq!(groups.bodies(), ["0", "1", "2", "3"]);
}

/// Catches a chosen queue, or a message group, that is changed behind the user's back, and with it its order.
#[tokio::test]
async fn what_must_go_to_one_queue_waits_for_it() {
    let groups = Groups::start().await;
    groups.first.world().send_faults = [SendFault::Refuse(Code::HaNotAvailable); 4].into();
    let producer = groups.producer(|builder| builder).await;
    let chosen = Message::builder(TOPIC).body("0").queue(1).build();
    let receipt = producer.send(chosen.expect("valid")).await.expect("stored");
    assert_eq!(receipt.queue, 1);
    assert_eq!(groups.first.bodies(1), ["0"]);
    assert_eq!(groups.first.world().sends.len(), 5);
}

/// Catches a message that is lost between two groups that both refuse, and one that spins between them.
#[tokio::test]
async fn when_all_refuse_each_is_asked_again_after_a_wait() {
    let groups = Groups::start().await;
    let refusals = [SendFault::Refuse(Code::HaNotAvailable); 3];
    groups.first.world().send_faults = refusals.into();
    groups.second.world().send_faults = refusals.into();
    let producer = groups.producer(|builder| builder).await;
    send(&producer, "0").await;
    assert_eq!(groups.bodies(), ["0"]);

    let forever = [SendFault::Refuse(Code::HaNotAvailable); 10_000];
    groups.first.world().send_faults = forever.into();
    groups.second.world().send_faults = forever.into();
    let short = groups.producer(|builder| builder.send_timeout(Duration::from_millis(500)));
    let before = groups.first.world().sends.len();
    let error = short
        .await
        .send(message("1"))
        .await
        .expect_err("nobody takes it");
    assert!(error.is_retriable(), "{error}");
    let asked = groups.first.world().sends.len() - before;
    assert!(
        (2..50).contains(&asked),
        "asked {asked} times in half a second"
    );
}

/// Catches a group that failed a moment ago and gets the next message all the same, or never one again.
#[tokio::test]
async fn latency_fault_tolerance_keeps_away_from_who_failed() {
    let groups = Groups::start().await;
    groups.first.world().send_faults = [SendFault::Refuse(Code::HaNotAvailable); 100].into();
    let producer = groups
        .producer(|builder| builder.latency_fault_tolerance(true))
        .await;
    for body in 0..20 {
        assert!(send(&producer, &body.to_string()).await.queue >= 2);
    }
    assert_eq!(
        groups.first.world().sends.len(),
        1,
        "one failure was enough"
    );
}
