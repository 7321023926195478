//! The machine against a naive model of itself: every message kept, every id kept, nothing clever.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use proptest::prelude::*;
use proto::command::command::Body;
use proto::command::command_reply::Refusal;
use proto::command::{
    BeginHistory, CommandReply, CommitOffset, DeleteGroup, DeleteTopic, Delivery, DropDeadLetters,
    DropLog, IdRun, Keep, PutGroup, PutTopic, SendBack, Settle, Source,
};
use raft::{Application, Committed};

use super::testing::{Harness, append_saying, encode, id_run, placed, text};
use crate::view::ReadError;

/// One entry as it is drawn.
#[derive(Debug, Clone)]
struct Drawn {
    time_ms: u64,
    window_ms: u64,
    bytes_max: u64,
    commands: Vec<Body>,
}

impl Drawn {
    fn body(&self) -> Bytes {
        encode(
            self.time_ms,
            self.window_ms,
            self.bytes_max,
            self.commands.clone(),
        )
    }
}

/// What a command must answer; details are for people and not compared.
#[derive(Debug, PartialEq, Eq)]
enum Answer {
    Value(u64),
    Placed(Vec<(u64, bool)>),
    /// How many were sent back, and which are not kept.
    SentBack(u64, Vec<u64>),
    Refused(Refusal),
}

impl Answer {
    fn of(reply: &CommandReply) -> Answer {
        match reply.refusal() {
            Refusal::None if !reply.missing.is_empty() => {
                Answer::SentBack(reply.value, reply.missing.clone())
            }
            Refusal::None if reply.placed.is_empty() => Answer::Value(reply.value),
            Refusal::None => Answer::Placed(placed(reply)),
            refusal => Answer::Refused(refusal),
        }
    }
}

#[derive(Default)]
struct Model {
    /// What the last entry said.
    last_ms: u64,
    /// What had passed at most.
    time_ms: u64,
    ids_given: u64,
    floor: u64,
    topics: BTreeMap<String, ModelTopic>,
    groups: BTreeMap<String, ModelGroup>,
    /// One for each id, in the order in which they were stored.
    remembered: Vec<Remembered>,
    retries: BTreeMap<ModelKey, ModelRetry>,
    /// Attempt and time.
    settled: BTreeMap<ModelKey, (u32, u64)>,
}

/// Group, topic, queue and offset.
type ModelKey = (u64, u64, u32, u64);

#[derive(Clone)]
struct ModelRetry {
    attempt: u32,
    due_ms: u64,
    message: ModelMessage,
}

struct ModelTopic {
    id: u64,
    queues: Vec<ModelQueue>,
    dead_letters: bool,
}

#[derive(Default, Clone)]
struct ModelQueue {
    min_offset: usize,
    messages: Vec<ModelMessage>,
}

#[derive(Clone)]
struct ModelMessage {
    /// Entry, command and position.
    place: (u64, u32, u32),
    time_ms: u64,
    /// What had passed when it was stored, or died.
    passed_ms: u64,
    text: String,
}

struct ModelGroup {
    id: u64,
    max_attempts: u32,
    offsets: BTreeMap<(u64, u32), u64>,
}

struct Remembered {
    row: (u64, usize),
    /// Topic and client.
    owner: (u64, u64),
    time_ms: u64,
    topic_id: u64,
    id: u128,
    digest: u64,
    offset: u64,
}

