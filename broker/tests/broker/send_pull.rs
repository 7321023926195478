//! One broker: what is sent is pulled, and what is wrong is refused with its code.
#![allow(
    clippy::unwrap_used,
    clippy::too_many_lines,
    reason = "a story told in one piece; what fails, panics"
)]

use std::time::Duration;

use crate::support::client::{code, from_client, properties, pull_request, tags};
use crate::support::{Client, Cluster, PATIENCE, message, ok};
use bytes::Bytes;
use prost::Message as _;
use proto::cluster::{ReadMessagesRequest, ReadMessagesResponse};
use proto::v2::{Code, Message, MessageType, QueryOffsetPolicy};

fn duration(wait: Duration) -> Option<prost_types::Duration> {
    Some(prost_types::Duration {
        seconds: wait.as_secs() as i64,
        nanos: 0,
    })
}

async fn orders(queue_count: u32) -> (Cluster, Client) {
    let cluster = Cluster::single().await;
    let client = cluster.leader_client().await;
    client.create_topic("orders", queue_count).await;
    (cluster, client)
}

/// Catches a message that does not come back as it was sent, or not where its offset says.
#[tokio::test]
async fn what_is_sent_is_pulled() {
    let (cluster, client) = orders(2).await;
    let sent: Vec<Message> = (0..5).map(|id| message("orders", 1, id)).collect();
    let response = client.send(&sent[..2]).await;
    ok(&response.status);
    for (entry, sent) in response.entries.iter().zip(&sent) {
        ok(&entry.status);
        assert_eq!(entry.message_id, properties(sent).message_id);
        assert_eq!(entry.transaction_id, entry.message_id);
    }
    assert_eq!(client.store(&sent[2..]).await, [2, 3, 4]);

    let pulled = client.pull("orders", 1, 1, 3).await;
    assert_eq!(pulled.code, Code::Ok);
    assert_eq!(pulled.next_offset, Some(4));
    for (pulled, (sent, offset)) in pulled.messages.iter().zip(sent[1..].iter().zip(1..)) {
        assert_eq!(
            (&pulled.body, &pulled.user_properties),
            (&sent.body, &sent.user_properties)
        );
        assert_eq!(pulled.topic, sent.topic);
        let (got, expected) = (properties(pulled), properties(sent));
        assert_eq!((got.queue_id, got.queue_offset), (1, Some(offset)));
        assert_eq!(
            (&got.message_id, &got.born_host),
            (&expected.message_id, &expected.born_host)
        );
        assert_eq!(got.store_host, cluster.address(0));
        assert_eq!(got.delivery_attempt, Some(1));
        assert!(got.store_timestamp.is_some());
    }
    assert_eq!(
        client.pull("orders", 0, 0, 32).await.code,
        Code::MessageNotFound
    );
}

/// Catches a broken message that panics, is stored, or takes its neighbours along.
#[tokio::test]
async fn what_is_wrong_is_refused_by_itself() {
    let (_cluster, client) = orders(1).await;
    let answer = |messages: Vec<Bytes>| {
        let client = client.clone();
        async move { client.send_encoded(messages).await.into_inner() }
    };
    assert_eq!(
        code(&answer(Vec::new()).await.status),
        Code::MessageCorrupted
    );
    let garbage = answer(vec![Bytes::from_static(&[0xde; 64])]).await;
    assert_eq!(code(&garbage.status), Code::MessageCorrupted);
    let mut empty = message("orders", 0, 1);
    empty.body = Bytes::new();
    assert_eq!(
        code(&client.send(&[empty.clone()]).await.status),
        Code::MessageBodyEmpty
    );
    let mut large = message("orders", 0, 2);
    large.body = vec![0; (256 << 10) + 1].into();
    assert_eq!(
        code(&client.send(&[large]).await.status),
        Code::MessageBodyTooLarge
    );
    let mut half = message("orders", 0, 3);
    half.body = vec![0; 256 << 10].into();
    let too_much = client.send(&vec![half; 5]).await;
    assert_eq!(code(&too_much.status), Code::PayloadTooLarge);
    let two_topics = [message("orders", 0, 4), message("other", 0, 5)];
    assert_eq!(
        code(&client.send(&two_topics).await.status),
        Code::MessageCorrupted
    );
    for bad in ["", "or ders", "rmq_sys_x"] {
        let response = client.send(&[message(bad, 0, 6)]).await;
        assert_eq!(code(&response.status), Code::IllegalTopic, "{bad:?}");
    }

    let mixed = vec![
        message("orders", 0, 7).encode_to_vec().into(),
        empty.encode_to_vec().into(),
        Bytes::from_static(b"\xff"),
        message("orders", 0, 8).encode_to_vec().into(),
    ];
    let response = answer(mixed).await;
    assert_eq!(code(&response.status), Code::MultipleResults);
    let codes: Vec<Code> = response
        .entries
        .iter()
        .map(|entry| code(&entry.status))
        .collect();
    assert_eq!(
        codes,
        [
            Code::Ok,
            Code::MessageBodyEmpty,
            Code::MessageCorrupted,
            Code::Ok
        ]
    );
    assert_eq!(
        response.entries[1].message_id,
        properties(&empty).message_id
    );
    assert_eq!(
        (response.entries[0].offset, response.entries[3].offset),
        (0, 1)
    );
    assert_eq!(
        client.pull("orders", 0, 0, 32).await.messages.len(),
        2,
        "nothing else was stored"
    );
}

