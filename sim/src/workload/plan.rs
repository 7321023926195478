//! What the clients of a world shall do: data, drawn from the seed before the world begins.

mod lives;

use std::ops::Range;
use std::sync::Arc;

use raftmq_client::TopicQueue;
use serde::{Deserialize, Serialize};

use crate::broker_group::BrokerGroup;
use crate::chance::Chance;

pub(super) use self::lives::{
    LIFE_AGAIN, LIFE_ALL, LIFE_EACH, LIFE_GROWS, LIFE_LAST, LIFE_LATE, LIFE_PUSH, LIFE_STAYS,
};
pub use self::lives::{LifePlan, Lives};

/// How much there shall be.
#[derive(Clone, Copy, Debug)]
pub struct Size {
    /// Machines with clients.
    pub machines: u8,
    /// Topics.
    pub topics: u64,
    /// Consumer groups of each topic.
    pub groups: u64,
    /// Largest body.
    pub body_bytes_max: u64,
    /// Longest pause of a producer between two messages.
    pub think_ms_max: u64,
    /// Who reads topics of which what was written down by value alone is judged, and what becomes of these.
    pub lives: Lives,
    /// How long clients wait for an answer before they ask somebody else, in milliseconds.
    pub attempt_ms: u64,
}

impl Default for Size {
    fn default() -> Size {
        Size {
            machines: 3,
            topics: 2,
            groups: 2,
            body_bytes_max: 1_500,
            think_ms_max: 120,
            attempt_ms: HASTY_MS,
            lives: Lives::None,
        }
    }
}

/// A topic.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TopicPlan {
    /// Its name.
    pub name: Arc<str>,
    /// Its queues.
    pub queues: u32,
    /// How many of them each broker group has, where there are several. Older cases have one.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub shares: Vec<Share>,
}

/// What a broker group has of a topic.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Share {
    /// Which group, by number.
    pub group: u8,
    /// Its queues.
    pub queues: u32,
}

impl TopicPlan {
    /// The numbers of the queues that each broker group has.
    pub fn shares(&self) -> Vec<(BrokerGroup, Range<u32>)> {
        if self.shares.is_empty() {
            return vec![(BrokerGroup::FIRST, 0..self.queues)];
        }
        let share = |share: &Share| {
            let group = BrokerGroup::numbered(share.group);
            let first = group.first_queue();
            (group, first..first + share.queues)
        };
        self.shares.iter().map(share).collect()
    }

    /// The numbers of all its queues.
    pub fn numbers(&self) -> Vec<u32> {
        let shares = self.shares().into_iter();
        shares.flat_map(|(_, queues)| queues).collect()
    }
}

/// Where a producer sends to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Targets {
    /// Any queue.
    Any,
    /// Always the same queue.
    Queue(u32),
    /// One of so many message groups each time.
    Groups(u64),
}

/// The largest body that the simulated brokers take (`Shape::default`).
const BODY_BYTES_LIMIT: u64 = 4 << 10;

/// How many worlds there are for one in which bodies are as large as that.
const LARGE_BODIES_ONE_IN: u64 = 4;

/// A producer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProducerPlan {
    /// On which client machine.
    pub machine: u8,
    /// Its topic.
    pub topic: Arc<str>,
    /// Where in it.
    pub targets: Targets,
    /// Pause between messages, at most, in milliseconds.
    pub think_ms_max: u64,
    /// Messages under way at one time.
    pub in_flight: u32,
    /// Messages that it hands over together, one batch after the other; 1 or less for none. Older cases have none.
    #[serde(default)]
    pub batch: u64,
    /// When it gives a message up, in milliseconds.
    pub send_timeout_ms: u64,
    /// Whether it begins with a name server; otherwise with a broker.
    pub name_servers: bool,
    /// Ids as official clients make them, of the machine and the process of this number: several producers may have the
    /// same. None for those that the SDK makes. Older cases have none.
    #[serde(default)]
    pub official_ids: Option<u8>,
}

