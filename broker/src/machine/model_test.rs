//! The machine against a naive model of itself: every message kept, every id kept, nothing clever.

use std::collections::BTreeMap;

use bytes::Bytes;
use proptest::prelude::*;
use proto::command::command::Body;
use proto::command::command_reply::Refusal;
use proto::command::{
    CommandReply, CommitOffset, DeleteGroup, DeleteTopic, DropLog, PutGroup, PutTopic,
};
use raft::{Application, Committed};

use super::testing::{Harness, append, encode, placed};
use crate::view::ReadError;

/// One entry as it is drawn.
#[derive(Debug, Clone)]
struct Drawn {
    time_ms: u64,
    window_ms: u64,
    ids_max: u64,
    commands: Vec<Body>,
}

impl Drawn {
    fn body(&self) -> Bytes {
        encode(
            self.time_ms,
            self.window_ms,
            self.ids_max,
            self.commands.clone(),
        )
    }
}

/// What a command must answer; details are for people and not compared.
#[derive(Debug, PartialEq, Eq)]
enum Answer {
    Value(u64),
    Placed(Vec<(u64, bool)>),
    Refused(Refusal),
}

impl Answer {
    fn of(reply: &CommandReply) -> Answer {
        match reply.refusal() {
            Refusal::None if reply.placed.is_empty() => Answer::Value(reply.value),
            Refusal::None => Answer::Placed(placed(reply)),
            refusal => Answer::Refused(refusal),
        }
    }
}

#[derive(Default)]
struct Model {
    time_ms: u64,
    ids_given: u64,
    floor: u64,
    topics: BTreeMap<String, ModelTopic>,
    groups: BTreeMap<String, ModelGroup>,
    /// One for each id, in the order in which they were stored.
    remembered: Vec<Remembered>,
}

struct ModelTopic {
    id: u64,
    queues: Vec<ModelQueue>,
}

#[derive(Default, Clone)]
struct ModelQueue {
    min_offset: usize,
    messages: Vec<ModelMessage>,
}

#[derive(Clone)]
struct ModelMessage {
    index: u64,
    time_ms: u64,
    text: String,
}

struct ModelGroup {
    id: u64,
    offsets: BTreeMap<(u64, u32), u64>,
}

struct Remembered {
    row: (u64, usize),
    time_ms: u64,
    topic_id: u64,
    id: u128,
    offset: u64,
}

impl Model {
    fn apply(&mut self, index: u64, entry: &Drawn) -> Vec<Answer> {
        self.time_ms = self.time_ms.max(entry.time_ms);
        self.forget(entry);
        let commands = entry.commands.iter().enumerate();
        commands
            .map(|(number, command)| match command {
                Body::Append(command) => self.append((index, number), command),
                Body::PutTopic(command) => self.put_topic(command),
                Body::DeleteTopic(command) => self.delete_topic(command),
                Body::PutGroup(command) => self.put_group(command),
                Body::DeleteGroup(command) => match self.groups.remove(&command.name) {
                    Some(group) => Answer::Value(group.id),
                    None => Answer::Refused(Refusal::GroupNotFound),
                },
                Body::CommitOffset(command) => self.commit_offset(command),
                Body::DropLog(command) => self.drop_log(command.first_index.min(index)),
            })
            .collect()
    }

    fn forget(&mut self, entry: &Drawn) {
        while let Some(oldest) = self.remembered.first() {
            let old = entry.window_ms > 0 && oldest.time_ms + entry.window_ms < self.time_ms;
            let many = entry.ids_max > 0 && self.remembered.len() as u64 > entry.ids_max;
            if !old && !many {
                return;
            }
            let row = oldest.row;
            self.remembered.retain(|id| id.row != row);
        }
    }