/// Catches kinds that are stored as normal messages though they mean something else.
#[tokio::test]
async fn kinds_are_checked_against_the_topic() {
    let (_cluster, client) = orders(1).await;
    let mut delayed = message("orders", 0, 1);
    delayed
        .system_properties
        .as_mut()
        .unwrap()
        .delivery_timestamp = Some(prost_types::Timestamp {
        seconds: 1,
        nanos: 0,
    });
    assert_eq!(
        code(&client.send(&[delayed]).await.status),
        Code::NotImplemented
    );
    let request = proto::cluster::PutTopicRequest {
        name: "fifo".to_owned(),
        queue_count: 2,
        message_type: MessageType::Fifo.into(),
        ..Default::default()
    };
    client
        .admin
        .clone()
        .create_topic(tonic::Request::new(request))
        .await
        .unwrap();
    let conflict = client.send(&[message("fifo", 0, 2)]).await;
    assert_eq!(
        code(&conflict.status),
        Code::MessagePropertyConflictWithType
    );
}

/// Catches an ordering key whose messages are spread over queues because clients hash differently.
#[tokio::test]
async fn a_message_group_has_one_queue_whatever_the_client_says() {
    let (_cluster, client) = orders(8).await;
    for id in 0..8 {
        let mut one = message("orders", id as i32, id);
        one.system_properties.as_mut().unwrap().message_group = Some("customer-7".to_owned());
        client.store(&[one]).await;
    }
    let mut filled = Vec::new();
    for queue in 0..8 {
        filled.push(client.pull("orders", queue, 0, 32).await.messages.len());
    }
    filled.sort_unstable();
    assert_eq!(filled, [0, 0, 0, 0, 0, 0, 0, 8]);
}

/// Catches a message that is stored in another queue than its sender named and looks for it in.
#[tokio::test]
async fn a_queue_that_does_not_exist_is_refused() {
    let (_cluster, client) = orders(4).await;
    for (id, queue) in [(0, 77), (1, 4), (2, i32::MAX)] {
        let response = client.send(&[message("orders", queue, id)]).await;
        let status = response.entries[0].status.as_ref().unwrap();
        assert_eq!(status.code, Code::NotFound as i32, "{status:?}");
        let told = format!("topic orders has no queue {queue} here: its queues are 0 to 3");
        assert_eq!(status.message, told);
    }
    // No wish at all.
    client.store(&[message("orders", -1, 3)]).await;
    let mut stored = 0;
    for queue in 0..4 {
        stored += client.pull("orders", queue, 0, 32).await.messages.len();
    }
    assert_eq!(stored, 1);
}

