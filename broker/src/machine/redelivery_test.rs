//! Retries and dead letters as a group lives through them.

use std::collections::BTreeSet;

use model::retry;
use proto::command::command::Body;
use proto::command::command_reply::Refusal;
use proto::command::{
    CommandReply, CommitOffset, DeleteGroup, DeleteTopic, Delivery, DropDeadLetters, DropLog, Keep,
    PutGroup, SendBack, Settle, Source,
};
use raft::Application;

use super::Due;
use super::limits::{RETRIES_PER_GROUP_MAX, RETRIES_PER_QUEUE_MAX};
use super::testing::{Harness, WINDOW_MS, append};

const GROUP: &str = "readers";
const LETTERS: &str = "%DLQ%readers";

struct Scene {
    harness: Harness,
    topic: u64,
}

impl Scene {
    /// A queue of ten messages, and a group that tries each three times.
    async fn new() -> Scene {
        let mut harness = Harness::new().await;
        let topic = harness.topic("orders", 1).await;
        let group = PutGroup {
            name: GROUP.into(),
            create: true,
            max_attempts: 3,
            attributes: [(retry::WAITS_ATTRIBUTE.to_owned(), "10ms,100ms".to_owned())].into(),
            ..Default::default()
        };
        harness.command(0, Body::PutGroup(group)).await;
        for number in 0..5_u128 {
            let two = append(topic, 0, &[(number * 2, 2)]);
            harness.command(number as u64, two).await;
        }
        Scene { harness, topic }
    }

    async fn send_back(&mut self, time_ms: u64, offset: u64, attempt: u32) -> CommandReply {
        let command = self.failed(&[(offset, attempt)]);
        self.harness.command(time_ms, command).await
    }

    fn failed(&self, failed: &[(u64, u32)]) -> Body {
        Body::SendBack(SendBack {
            group: GROUP.into(),
            topic_id: self.topic,
            failed: deliveries(failed),
            ..Default::default()
        })
    }

    async fn settle(&mut self, time_ms: u64, offset: u64, attempt: u32) -> CommandReply {
        let settle = Settle {
            group: GROUP.into(),
            topic_id: self.topic,
            queue: 0,
            settled: deliveries(&[(offset, attempt)]),
        };
        self.harness.command(time_ms, Body::Settle(settle)).await
    }

    fn due(&self, now_ms: u64, held: &[u64], limit: usize) -> Due {
        let queue = self.harness.view.group_queue(GROUP, self.topic, 0).unwrap();
        let held: BTreeSet<u64> = held.iter().copied().collect();
        self.harness.view.retries_due(queue, now_ms, &held, limit)
    }

    /// Offsets and failed deliveries of all that waits.
    fn waiting(&self) -> Vec<(u64, u32)> {
        let due = self.due(u64::MAX, &[], usize::MAX).now.into_iter();
        due.map(|(offset, retry)| (offset, retry.attempt)).collect()
    }

    async fn letters(&self) -> Vec<(u64, String)> {
        let view = &self.harness.view;
        let topic = view.topic(LETTERS).unwrap();
        let queue = topic.first_queue();
        let min = view.queue(topic.id, queue).unwrap().min_offset;
        let stored = view.read(topic.id, queue, min, 100, usize::MAX);
        let stored = stored.await.unwrap();
        let text = |message: &[u8]| String::from_utf8(message.to_vec()).unwrap();
        stored
            .iter()
            .map(|stored| (stored.offset, text(&stored.message)))
            .collect()
    }

    /// What the leader would propose before it drops what is before `first_index`.
    async fn keep(&mut self, first_index: u64) -> CommandReply {
        let mut keep = Keep::default();
        let mut messages = Vec::new();
        for location in self.harness.view.referenced_below(first_index, 100) {
            let message = self.harness.view.message_at(location).await;
            let message = message.unwrap().unwrap();
            keep.from.push(Source {
                log_index: location.log_index,
                command: location.command,
                position: location.position,
            });
            keep.sizes_bytes.push(message.len() as u32);
            messages.extend_from_slice(&message);
        }
        keep.messages = messages.into();
        self.harness.command(0, Body::Keep(keep)).await
    }

