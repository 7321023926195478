//! Failed messages over the wire: handed back, pulled again, settled or dead; whichever broker is asked,
//! whoever leads, and whatever retention drops.
#![allow(
    clippy::unwrap_used,
    clippy::too_many_lines,
    reason = "a story told in one piece; what fails, panics"
)]

use std::time::Duration;

use crate::support::client::{self, code, from_client, properties};
use crate::support::{Client, Cluster, PATIENCE, message};
use host::network::{self, ChannelOptions};
use prost::Message as _;
use proto::cluster::{
    BrokerStatusRequest, DropLogRequest, NameRequest, PutGroupRequest, PutTopicRequest,
};
use proto::opaque::pull_message_response::Content;
use proto::place::LIFE;
use proto::redelivery::{
    Failed, PullRetriesRequest, PullRetriesResponse, RedeliveryClient, RedeliveryResponse,
    SendBackRequest, SettleRequest,
};
use proto::v2::{Code, Message, UpdateOffsetRequest};
use tokio::time::Instant;
use tonic::Request;

const GROUP: &str = "readers";
const LETTERS: &str = "%DLQ%readers";

/// One broker's redelivery service, and the others.
struct Retrier {
    redelivery: RedeliveryClient,
    client: Client,
}

impl Retrier {
    fn new(cluster: &Cluster, place: usize) -> Retrier {
        let address = cluster.address(place);
        let channel = network::channel(address, &ChannelOptions::default()).unwrap();
        Retrier {
            redelivery: proto::redelivery::redelivery_client(channel),
            client: cluster.client(place),
        }
    }

    /// A topic, and a group that tries each message three times.
    async fn prepare(&self) {
        self.client.create_topic("orders", 1).await;
        let group = PutGroupRequest {
            name: GROUP.to_owned(),
            max_attempts: 3,
            attributes: [("retry.backoff".to_owned(), "1ms".to_owned())].into(),
            ..Default::default()
        };
        let mut admin = self.client.admin.clone();
        let answer = admin.create_group(Request::new(group)).await.unwrap();
        assert_eq!(answer.get_ref().code, Code::Ok as i32);
    }

    async fn send_back_with(&self, request: SendBackRequest) -> RedeliveryResponse {
        let mut redelivery = self.redelivery.clone();
        let answer = redelivery.send_back(from_client(request)).await;
        answer.unwrap().into_inner()
    }

    async fn send_back(&self, offset: u64, attempt: u32) {
        let request = SendBackRequest {
            failed: vec![Failed { offset, attempt }],
            ..request()
        };
        let answer = self.send_back_with(request).await;
        assert_eq!(answer.code, Code::Ok as i32, "{answer:?}");
    }

    async fn settle(&self, offset: u64, attempt: u32) {
        let request = SettleRequest {
            group: GROUP.to_owned(),
            topic: "orders".to_owned(),
            queue: 0,
            settled: vec![Failed { offset, attempt }],
        };
        let answer = self.redelivery.clone().settle(from_client(request)).await;
        assert_eq!(answer.unwrap().get_ref().code, Code::Ok as i32);
    }

    async fn pull_with(&self, request: PullRetriesRequest) -> PullRetriesResponse {
        let mut redelivery = self.redelivery.clone();
        let answer = redelivery.pull_retries(from_client(request)).await;
        answer.unwrap().into_inner()
    }

    /// Waits for retries; each one's attempt and message.
    async fn pull(&self) -> Vec<(u32, Message)> {
        let answer = self.pull_with(pull_request(20_000)).await;
        assert_eq!(answer.code, Code::Ok as i32, "{answer:?}");
        let retries = answer.retries.into_iter();
        retries
            .map(|retry| (retry.attempt, Message::decode(retry.message).unwrap()))
            .collect()
    }

    async fn letters(&self) -> Vec<Message> {
        let pulled = self.client.pull(LETTERS, 0, 0, 100).await;
        assert_eq!(pulled.code, Code::Ok, "{}", pulled.text);
        pulled.messages
    }
}

fn request() -> SendBackRequest {
    SendBackRequest {
        group: GROUP.to_owned(),
        topic: "orders".to_owned(),
        ..Default::default()
    }
}

fn pull_request(wait_ms: u64) -> PullRetriesRequest {
    PullRetriesRequest {
        group: GROUP.to_owned(),
        topic: "orders".to_owned(),
        wait_ms,
        ..Default::default()
    }
}

fn body(message: &Message) -> &str {
    std::str::from_utf8(&message.body).unwrap()
}

/// A call about a topic of which its caller knows this life.
fn of_life<T>(message: T, life: &str) -> Request<T> {
    let mut request = from_client(message);
    let life = life.parse().unwrap();
    request.metadata_mut().insert(LIFE, life);
    request
}