impl Model {
    fn apply(&mut self, index: u64, entry: &Drawn) -> Vec<Answer> {
        self.last_ms = entry.time_ms;
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
                    Some(group) => {
                        self.retries.retain(|key, _| key.0 != group.id);
                        self.settled.retain(|key, _| key.0 != group.id);
                        Answer::Value(group.id)
                    }
                    None => Answer::Refused(Refusal::GroupNotFound),
                },
                Body::CommitOffset(command) => self.commit_offset(command),
                Body::DropLog(command) => self.drop_log(command.first_index.min(index)),
                Body::SendBack(command) => self.send_back(command),
                Body::Settle(command) => self.settle(command),
                Body::Keep(command) => self.keep((index, number as u32), command),
                Body::DropDeadLetters(command) => self.drop_dead_letters(command.before_passed_ms),
                // What is in a topic stays.
                Body::BeginHistory(command) => Answer::Value(command.mark),
            })
            .collect()
    }

    fn forget(&mut self, entry: &Drawn) {
        let old = |passed_ms| entry.window_ms > 0 && passed_ms + entry.window_ms < self.time_ms;
        self.settled.retain(|_, (_, passed_ms)| !old(*passed_ms));
        self.remembered.retain(|one| !old(one.time_ms));
        let whole = match entry.bytes_max {
            0 => 1 << 30,
            bytes => bytes,
        };
        while let Some(owner) = self.crowded(whole) {
            let mut of_owner = self.remembered.iter().filter(|one| one.owner == owner);
            let row = of_owner.next().unwrap().row;
            (self.remembered).retain(|one| (one.owner, one.row) != (owner, row));
        }
    }

    /// Who has to forget: whoever takes more than an eighth, or most in the topic that takes most.
    fn crowded(&self, whole: u64) -> Option<(u64, u64)> {
        let mut owners: BTreeMap<(u64, u64), u64> = BTreeMap::new();
        let mut last: BTreeMap<(u64, u64), &Remembered> = BTreeMap::new();
        for one in &self.remembered {
            let bytes = owners.entry(one.owner).or_insert(256);
            let before = last.insert(one.owner, one);
            let same_row = before.filter(|before| before.row == one.row);
            let follows =
                |before: &Remembered| (before.id + 1, before.offset + 1) == (one.id, one.offset);
            *bytes += match same_row {
                None => 160 + 32 + 88,
                Some(before) if follows(before) => 88,
                Some(_) => 32 + 88,
            };
        }
        let mut topics: BTreeMap<u64, u64> = BTreeMap::new();
        for ((topic_id, _), bytes) in &owners {
            *topics.entry(*topic_id).or_default() += bytes;
        }
        let largest = owners
            .iter()
            .max_by_key(|(owner, bytes)| (**bytes, **owner));
        if let Some((owner, bytes)) = largest
            && *bytes > whole / 8
        {
            return Some(*owner);
        }
        let total: u64 = owners.values().sum();
        let topic = topics
            .iter()
            .max_by_key(|(topic, bytes)| (**bytes, **topic));
        let (topic, bytes) = topic?;
        if *bytes <= whole / 2 && total <= whole {
            return None;
        }
        let of_topic = owners.iter().filter(|(owner, _)| owner.0 == *topic);
        let largest = of_topic.max_by_key(|(owner, bytes)| (**bytes, **owner));
        largest.map(|(owner, _)| *owner)
    }

    fn append(&mut self, row: (u64, usize), command: &proto::command::Append) -> Answer {
        let Some(topic) = self
            .topics
            .values_mut()
            .find(|topic| topic.id == command.topic_id)
        else {
            return Answer::Refused(Refusal::TopicNotFound);
        };
        if topic.dead_letters {
            return Answer::Refused(Refusal::Invalid);
        }
        let Some(queue) = topic.queues.get_mut(command.queue as usize) else {
            return Answer::Refused(Refusal::QueueNotFound);
        };
        let runs = command.ids.iter();
        let ids = runs.flat_map(|run| {
            let first = u128::from_be_bytes(run.first.as_ref().try_into().unwrap());
            (0..u128::from(run.count)).map(move |n| (first + n, run.client))
        });
        let ids = ids.zip(&command.digests);
        let placed = ids.zip(0..).map(|(((id, client), digest), position)| {
            let known = |known: &&Remembered| {
                (known.topic_id, known.id, known.digest) == (command.topic_id, id, *digest)
            };
            if let Some(known) = self.remembered.iter().find(known) {
                return (known.offset, false);
            }
            let offset = queue.messages.len() as u64;
            let (passed_ms, topic_id) = (self.time_ms, command.topic_id);
            self.remembered.push(Remembered {
                row,
                owner: (topic_id, client),
                time_ms: passed_ms,
                topic_id,
                id,
                digest: *digest,
                offset,
            });
            let text = text(id, (digest >> 32) as u32);
            queue.messages.push(ModelMessage {
                place: (row.0, row.1 as u32, position),
                time_ms: self.last_ms,
                passed_ms,
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
                self.topics.insert(
                    command.name.clone(),
                    ModelTopic {
                        id,
                        queues,
                        dead_letters: false,
                    },
                );
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
        self.retries.retain(|key, _| key.1 != topic.id);
        self.settled.retain(|key, _| key.1 != topic.id);
        Answer::Value(topic.id)
    }

    fn put_group(&mut self, command: &PutGroup) -> Answer {
        let max_attempts = match command.max_attempts {
            0 => 17,
            attempts => attempts as u32,
        };
        match self.groups.get_mut(&command.name) {
            Some(group) if command.create && command.if_absent => Answer::Value(group.id),
            Some(group) if !command.create => {
                group.max_attempts = max_attempts;
                Answer::Value(group.id)
            }
            Some(_) => Answer::Refused(Refusal::GroupExists),
            None => {
                self.ids_given += 1;
                let group = ModelGroup {
                    id: self.ids_given,
                    max_attempts,
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
        let place = *place;
        if command.reset {
            let queue = (group.id, command.topic_id, command.queue);
            let anew = |key: &ModelKey| (key.0, key.1, key.2) == queue && key.3 >= wanted;
            self.settled.retain(|key, _| !anew(key));
        }
        Answer::Value(place)
    }

    /// Group, attempts, and the latest delivery of each message.
    fn deliveries(
        &self,
        group: &str,
        (topic_id, queue): (u64, u32),
        deliveries: &[Delivery],
    ) -> Result<(&ModelGroup, BTreeMap<u64, u32>), Answer> {
        let refused = |refusal| Err(Answer::Refused(refusal));
        let Some(topic) = self.topics.values().find(|topic| topic.id == topic_id) else {
            return refused(Refusal::TopicNotFound);
        };
        let Some(queue) = topic.queues.get(queue as usize) else {
            return refused(Refusal::QueueNotFound);
        };
        let Some(group) = self.groups.get(group) else {
            return refused(Refusal::GroupNotFound);
        };
        let stored = queue.messages.len() as u64;
        let possible = |one: &Delivery| one.attempt > 0 && one.offset < stored;
        if deliveries.is_empty() || !deliveries.iter().all(possible) {
            return refused(Refusal::Invalid);
        }
        let mut latest = BTreeMap::new();
        for one in deliveries {
            let attempt = latest.entry(one.offset).or_insert(0);
            *attempt = one.attempt.max(*attempt);
        }
        Ok((group, latest))
    }

    fn send_back(&mut self, command: &SendBack) -> Answer {
        let place = (command.topic_id, command.queue);
        let (group, latest) = match self.deliveries(&command.group, place, &command.failed) {
            Ok(found) => found,
            Err(answer) => return answer,
        };
        let (group_id, max_attempts) = (group.id, group.max_attempts);
        let (mut changed, mut missing) = (0, Vec::new());
        for (offset, attempt) in latest {
            let key = (group_id, place.0, place.1, offset);
            let waits = self.retries.get(&key).cloned();
            let waited = waits.as_ref().map_or(0, |retry| retry.attempt);
            let settled = self.settled.get(&key).map_or(0, |settled| settled.0);
            if attempt <= waited.max(settled) {
                continue;
            }
            let queue = self.topics.values().find(|topic| topic.id == place.0);
            let queue = &queue.unwrap().queues[place.1 as usize];
            let kept = (offset as usize >= queue.min_offset)
                .then(|| queue.messages[offset as usize].clone());
            let Some(message) = waits.map(|retry| retry.message).or(kept) else {
                missing.push(offset);
                continue;
            };
            changed += 1;
            if command.dead || attempt >= max_attempts {
                self.retries.remove(&key);
                self.settled.insert(key, (u32::MAX, self.time_ms));
                self.bury(&command.group, message);
                continue;
            }
            let delay_ms = match command.delay_ms {
                0 => [1_000, 5_000, 10_000][attempt as usize - 1],
                delay_ms => delay_ms,
            };
            let due_ms = self.time_ms + delay_ms;
            let retry = ModelRetry {
                attempt,
                due_ms,
                message,
            };
            self.retries.insert(key, retry);
        }
        match missing.is_empty() {
            true => Answer::Value(changed),
            false => Answer::SentBack(changed, missing),
        }
    }

    fn bury(&mut self, group: &str, message: ModelMessage) {
        let next_id = self.ids_given + 1;
        let made = || ModelTopic {
            id: next_id,
            queues: vec![ModelQueue::default()],
            dead_letters: true,
        };
        let topic = self
            .topics
            .entry(format!("%DLQ%{group}"))
            .or_insert_with(made);
        self.ids_given += u64::from(topic.id == next_id);
        topic.queues[0].messages.push(ModelMessage {
            time_ms: self.last_ms,
            passed_ms: self.time_ms,
            ..message
        });
    }

    fn settle(&mut self, command: &Settle) -> Answer {
        let place = (command.topic_id, command.queue);
        let (group, latest) = match self.deliveries(&command.group, place, &command.settled) {
            Ok(found) => found,
            Err(answer) => return answer,
        };
        let group_id = group.id;
        let mut removed = 0;
        for (offset, attempt) in latest {
            let key = (group_id, place.0, place.1, offset);
            let former = self.retries.remove(&key);
            removed += u64::from(former.is_some());
            let known = self.settled.get(&key).map_or(0, |settled| settled.0);
            let waited = former.map_or(0, |retry| retry.attempt);
            let attempt = attempt.max(waited).max(known);
            self.settled.insert(key, (attempt, self.time_ms));
        }
        Answer::Value(removed)
    }

    /// Everything that must be kept.
    fn referenced(&mut self) -> impl Iterator<Item = &mut ModelMessage> {
        let dead = self.topics.values_mut().filter(|topic| topic.dead_letters);
        let dead = dead.flat_map(|topic| {
            let queue = &mut topic.queues[0];
            &mut queue.messages[queue.min_offset..]
        });
        let retries = self.retries.values_mut().map(|retry| &mut retry.message);
        dead.chain(retries)
    }

    /// What a leader would keep before it drops what is below an entry: the lowest few.
    fn plan_keep(&mut self) -> Keep {
        let texts = self
            .referenced()
            .map(|message| (message.place, message.text.clone()));
        let texts: BTreeMap<(u64, u32, u32), String> = texts.collect();
        let texts: Vec<_> = texts.into_iter().take(3).collect();
        let source = |place: &(u64, u32, u32)| Source {
            log_index: place.0,
            command: place.1,
            position: place.2,
        };
        Keep {
            from: texts.iter().map(|(place, _)| source(place)).collect(),
            sizes_bytes: texts.iter().map(|(_, text)| text.len() as u32).collect(),
            messages: texts
                .into_iter()
                .map(|(_, text)| text)
                .collect::<String>()
                .into(),
        }
    }

    fn keep(&mut self, (index, number): (u64, u32), command: &Keep) -> Answer {
        let mut moved = 0;
        for (position, from) in (0..).zip(&command.from) {
            let from = (from.log_index, from.command, from.position);
            for message in self.referenced().filter(|message| message.place == from) {
                message.place = (index, number, position);
                moved += 1;
            }
        }
        Answer::Value(moved)
    }

    fn drop_dead_letters(&mut self, before_ms: u64) -> Answer {
        let mut dropped = 0;
        for topic in self.topics.values_mut().filter(|topic| topic.dead_letters) {
            let queue = &mut topic.queues[0];
            let old = |message: &&ModelMessage| message.passed_ms < before_ms;
            let count = queue.messages[queue.min_offset..]
                .iter()
                .take_while(old)
                .count();
            queue.min_offset += count;
            dropped += count as u64;
        }
        Answer::Value(dropped)
    }

    fn drop_log(&mut self, floor: u64) -> Answer {
        let lowest = self.referenced().map(|message| message.place.0).min();
        self.floor = self.floor.max(floor.min(lowest.unwrap_or(u64::MAX)));
        let topics = self.topics.values_mut().filter(|topic| !topic.dead_letters);
        for queue in topics.flat_map(|topic| &mut topic.queues) {
            let kept = |message: &ModelMessage| message.place.0 >= self.floor;
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
        let moment = (view.last_moment().time_ms, view.last_moment().passed_ms);
        assert_eq!(moment, (self.last_ms, self.time_ms));
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
                for (name, group) in &self.groups {
                    let queue = (topic.id, number as u32);
                    self.check_retries(harness, (name, group.id), queue).await;
                }
            }
        }
    }

    async fn check_retries(
        &self,
        harness: &Harness,
        (name, group_id): (&str, u64),
        (topic_id, queue): (u64, u32),
    ) {
        let view = &harness.view;
        let of_group = view.group_queue(name, topic_id, queue).unwrap();
        let range = (group_id, topic_id, queue, 0)..=(group_id, topic_id, queue, u64::MAX);
        let waiting = self.retries.range(range);
        let mut expected: Vec<_> = waiting
            .map(|(key, retry)| (retry.due_ms, key.3, retry))
            .collect();
        expected.sort_by_key(|(due_ms, offset, _)| (*due_ms, *offset));
        let due = view.retries_due(of_group, u64::MAX, &BTreeSet::new(), usize::MAX);
        assert_eq!(due.next_ms, None);
        assert_eq!(due.now.len(), expected.len());
        for ((offset, retry), (due_ms, expected_offset, expected)) in due.now.iter().zip(expected) {
            assert_eq!((*offset, retry.due_ms), (expected_offset, due_ms));
            assert_eq!(retry.attempt, expected.attempt);
            assert_eq!(retry.time_ms, expected.message.time_ms);
            let message = view.message_at(retry.location).await.unwrap();
            assert_eq!(message.unwrap(), expected.message.text);
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
        let found = view.offset_at_time(topic_id, number, time_ms);
        let place = (found.await.unwrap() - min) as usize;
        // Where times go back there are several such places.
        assert!(place == 0 || kept[place - 1].time_ms < time_ms);
        assert!(place == kept.len() || kept[place].time_ms >= time_ms);
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
    let runs = proptest::collection::vec((0_u128..60, 1_u32..6, 0_u64..3), 1..4);
    prop_oneof![
        10 => (topic_id(), 0_u32..3, runs, prop_oneof![4 => Just(0_u32), 1 => Just(1)]).prop_map(
            |(topic_id, queue, runs, says)| {
                let of_client = |(first, count, client)| IdRun { client, ..id_run(first, count) };
                append_saying(topic_id, queue, runs.into_iter().map(of_client).collect(), says)
            }
        ),
        4 => (name(), 1_u32..4, any::<bool>(), any::<bool>()).prop_map(
            |(name, queue_count, create, if_absent)| {
                Body::PutTopic(PutTopic { name, queue_count, create, if_absent, ..Default::default() })
            }
        ),
        1 => name().prop_map(|name| Body::DeleteTopic(DeleteTopic { name })),
        3 => (name(), any::<bool>(), any::<bool>(), 0_i32..4).prop_map(
            |(name, create, if_absent, max_attempts)| {
                Body::PutGroup(PutGroup { name, create, if_absent, max_attempts, ..Default::default() })
            }
        ),
        1 => name().prop_map(|name| Body::DeleteGroup(DeleteGroup { name })),
        5 => (name(), topic_id(), 0_u32..3, 0_u64..20, any::<bool>()).prop_map(
            |(group, topic_id, queue, offset, reset)| {
                let settle_retries = reset && offset % 2 == 1;
                Body::CommitOffset(CommitOffset { group, topic_id, queue, offset, reset, settle_retries })
            }
        ),
        2 => (0_u64..40).prop_map(|first_index| Body::DropLog(DropLog { first_index })),
        6 => (name(), topic_id(), 0_u32..3, deliveries(), 0_u64..400, 0_u32..5).prop_map(
            |(group, topic_id, queue, failed, delay_ms, dead)| {
                Body::SendBack(SendBack {
                    group,
                    topic_id,
                    queue,
                    failed,
                    delay_ms: delay_ms.saturating_sub(200),
                    dead: dead == 0,
                    dead_letter_queue: 0,
                })
            }
        ),
        2 => (name(), topic_id(), 0_u32..3, deliveries()).prop_map(
            |(group, topic_id, queue, settled)| {
                Body::Settle(Settle { group, topic_id, queue, settled })
            }
        ),
        // Filled in when it is known what there is to keep.
        2 => Just(Body::Keep(Keep::default())),
        1 => (0_u64..3_000).prop_map(|before_passed_ms| {
            Body::DropDeadLetters(DropDeadLetters { before_passed_ms })
        }),
        1 => (0_u64..9).prop_map(|mark| Body::BeginHistory(BeginHistory { mark })),
        1 => name().prop_map(|name| {
            Body::DeleteTopic(DeleteTopic { name: format!("%DLQ%{name}") })
        }),
    ]
}

fn topic_id() -> impl Strategy<Value = u64> {
    1_u64..9
}

fn deliveries() -> impl Strategy<Value = Vec<Delivery>> {
    let delivery = (0_u64..12, 1_u32..4);
    let delivery = delivery.prop_map(|(offset, attempt)| Delivery { offset, attempt });
    proptest::collection::vec(delivery, 1..4)
}

/// The entries as a leader would write them, the first one at `first_index`.
fn planned(mut drawn: Vec<Drawn>, first_index: u64) -> Vec<Drawn> {
    let mut model = Model::default();
    for (index, entry) in (first_index..).zip(&mut drawn) {
        for command in &mut entry.commands {
            if let Body::Keep(keep) = command {
                *keep = model.plan_keep();
            }
        }
        model.apply(index, entry);
    }
    drawn
}

fn entry() -> impl Strategy<Value = Drawn> {
    let window_ms = prop_oneof![Just(0_u64), Just(300), Just(2_000)];
    let bytes_max = prop_oneof![Just(0_u64), Just(6_000), Just(100_000)];
    let commands = proptest::collection::vec(command(), 1..5);
    (0_u64..4_000, window_ms, bytes_max, commands).prop_map(
        |(time_ms, window_ms, bytes_max, commands)| Drawn {
            time_ms,
            window_ms,
            bytes_max,
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
        .enable_time()
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
            let drawn = planned(drawn, harness.next_index());
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
            let drawn = planned(drawn, one.next_index());
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
