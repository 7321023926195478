//! The operator: makes topics, replaces replicas, asks what queues hold, and reads everything at the end.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use host::Host;
use prost::Message;
use raftmq_client::{
    Admin, BrokerAddress, Client, Delivery, Error, GroupSettings, Producer, TopicDescription,
    TopicQueue, TopicSettings,
};

use crate::body;
use crate::broker_group::BrokerGroup;
use crate::history::{Event, History, Member, Outcome, Place, Queue};
use crate::machine::{CLIENT_PORT, Machine, PEER_PORT};
use crate::onlooker;
use crate::workload::{Clients, PATIENCE, Plan, connect, failure, place, question};
use crate::world::World;

/// The group under whose name the operator reads.
pub const READER: &str = "final-reader";

/// What the topic of a dead-letter queue begins with; its group follows.
pub const DEAD_LETTERS: &str = "%DLQ%";

/// What the topics begin with that exist for a while only: whether they are gone by the end nobody knows.
pub const BRIEF: &str = "brief-";

/// Pause between two questions what all queues hold.
const ASKS_EVERY: Duration = Duration::from_secs(1);

/// Longest wait for the membership to be changed.
const MEMBERSHIP: Duration = Duration::from_secs(30);

/// Pause before a learner is offered again.
const AGAIN: Duration = Duration::from_secs(1);

/// Attribute of a topic: the number of its first queue in a broker group.
const FIRST_QUEUE: &str = "queues.first";

/// Longest wait of one call.
const CALL: Duration = Duration::from_secs(10);

/// An operator with a client of its own.
pub struct Operator {
    client: Client,
    history: Arc<History>,
    /// The broker group that its calls are for, unless they say otherwise.
    group: BrokerGroup,
    /// How many there are.
    groups: u8,
}

impl Operator {
    /// Connects: to the brokers where there is one group of them that stays, for a broker knows no queues but those of its own
    /// group. None if clients were told to stop before anybody answered.
    pub async fn connect(clients: &Clients, host: &Host) -> Option<Operator> {
        let id = format!("operator-{}", clients.history.next_number());
        let groups = clients.world.group_count();
        let name_servers = groups > 1 || clients.plan.outlives_brokers();
        let client = connect(clients, host, id, name_servers, PATIENCE).await?;
        Some(Operator {
            client,
            history: clients.history.clone(),
            group: BrokerGroup::FIRST,
            groups,
        })
    }

    /// The same, for another broker group.
    pub fn of_group(&self, group: BrokerGroup) -> Operator {
        Operator {
            client: self.client.clone(),
            history: self.history.clone(),
            group,
            groups: self.groups,
        }
    }

    /// Its administration calls, in its broker group.
    pub fn admin(&self) -> Admin {
        self.admin_of(self.group)
    }

    /// The same, in another one. Who has one group only need not name it.
    fn admin_of(&self, group: BrokerGroup) -> Admin {
        let admin = self.client.admin().timeout(CALL);
        match self.groups {
            1 => admin,
            _ => admin.broker_group(group.name()),
        }
    }

    fn groups(&self) -> impl Iterator<Item = BrokerGroup> + use<> {
        BrokerGroup::all(self.groups)
    }

    /// A producer.
    pub fn producer(&self) -> Producer {
        self.client.producer().build().expect("no bound is 0")
    }

    /// A producer that tries each message for so long.
    pub fn producer_for(&self, patience: Duration) -> Producer {
        let producer = self.client.producer().send_timeout(patience);
        producer.build().expect("no bound is 0")
    }

    /// Makes the topics of a plan, however long it takes.
    pub async fn make_topics(&self, plan: &Plan) {
        for topic in &plan.topics {
            for (group, queues) in topic.shares() {
                let first = queues.start;
                let attribute = (FIRST_QUEUE.to_owned(), first.to_string());
                let settings = TopicSettings {
                    queue_count: queues.end,
                    attributes: (first > 0).then_some(attribute).into_iter().collect(),
                    if_absent: true,
                    ..TopicSettings::default()
                };
                let admin = self.admin_of(group);
                while let Err(error) = admin.create_topic(&topic.name, &settings).await {
                    tracing::debug!(%error, "no topic yet");
                }
            }
        }
    }