/// Catches an acknowledged message that is not there, because another client makes the same ids: forks, and containers that
/// share a hardware address.
#[tokio::test]
async fn another_message_under_a_known_id_is_stored() {
    let (_cluster, client) = orders(1).await;
    let one: Vec<Message> = (0..4).map(|id| message("orders", 0, id)).collect();
    let mut other = one[1..].to_vec();
    for message in &mut other {
        message.body = Bytes::from_static(b"something else");
    }
    assert_eq!(client.store(&one).await, [0, 1, 2, 3]);
    assert_eq!(client.store(&other).await, [4, 5, 6]);
    // Official clients make the time of birth anew for each attempt, and write properties in any order.
    other[0].system_properties.as_mut().unwrap().born_timestamp = Some(Default::default());
    assert_eq!(client.store(&other).await, [4, 5, 6]);
    assert_eq!(client.store(&one).await, [0, 1, 2, 3]);
    assert_eq!(client.pull("orders", 0, 0, 32).await.messages.len(), 7);
}

/// Catches a receipt that names a queue where the message is not.
#[tokio::test]
async fn receipts_tell_where_the_message_is() {
    let (_cluster, client) = orders(4).await;
    let send = async |messages: &[Message]| {
        let encoded = messages.iter().map(|one| one.encode_to_vec().into());
        let answer = client.send_encoded(encoded.collect()).await;
        let queues = answer.metadata().get("x-raftmq-queues");
        queues.map(|queues| queues.to_str().unwrap().to_owned())
    };
    let batch = |queue| (0..3).map(move |id| message("orders", queue, id));
    let first: Vec<Message> = batch(2).collect();
    assert_eq!(send(&first).await, None, "they are where they were sent to");
    let mut again: Vec<Message> = batch(1).collect();
    again.push(message("orders", 1, 9));
    assert_eq!(send(&again).await.as_deref(), Some("2*3,1*1"));
}

/// What a producer of the SDK sends, and what it is answered: the code and the offset of each message.
async fn send_sequenced(client: &Client, ids: std::ops::Range<u32>) -> Vec<(Code, i64)> {
    let messages = ids.map(|id| message("orders", 0, id).encode_to_vec().into());
    let mut request = from_client(proto::opaque::SendMessageRequest {
        messages: messages.collect(),
    });
    let all = "all".parse().unwrap();
    request.metadata_mut().insert("x-raftmq-sequenced", all);
    let answer = client.messaging.clone().send_message(request).await;
    let entries = answer.unwrap().into_inner().entries;
    let told = |entry: &proto::v2::SendResultEntry| (code(&entry.status), entry.offset);
    entries.iter().map(told).collect()
}

/// Catches a producer's message that is stored again, or behind a later one, because it comes late.
#[tokio::test]
async fn a_sequenced_message_that_comes_late_is_not_stored() {
    let (_cluster, client) = orders(1).await;
    let ok = |offsets: std::ops::Range<i64>| -> Vec<(Code, i64)> {
        offsets.map(|offset| (Code::Ok, offset)).collect()
    };
    assert_eq!(send_sequenced(&client, 10..12).await, ok(0..2));
    assert_eq!(send_sequenced(&client, 20..23).await, ok(2..5));
    assert_eq!(send_sequenced(&client, 20..24).await, ok(2..6));
    let late = send_sequenced(&client, 13..14).await;
    assert_eq!(late, [(Code::IllegalMessageId, 0)]);
    assert_eq!(client.pull("orders", 0, 0, 32).await.messages.len(), 6);
}

/// Catches a retry that stores its message again.
#[tokio::test]
async fn a_repeated_id_is_answered_with_the_first_result() {
    let (_cluster, client) = orders(1).await;
    let batch: Vec<Message> = (0..4).map(|id| message("orders", 0, id)).collect();
    assert_eq!(client.store(&batch[..2]).await, [0, 1]);
    assert_eq!(client.store(&batch).await, [0, 1, 2, 3]);
    assert_eq!(client.store(&batch[3..]).await, [3]);
    assert_eq!(client.pull("orders", 0, 0, 32).await.messages.len(), 4);
}

