use bytes::Bytes;
use prost::Message;
use proto::command::command::Body;
use proto::command::command_reply::Refusal;
use proto::command::{CommitOffset, DeleteGroup, DeleteTopic, DropLog, Entry, PutGroup, PutTopic};
use raft::Application;
use store::StoreError;
use store::table::consume_queue;

use super::entry::STEP_MS_MAX;
use super::limits::{QUEUES_PER_TOPIC_MAX, TOPICS_MAX};
use super::testing::{BYTES_MAX, Harness, WINDOW_MS, append, encode, placed};
use crate::log_time::Moment;
use crate::view::QueueBounds;

fn bounds(min_offset: u64, next_offset: u64) -> Option<QueueBounds> {
    Some(QueueBounds {
        min_offset,
        next_offset,
    })
}

fn rows(harness: &Harness) -> usize {
    let mut count = 0;
    consume_queue::scan_all(&*harness.kv, |_, _, _| {
        count += 1;
        Ok(())
    })
    .unwrap();
    count
}

/// Would catch a repeated send that is stored twice, one that is answered with other offsets, and
/// rows that are split more than needed.
#[tokio::test]
async fn a_repeated_send_is_stored_once() {
    let mut harness = Harness::new().await;
    let topic = harness.topic("orders", 2).await;
    let first = harness.command(1, append(topic, 0, &[(100, 4)])).await;
    assert_eq!(placed(&first), [(0, true), (1, true), (2, true), (3, true)]);
    assert_eq!(first.placed.len(), 1);
    assert_eq!(rows(&harness), 1);

    // 98 and 99 are new, 100 to 103 are not, 104 and 105 are new.
    let second = harness.command(2, append(topic, 0, &[(98, 8)])).await;
    let expected = [
        (4, true),
        (5, true),
        (0, false),
        (1, false),
        (2, false),
        (3, false),
        (6, true),
        (7, true),
    ];
    assert_eq!(placed(&second), expected);
    assert_eq!(second.placed.len(), 3);
    assert_eq!(rows(&harness), 3);
    assert_eq!(harness.view.queue(topic, 0), bounds(0, 8));

    // A client that tries again may choose another queue; another topic is another matter.
    let elsewhere = harness.command(3, append(topic, 1, &[(105, 1)])).await;
    assert_eq!(placed(&elsewhere), [(7, false)]);
    assert_eq!(harness.view.queue(topic, 1), bounds(0, 0));
    let other = harness.topic("other", 1).await;
    assert_eq!(
        placed(&harness.command(3, append(other, 0, &[(105, 1)])).await),
        [(0, true)]
    );

    // Twice in one command.
    let twice = harness
        .command(4, append(topic, 1, &[(500, 2), (501, 1)]))
        .await;
    assert_eq!(placed(&twice), [(0, true), (1, true), (1, false)]);
}

/// Would catch a window that closes too early or never, also across a restart, and rows that stay
/// behind.
#[tokio::test]
async fn ids_are_forgotten_after_the_window() {
    let mut harness = Harness::new().await;
    let topic = harness.topic("orders", 1).await;
    harness.command(10, append(topic, 0, &[(1, 2)])).await;
    harness.command(500, append(topic, 0, &[(3, 1)])).await;
    let mut harness = harness.restart();
    let last_moment = harness
        .command(10 + WINDOW_MS, append(topic, 0, &[(2, 1)]))
        .await;
    assert_eq!(placed(&last_moment), [(1, false)]);
    let mut harness = harness.restart();
    let too_late = harness
        .command(11 + WINDOW_MS, append(topic, 0, &[(1, 3)]))
        .await;
    assert_eq!(placed(&too_late), [(3, true), (4, true), (2, false)]);
    let dedup_rows = |harness: &Harness| {
        let mut indexes = Vec::new();
        store::table::dedup::scan(&*harness.kv, |_, row| {
            indexes.push(row.passed_ms);
            Ok(())
        })
        .unwrap();
        indexes
    };
    assert_eq!(dedup_rows(&harness), [500, 11 + WINDOW_MS]);
}

/// Would catch a leader whose clock jumps ahead making everybody forget what producers still send again.
#[tokio::test]
async fn a_jump_of_the_clock_does_not_end_the_window() {
    let mut harness = Harness::new().await;
    let topic = harness.topic("orders", 1).await;
    let hour_ms = 3_600_000;
    for (time_ms, passed_ms, expected) in [(10, 10, true), (10 + hour_ms, 20, false)] {
        let entry = Entry {
            time_ms,
            passed_ms,
            ..Entry::decode(encode(
                0,
                120_000,
                BYTES_MAX,
                vec![append(topic, 0, &[(1, 1)])],
            ))
            .unwrap()
        };
        let entry = Bytes::from(entry.encode_to_vec());
        let committed = harness.append(vec![entry]).await;
        let reply = harness.apply_committed(&committed).remove(0);
        assert_eq!(placed(&reply.commands[0]), [(0, expected)], "at {time_ms}");
    }
    assert_eq!(harness.view.last_moment().time_ms, 10 + hour_ms);
}