    /// Makes the groups whose messages are tried so many times, however long it takes.
    pub async fn make_groups(&self, plan: &Plan) {
        for retrier in &plan.retriers {
            let settings = GroupSettings {
                max_attempts: retrier.attempts_max,
                if_absent: true,
                ..GroupSettings::default()
            };
            self.make_group(&retrier.group, &settings, false).await;
        }
        for consumer in plan.push_groups() {
            let backoff = format!("{}ms", consumer.delay_ms_max);
            let settings = GroupSettings {
                max_attempts: consumer.attempts_max,
                attributes: [("retry.backoff".to_owned(), backoff)].into(),
                if_absent: true,
                ..GroupSettings::default()
            };
            let in_order = consumer.in_order;
            self.make_group(&consumer.group, &settings, in_order).await;
        }
        let alone = plan
            .push_consumers
            .iter()
            .filter(|consumer| consumer.alone.is_some());
        for consumer in alone {
            // The servers need not know it.
            self.record(Event::GroupMade {
                group: consumer.progress_of(),
                attempts_max: consumer.attempts_max,
                in_order: consumer.in_order,
                alone: true,
            });
        }
    }

    async fn make_group(&self, group: &Arc<str>, settings: &GroupSettings, in_order: bool) {
        for broker_group in self.groups() {
            let admin = self.admin_of(broker_group);
            while let Err(error) = admin.create_group(group, settings).await {
                tracing::debug!(%error, "no group yet");
            }
        }
        self.record(Event::GroupMade {
            group: group.clone(),
            attempts_max: settings.max_attempts,
            in_order,
            alone: false,
        });
    }

    /// Has a new broker with an empty disk learn, and puts it in the place of a voter. That one may be
    /// gone for ever then. False if it votes no more, or the new one's id is taken.
    pub async fn replace(&self, world: &Arc<World>, id: u8, by: u8) -> Result<bool, String> {
        let group = world.group_of(id);
        let members = world.members(group);
        if !members.contains(&id) || world.broker(by).is_some() {
            return Ok(false);
        }
        let trace = &world.trace;
        trace.tell(format_args!("operator replaces broker-{id} by broker-{by}"));
        self.have_learn(world, by, &members).await;
        let mut voters = members;
        voters.retain(|voter| *voter != id);
        voters.push(by);
        self.have_vote(world, group, &voters).await.map(|()| true)
    }

    /// Puts a new broker with an empty disk beside the voters, however long it takes.
    pub async fn add_replica(&self, world: &Arc<World>, group: BrokerGroup, by: u8) {
        self.have_learn(world, by, &world.members(group)).await;
        loop {
            let mut voters = world.members(group);
            voters.retain(|voter| *voter != by);
            voters.push(by);
            let Err(error) = self.have_vote(world, group, &voters).await else {
                return;
            };
            let trace = &world.trace;
            trace.tell(format_args!("broker-{by} does not vote yet: {error}"));
            tokio::time::sleep(AGAIN).await;
        }
    }

    /// Starts a new broker, which is configured with itself and these, and has it learn.
    async fn have_learn(&self, world: &Arc<World>, by: u8, members: &[u8]) {
        let group = world.group_of(by);
        world.add_broker(by, &[members, &[by]].concat());
        let machine = Machine::Broker(by);
        let address = BrokerAddress {
            group: group.name().to_owned(),
            broker_id: by.into(),
            client_address: machine.address(CLIENT_PORT),
            peer_address: machine.address(PEER_PORT),
        };
        let admin = self.admin_of(group).timeout(MEMBERSHIP);
        // It takes a moment to start, and may be cut off.
        while let Err(error) = admin.add_learner(&address).await {
            let trace = &world.trace;
            trace.tell(format_args!("broker-{by} does not learn yet: {error}"));
            tokio::time::sleep(AGAIN).await;
        }
    }

    /// The guide's last step, too: their configurations name them.
    async fn have_vote(&self, world: &World, group: BrokerGroup, ids: &[u8]) -> Result<(), String> {
        let voters: Vec<u64> = ids.iter().copied().map(u64::from).collect();
        let admin = self.admin_of(group).timeout(MEMBERSHIP);
        let changing = admin.change_voters(&voters).await;
        changing.map_err(|error| error.to_string())?;
        world.write_members(group, &voters);
        Ok(())
    }