    async fn drop_log(&mut self, first_index: u64) -> u64 {
        let command = Body::DropLog(DropLog { first_index });
        self.harness.command(0, command).await.value
    }
}

fn deliveries(deliveries: &[(u64, u32)]) -> Vec<Delivery> {
    let delivery = |(offset, attempt): &(u64, u32)| Delivery {
        offset: *offset,
        attempt: *attempt,
    };
    deliveries.iter().map(delivery).collect()
}

/// Would catch a message that is delivered before its time, or never again; calls that arrive twice or
/// late and bring a message back; and a last attempt that is not the last.
#[tokio::test]
async fn a_message_is_tried_until_it_is_settled_or_dead() {
    let mut scene = Scene::new().await;
    let both = scene.failed(&[(3, 1), (8, 1)]);
    assert_eq!(scene.harness.command(100, both.clone()).await.value, 2);
    assert_eq!(scene.harness.command(150, both).await.value, 0);
    assert_eq!(scene.due(109, &[], 9).now, []);
    assert_eq!(scene.due(109, &[], 9).next_ms, Some(110));
    let due = scene.due(110, &[3], 9);
    assert_eq!((due.now.len(), due.now[0].0, due.next_ms), (1, 8, None));
    assert_eq!(scene.due(110, &[], 1).next_ms, Some(110));
    let message = scene.harness.view.message_at(due.now[0].1.location).await;
    assert_eq!(message.unwrap().unwrap(), "message 8");
    // When it was stored, not when it was sent back.
    assert_eq!(due.now[0].1.time_ms, 4);

    assert_eq!(scene.settle(200, 3, 2).await.value, 1);
    assert_eq!(scene.send_back(201, 8, 2).await.value, 1);
    assert_eq!(scene.due(u64::MAX, &[], 9).now[0].1.due_ms, 301);
    for late in [(3, 1), (3, 2), (8, 1), (8, 2)] {
        assert_eq!(scene.send_back(210, late.0, late.1).await.value, 0);
    }
    let mut scene = Scene {
        harness: scene.harness.restart(),
        ..scene
    };
    assert_eq!(scene.waiting(), [(8, 2)]);
    assert_eq!(scene.send_back(302, 8, 3).await.value, 1);
    assert_eq!(scene.waiting(), []);
    assert_eq!(scene.letters().await, [(0, "message 8".to_owned())]);
    // Nor if a member that does not know of it has counted further.
    for later in [3, 4, 99] {
        assert_eq!(scene.send_back(303, 8, later).await.value, 0);
    }
    assert_eq!(scene.settle(304, 8, 3).await.value, 0);
    assert_eq!(scene.letters().await.len(), 1);

    // Whoever says so much later is believed: that is how long it is remembered.
    let later_ms = 400 + WINDOW_MS;
    assert_eq!(scene.send_back(later_ms, 3, 1).await.value, 1);
    assert_eq!(scene.waiting(), [(3, 1)]);
}

/// Would catch dead letters of two broker groups under one queue number, of which clients would see one group's; and
/// a restart, a drop or another setting that looks for them elsewhere.
#[tokio::test]
async fn the_queue_of_dead_letters_has_the_number_that_it_was_made_with() {
    let mut scene = Scene::new().await;
    for (offset, dead_letter_queue) in [(2, 3), (4, 0)] {
        let dead = SendBack {
            group: GROUP.into(),
            topic_id: scene.topic,
            failed: deliveries(&[(offset, 1)]),
            dead: true,
            dead_letter_queue,
            ..Default::default()
        };
        let reply = scene.harness.command(20 + offset, Body::SendBack(dead));
        assert_eq!(reply.await.value, 1);
    }
    let mut scene = Scene {
        harness: scene.harness.restart(),
        ..scene
    };
    let topic = scene.harness.view.topic(LETTERS).unwrap();
    assert_eq!((topic.first_queue(), topic.queue_count), (3, 4));
    let letters = [(0, "message 2".to_owned()), (1, "message 4".to_owned())];
    assert_eq!(scene.letters().await, letters);
    let before_passed_ms = 23;
    let drop_old = Body::DropDeadLetters(DropDeadLetters { before_passed_ms });
    assert_eq!(scene.harness.command(50, drop_old).await.value, 1);
    assert_eq!(scene.letters().await, letters[1..]);
}