/// Would catch a leader that makes more pass with one entry than can have, and what has passed going back.
#[tokio::test]
async fn what_has_passed_never_decreases_and_makes_no_long_step() {
    let mut harness = Harness::new().await;
    let topic = harness.topic("orders", 1).await;
    harness.command(700, append(topic, 0, &[(1, 1)])).await;
    harness.command(300, append(topic, 0, &[(2, 1)])).await;
    let moment = |time_ms, passed_ms| Moment { time_ms, passed_ms };
    assert_eq!(harness.view.last_moment(), moment(300, 700));
    let mut harness = harness.restart();
    assert_eq!(harness.view.last_moment(), moment(300, 700));
    assert_eq!(harness.view.applied_index(), harness.next_index() - 1);
    let stored = harness.view.read(topic, 0, 0, 10, 1 << 20).await.unwrap();
    assert_eq!((stored[0].time_ms, stored[1].time_ms), (700, 300));
    harness.command(u64::MAX, append(topic, 0, &[(3, 1)])).await;
    let step = moment(u64::MAX, 700 + STEP_MS_MAX);
    assert_eq!(harness.view.last_moment(), step);
}

/// Would catch a panic on, or an answer other than a refusal to, what does not decode.
#[tokio::test]
async fn nonsense_is_refused() {
    let mut harness = Harness::new().await;
    let topic = harness.topic("orders", 1).await;
    let garbage = Bytes::from_static(b"\xff\xff\xff not an entry");
    let committed = harness.append(vec![garbage]).await;
    for reply in harness.apply_committed(&committed) {
        assert_eq!(reply.commands.len(), 1);
        assert_eq!(reply.commands[0].refusal(), Refusal::Invalid);
    }
    assert_eq!(harness.view.queue(topic, 0), bounds(0, 0));
}

/// Would catch a replica that passes over what replicas of a newer version carry out, and differs from them for ever.
#[tokio::test]
async fn a_command_of_a_newer_version_stops_the_replica() {
    let mut harness = Harness::new().await;
    let newer = Bytes::from_static(&[0x12, 0x03, 0xf2, 0x7f, 0x00]);
    let committed = harness.append(vec![newer]).await;
    let kv = harness.kv.clone();
    let mut write = |batch| kv.write(batch);
    let stopped = harness.machine.apply(&committed, &mut write);
    let reason = stopped.expect_err("it is unknown here").to_string();
    assert!(reason.contains("upgrade this broker"), "{reason}");
}

/// Would catch a command that is believed although it contradicts itself, or names what is not there.
#[tokio::test]
async fn contradictions_are_refused() {
    let mut harness = Harness::new().await;
    let topic = harness.topic("orders", 1).await;
    let Body::Append(good) = append(topic, 0, &[(1, 3)]) else {
        unreachable!()
    };
    let mut wrong = vec![good.clone(); 8];
    wrong[0].sizes_bytes[0] += 1;
    wrong[1].ids[0].count = 2;
    wrong[2].ids[0].first = Bytes::from_static(b"short");
    wrong[3].ids[0].first = Bytes::from_static(&[0xff; 16]);
    wrong[4].ids[0].count = 0;
    wrong[5] = Default::default();
    wrong[5].topic_id = topic;
    wrong[6].digests.pop();
    wrong[7].ids[0].first = Bytes::copy_from_slice(&u128::from(u64::MAX).to_be_bytes());
    wrong[7].ids[0].sequenced = true;
    for command in wrong {
        let reply = harness.command(1, Body::Append(command)).await;
        assert_eq!(reply.refusal(), Refusal::Invalid, "{reply:?}");
    }
    let cases = [
        (append(topic + 9, 0, &[(1, 1)]), Refusal::TopicNotFound),
        (append(topic, 7, &[(1, 1)]), Refusal::QueueNotFound),
        (
            Body::PutTopic(PutTopic {
                name: String::new(),
                queue_count: 1,
                ..Default::default()
            }),
            Refusal::Invalid,
        ),
        (
            Body::PutTopic(PutTopic {
                name: "none".into(),
                ..Default::default()
            }),
            Refusal::Invalid,
        ),
        (
            Body::PutGroup(PutGroup {
                name: "odd".into(),
                consume_from: 99,
                ..Default::default()
            }),
            Refusal::Invalid,
        ),
        (
            Body::DeleteTopic(DeleteTopic {
                name: "none".into(),
            }),
            Refusal::TopicNotFound,
        ),
        (
            Body::DeleteGroup(DeleteGroup {
                name: "none".into(),
            }),
            Refusal::GroupNotFound,
        ),
    ];
    for (command, refusal) in cases {
        assert_eq!(
            harness.command(1, command.clone()).await.refusal(),
            refusal,
            "{command:?}"
        );
    }
    assert_eq!(harness.view.queue(topic, 0), bounds(0, 0));
}