    /// Replaces the members whose disks were wiped or rolled back, however long it takes: nothing else brings them back.
    pub async fn replace_wiped(&self, world: &Arc<World>) {
        for group in world.groups() {
            self.replace_wiped_of(world, group).await;
        }
    }

    async fn replace_wiped_of(&self, world: &Arc<World>, group: BrokerGroup) {
        let mut by = group.first_spare();
        loop {
            let members = world.members(group);
            let Some(id) = members.into_iter().find(|id| world.must_be_replaced(*id)) else {
                return;
            };
            if let Err(error) = self.replace(world, id, by).await {
                world
                    .trace
                    .tell(format_args!("broker-{id} is not replaced: {error}"));
            }
            by += 1;
        }
    }

    /// Sets a group's offset.
    pub async fn reset_offset(&self, group: &Arc<str>, place: Place) -> Outcome<()> {
        let call = self.history.next_number();
        let queue = TopicQueue::new(place.queue.topic.clone(), place.queue.queue);
        let offset = place.offset;
        self.record(Event::Reset {
            call,
            group: group.clone(),
            place,
        });
        let broker_group = BrokerGroup::of_queue(queue.queue, self.groups);
        let admin = self.admin_of(broker_group);
        let outcome = match admin.reset_offset(group, &queue, offset).await {
            Ok(()) => Outcome::Done(()),
            Err(error) => failure(&error),
        };
        self.record(Event::WasReset {
            call,
            outcome: outcome.clone(),
        });
        outcome
    }

    /// Asks every question that servers answer and that nothing else here asks. The answers are not judged:
    /// that they come, and that nobody stumbles, is.
    pub async fn ask_everything(&self, world: &World) -> Result<(), Error> {
        let admin = self.admin();
        for group in admin.list_groups().await? {
            admin.members(&group.name).await?;
            admin.describe_group(&group.name).await?;
        }
        for broker in admin.brokers().await? {
            // Any of them may be down just now.
            let _ = admin.status(&broker.client_address).await;
        }
        for address in world.name_server_addresses() {
            onlooker::watch_table(&address).await;
        }
        for broker in world.all_brokers() {
            onlooker::greet(&broker.machine.address(CLIENT_PORT)).await;
        }
        Ok(())
    }

    /// What every queue of every topic holds now.
    pub async fn bounds(&self) -> Result<BTreeMap<Queue, (u64, u64)>, Error> {
        let mut bounds = BTreeMap::new();
        let call = self.history.next_number();
        self.record(Event::AskBounds { call });
        let admins = self.groups().map(|group| self.admin_of(group));
        let asked = admins.map(async |admin| admin.list_topics().await);
        let mut failure = None;
        for answer in join_all(asked).await {
            match answer {
                Ok(topics) => bounds.extend(self.told_bounds(call, topics)),
                Err(error) => failure = Some(error),
            }
        }
        // What one broker group says is true whether or not another one answers.
        if let Some(error) = failure {
            return Err(error);
        }
        self.record(Event::ToldBounds { call });
        Ok(bounds)
    }

    fn told_bounds(&self, call: u64, topics: Vec<TopicDescription>) -> BTreeMap<Queue, (u64, u64)> {
        let mut bounds = BTreeMap::new();
        let topics = topics.into_iter();
        for topic in topics.filter(|topic| !topic.name.starts_with(BRIEF)) {
            let name: Arc<str> = topic.name.into();
            for held in topic.queues {
                let queue = Queue {
                    topic: name.clone(),
                    queue: held.queue,
                };
                self.record(Event::Bounds {
                    call,
                    queue: queue.clone(),
                    min_offset: held.min_offset,
                    max_offset: held.max_offset,
                });
                bounds.insert(queue, (held.min_offset, held.max_offset));
            }
        }
        bounds
    }

    /// Asks for the bounds again and again, whatever comes of it: so the history says what had been dropped when.
    pub async fn ask_bounds(self) {
        loop {
            tokio::time::sleep(ASKS_EVERY).await;
            if let Err(error) = self.bounds().await {
                tracing::debug!(%error, "bounds are not known");
            }
        }
    }