/// Would catch a dead letter that anybody may send, a queue of them that is altered, and one that is made
/// though there was nothing to bury.
#[tokio::test]
async fn dead_letters_have_a_topic_of_their_own() {
    let mut scene = Scene::new().await;
    scene.send_back(1, 2, 1).await;
    assert!(scene.harness.view.topic(LETTERS).is_none());
    let dead = SendBack {
        group: GROUP.into(),
        topic_id: scene.topic,
        failed: deliveries(&[(2, 2), (0, 1), (2, 2)]),
        dead: true,
        ..Default::default()
    };
    let dead = Body::SendBack(dead);
    assert_eq!(scene.harness.command(20, dead).await.value, 2);
    let letters = [(0, "message 0".to_owned()), (1, "message 2".to_owned())];
    assert_eq!(scene.letters().await, letters);
    let topic = scene.harness.view.topic(LETTERS).unwrap();
    assert!(topic.dead_letters && topic.queue_count == 1);
    let sent = scene.harness.command(3, append(topic.id, 0, &[(900, 1)]));
    assert_eq!(sent.await.refusal(), Refusal::Invalid);

    // A dead letter may be read, fail, and die again.
    let again = SendBack {
        group: GROUP.into(),
        topic_id: topic.id,
        failed: deliveries(&[(1, 3)]),
        ..Default::default()
    };
    let again = Body::SendBack(again);
    assert_eq!(scene.harness.command(40, again).await.value, 1);
    assert_eq!(scene.letters().await[2], (2, "message 2".to_owned()));

    let drop_old = |before_passed_ms| Body::DropDeadLetters(DropDeadLetters { before_passed_ms });
    assert_eq!(scene.harness.command(50, drop_old(40)).await.value, 2);
    let letters = [(2, "message 2".to_owned())];
    let mut scene = Scene {
        harness: scene.harness.restart(),
        ..scene
    };
    assert_eq!(scene.letters().await, letters);
    let delete = DeleteTopic {
        name: LETTERS.into(),
    };
    scene.harness.command(6, Body::DeleteTopic(delete)).await;
    assert_eq!(scene.harness.view.lowest_reference(), None);
}

/// Would catch retention that takes away what waits or is dead: at once, after a restart, or on a replica
/// that began with a snapshot; and a queue of dead letters that is cut by the order of the log.
#[tokio::test]
async fn retention_moves_what_is_pointed_at() {
    let mut scene = Scene::new().await;
    scene.send_back(11, 9, 3).await;
    scene.send_back(12, 1, 3).await;
    scene.send_back(13, 4, 1).await;
    let end = scene.harness.next_index();
    let lowest = scene.harness.view.lowest_reference().unwrap();
    // Nothing was kept: the floor stops below them.
    assert_eq!(scene.drop_log(end).await, lowest);
    assert_eq!(scene.keep(end).await.value, 3);
    assert_eq!(scene.drop_log(end).await, end);
    assert_eq!(scene.harness.machine.log_floor(), end);
    let fork = scene.harness.fork().await;
    let restarted = scene.harness.restart();
    for harness in [fork, restarted] {
        let scene = Scene { harness, ..scene };
        let bounds = scene.harness.view.queue(scene.topic, 0).unwrap();
        assert_eq!((bounds.min_offset, bounds.next_offset), (10, 10));
        let due = scene.due(u64::MAX, &[], 9).now;
        let message = scene.harness.view.message_at(due[0].1.location).await;
        assert_eq!(message.unwrap().unwrap(), "message 4");
        assert_eq!(due[0].1.location.log_index, end + 1);
        let letters = [(0, "message 9".to_owned()), (1, "message 1".to_owned())];
        assert_eq!(scene.letters().await, letters);
        let topic = scene.harness.view.topic(LETTERS).unwrap();
        let found = scene.harness.view.offset_at_time(topic.id, 0, 12).await;
        assert_eq!(found.unwrap(), 1);
    }
}

