//! A consumer: polls, works, commits; ends now and then, in order or not, and begins anew.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use host::Host;
use madsim::rand::Rng;
use raftmq_client::{Client, Delivery, Filter, PullConsumer, TopicQueue};

use super::{
    Clients, Commits, ConsumerPlan, LITTLE_PATIENCE, PATIENCE, Phase, connect, failure, place,
    question,
};
use crate::body;
use crate::effect::Effect;
use crate::history::{Event, Member, Outcome, Place, Queue};
use crate::machine::Machine;

/// How long a poll waits for messages.
const POLL: Duration = Duration::from_millis(1_000);

/// Messages of one poll, at least, once everything is to be read.
const DRAIN_POLL: usize = 64;

/// Pause after a poll or a subscription that failed.
const AGAIN: Duration = Duration::from_millis(300);

/// Of so many commits one is followed by an older one.
const LATE_ONE_IN: u32 = 16;

/// Work that takes longer is slow, in milliseconds.
const SLOW_MS: u64 = 100;

/// A consumer asks for the committed offset after one poll of so many.
const ASKS_ONCE_IN: u32 = 8;

/// Works until clients are told to stop.
pub(super) async fn run(clients: Arc<Clients>, machine: Machine, host: Host, plan: ConsumerPlan) {
    while clients.phase() < Phase::Stop {
        let number = clients.history.next_number();
        let id = format!("consumer-{number}");
        let patience = match plan.leaves {
            true => PATIENCE,
            false => LITTLE_PATIENCE,
        };
        let connecting = connect(&clients, &host, id, plan.name_servers, patience);
        let Some(client) = connecting.await else {
            return;
        };
        let builder = client
            .pull_consumer(&*plan.group)
            .heartbeat_interval(Duration::from_secs(1))
            .long_polling_timeout(Duration::from_secs(5));
        let builder = match plan.commits {
            Commits::Auto(ms) => builder.auto_commit(Duration::from_millis(ms)),
            Commits::Each(_) => builder.manual_commit(),
        };
        let reader = Reader {
            client: client.clone(),
            consumer: builder.build().expect("no bound is 0"),
            member: Member {
                group: plan.group.clone(),
                member: number,
            },
            clients: clients.clone(),
            machine,
            plan: plan.clone(),
        };
        reader.run().await;
    }
}

struct Reader {
    client: Client,
    consumer: PullConsumer,
    member: Member,
    clients: Arc<Clients>,
    machine: Machine,
    plan: ConsumerPlan,
}

impl Reader {
    async fn run(self) {
        self.record(Event::Join {
            member: self.member.clone(),
            topic: self.plan.topic.clone(),
            assigned: self.plan.assigned,
        });
        self.read().await;
        let in_order = self.plan.leaves || self.clients.phase() == Phase::Stop;
        self.happened(match in_order {
            true => Effect::ConsumerLeft,
            false => Effect::ConsumerAway,
        });
        if in_order && let Err(error) = self.consumer.close().await {
            tracing::debug!(%error, "left without a commit");
        }
        self.record(Event::Leave {
            member: self.member.clone(),
        });
    }

    async fn read(&self) {
        while let Err(error) = self.take_queues().await {
            tracing::debug!(%error, "no queues yet");
            if self.clients.phase() == Phase::Stop {
                return;
            }
            tokio::time::sleep(AGAIN).await;
        }
        let mut polls = 0;
        // The next offset to commit, by queue.
        let mut done: BTreeMap<TopicQueue, u64> = BTreeMap::new();
        let mut held = self.consumer.assignment();
        while self.clients.phase() < Phase::Stop {
            match self.consumer.poll(self.poll_max(), POLL).await {
                Ok(deliveries) => {
                    for delivery in &deliveries {
                        self.delivered(delivery);
                        done.insert(delivery.topic_queue(), delivery.offset + 1);
                    }
                    if !deliveries.is_empty() {
                        polls += 1;
                        self.work().await;
                    }
                }
                Err(error) => {
                    tracing::debug!(%error, "poll failed");
                    tokio::time::sleep(AGAIN).await;
                }
            }
            self.look_what_is_held(&mut held);
            if let Commits::Each(every) = self.plan.commits
                && polls % every == 0
            {
                self.commit(&mut done).await;
            }
            if madsim::rand::thread_rng().gen_range(0..ASKS_ONCE_IN) == 0 {
                self.ask_committed().await;
            }
            if self.plan.polls > 0
                && polls >= self.plan.polls
                && self.clients.phase() == Phase::Work
            {
                return;
            }
        }
    }