    /// Sends messages that nobody reads, one after the other; tells how many were stored.
    pub async fn send_to(&self, topic: &str, messages: u64) -> u64 {
        let producer = self.producer();
        let mut stored = 0;
        for number in 0..messages {
            let message = raftmq_client::Message::new(topic, number.to_be_bytes().to_vec());
            let message = message.expect("the topic has a valid name");
            match producer.send(message).await {
                Ok(_) => stored += 1,
                Err(error) => tracing::debug!(%error, "not sent"),
            }
        }
        stored
    }

    /// What a group has committed in a queue, as the servers say.
    pub async fn ask_committed(&self, group: &Arc<str>, queue: Queue) {
        let consumer = self.client.pull_consumer(&**group).manual_commit().build();
        let consumer = consumer.expect("the group has a valid name");
        question::ask_committed(&self.history, Machine::Operator, &consumer, group, &queue).await;
    }

    /// Reads every queue between its bounds. The error names what could not be read in time.
    pub async fn read_everything(
        &self,
        plan: &Plan,
        bounds: &BTreeMap<Queue, (u64, u64)>,
        patience: Duration,
    ) -> Result<(), String> {
        let consumer = self.client.pull_consumer(READER).manual_commit().build();
        let consumer = consumer.expect("the group has a valid name");
        let queues = bounds.iter().filter(|(_, (min, max))| min < max);
        let mut left: BTreeMap<Queue, u64> = queues
            .map(|(queue, (_, max))| (queue.clone(), *max))
            .collect();
        let topic_queue = |queue: &Queue| TopicQueue::new(queue.topic.clone(), queue.queue);
        let assigning = consumer.assign(left.keys().map(topic_queue));
        assigning.await.map_err(|error| error.to_string())?;
        let member = Member {
            group: READER.into(),
            member: self.history.next_number(),
        };
        let deadline = tokio::time::Instant::now() + patience;
        let mut trouble = String::new();
        while !left.is_empty() {
            if tokio::time::Instant::now() > deadline {
                let missing: Vec<String> = left
                    .keys()
                    .map(|queue| {
                        format!(
                            "{}/{} from {:?} on",
                            queue.topic,
                            queue.queue,
                            consumer.position(&topic_queue(queue))
                        )
                    })
                    .collect();
                return Err(format!("{}; last trouble: {trouble}", missing.join(", ")));
            }
            let deliveries = match consumer.poll(256, Duration::from_secs(1)).await {
                Ok(deliveries) => deliveries,
                Err(error) => {
                    trouble = error.to_string();
                    tokio::time::sleep(Duration::from_millis(200)).await;
                    continue;
                }
            };
            if deliveries.is_empty() {
                self.forget_dropped(&mut left).await;
            }
            for delivery in deliveries {
                let queue = Queue {
                    topic: delivery.topic.clone(),
                    queue: delivery.queue,
                };
                if left
                    .get(&queue)
                    .is_some_and(|max| delivery.offset + 1 >= *max)
                {
                    left.remove(&queue);
                }
                self.was_read(plan, &member, &delivery);
            }
        }
        Ok(())
    }

    /// Retention goes on meanwhile: what the servers have dropped by now need not be read. Should nobody
    /// answer, everything must be.
    async fn forget_dropped(&self, left: &mut BTreeMap<Queue, u64>) {
        if let Ok(bounds) = self.bounds().await {
            left.retain(|queue, max| bounds.get(queue).is_none_or(|(min, _)| min < max));
        }
    }

    fn was_read(&self, plan: &Plan, member: &Member, delivery: &Delivery) {
        let value = body::decode(delivery.message.body(), plan.body_bytes_max);
        let place = place(delivery);
        self.record(match place.queue.topic.strip_prefix(DEAD_LETTERS) {
            Some(group) => Event::DeadLetter {
                group: group.into(),
                origin: origin(delivery),
                place,
                value,
            },
            None => Event::Delivery {
                member: member.clone(),
                place,
                value,
            },
        });
    }

    fn record(&self, event: Event) {
        self.history.record(Machine::Operator, event);
    }
}

/// The topic from which a dead letter says to have come.
fn origin(delivery: &Delivery) -> String {
    let message = proto::v2::Message::decode(delivery.message.encoded().clone());
    let properties = message.ok().and_then(|message| message.system_properties);
    let origin = properties.and_then(|properties| properties.dead_letter_queue);
    origin.map_or_else(String::new, |origin| origin.topic)
}