    fn append(&mut self, row: (u64, usize), command: &proto::command::Append) -> Answer {
        let Some(topic) = self
            .topics
            .values_mut()
            .find(|topic| topic.id == command.topic_id)
        else {
            return Answer::Refused(Refusal::TopicNotFound);
        };
        let Some(queue) = topic.queues.get_mut(command.queue as usize) else {
            return Answer::Refused(Refusal::QueueNotFound);
        };
        let runs = command.ids.iter();
        let ids = runs.flat_map(|run| {
            let first = u128::from_be_bytes(run.first.as_ref().try_into().unwrap());
            (0..u128::from(run.count)).map(move |n| first + n)
        });
        let placed = ids.map(|id| {
            let known = |known: &&Remembered| known.topic_id == command.topic_id && known.id == id;
            if let Some(known) = self.remembered.iter().find(known) {
                return (known.offset, false);
            }
            let offset = queue.messages.len() as u64;
            let (time_ms, topic_id) = (self.time_ms, command.topic_id);
            self.remembered.push(Remembered {
                row,
                time_ms,
                topic_id,
                id,
                offset,
            });
            let text = format!("message {id}");
            queue.messages.push(ModelMessage {
                index: row.0,
                time_ms,
                text,
            });
            (offset, true)
        });
        Answer::Placed(placed.collect())
    }

    fn put_topic(&mut self, command: &PutTopic) -> Answer {
        let queue_count = command.queue_count as usize;
        match self.topics.get_mut(&command.name) {
            Some(topic) if command.create && command.if_absent => Answer::Value(topic.id),
            Some(_) if command.create => Answer::Refused(Refusal::TopicExists),
            Some(topic) if queue_count < topic.queues.len() => Answer::Refused(Refusal::Invalid),
            Some(topic) => {
                topic.queues.resize(queue_count, ModelQueue::default());
                Answer::Value(topic.id)
            }
            None => {
                self.ids_given += 1;
                let (id, queues) = (self.ids_given, vec![ModelQueue::default(); queue_count]);
                self.topics
                    .insert(command.name.clone(), ModelTopic { id, queues });
                Answer::Value(id)
            }
        }
    }

    fn delete_topic(&mut self, command: &DeleteTopic) -> Answer {
        let Some(topic) = self.topics.remove(&command.name) else {
            return Answer::Refused(Refusal::TopicNotFound);
        };
        for group in self.groups.values_mut() {
            group
                .offsets
                .retain(|(topic_id, _), _| *topic_id != topic.id);
        }
        Answer::Value(topic.id)
    }

    fn put_group(&mut self, command: &PutGroup) -> Answer {
        match self.groups.get(&command.name) {
            Some(group) if !command.create || command.if_absent => Answer::Value(group.id),
            Some(_) => Answer::Refused(Refusal::GroupExists),
            None => {
                self.ids_given += 1;
                let group = ModelGroup {
                    id: self.ids_given,
                    offsets: BTreeMap::new(),
                };
                self.groups.insert(command.name.clone(), group);
                Answer::Value(self.ids_given)
            }
        }
    }

    fn commit_offset(&mut self, command: &CommitOffset) -> Answer {
        let Some(topic) = self
            .topics
            .values()
            .find(|topic| topic.id == command.topic_id)
        else {
            return Answer::Refused(Refusal::TopicNotFound);
        };
        let Some(queue) = topic.queues.get(command.queue as usize) else {
            return Answer::Refused(Refusal::QueueNotFound);
        };
        let Some(group) = self.groups.get_mut(&command.group) else {
            return Answer::Refused(Refusal::GroupNotFound);
        };
        let place = group
            .offsets
            .entry((command.topic_id, command.queue))
            .or_insert(0);
        let wanted = command.offset.min(queue.messages.len() as u64);
        if command.reset || wanted > *place {
            *place = wanted;
        }
        Answer::Value(*place)
    }