/// Catches a read, a commit, a failed message or a settled one that means the topic which was there before, and is done to the one
/// that has its name now.
#[tokio::test]
async fn a_place_of_a_topic_that_is_gone_is_refused() {
    let cluster = Cluster::single().await;
    let asked = Retrier::new(&cluster, cluster.leader().await);
    asked.prepare().await;
    let sent: Vec<Message> = (0..2).map(|id| message("orders", 0, id)).collect();
    asked.client.store(&sent).await;
    let mut messaging = asked.client.messaging.clone();
    let pull = || client::pull_request("orders", 0, 0, 1);
    let pulled = messaging.pull_message(from_client(pull())).await.unwrap();
    let life = pulled.metadata().get(LIFE).unwrap().to_str().unwrap();

    let name = NameRequest {
        name: "orders".to_owned(),
    };
    let mut admin = asked.client.admin.clone();
    admin.delete_topic(Request::new(name)).await.unwrap();
    asked.client.create_topic("orders", 1).await;
    asked.client.store(&sent).await;

    let mut parts = messaging
        .pull_message(of_life(pull(), life))
        .await
        .unwrap()
        .into_inner();
    let first = parts.message().await.unwrap().unwrap().content;
    let Some(Content::Status(status)) = first else {
        panic!("the status comes first: {first:?}");
    };
    assert_eq!(status.code, Code::PreconditionFailed as i32);
    let commit = UpdateOffsetRequest {
        group: client::resource(GROUP),
        message_queue: Some(client::message_queue("orders", 0)),
        offset: 1,
    };
    let committed = messaging
        .update_offset(of_life(commit, life))
        .await
        .unwrap();
    assert_eq!(code(&committed.get_ref().status), Code::PreconditionFailed);
    let known = asked.client.get_offset(GROUP, "orders", 0).await;
    assert_eq!(code(&known.status), Code::OffsetNotFound);

    let failed = vec![Failed {
        offset: 0,
        attempt: 1,
    }];
    let back = SendBackRequest {
        failed: failed.clone(),
        ..request()
    };
    let settle = SettleRequest {
        group: GROUP.to_owned(),
        topic: "orders".to_owned(),
        queue: 0,
        settled: failed,
    };
    let mut redelivery = asked.redelivery.clone();
    let back = redelivery.send_back(of_life(back, life)).await.unwrap();
    let settled = redelivery.settle(of_life(settle, life)).await.unwrap();
    let retries = redelivery
        .pull_retries(of_life(pull_request(0), life))
        .await;
    let codes = [
        back.get_ref().code,
        settled.get_ref().code,
        retries.unwrap().get_ref().code,
    ];
    assert_eq!(codes, [Code::PreconditionFailed as i32; 3]);
    let waiting = asked.pull_with(pull_request(0)).await;
    assert!(waiting.retries.is_empty(), "{waiting:?}");
}

/// Catches a call that only the leader answers, a delivery without its attempt, a message that is lost or
/// comes back when the leader changes, and a dead letter that does not say where it came from.
#[tokio::test]
async fn failed_messages_come_again_whoever_leads() {
    let mut cluster = Cluster::start(3, |_| {}).await;
    let asked = Retrier::new(&cluster, cluster.follower().await);
    asked.prepare().await;
    let sent: Vec<Message> = (0..4).map(|id| message("orders", 0, id)).collect();
    asked.client.store(&sent).await;
    for offset in 0..3 {
        asked.send_back(offset, 1).await;
    }
    let (attempt, first) = asked.pull().await.swap_remove(0);
    let properties_of = properties(&first);
    assert_eq!((attempt, body(&first)), (2, "body 0"));
    assert_eq!(properties_of.delivery_attempt, Some(2));
    assert_eq!(properties_of.queue_offset, Some(0));
    asked.settle(0, 2).await;
    asked.send_back(1, 2).await;
    asked.send_back(1, 3).await;

    let leader = cluster.leader().await;
    cluster.stop(leader).await;
    let left = Retrier::new(&cluster, cluster.leader().await);
    let again = left.pull().await;
    assert_eq!(again.len(), 1, "{again:?}");
    assert_eq!((again[0].0, body(&again[0].1)), (2, "body 2"));
    let letters = left.letters().await;
    assert_eq!(letters.len(), 1);
    assert_eq!(body(&letters[0]), "body 1");
    let origin = properties(&letters[0]).dead_letter_queue.clone().unwrap();
    assert_eq!(origin.topic, "orders");
    assert_eq!(origin.message_id, properties(&sent[1]).message_id);
    left.settle(2, 2).await;
    let none = left.pull_with(pull_request(0)).await;
    assert_eq!((none.retries.len(), none.next_due_ms), (0, 0));
}