/// Would catch a message that is gone and said to be sent back, or that keeps others of the call from it.
#[tokio::test]
async fn what_retention_took_cannot_be_sent_back() {
    let mut scene = Scene::new().await;
    scene.send_back(1, 2, 1).await;
    // The entry of message 2 is kept by it, and with it that of message 3.
    let floor = scene.drop_log(u64::MAX).await;
    assert_eq!(scene.harness.view.lowest_reference(), Some(floor));
    let command = scene.failed(&[(0, 1), (2, 2), (3, 1), (1, 1)]);
    let reply = scene.harness.command(2, command).await;
    assert_eq!((reply.refusal(), reply.value), (Refusal::None, 2));
    assert_eq!(reply.missing, [0, 1]);
    assert_eq!(scene.waiting(), [(3, 1), (2, 2)]);
    for (offset, attempt) in [(10, 1), (3, 0)] {
        let reply = scene.send_back(3, offset, attempt).await;
        assert_eq!(reply.refusal(), Refusal::Invalid);
    }
}

/// Would catch rows that outlive their group or topic, and hold the log for ever.
#[tokio::test]
async fn retries_go_with_their_group_and_topic() {
    for with_topic in [false, true] {
        let mut scene = Scene::new().await;
        let before = scene.harness.dump().len();
        scene.send_back(1, 2, 1).await;
        scene.send_back(1, 4, 1).await;
        scene.settle(1, 4, 2).await;
        assert_eq!(scene.harness.dump().len(), before + 2);
        let delete = match with_topic {
            true => Body::DeleteTopic(DeleteTopic {
                name: "orders".into(),
            }),
            false => Body::DeleteGroup(DeleteGroup { name: GROUP.into() }),
        };
        scene.harness.command(2, delete).await;
        assert_eq!(scene.harness.view.lowest_reference(), None);
        for kind in [11, 12] {
            let rows = scene.harness.dump();
            assert!(!rows.iter().any(|(key, _)| key[0] == kind), "kind {kind}");
        }
        scene.harness.restart();
    }
}

/// Would catch an operator's reset after which what the group fails again is taken for settled.
#[tokio::test]
async fn a_reset_forgets_what_was_settled() {
    let mut scene = Scene::new().await;
    for offset in [1, 5] {
        scene.send_back(1, offset, 1).await;
        scene.settle(2, offset, 2).await;
    }
    let reset = CommitOffset {
        group: GROUP.into(),
        topic_id: scene.topic,
        queue: 0,
        offset: 4,
        reset: true,
        settle_retries: false,
    };
    scene.harness.command(3, Body::CommitOffset(reset)).await;
    assert_eq!(scene.send_back(4, 1, 1).await.value, 0);
    assert_eq!(scene.send_back(4, 5, 1).await.value, 1);
}

/// Would catch a group that takes all memory with what it fails, and half a call that is carried out.
#[tokio::test]
async fn too_many_retries_are_refused_as_a_whole() {
    let mut scene = Scene::new().await;
    let topic = scene.topic;
    let count = RETRIES_PER_QUEUE_MAX as u64;
    let more = append(topic, 0, &[(1_000, count as u32)]);
    scene.harness.command(1, more).await;
    for first in (0..count - 1).step_by(1_000) {
        let failed: Vec<(u64, u32)> = (first..(first + 1_000).min(count - 1))
            .map(|offset| (offset, 1))
            .collect();
        let command = scene.failed(&failed);
        let reply = scene.harness.command(2, command).await;
        assert_eq!(reply.value, failed.len() as u64);
    }
    let over = scene.failed(&[(count, 1), (count + 1, 1)]);
    let reply = scene.harness.command(3, over).await;
    assert_eq!(reply.refusal(), Refusal::TooMany);
    assert_eq!(scene.send_back(3, count, 1).await.value, 1);
    // What waits already may go on, and a dead letter makes room.
    let on = scene.failed(&[(0, 2), (1, 3)]);
    assert_eq!(scene.harness.command(4, on).await.value, 2);
    assert_eq!(scene.send_back(5, count + 1, 1).await.value, 1);
}