    fn drop_log(&mut self, floor: u64) -> Answer {
        self.floor = self.floor.max(floor);
        for queue in self.topics.values_mut().flat_map(|topic| &mut topic.queues) {
            let kept = |message: &ModelMessage| message.index >= self.floor;
            queue.min_offset = queue
                .messages
                .iter()
                .position(kept)
                .unwrap_or(queue.messages.len());
        }
        Answer::Value(self.floor)
    }

    /// Compares everything that readers can see.
    async fn check(&self, harness: &Harness) {
        let view = &harness.view;
        assert_eq!(view.last_time_ms(), self.time_ms);
        assert_eq!(harness.machine.log_floor(), self.floor);
        assert_eq!(view.topics().len(), self.topics.len());
        assert_eq!(view.groups().len(), self.groups.len());
        for (name, group) in &self.groups {
            assert_eq!(view.group(name).unwrap().id, group.id);
            let expected = group
                .offsets
                .iter()
                .map(|((topic, queue), offset)| (*topic, *queue, *offset));
            assert_eq!(view.committed_offsets(name), expected.collect::<Vec<_>>());
        }
        for (name, topic) in &self.topics {
            let seen = view.topic(name).unwrap();
            assert_eq!(
                (seen.id, seen.queue_count as usize),
                (topic.id, topic.queues.len())
            );
            for (number, queue) in topic.queues.iter().enumerate() {
                check_queue(harness, topic.id, number as u32, queue).await;
            }
        }
    }
}

async fn check_queue(harness: &Harness, topic_id: u64, number: u32, queue: &ModelQueue) {
    let view = &harness.view;
    let bounds = view.queue(topic_id, number).unwrap();
    let (min, next) = (queue.min_offset as u64, queue.messages.len() as u64);
    assert_eq!((bounds.min_offset, bounds.next_offset), (min, next));
    let stored = view
        .read(topic_id, number, min, usize::MAX, usize::MAX)
        .await
        .unwrap();
    let kept = &queue.messages[queue.min_offset..];
    assert_eq!(stored.len(), kept.len());
    for (place, (stored, expected)) in stored.iter().zip(kept).enumerate() {
        assert_eq!(stored.offset, min + place as u64);
        assert_eq!(stored.time_ms, expected.time_ms);
        assert_eq!(stored.message, expected.text);
    }
    if min > 0 {
        let dropped = view.read(topic_id, number, min - 1, 1, 1).await;
        assert!(matches!(dropped, Err(ReadError::OffsetTooSmall { .. })));
    }
    for time_ms in [0, 100, 1_000, 10_000] {
        let late = |message: &ModelMessage| message.time_ms >= time_ms;
        let expected = min + kept.iter().position(late).unwrap_or(kept.len()) as u64;
        assert_eq!(
            view.offset_at_time(topic_id, number, time_ms)
                .await
                .unwrap(),
            expected
        );
    }
}

fn name() -> impl Strategy<Value = String> {
    prop_oneof![
        Just("a".to_owned()),
        Just("b".to_owned()),
        Just("c".to_owned())
    ]
}

/// Commands on few topics, groups and ids, so that they meet. Some mean nothing.
fn command() -> impl Strategy<Value = Body> {
    let runs = proptest::collection::vec((0_u128..60, 1_u32..6), 1..4);
    let topic_id = 1_u64..7;
    prop_oneof![
        10 => (topic_id.clone(), 0_u32..3, runs)
            .prop_map(|(topic_id, queue, runs)| append(topic_id, queue, &runs)),
        4 => (name(), 1_u32..4, any::<bool>(), any::<bool>()).prop_map(
            |(name, queue_count, create, if_absent)| {
                Body::PutTopic(PutTopic { name, queue_count, create, if_absent, ..Default::default() })
            }
        ),
        1 => name().prop_map(|name| Body::DeleteTopic(DeleteTopic { name })),
        2 => (name(), any::<bool>(), any::<bool>()).prop_map(|(name, create, if_absent)| {
            Body::PutGroup(PutGroup { name, create, if_absent, ..Default::default() })
        }),
        1 => name().prop_map(|name| Body::DeleteGroup(DeleteGroup { name })),
        5 => (name(), topic_id, 0_u32..3, 0_u64..20, any::<bool>()).prop_map(
            |(group, topic_id, queue, offset, reset)| {
                Body::CommitOffset(CommitOffset { group, topic_id, queue, offset, reset })
            }
        ),
        1 => (0_u64..40).prop_map(|first_index| Body::DropLog(DropLog { first_index })),
    ]
}

