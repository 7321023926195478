//! Who makes topics again, and gives them more queues, while they are read: and writes down which groups must get what.
//!
//! A message is owed to a group from its acknowledgement on, until its topic is about to be deleted.

use std::sync::Arc;
use std::time::Duration;

use madsim::rand::Rng;
use proto::v2::Code;
use raftmq_client::{Admin, ConsumeFrom, Error, GroupSettings, Message, Producer, TopicSettings};

use super::plan::{LIFE_AGAIN, LIFE_ALL, LIFE_EACH, LIFE_GROWS, LIFE_LATE};
use super::{Clients, Phase};
use crate::body;
use crate::effect::Effect;
use crate::history::{Event, History, Value};
use crate::machine::Machine;
use crate::operator::Operator;

/// Pause after something that failed.
const AGAIN: Duration = Duration::from_millis(300);

/// By when a call whose outcome nobody knows has arrived, or never will.
const LATE: Duration = Duration::from_secs(15);

/// Queues of a topic, at most.
const QUEUES_MAX: u32 = 6;

/// Messages that are sent one after the other, at most.
const MESSAGES_MAX: u64 = 30;

/// Pause between two changes, at most, in milliseconds.
const PAUSE_MS_MAX: u64 = 1_500;

/// See the module's text.
pub struct Rebirth {
    clients: Arc<Clients>,
    admin: Admin,
    producer: Producer,
    lane: u64,
    sent: u64,
    /// Queues of the topic that is made again, and of the one that grows.
    queues: [u32; 2],
    /// Who must get what is sent.
    groups: Vec<&'static str>,
}

impl Rebirth {
    /// Of topics that do not exist yet.
    pub fn new(clients: &Arc<Clients>, operator: &Operator) -> Rebirth {
        Rebirth {
            clients: clients.clone(),
            admin: operator.admin(),
            producer: operator.producer(),
            lane: clients.history.next_number(),
            sent: 0,
            queues: [1, 1],
            groups: vec![LIFE_ALL, LIFE_EACH],
        }
    }

    /// Until clients are told to produce no more. What is owed then stays so.
    pub async fn run(mut self) {
        self.make(0).await;
        self.make(1).await;
        for topic in [0, 1] {
            for value in self.send(topic, None).await {
                let group = LIFE_LATE.into();
                self.record(Event::NotFor { group, value });
            }
        }
        self.make_late_group().await;
        // What members said of a topic is heard once more when there is another one of its name.
        let network = self.clients.world.network.clone();
        network.repeat_commits(true);
        while self.clients.phase() == Phase::Work {
            match draw(0..10) {
                0..=2 => {
                    self.begin_again().await;
                    // A short life: what its readers said of it may be said of the next one.
                    if draw(0..2) == 0 {
                        tokio::time::sleep(Duration::from_millis(draw(0..PAUSE_MS_MAX))).await;
                        self.begin_again().await;
                    }
                }
                3 => self.grow(0).await,
                4 => self.grow(1).await,
                number => drop(self.send((number % 2) as usize, None).await),
            }
            tokio::time::sleep(Duration::from_millis(draw(0..PAUSE_MS_MAX))).await;
        }
        network.repeat_commits(false);
        self.send(0, None).await;
        self.send(1, None).await;
        self.record(Event::AllOwed);
    }

    async fn make_late_group(&mut self) {
        let settings = GroupSettings {
            consume_from: ConsumeFrom::Latest,
            if_absent: true,
            ..GroupSettings::default()
        };
        while let Err(error) = self.admin.create_group(LIFE_LATE, &settings).await {
            tracing::debug!(%error, "no group yet");
        }
        self.groups.push(LIFE_LATE);
        let group = LIFE_LATE.into();
        self.record(Event::StartsNow { group });
    }

    async fn begin_again(&mut self) {
        // What its consumers have just read they have not committed yet.
        if draw(0..2) == 0 {
            self.send(0, None).await;
        }
        let topic: Arc<str> = LIFE_AGAIN.into();
        self.record(Event::Gone { topic });
        while let Err(error) = self.admin.delete_topic(LIFE_AGAIN).await {
            if error.code() == Some(Code::TopicNotFound) {
                break;
            }
            // It must not strike the next topic of this name.
            let wait = if error.is_outcome_unknown() {
                LATE
            } else {
                AGAIN
            };
            tokio::time::sleep(wait).await;
        }
        if draw(0..2) == 0 {
            tokio::time::sleep(Duration::from_millis(draw(0..PAUSE_MS_MAX))).await;
        }
        self.queues[0] = draw(1..4) as u32;
        self.make(0).await;
        self.clients.world.trace.happened(Effect::TopicBornAgain);
        self.send(0, None).await;
    }

    async fn grow(&mut self, topic: usize) {
        if self.queues[topic] >= QUEUES_MAX {
            return;
        }
        self.queues[topic] += 1;
        self.make(topic).await;
        self.clients.world.trace.happened(Effect::TopicGrown);
        // Before anybody else knows of it.
        let added = self.queues[topic] - 1;
        self.send(topic, Some(added)).await;
    }

    /// Makes a topic or gives it more queues, however long it takes.
    async fn make(&self, topic: usize) {
        let settings = TopicSettings {
            queue_count: self.queues[topic],
            if_absent: true,
            ..TopicSettings::default()
        };
        while let Err(error) = self.make_once(name(topic), &settings).await {
            tracing::debug!(%error, "no topic yet");
            tokio::time::sleep(AGAIN).await;
        }
    }

    async fn make_once(&self, name: &str, settings: &TopicSettings) -> Result<(), Error> {
        self.admin.create_topic(name, settings).await?;
        match self.admin.alter_topic(name, settings).await {
            // A call that arrived late made it with more queues.
            Err(error) if error.code() == Some(Code::BadRequest) => Ok(()),
            altered => altered,
        }
    }

    /// Sends some messages; those that were stored are owed.
    async fn send(&mut self, topic: usize, queue: Option<u32>) -> Vec<Value> {
        let mut stored = Vec::new();
        for _ in 0..draw(1..MESSAGES_MAX) {
            self.sent += 1;
            let value = (self.lane << 32) | self.sent;
            let body = body::encode(value, self.clients.plan.body_bytes_max);
            let message = Message::builder(name(topic)).body(body);
            let message = match queue {
                Some(queue) => message.queue(queue),
                None => message,
            };
            let message = message.build().expect("keeps the rules");
            match self.producer.send(message).await {
                Ok(_) => {
                    stored.push(value);
                    self.owe(topic, value);
                }
                Err(error) => tracing::debug!(%error, "not sent"),
            }
        }
        stored
    }

    fn owe(&self, topic: usize, value: Value) {
        let (topic, groups) = (name(topic).into(), self.groups.iter());
        self.record(Event::Owed {
            groups: groups.map(|group| Arc::from(*group)).collect(),
            topic,
            value,
        });
    }

    fn record(&self, event: Event) {
        let history: &History = &self.clients.history;
        history.record(Machine::Operator, event);
    }
}

fn name(topic: usize) -> &'static str {
    [LIFE_AGAIN, LIFE_GROWS][topic]
}

fn draw(range: std::ops::Range<u64>) -> u64 {
    madsim::rand::thread_rng().gen_range(range)
}