/// When a consumer commits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Commits {
    /// By itself, so often (in milliseconds).
    Auto(u64),
    /// After so many polls, queue by queue.
    Each(u64),
}

/// A consumer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConsumerPlan {
    /// On which client machine.
    pub machine: u8,
    /// Its group.
    pub group: Arc<str>,
    /// Its topic.
    pub topic: Arc<str>,
    /// Whether it takes all queues itself, alone in its group, instead of sharing them.
    pub assigned: bool,
    /// Messages of one poll, at most.
    pub poll_max: usize,
    /// How long it works on what it polled, at most, in milliseconds.
    pub work_ms_max: u64,
    /// When it commits.
    pub commits: Commits,
    /// It ends after so many polls, and another one begins; 0 for never.
    pub polls: u64,
    /// Whether it leaves its group in order then.
    pub leaves: bool,
    /// Whether it begins with a name server; otherwise with a broker.
    pub name_servers: bool,
}

/// A consumer that fails some of what it gets: it sends messages back, gets them again, and settles them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RetrierPlan {
    /// On which client machine.
    pub machine: u8,
    /// Its group, in which it is alone.
    pub group: Arc<str>,
    /// Its topic.
    pub topic: Arc<str>,
    /// It fails one delivery of so many.
    pub fails_one_in: u64,
    /// One failure of so many is the last one.
    pub dead_one_in: u64,
    /// Deliveries of a message, at most.
    pub attempts_max: u32,
    /// Pause until the next delivery, at most, in milliseconds.
    pub delay_ms_max: u64,
    /// Messages of one poll, at most.
    pub poll_max: usize,
}

/// A push consumer, which is given each message, fails some and finishes the others, each for itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PushPlan {
    /// On which client machine.
    pub machine: u8,
    /// Its group.
    pub group: Arc<str>,
    /// Its topic.
    pub topic: Arc<str>,
    /// Whether its group works on one message of a queue after the other.
    pub in_order: bool,
    /// Deliveries of a message, at most; the same in all of its group.
    pub attempts_max: u32,
    /// Messages that it works on at once, at most.
    pub concurrency: usize,
    /// How long it works on one, at most, in milliseconds.
    pub work_ms_max: u64,
    /// It fails one delivery of so many.
    pub fails_one_in: u64,
    /// One failure of so many is the last one.
    pub dead_one_in: u64,
    /// Pause until the next delivery, at most, in milliseconds.
    pub delay_ms_max: u64,
    /// How often it commits, in milliseconds.
    pub commit_ms: u64,
    /// It ends after so many deliveries, and another one begins; 0 for never.
    pub deliveries: u64,
    /// Whether it leaves its group in order then.
    pub leaves: bool,
    /// Its number in its group, if each member gets every message and keeps its own progress on its machine's disk;
    /// otherwise its group shares the messages. Older cases have none.
    #[serde(default)]
    pub alone: Option<u8>,
}

impl PushPlan {
    /// Whose progress it is: the group's, or that of this member alone. So it is named in the history.
    pub fn progress_of(&self) -> Arc<str> {
        match self.alone {
            None => self.group.clone(),
            Some(number) => format!("{}/{number}", self.group).into(),
        }
    }

    /// Whether it failed a message for good.
    pub fn is_last(&self, attempt: u32, dead: bool) -> bool {
        dead || attempt >= self.attempts_max
    }
}

/// Everything.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plan {
    /// Client machines, numbered from 1.
    pub machines: u8,
    /// Largest body.
    pub body_bytes_max: u64,
    /// Topics that exist from the beginning.
    pub topics: Vec<TopicPlan>,
    /// All producers.
    pub producers: Vec<ProducerPlan>,
    /// All consumers.
    pub consumers: Vec<ConsumerPlan>,
    /// All consumers that fail some messages. Older cases have none.
    #[serde(default)]
    pub retriers: Vec<RetrierPlan>,
    /// All push consumers. Older cases have none.
    #[serde(default)]
    pub push_consumers: Vec<PushPlan>,
    /// Who reads topics that are made again and grow. Older cases have none.
    #[serde(default)]
    pub lives: Vec<LifePlan>,
    /// How long clients wait for an answer before they ask somebody else, in milliseconds.
    #[serde(default = "hasty")]
    pub attempt_ms: u64,
}