fn entry() -> impl Strategy<Value = Drawn> {
    let window_ms = prop_oneof![Just(0_u64), Just(300), Just(2_000)];
    let ids_max = prop_oneof![Just(0_u64), Just(12), Just(500)];
    let commands = proptest::collection::vec(command(), 1..5);
    (0_u64..4_000, window_ms, ids_max, commands).prop_map(
        |(time_ms, window_ms, ids_max, commands)| Drawn {
            time_ms,
            window_ms,
            ids_max,
            commands,
        },
    )
}

fn entries() -> impl Strategy<Value = Vec<Drawn>> {
    let entries = proptest::collection::vec(entry(), 1..40);
    // Time mostly goes on, and sometimes back a little.
    entries.prop_map(|mut entries| {
        for (number, entry) in entries.iter_mut().enumerate() {
            entry.time_ms = entry.time_ms / 10 + 60 * number as u64;
        }
        entries
    })
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap()
        .block_on(future)
}

/// Applies the entries in calls of the given sizes, over and over.
fn apply(harness: &mut Harness, entries: &[Committed], calls: &[usize]) -> Vec<CommandReply> {
    let mut replies = Vec::new();
    let mut rest = entries;
    for size in calls.iter().cycle() {
        if rest.is_empty() {
            break;
        }
        let (call, after) = rest.split_at((*size).min(rest.len()));
        replies.extend(
            harness
                .apply_committed(call)
                .into_iter()
                .flat_map(|reply| reply.commands),
        );
        rest = after;
    }
    replies
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// Would catch any answer, offset, message or bound that differs from the plain rules.
    #[test]
    fn the_machine_does_what_the_model_does(
        drawn in entries(),
        calls in proptest::collection::vec(1_usize..6, 1..4),
    ) {
        block_on(async {
            let mut harness = Harness::new().await;
            let committed = harness.append(drawn.iter().map(Drawn::body).collect()).await;
            let replies = apply(&mut harness, &committed, &calls);
            let mut model = Model::default();
            let expected = drawn.iter().zip(&committed);
            let expected = expected.flat_map(|(entry, committed)| model.apply(committed.index, entry));
            let expected: Vec<Answer> = expected.collect();
            assert_eq!(replies.iter().map(Answer::of).collect::<Vec<_>>(), expected);
            model.check(&harness).await;
            model.check(&harness.restart()).await;
        });
    }

    /// Would catch whatever depends on how entries were grouped, or lives in memory alone: replicas
    /// would differ.
    #[test]
    fn replicas_agree_however_they_came_by_their_state(
        drawn in entries(),
        calls in proptest::collection::vec(1_usize..6, 1..4),
        half in 0_usize..40,
    ) {
        block_on(async {
            let mut one = Harness::new().await;
            let committed = one.append(drawn.iter().map(Drawn::body).collect()).await;
            let half = half.min(committed.len());
            let mut other = one.fork().await;
            let mut expected = apply(&mut one, &committed[..half], &calls);
            // One that starts here from a copy of the tables, as after a snapshot.
            let mut late = one.fork().await;
            let rest = apply(&mut one, &committed[half..], &calls);
            assert_eq!(apply(&mut late, &committed[half..], &[1]), rest);
            expected.extend(rest);
            assert_eq!(apply(&mut other, &committed, &[committed.len()]), expected);
            assert_eq!(other.dump(), one.dump());
            assert_eq!(late.dump(), one.dump());
        });
    }
}