/// Catches a long poll that misses an arrival, or that nothing ends.
#[tokio::test]
async fn a_waiting_pull_wakes_on_arrival_and_ends_in_time() {
    let (_cluster, client) = orders(1).await;
    let mut request = pull_request("orders", 0, 0, 8);
    request.long_polling_timeout = duration(Duration::from_secs(25));
    let waiting = tokio::spawn({
        let client = client.clone();
        async move { client.pull_with(request).await }
    });
    // Whether the pull waits by now or not: it must get the message.
    client.store(&[message("orders", 0, 1)]).await;
    let pulled = tokio::time::timeout(PATIENCE, waiting)
        .await
        .unwrap()
        .unwrap();
    assert_eq!(
        (pulled.code, pulled.messages.len(), pulled.next_offset),
        (Code::Ok, 1, Some(1))
    );

    let mut request = pull_request("orders", 0, 1, 8);
    request.long_polling_timeout = duration(Duration::from_secs(1));
    let started = tokio::time::Instant::now();
    let pulled = client.pull_with(request).await;
    assert_eq!(
        (pulled.code, pulled.next_offset),
        (Code::MessageNotFound, Some(1))
    );
    assert!(
        started.elapsed() >= Duration::from_millis(900),
        "{:?}",
        started.elapsed()
    );

    // A deadline before the end of the wait: an answer all the same.
    let mut request = pull_request("orders", 0, 1, 8);
    request.long_polling_timeout = duration(Duration::from_secs(60));
    let mut request = from_client(request);
    request.set_timeout(Duration::from_secs(1));
    let mut answers = client
        .messaging
        .clone()
        .pull_message(request)
        .await
        .unwrap()
        .into_inner();
    let first = answers.message().await.unwrap().unwrap();
    let status = match first.content.unwrap() {
        proto::opaque::pull_message_response::Content::Status(status) => status,
        other => panic!("{other:?}"),
    };
    assert_eq!(code(&Some(status)), Code::MessageNotFound);
}

/// Catches a consumer that is told the wrong range, or cannot go on after it fell out of it.
#[tokio::test]
async fn an_offset_out_of_range_is_answered_with_the_range() {
    let (_cluster, client) = orders(1).await;
    client
        .store(&[message("orders", 0, 1), message("orders", 0, 2)])
        .await;
    for (offset, next) in [(3, 2), (-1, 0), (i64::MAX, 2), (i64::MIN, 0)] {
        let pulled = client.pull("orders", 0, offset, 8).await;
        assert_eq!(
            (pulled.code, pulled.next_offset),
            (Code::IllegalOffset, Some(next)),
            "{offset}"
        );
        assert!(pulled.text.contains("range 0 to 2"), "{}", pulled.text);
    }
    assert_eq!(
        client.pull("orders", 0, 2, 8).await.code,
        Code::MessageNotFound
    );
    assert_eq!(client.pull("orders", 1, 0, 8).await.code, Code::BadRequest);
    assert_eq!(
        client.pull("nothing", 0, 0, 8).await.code,
        Code::TopicNotFound
    );
}

/// Catches an answer above its bounds, and one that is empty because its first message is large.
#[tokio::test]
async fn answers_are_bounded_by_count_and_bytes() {
    let cluster = Cluster::start(1, |config| {
        config.pull_messages_max = 3;
        config.pull_bytes_max = 1_000;
    })
    .await;
    let client = cluster.leader_client().await;
    client.create_topic("orders", 1).await;
    for (id, size) in [(0, 10), (1, 10), (2, 10), (3, 10), (4, 2_000), (5, 10)] {
        let mut one = message("orders", 0, id);
        one.body = vec![b'x'; size].into();
        client.store(&[one]).await;
    }
    assert_eq!(client.pull("orders", 0, 0, 100).await.messages.len(), 3);
    assert_eq!(client.pull("orders", 0, 0, 0).await.messages.len(), 3);
    assert_eq!(client.pull("orders", 0, 0, 1).await.messages.len(), 1);
    let large = client.pull("orders", 0, 4, 100).await;
    assert_eq!((large.messages.len(), large.next_offset), (1, Some(5)));
}

/// Catches messages that are delivered though they were not asked for, and progress that stops at them.
#[tokio::test]
async fn tags_are_filtered_and_passed_over() {
    let (_cluster, client) = orders(1).await;
    for (id, tag) in [(0, "a"), (1, "b"), (2, ""), (3, "c"), (4, "a"), (5, "b")] {
        let mut one = message("orders", 0, id);
        one.system_properties.as_mut().unwrap().tag = (!tag.is_empty()).then(|| tag.to_owned());
        client.store(&[one]).await;
    }
    let pull = |expression: &'static str, offset, count| {
        let (client, mut request) = (client.clone(), pull_request("orders", 0, offset, count));
        request.filter_expression = tags(expression);
        async move { client.pull_with(request).await }
    };
    let offsets = |pulled: &crate::support::client::Pulled| -> Vec<i64> {
        pulled
            .messages
            .iter()
            .filter_map(|one| properties(one).queue_offset)
            .collect()
    };
    let some = pull("a || c", 0, 32).await;
    assert_eq!((offsets(&some), some.next_offset), (vec![0, 3, 4], Some(6)));
    let first = pull("a||c", 0, 1).await;
    assert_eq!((offsets(&first), first.next_offset), (vec![0], Some(1)));
    assert_eq!(offsets(&pull("*", 0, 32).await).len(), 6);
    let none = pull("z", 0, 32).await;
    assert_eq!(
        (none.code, none.next_offset),
        (Code::MessageNotFound, Some(6))
    );
    assert_eq!(pull("a||", 0, 32).await.code, Code::IllegalFilterExpression);
}