/// Catches a poll that sleeps through what becomes due or arrives, that answers what its caller holds, or that
/// keeps no bound.
#[tokio::test]
async fn a_poll_waits_for_what_is_due() {
    let cluster = Cluster::single().await;
    let asked = Retrier::new(&cluster, 0);
    asked.prepare().await;
    let sent: Vec<Message> = (0..4).map(|id| message("orders", 0, id)).collect();
    asked.client.store(&sent).await;

    let arrival = async {
        tokio::time::sleep(Duration::from_millis(50)).await;
        asked.send_back(2, 1).await;
    };
    let begun = Instant::now();
    let (pulled, ()) = tokio::join!(asked.pull(), arrival);
    assert_eq!(pulled.len(), 1);
    let waited = begun.elapsed();
    assert!(waited < PATIENCE / 2, "{waited:?}");
    asked.settle(2, 2).await;

    let late = SendBackRequest {
        failed: vec![Failed {
            offset: 3,
            attempt: 1,
        }],
        delay_ms: 400,
        ..request()
    };
    let begun = Instant::now();
    assert_eq!(asked.send_back_with(late).await.code, Code::Ok as i32);
    let early = asked.pull_with(pull_request(0)).await;
    assert!(early.retries.is_empty() && (1..=400).contains(&early.next_due_ms));
    assert_eq!(asked.pull().await.len(), 1);
    let waited = begun.elapsed();
    assert!(
        (Duration::from_millis(400)..PATIENCE / 2).contains(&waited),
        "{waited:?}"
    );

    for offset in 0..2 {
        asked.send_back(offset, 1).await;
    }
    asked.pull().await;
    let few = PullRetriesRequest {
        messages_max: 1,
        held: vec![3],
        ..pull_request(1_000)
    };
    let few = asked.pull_with(few).await;
    assert_eq!(few.retries.len(), 1);
    assert!(few.next_due_ms > 0);
    let small = PullRetriesRequest {
        bytes_max: 1,
        ..pull_request(1_000)
    };
    assert_eq!(asked.pull_with(small).await.retries.len(), 1);
    let all_held = PullRetriesRequest {
        held: vec![0, 1, 3],
        ..pull_request(0)
    };
    let all_held = asked.pull_with(all_held).await;
    assert_eq!((all_held.retries.len(), all_held.next_due_ms), (0, 0));
}

/// Catches nonsense that gets into the log, and topics for dead letters that people make or send to.
#[tokio::test]
async fn what_cannot_be_is_refused() {
    let cluster = Cluster::single().await;
    let asked = Retrier::new(&cluster, 0);
    asked.prepare().await;
    asked.client.store(&[message("orders", 0, 1)]).await;
    let one = |offset, attempt| vec![Failed { offset, attempt }];
    let cases = [
        (
            SendBackRequest {
                failed: vec![],
                ..request()
            },
            Code::BadRequest,
        ),
        (
            SendBackRequest {
                failed: one(0, 0),
                ..request()
            },
            Code::BadRequest,
        ),
        (
            SendBackRequest {
                failed: one(1, 1),
                ..request()
            },
            Code::BadRequest,
        ),
        (
            SendBackRequest {
                failed: one(0, 1),
                queue: 1,
                ..request()
            },
            Code::BadRequest,
        ),
        (
            SendBackRequest {
                failed: one(0, 1),
                delay_ms: u64::MAX,
                ..request()
            },
            Code::BadRequest,
        ),
        (
            SendBackRequest {
                failed: one(0, 1),
                topic: "other".into(),
                ..request()
            },
            Code::TopicNotFound,
        ),
        (
            SendBackRequest {
                failed: one(0, 1),
                topic: "a b".into(),
                ..request()
            },
            Code::IllegalTopic,
        ),
        (
            SendBackRequest {
                failed: one(0, 1),
                group: "a b".into(),
                ..request()
            },
            Code::IllegalConsumerGroup,
        ),
    ];
    for (request, expected) in cases {
        let answer = asked.send_back_with(request.clone()).await;
        assert_eq!(answer.code, expected as i32, "{request:?}: {answer:?}");
    }
    let sent = asked.client.send(&[message(LETTERS, 0, 2)]).await;
    assert_eq!(code(&sent.status), Code::IllegalTopic);
    let topic = PutTopicRequest {
        name: LETTERS.to_owned(),
        ..Default::default()
    };
    let mut admin = asked.client.admin.clone();
    let made = admin.create_topic(Request::new(topic)).await.unwrap();
    assert_eq!(made.get_ref().code, Code::IllegalTopic as i32);
    let pulled = asked.client.pull(LETTERS, 0, 0, 1).await;
    assert_eq!(pulled.code, Code::TopicNotFound);
    let group = PutGroupRequest {
        name: "hasty".to_owned(),
        attributes: [("retry.backoff".to_owned(), "soon".to_owned())].into(),
        ..Default::default()
    };
    let made = admin.create_group(Request::new(group)).await.unwrap();
    assert_eq!(made.get_ref().code, Code::BadRequest as i32);
}