/// Would catch settings that a change loses, queues that vanish, and numbers that are used twice.
#[tokio::test]
async fn topics_are_created_changed_and_deleted() {
    let mut harness = Harness::new().await;
    let first = harness.topic("orders", 2).await;
    let put = |queue_count, create, if_absent| {
        let name = "orders".to_owned();
        Body::PutTopic(PutTopic {
            name,
            queue_count,
            create,
            if_absent,
            ..Default::default()
        })
    };
    let again = harness.command(0, put(2, true, false)).await;
    assert_eq!(again.refusal(), Refusal::TopicExists);
    assert_eq!(harness.command(0, put(9, true, true)).await.value, first);
    assert_eq!(
        harness.command(0, put(1, false, false)).await.refusal(),
        Refusal::Invalid
    );
    harness.command(0, append(first, 1, &[(1, 1)])).await;
    let version = harness.view.config_version();
    assert_eq!(harness.command(0, put(4, false, false)).await.value, first);
    assert!(harness.view.config_version() > version);
    assert_eq!(harness.view.topic("orders").unwrap().queue_count, 4);
    assert_eq!(harness.view.queue(first, 1), bounds(0, 1));
    assert_eq!(harness.view.queue(first, 3), bounds(0, 0));

    harness.group("readers").await;
    let (group, reset) = ("readers".to_owned(), false);
    let commit = CommitOffset {
        group,
        topic_id: first,
        queue: 1,
        offset: 1,
        reset,
        settle_retries: false,
    };
    assert_eq!(
        harness.command(0, Body::CommitOffset(commit)).await.value,
        1
    );
    harness
        .command(
            0,
            Body::DeleteTopic(DeleteTopic {
                name: "orders".into(),
            }),
        )
        .await;
    assert_eq!(harness.view.queue(first, 1), None);
    assert!(harness.view.committed_offsets("readers").is_empty());
    let harness = &mut harness.restart();
    assert!(harness.view.topics().is_empty());
    assert_eq!(rows(harness), 0);
    let second = harness.topic("orders", 2).await;
    assert!(second > first);
    assert_eq!(harness.view.queue(second, 1), bounds(0, 0));
}

/// Would catch bounds that are not enforced, which would let one client fill the memory of all.
#[tokio::test]
async fn topics_and_queues_are_bounded() {
    let mut harness = Harness::new().await;
    let put = |name: String, queue_count| {
        Body::PutTopic(PutTopic {
            name,
            queue_count,
            create: true,
            ..Default::default()
        })
    };
    let reply = harness
        .command(0, put("wide".into(), QUEUES_PER_TOPIC_MAX + 1))
        .await;
    assert_eq!(reply.refusal(), Refusal::TooMany);
    let many = (0..TOPICS_MAX)
        .map(|number| put(format!("topic-{number}"), 1))
        .collect();
    let replies = harness.entry(0, many).await;
    assert!(replies.iter().all(|reply| reply.refusal() == Refusal::None));
    let reply = harness.command(0, put("one more".into(), 1)).await;
    assert_eq!(reply.refusal(), Refusal::TooMany);
    let reply = harness
        .command(
            0,
            Body::DeleteTopic(DeleteTopic {
                name: "topic-7".into(),
            }),
        )
        .await;
    assert_eq!(reply.refusal(), Refusal::None);
    assert_eq!(
        harness
            .command(0, put("one more".into(), 1))
            .await
            .refusal(),
        Refusal::None
    );
}