/// Catches an offset that goes back on a consumer's word, and one that nobody stored.
#[tokio::test]
async fn offsets_move_forward_only() {
    let (_cluster, client) = orders(1).await;
    let batch: Vec<Message> = (0..4).map(|id| message("orders", 0, id)).collect();
    client.store(&batch).await;
    assert_eq!(
        code(&client.get_offset("g", "orders", 0).await.status),
        Code::OffsetNotFound
    );
    ok(&client.update_offset("g", "orders", 0, 3).await.status);
    ok(&client.update_offset("g", "orders", 0, 1).await.status);
    let offset = client.get_offset("g", "orders", 0).await;
    assert_eq!((code(&offset.status), offset.offset), (Code::Ok, 3));
    for bad in [-1, 5] {
        let refused = client.update_offset("g", "orders", 0, bad).await;
        assert_eq!(code(&refused.status), Code::IllegalOffset, "{bad}");
    }
    let unknown = client.update_offset("g", "nothing", 0, 1).await;
    assert_eq!(code(&unknown.status), Code::TopicNotFound);
    let bad_group = client.update_offset("no good", "orders", 0, 1).await;
    assert_eq!(code(&bad_group.status), Code::IllegalConsumerGroup);
    // An operator may.
    let reset = proto::cluster::ResetOffsetRequest {
        group: "g".to_owned(),
        topic: "orders".to_owned(),
        queue: 0,
        offset: 1,
        settle_retries: false,
    };
    let answer = client
        .admin
        .clone()
        .reset_offset(tonic::Request::new(reset))
        .await
        .unwrap();
    assert_eq!(answer.get_ref().code, Code::Ok as i32, "{answer:?}");
    assert_eq!(client.get_offset("g", "orders", 0).await.offset, 1);
}

/// Catches a queue whose ends are wrong.
#[tokio::test]
async fn a_queue_s_ends_are_found() {
    let (_cluster, client) = orders(1).await;
    let query = |policy, time_ms| {
        let client = client.clone();
        async move { client.query_offset("orders", 0, policy, time_ms).await }
    };
    assert_eq!(query(QueryOffsetPolicy::End, None).await.offset, 0);
    client
        .store(&[message("orders", 0, 1), message("orders", 0, 2)])
        .await;
    assert_eq!(query(QueryOffsetPolicy::Beginning, None).await.offset, 0);
    assert_eq!(query(QueryOffsetPolicy::End, None).await.offset, 2);
    assert_eq!(query(QueryOffsetPolicy::Timestamp, Some(1)).await.offset, 0);
    let far = query(QueryOffsetPolicy::Timestamp, Some(1 << 42)).await;
    assert_eq!((code(&far.status), far.offset), (Code::Ok, 2));
    let no_time = query(QueryOffsetPolicy::Timestamp, None).await;
    assert_eq!(code(&no_time.status), Code::BadRequest);
}

async fn read(client: &Client, request: ReadMessagesRequest) -> ReadMessagesResponse {
    let request = tonic::Request::new(request);
    let answer = client.admin.clone().read_messages(request).await.unwrap();
    answer.into_inner()
}