/// Less than the SDK's own 3 s, so that more happens in a world.
pub const HASTY_MS: u64 = 1_000;

fn hasty() -> u64 {
    HASTY_MS
}

impl Plan {
    /// A plan of this size for a seed.
    pub fn draw(seed: u64, size: Size) -> Plan {
        let mut chance = Chance::new(seed, "workload");
        let topics: Vec<TopicPlan> = (0..size.topics)
            .map(|number| TopicPlan {
                name: format!("topic-{number}").into(),
                queues: chance.between(1..=4) as u32,
                shares: Vec::new(),
            })
            .collect();
        let mut producers = Vec::new();
        let mut consumers = Vec::new();
        for topic in &topics {
            for _ in 0..chance.between(1..=2) {
                producers.push(producer(&mut chance, size, topic));
            }
            for group in 0..size.groups {
                let group: Arc<str> = format!("group-{}-{group}", topic.name).into();
                let assigned = chance.one_in(4);
                for _ in 0..if assigned { 1 } else { chance.between(1..=3) } {
                    let plan = consumer(&mut chance, size, topic, &group);
                    consumers.push(ConsumerPlan { assigned, ..plan });
                }
            }
        }
        let mut chance = Chance::new(seed, "batches");
        for producer in &mut producers {
            producer.batch = *chance.pick(&[1, 1, 1, 4, 4, 16]);
        }
        let mut chance = Chance::new(seed, "ids");
        for topic in &topics {
            make_official(&mut chance, size, &mut producers, &topic.name);
        }
        let mut chance = Chance::new(seed, "retriers");
        let first = topics.iter().take(1 + chance.below(2) as usize);
        let retriers = first
            .map(|topic| retrier(&mut chance, size, topic))
            .collect();
        let mut chance = Chance::new(seed, "push consumers");
        let last = topics.last().into_iter();
        let mut push_consumers: Vec<PushPlan> = last
            .flat_map(|topic| push_group(&mut chance, size, topic))
            .collect();
        let mut chance = Chance::new(seed, "broadcasting");
        let first = topics.iter().take(1);
        push_consumers.extend(first.flat_map(|topic| everyone(&mut chance, size, topic)));
        Plan {
            machines: size.machines,
            body_bytes_max: match Chance::new(seed, "large bodies").one_in(LARGE_BODIES_ONE_IN) {
                true => BODY_BYTES_LIMIT,
                false => size.body_bytes_max,
            },
            attempt_ms: size.attempt_ms,
            topics,
            producers,
            consumers,
            retriers,
            push_consumers,
            lives: match size.lives {
                Lives::None => Vec::new(),
                Lives::Reborn => lives::reborn(&mut Chance::new(seed, "lives"), size),
                Lives::Restored => lives::restored(&mut Chance::new(seed, "restored"), size),
            },
        }
        .with_lasting_seeds()
    }

    /// Whether it is lived through that all brokers of a group are lost.
    pub fn outlives_brokers(&self) -> bool {
        let mut topics = self.lives.iter().flat_map(|life| &life.topics);
        topics.any(|topic| **topic == *LIFE_STAYS)
    }

    /// Where all brokers may be lost that somebody began with, everybody begins with name servers.
    fn with_lasting_seeds(mut self) -> Plan {
        if self.outlives_brokers() {
            let producers = self.producers.iter_mut();
            producers.for_each(|producer| producer.name_servers = true);
            let consumers = self.consumers.iter_mut();
            consumers.for_each(|consumer| consumer.name_servers = true);
        }
        self
    }