/// Tries again until a condition holds; what it waits for has no event.
async fn until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let trying = async {
        while !holds().await {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let tried = tokio::time::timeout(PATIENCE, trying).await;
    tried.unwrap_or_else(|_| panic!("{what} in time"));
}

/// Catches retention that takes a message away that waits or is dead: while it runs, after a restart, and on a
/// replica that began with a snapshot.
#[tokio::test]
async fn retention_leaves_what_waits_and_what_is_dead() {
    let mut cluster = Cluster::start(3, |config| {
        config.message_bytes_max = 64 << 10;
        config.request_bytes_max = 192 << 10;
        config.segment_bytes = 512 << 10;
        config.checkpoint_log_bytes = 256 << 10;
        config.retention_interval_ms = 20;
        config.log_retain_bytes = 1 << 20;
    })
    .await;
    let leader = cluster.leader().await;
    let away = cluster.follower().await;
    let asked = Retrier::new(&cluster, leader);
    asked.prepare().await;
    let sent: Vec<Message> = (0..3).map(|id| message("orders", 0, id)).collect();
    asked.client.store(&sent).await;
    let waits = SendBackRequest {
        failed: vec![Failed {
            offset: 1,
            attempt: 1,
        }],
        delay_ms: 1,
        ..request()
    };
    assert_eq!(asked.send_back_with(waits).await.code, Code::Ok as i32);
    asked.send_back(0, 3).await;
    cluster.stop(away).await;
    for id in 100..180 {
        let mut large = message("orders", 0, id);
        large.body = vec![b'x'; 60 << 10].into();
        asked.client.store(&[large]).await;
    }
    until("retention cuts the queue", async || {
        asked.client.pull("orders", 0, 2, 1).await.code == Code::IllegalOffset
    })
    .await;
    let admin = || asked.client.admin.clone();
    let drop_all = DropLogRequest { retain_bytes: 0 };
    let dropped = admin().drop_log(Request::new(drop_all)).await.unwrap();
    assert_eq!(dropped.get_ref().code, Code::Ok as i32);
    until("the segments are dropped", async || {
        let mut admin = admin();
        let checkpoint = admin.checkpoint(Request::new(BrokerStatusRequest {}));
        checkpoint.await.unwrap();
        let status = admin.status(Request::new(BrokerStatusRequest {})).await;
        status.unwrap().get_ref().dropped > 20
    })
    .await;
    let too_late = SendBackRequest {
        failed: vec![Failed {
            offset: 2,
            attempt: 1,
        }],
        ..request()
    };
    let too_late = asked.send_back_with(too_late).await;
    assert_eq!(too_late.code, Code::OffsetNotFound as i32, "{too_late:?}");

    cluster.restart(away).await;
    until("the replica that was away has caught up", async || {
        let view = cluster.broker(away).view();
        view.applied_index() == cluster.broker(leader).view().applied_index()
    })
    .await;
    let transfer = proto::cluster::TransferLeadershipRequest {
        to: away as u64 + 1,
    };
    until("the replica that was away leads", async || {
        let _ = admin().transfer_leader(Request::new(transfer)).await;
        cluster.leader().await == away
    })
    .await;
    let check = async |cluster: &Cluster, place: usize| {
        let asked = Retrier::new(cluster, place);
        let retries = asked.pull().await;
        assert_eq!(retries.len(), 1);
        assert_eq!((retries[0].0, body(&retries[0].1)), (2, "body 1"));
        let letters = asked.letters().await;
        assert_eq!(letters.iter().map(body).collect::<Vec<_>>(), ["body 0"]);
    };
    check(&cluster, away).await;
    for place in 0..3 {
        cluster.stop(place).await;
    }
    for place in 0..3 {
        cluster.restart(place).await;
    }
    let leader = cluster.leader().await;
    check(&cluster, leader).await;
}

/// Catches dead letters that are kept for ever.
#[tokio::test]
async fn dead_letters_end_after_their_time() {
    let cluster = Cluster::start(1, |config| {
        config.retention_interval_ms = 20;
        config.dead_letter_retain_ms = 50;
    })
    .await;
    let asked = Retrier::new(&cluster, 0);
    asked.prepare().await;
    asked.client.store(&[message("orders", 0, 1)]).await;
    asked.send_back(0, 3).await;
    until("the dead letter goes", async || {
        let pulled = asked.client.pull(LETTERS, 0, 0, 1).await;
        pulled.code == Code::IllegalOffset && pulled.next_offset == Some(1)
    })
    .await;
}