/// Catches a look at messages that needs a group, that goes past what it was asked for, or that says it looked at
/// more than it did.
#[tokio::test]
async fn messages_are_read_without_a_group() {
    let (_cluster, client) = orders(1).await;
    let mut sent: Vec<Message> = (0..10).map(|id| message("orders", 0, id)).collect();
    for place in [3, 7] {
        let system = sent[place].system_properties.as_mut().unwrap();
        system.keys = vec!["k".to_owned(), format!("k{place}")];
    }
    client.store(&sent).await;
    let all = ReadMessagesRequest {
        topic: "orders".to_owned(),
        messages_max: 100,
        ..Default::default()
    };
    let offsets = |answer: &ReadMessagesResponse| -> Vec<i64> {
        let messages = answer.messages.iter();
        let decoded = messages.map(|encoded| Message::decode(encoded.clone()).unwrap());
        decoded
            .filter_map(|one| properties(&one).queue_offset)
            .collect()
    };
    let answer = read(&client, all.clone()).await;
    assert_eq!(answer.code, Code::Ok as i32, "{answer:?}");
    assert_eq!(offsets(&answer), (0..10).collect::<Vec<i64>>());
    assert_eq!(
        (answer.min_offset, answer.max_offset, answer.next_offset),
        (0, 10, 10)
    );
    let few = ReadMessagesRequest {
        offset: 4,
        messages_max: 2,
        ..all.clone()
    };
    let answer = read(&client, few).await;
    assert_eq!((offsets(&answer), answer.next_offset), (vec![4, 5], 6));
    let key = ReadMessagesRequest {
        key: "k".to_owned(),
        ..all.clone()
    };
    assert_eq!(offsets(&read(&client, key.clone()).await), [3, 7]);
    let bounded = ReadMessagesRequest {
        scan_max: 5,
        ..key.clone()
    };
    let answer = read(&client, bounded).await;
    assert_eq!((offsets(&answer), answer.next_offset), (vec![3], 5));
    let ended = ReadMessagesRequest {
        end_offset: 7,
        ..key
    };
    let answer = read(&client, ended).await;
    assert_eq!((offsets(&answer), answer.next_offset), (vec![3], 7));
    let id = ReadMessagesRequest {
        message_id: properties(&sent[8]).message_id.to_lowercase(),
        ..all.clone()
    };
    assert_eq!(offsets(&read(&client, id).await), [8]);
    let beyond = ReadMessagesRequest {
        offset: 99,
        ..all.clone()
    };
    assert!(read(&client, beyond).await.messages.is_empty());
    for (topic, queue, code) in [
        ("nothing", 0, Code::TopicNotFound),
        ("orders", 1, Code::BadRequest),
    ] {
        let wrong = ReadMessagesRequest {
            topic: topic.to_owned(),
            queue,
            ..all.clone()
        };
        assert_eq!(read(&client, wrong).await.code, code as i32);
    }
}

/// Catches an owner that is not who pulled last, a lag that is not the group's, and members that are forgotten.
#[tokio::test]
async fn a_group_is_described_as_it_is() {
    let (_cluster, client) = orders(2).await;
    let sent: Vec<Message> = (0..4).map(|id| message("orders", 0, id)).collect();
    client.store(&sent).await;
    let describe = async |name: &str| {
        let name = name.to_owned();
        let request = tonic::Request::new(proto::cluster::NameRequest { name });
        let answer = client.admin.clone().describe_group(request).await.unwrap();
        answer.into_inner()
    };
    let unknown = describe("readers").await;
    assert_eq!(unknown.code, Code::ConsumerGroupNotFound as i32);
    assert_eq!(client.pull("orders", 0, 0, 2).await.messages.len(), 2);
    ok(&client.update_offset("readers", "orders", 0, 1).await.status);
    let group = describe("readers").await;
    assert_eq!(group.code, Code::Ok as i32, "{group:?}");
    let [first, second] = group.queues.as_slice() else {
        panic!("{group:?}");
    };
    assert_eq!(
        (first.committed, first.offset, first.max_offset),
        (true, 1, 4)
    );
    assert_eq!(
        (first.owner.as_str(), first.pulled_offset),
        ("test-client", 0)
    );
    assert_eq!(
        (second.committed, second.owner.as_str(), second.lag_ms),
        (false, "", 0)
    );
    assert!(group.members.is_empty(), "nobody sent a heartbeat");
    client.pull("orders", 0, 3, 1).await;
    ok(&client.update_offset("readers", "orders", 0, 4).await.status);
    let group = describe("readers").await;
    assert_eq!(
        (group.queues[0].pulled_offset, group.queues[0].lag_ms),
        (3, 0)
    );
}