    /// The same in so many broker groups: the first topic is spread over all of them, the others over some. Whoever shall
    /// find the queues of all begins with a name server: a broker knows its own.
    #[must_use]
    pub fn spread(mut self, seed: u64, groups: u8) -> Plan {
        if groups < 2 {
            return self;
        }
        let mut chance = Chance::new(seed, "broker groups");
        for (place, topic) in self.topics.iter_mut().enumerate() {
            topic.shares = shares(&mut chance, groups, place == 0);
            topic.queues = topic.shares.iter().map(|share| share.queues).sum();
        }
        for producer in &mut self.producers {
            producer.name_servers = true;
            let topic = self.topics.iter().find(|one| one.name == producer.topic);
            if let (Targets::Queue(_), Some(topic)) = (producer.targets, topic) {
                producer.targets = Targets::Queue(*chance.pick(&topic.numbers()));
            }
        }
        for consumer in &mut self.consumers {
            consumer.name_servers = true;
        }
        self
    }

    /// Whether these are all queues of a topic: a route may leave out those of a broker group that is not heard of.
    pub fn knows_all(&self, topic: &str, queues: &[TopicQueue]) -> bool {
        let mut topics = self.topics.iter();
        let topic = topics.find(|one| &*one.name == topic);
        topic.is_none_or(|topic| queues.len() >= topic.queues as usize)
    }

    /// The groups of pull consumers of a topic, each once.
    pub fn groups(&self, topic: &str) -> Vec<Arc<str>> {
        let mut groups: Vec<Arc<str>> = self
            .consumers
            .iter()
            .filter(|consumer| &*consumer.topic == topic)
            .map(|consumer| consumer.group.clone())
            .collect();
        groups.sort();
        groups.dedup();
        groups
    }

    /// One push consumer of each group whose members share its messages.
    pub fn push_groups(&self) -> impl Iterator<Item = &PushPlan> {
        let sharing = |consumer: &&PushPlan| consumer.alone.is_none();
        self.who_must_get_all().filter(sharing)
    }

    /// One push consumer of each group whose members share its messages, and each that must get every message itself.
    pub fn who_must_get_all(&self) -> impl Iterator<Item = &PushPlan> {
        let consumers = self.push_consumers.iter().enumerate();
        let first = consumers.filter(|(place, consumer)| {
            let mut before = self.push_consumers[..*place].iter();
            before.all(|other| other.progress_of() != consumer.progress_of())
        });
        first.map(|(_, consumer)| consumer)
    }
}

/// What each broker group has of a topic; one at least has some.
fn shares(chance: &mut Chance, groups: u8, all: bool) -> Vec<Share> {
    let one = chance.below(groups.into()) as u8;
    let has = |group: &u8| all || *group == one || chance.one_in(2);
    let has: Vec<u8> = (0..groups).filter(has).collect();
    let share = |group| Share {
        group,
        queues: chance.between(1..=3) as u32,
    };
    has.into_iter().map(share).collect()
}

fn producer(chance: &mut Chance, size: Size, topic: &TopicPlan) -> ProducerPlan {
    let targets = match chance.below(3) {
        0 => Targets::Any,
        1 => Targets::Queue(chance.below(topic.queues.into()) as u32),
        _ => Targets::Groups(chance.between(1..=6)),
    };
    ProducerPlan {
        machine: chance.between(1..=size.machines.into()) as u8,
        topic: topic.name.clone(),
        targets,
        think_ms_max: chance.between(size.think_ms_max / 6..=size.think_ms_max),
        in_flight: *chance.pick(&[1, 1, 4, 16]),
        batch: 1,
        send_timeout_ms: *chance.pick(&[800, 3_000, 10_000, 10_000]),
        name_servers: chance.one_in(2),
        official_ids: None,
    }
}