    /// One message after the other, the rest of the queue would take longer than there is time for.
    fn poll_max(&self) -> usize {
        match self.clients.phase() {
            Phase::Work => self.plan.poll_max,
            _ => self.plan.poll_max.max(DRAIN_POLL),
        }
    }

    async fn take_queues(&self) -> Result<(), raftmq_client::Error> {
        if self.plan.assigned {
            let queues = self.all_queues().await?;
            return self.consumer.assign(queues).await;
        }
        let subscribing = self.consumer.subscribe(&self.plan.topic, Filter::All);
        match subscribing.await {
            Err(_) if !self.consumer.subscriptions().await.is_empty() => Ok(()),
            result => result,
        }
    }

    /// As soon as all are known.
    async fn all_queues(&self) -> Result<Vec<TopicQueue>, raftmq_client::Error> {
        loop {
            let queues = self.client.queues(&self.plan.topic).await?;
            let all = self.clients.plan.knows_all(&self.plan.topic, &queues);
            if all || self.clients.phase() == Phase::Stop {
                return Ok(queues);
            }
            tokio::time::sleep(AGAIN).await;
        }
    }

    async fn commit(&self, done: &mut BTreeMap<TopicQueue, u64>) {
        for (queue, offset) in std::mem::take(done) {
            // What another member reads now is its own to commit.
            if !self.consumer.assignment().contains(&queue) {
                continue;
            }
            self.commit_one(&queue, offset).await;
            // A worker that finished late says so late.
            if offset > 0 && madsim::rand::thread_rng().gen_ratio(1, LATE_ONE_IN) {
                let late = madsim::rand::thread_rng().gen_range(0..offset);
                self.commit_one(&queue, late).await;
            }
        }
    }

    async fn commit_one(&self, queue: &TopicQueue, offset: u64) {
        let call = self.clients.history.next_number();
        self.record(Event::Commit {
            call,
            member: self.member.clone(),
            place: Place {
                queue: Queue {
                    topic: queue.topic.clone(),
                    queue: queue.queue,
                },
                offset,
            },
        });
        let outcome = match self.consumer.commit_offset(queue, offset).await {
            Ok(()) => Outcome::Done(()),
            Err(error) => failure(&error),
        };
        if matches!(outcome, Outcome::Unknown(_)) {
            self.happened(Effect::CommitUnknown);
        }
        self.record(Event::Committed { call, outcome });
    }

    /// Written down when it has changed.
    fn look_what_is_held(&self, held: &mut Vec<TopicQueue>) {
        let now = self.consumer.assignment();
        if *held != now {
            self.record(super::holds(&self.member, &now));
            *held = now;
        }
    }

    /// What its group has committed in one of its queues, as the servers say.
    async fn ask_committed(&self) {
        let held = self.consumer.assignment();
        if held.is_empty() {
            return;
        }
        let queue = &held[madsim::rand::thread_rng().gen_range(0..held.len())];
        let queue = Queue {
            topic: queue.topic.clone(),
            queue: queue.queue,
        };
        let (history, group) = (&self.clients.history, &self.plan.group);
        question::ask_committed(history, self.machine, &self.consumer, group, &queue).await;
    }

    fn delivered(&self, delivery: &Delivery) {
        self.record(Event::Delivery {
            member: self.member.clone(),
            place: place(delivery),
            value: body::decode(delivery.message.body(), self.clients.plan.body_bytes_max),
        });
    }

    async fn work(&self) {
        let longest = self.plan.work_ms_max;
        // A slow consumer would take longer than the time in which everything must have been read.
        if longest > 0 && self.clients.phase() == Phase::Work {
            let pause = madsim::rand::thread_rng().gen_range(0..=longest);
            if pause > SLOW_MS {
                self.happened(Effect::ConsumerSlow);
            }
            tokio::time::sleep(Duration::from_millis(pause)).await;
        }
    }

    fn happened(&self, effect: Effect) {
        self.clients.world.trace.happened(effect);
    }

    fn record(&self, event: Event) {
        self.clients.history.record(self.machine, event);
    }
}