/// Would catch one group whose failed messages stop those of all others, and a group that may go on for ever.
#[tokio::test]
async fn a_group_that_fails_everything_stops_nobody_else() {
    let mut scene = Scene::new().await;
    let count = RETRIES_PER_QUEUE_MAX as u64;
    let queues = 18;
    let topic = scene.harness.topic("many", queues).await;
    scene.harness.group("others").await;
    let failed = |group: &str, queue, offsets: std::ops::Range<u64>| {
        Body::SendBack(SendBack {
            group: group.into(),
            topic_id: topic,
            queue,
            failed: deliveries(&offsets.map(|offset| (offset, 1)).collect::<Vec<_>>()),
            ..Default::default()
        })
    };
    let mut waiting = 0;
    for queue in 0..queues {
        let first = 1_000_000 * u128::from(queue + 1);
        let more = append(topic, queue, &[(first, count as u32)]);
        scene.harness.command(1, more).await;
        for first in (0..count).step_by(1_024) {
            let command = failed(GROUP, queue, first..first + 1_024);
            let reply = scene.harness.command(2, command).await;
            if reply.refusal() == Refusal::TooMany {
                assert_eq!(waiting, RETRIES_PER_GROUP_MAX as u64, "{}", reply.detail);
            }
            waiting += reply.value;
        }
    }
    assert_eq!(waiting, RETRIES_PER_GROUP_MAX as u64);
    let reply = scene
        .harness
        .command(3, failed("others", 0, 0..1_024))
        .await;
    assert_eq!(reply.value, 1_024, "{}", reply.detail);
    // With all that all may have, and more, what dies is not kept waiting.
    scene.harness.group("second").await;
    for first in (0..RETRIES_PER_GROUP_MAX as u64).step_by(1_024) {
        let queue = (first / count) as u32;
        let first = first % count;
        let command = failed("second", queue, first..first + 1_024);
        let reply = scene.harness.command(3, command).await;
        if reply.value == 0 {
            break;
        }
    }
    let mut dead = failed(GROUP, queues - 1, 0..1);
    if let Body::SendBack(command) = &mut dead {
        command.dead = true;
    }
    let third = failed("others", 2, 0..1_024);
    let reply = scene.harness.command(3, third).await;
    assert_eq!(reply.value, 1_024, "{}", reply.detail);
    let reply = scene.harness.command(3, dead).await;
    assert_eq!(reply.value, 1, "{}", reply.detail);
    // A replica that starts again counts the same.
    scene.harness = scene.harness.restart();
    let reply = scene
        .harness
        .command(4, failed(GROUP, queues - 1, 1..2))
        .await;
    assert_eq!(reply.refusal(), Refusal::TooMany);
    let reply = scene
        .harness
        .command(5, failed("others", 1, 0..1_024))
        .await;
    assert_eq!(reply.value, 1_024, "{}", reply.detail);
}

/// Would catch a backlog that an operator skipped and that comes all the same, later, out of the retries; and retries that go
/// although only the offset was to be set.
#[tokio::test]
async fn a_skipped_backlog_does_not_come_again_as_retries() {
    let mut scene = Scene::new().await;
    for offset in [2, 5, 9] {
        scene.send_back(100, offset, 1).await;
    }
    let reset = |scene: &Scene, offset, settle_retries| {
        Body::CommitOffset(CommitOffset {
            group: GROUP.into(),
            topic_id: scene.topic,
            queue: 0,
            offset,
            reset: true,
            settle_retries,
        })
    };
    let only_offset = reset(&scene, 6, false);
    scene.harness.command(200, only_offset).await;
    assert_eq!(scene.waiting(), [(2, 1), (5, 1), (9, 1)]);
    let skip = reset(&scene, 6, true);
    scene.harness.command(200, skip).await;
    assert_eq!(scene.waiting(), [(9, 1)], "what lies behind stays");
    assert_eq!(scene.send_back(300, 5, 2).await.value, 0, "fails too late");
    let mut scene = Scene {
        harness: scene.harness.restart(),
        ..scene
    };
    assert_eq!(scene.waiting(), [(9, 1)]);
    assert_eq!(scene.send_back(300, 2, 2).await.value, 0);
}