/// Would catch an offset that goes back or runs ahead of the queue.
#[tokio::test]
async fn offsets_go_forward_unless_reset() {
    let mut harness = Harness::new().await;
    let topic_id = harness.topic("orders", 1).await;
    harness.command(0, append(topic_id, 0, &[(1, 5)])).await;
    let commit = |offset, reset| {
        let group = "readers".to_owned();
        Body::CommitOffset(CommitOffset {
            group,
            topic_id,
            queue: 0,
            offset,
            reset,
            settle_retries: false,
        })
    };
    assert_eq!(
        harness.command(0, commit(1, false)).await.refusal(),
        Refusal::GroupNotFound
    );
    harness.group("readers").await;
    assert_eq!(harness.view.committed_offset("readers", topic_id, 0), None);
    for (offset, reset, expected) in [
        (0, false, 0),
        (3, false, 3),
        (2, false, 3),
        (99, false, 5),
        (1, true, 1),
        (77, true, 5),
    ] {
        assert_eq!(
            harness.command(0, commit(offset, reset)).await.value,
            expected
        );
        assert_eq!(
            harness.view.committed_offset("readers", topic_id, 0),
            Some(expected)
        );
    }
    let mut harness = harness.restart();
    assert_eq!(
        harness.view.committed_offsets("readers"),
        [(topic_id, 0, 5)]
    );
    harness
        .command(
            0,
            Body::DeleteGroup(DeleteGroup {
                name: "readers".into(),
            }),
        )
        .await;
    let harness = harness.restart();
    assert!(harness.view.group("readers").is_none());
}

/// Would catch retention that cuts a row too many or too few, or that answers differently when the
/// rows are still in the same batch.
#[tokio::test]
async fn dropping_the_log_trims_the_queues() {
    let mut harness = Harness::new().await;
    let topic = harness.topic("orders", 2).await;
    let first = harness.next_index();
    for number in 0..10_u128 {
        let queue = u32::from(number % 3 == 0);
        harness
            .command(0, append(topic, queue, &[(number * 10, 3)]))
            .await;
    }
    let drop_log = |first_index| Body::DropLog(DropLog { first_index });
    // Entries first + 0, 3, 6 and 9 went to queue 1, the others to queue 0.
    assert_eq!(
        harness.command(0, drop_log(first + 4)).await.value,
        first + 4
    );
    assert_eq!(harness.view.queue(topic, 0), bounds(6, 18));
    assert_eq!(harness.view.queue(topic, 1), bounds(6, 12));
    assert_eq!(rows(&harness), 6);
    assert_eq!(harness.machine.log_floor(), first + 4);
    assert_eq!(harness.command(0, drop_log(first)).await.value, first + 4);
    let mut harness = harness.restart();
    assert_eq!(harness.machine.log_floor(), first + 4);

    // All of it, and what the same call has just stored; its own entry stays.
    let own = harness.next_index() + 1;
    let bodies = vec![
        encode(0, 0, 0, vec![append(topic, 0, &[(500, 2)])]),
        encode(
            0,
            0,
            0,
            vec![append(topic, 0, &[(600, 2)]), drop_log(u64::MAX)],
        ),
    ];
    let committed = harness.append(bodies).await;
    let replies = harness.apply_committed(&committed);
    assert_eq!(replies[1].commands[1].value, own);
    assert_eq!(harness.view.queue(topic, 0), bounds(20, 22));
    assert_eq!(harness.view.queue(topic, 1), bounds(12, 12));
    assert_eq!(rows(&harness), 1);
}

/// Would catch a machine that goes on after its tables did not take a batch.
#[tokio::test]
async fn a_failed_commit_stops_the_machine() {
    let mut harness = Harness::new().await;
    let topic = harness.topic("orders", 1).await;
    let bodies = vec![encode(0, 0, 0, vec![append(topic, 0, &[(1, 1)])])];
    let committed = harness.append(bodies).await;
    let failed = harness
        .machine
        .apply(&committed, &mut |_| Err(StoreError::Closed));
    assert!(failed.is_err());
    let kv = harness.kv.clone();
    let refused = harness
        .machine
        .apply(&committed, &mut |batch| kv.write(batch));
    assert!(refused.is_err());
    let harness = harness.restart();
    assert_eq!(harness.view.queue(topic, 0), bounds(0, 0));
}

/// Would catch a topic that is taken for the one that had its name before, or for itself in a history that is lost.
#[tokio::test]
async fn a_topic_lives_once() {
    let mut harness = Harness::new().await;
    let first = harness.topic("orders", 1).await;
    let life = |harness: &Harness| harness.view.topic("orders").unwrap().life();
    let before = life(&harness);
    let more = PutTopic {
        name: "orders".into(),
        queue_count: 2,
        ..PutTopic::default()
    };
    harness.command(5, Body::PutTopic(more)).await;
    assert_eq!(life(&harness), before, "it only grew");
    let name = "orders".into();
    let deleting = Body::DeleteTopic(DeleteTopic { name });
    harness.command(6, deleting).await;
    harness.topic("orders", 1).await;
    let again = life(&harness);
    assert_ne!(again, before);
    assert_eq!(before.topic_id, first);
    let begins = harness.append(vec![super::history_begins(77, 9)]).await;
    harness.apply_committed(&begins);
    let restored = life(&harness);
    assert_ne!(restored, again);
    let harness = harness.restart();
    assert_eq!(life(&harness), restored, "it is in the tables");
}