/// Makes a topic's producers processes of official clients that take themselves for the same one: of containers that share
/// a hardware address, or forked. There are two at least.
fn make_official(chance: &mut Chance, size: Size, producers: &mut Vec<ProducerPlan>, topic: &str) {
    if !chance.one_in(3) {
        return;
    }
    let of_topic = |producer: &&ProducerPlan| &*producer.topic == topic;
    let mut alone = producers.iter().filter(of_topic);
    if let (Some(one), None) = (alone.next(), alone.next()) {
        let machine = chance.between(1..=size.machines.into()) as u8;
        let other = ProducerPlan {
            machine,
            ..one.clone()
        };
        producers.push(other);
    }
    for producer in producers
        .iter_mut()
        .filter(|producer| &*producer.topic == topic)
    {
        producer.official_ids = Some(1);
        // Each message is remembered on its own: what a producer sends before it gives up must fit into its share.
        producer.send_timeout_ms = producer.send_timeout_ms.min(3_000);
        producer.think_ms_max = producer.think_ms_max.max(40);
    }
}

fn retrier(chance: &mut Chance, size: Size, topic: &TopicPlan) -> RetrierPlan {
    RetrierPlan {
        machine: chance.between(1..=size.machines.into()) as u8,
        group: format!("retry-{}", topic.name).into(),
        topic: topic.name.clone(),
        fails_one_in: *chance.pick(&[2, 4, 8]),
        dead_one_in: *chance.pick(&[8, 32]),
        attempts_max: *chance.pick(&[2, 3, 16]),
        delay_ms_max: *chance.pick(&[50, 1_000, 4_000]),
        poll_max: *chance.pick(&[1, 8, 32]),
    }
}

/// The members of one group.
fn push_group(chance: &mut Chance, size: Size, topic: &TopicPlan) -> Vec<PushPlan> {
    let in_order = chance.one_in(2);
    let attempts_max = *chance.pick(&[2, 3, 16]);
    let members = chance.between(1..=3);
    let name = format!("push-{}", topic.name);
    let member = |_| PushPlan {
        in_order,
        attempts_max,
        ..push_consumer(chance, size, topic, &name)
    };
    (0..members).map(member).collect()
}

/// The members of one group of which each gets every message.
fn everyone(chance: &mut Chance, size: Size, topic: &TopicPlan) -> Vec<PushPlan> {
    let members = chance.between(1..=size.machines.into()) as u8;
    let name = format!("everyone-{}", topic.name);
    let member = |number| PushPlan {
        in_order: chance.one_in(2),
        attempts_max: *chance.pick(&[2, 3, 16]),
        alone: Some(number),
        machine: number,
        ..push_consumer(chance, size, topic, &name)
    };
    (1..=members).map(member).collect()
}

fn push_consumer(chance: &mut Chance, size: Size, topic: &TopicPlan, group: &str) -> PushPlan {
    PushPlan {
        machine: chance.between(1..=size.machines.into()) as u8,
        group: group.into(),
        topic: topic.name.clone(),
        in_order: false,
        attempts_max: 16,
        concurrency: *chance.pick(&[1, 4, 20]),
        work_ms_max: *chance.pick(&[0, 20, 200, 2_000]),
        fails_one_in: *chance.pick(&[4, 16, 64]),
        dead_one_in: *chance.pick(&[4, 16]),
        delay_ms_max: *chance.pick(&[50, 1_000]),
        commit_ms: chance.between(200..=3_000),
        deliveries: match chance.one_in(2) {
            true => chance.between(20..=400),
            false => 0,
        },
        leaves: chance.one_in(2),
        alone: None,
    }
}

fn consumer(chance: &mut Chance, size: Size, topic: &TopicPlan, group: &Arc<str>) -> ConsumerPlan {
    ConsumerPlan {
        machine: chance.between(1..=size.machines.into()) as u8,
        group: group.clone(),
        topic: topic.name.clone(),
        assigned: false,
        poll_max: *chance.pick(&[1, 8, 64]),
        work_ms_max: *chance.pick(&[0, 20, 200]),
        commits: match chance.one_in(2) {
            true => Commits::Auto(chance.between(200..=3_000)),
            false => Commits::Each(chance.between(1..=6)),
        },
        polls: match chance.one_in(2) {
            true => chance.between(20..=200),
            false => 0,
        },
        leaves: chance.one_in(2),
        name_servers: chance.one_in(2),
    }
}
