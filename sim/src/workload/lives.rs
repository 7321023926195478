//! Members of groups that read topics which are made again, get more queues, or are restored from a copy, under them: some
//! subscribe to one, some to both. What each got is written down by value: places mean nothing for longer than their topic lives.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use host::Host;
use madsim::rand::Rng;
use raftmq_client::{Client, Consumption, Delivery, Filter, PullConsumer};

use super::{Clients, LifePlan, PATIENCE, Phase, connect};
use crate::body;
use crate::effect::Effect;
use crate::history::Event;
use crate::machine::Machine;

/// How long a poll waits for messages.
const POLL: Duration = Duration::from_millis(1_000);

/// Pause after something that failed.
const AGAIN: Duration = Duration::from_millis(300);

/// Messages of one poll, at most.
const POLL_MAX: usize = 16;

/// It ends after one poll of so many, and another one begins.
const ENDS_ONE_IN: u32 = 30;

/// A push consumer that shares messages fails one delivery of so many: too seldom for a message to die.
const FAILS_ONE_IN: u32 = 8;

/// Works until clients are told to stop.
pub(super) async fn run(clients: Arc<Clients>, machine: Machine, host: Host, plan: LifePlan) {
    while plan.waits
        && !clients.history.look(|records| {
            let mut events = records.iter().map(|record| &record.event);
            events.any(|event| matches!(event, Event::StartsNow { group } if *group == plan.group))
        })
    {
        if clients.phase() == Phase::Stop {
            return;
        }
        tokio::time::sleep(AGAIN).await;
    }
    while clients.phase() < Phase::Stop {
        let id = format!("life-{}", clients.history.next_number());
        let Some(client) = connect(&clients, &host, id, true, PATIENCE).await else {
            return;
        };
        let reader = Reader {
            clients: clients.clone(),
            machine,
            plan: plan.clone(),
        };
        match plan.alone || plan.push {
            true => reader.read_pushed(client).await,
            false => reader.read_as_member(client).await,
        }
        tokio::time::sleep(AGAIN).await;
    }
}

struct Reader {
    clients: Arc<Clients>,
    machine: Machine,
    plan: LifePlan,
}

impl Reader {
    async fn read_as_member(&self, client: Client) {
        let building = client
            .pull_consumer(&*self.plan.group)
            .heartbeat_interval(Duration::from_secs(1))
            .long_polling_timeout(Duration::from_secs(5))
            .auto_commit(Duration::from_millis(self.plan.commit_ms));
        let consumer = building.build().expect("no bound is 0");
        let mut missing = self.plan.topics.clone();
        while self.clients.phase() < Phase::Stop && !self.ends() {
            missing = subscribed(&consumer, missing).await;
            match consumer.poll(POLL_MAX, POLL).await {
                Ok(deliveries) => deliveries.iter().for_each(|delivery| self.got(delivery)),
                Err(error) => {
                    tracing::debug!(%error, "poll failed");
                    tokio::time::sleep(AGAIN).await;
                }
            }
        }
        if self.plan.leaves
            && let Err(error) = consumer.close().await
        {
            tracing::debug!(%error, "left without a commit");
        }
    }

    /// Gets every message, and keeps its own progress; or shares them.
    async fn read_pushed(&self, client: Client) {
        let mut builder = client
            .push_consumer(&*self.plan.group)
            .heartbeat_interval(Duration::from_secs(1))
            .long_polling_timeout(Duration::from_secs(5))
            .commit_interval(Duration::from_millis(self.plan.commit_ms));
        if self.plan.alone {
            let file = PathBuf::from(format!("/{}.progress", self.plan.group));
            builder = builder.consumption(Consumption::Broadcasting {
                progress_file: Some(file),
            });
        }
        for topic in &self.plan.topics {
            builder = builder.subscribe(&**topic, Filter::All);
        }
        let stream = match builder.stream().await {
            Ok(stream) => stream,
            Err(error) => return tracing::debug!(%error, "no consumer yet"),
        };
        while self.clients.phase() < Phase::Stop && !self.ends() {
            match tokio::time::timeout(POLL, stream.next()).await {
                Ok(Ok(Some(delivery))) if self.fails() => delivery.retry_later(),
                Ok(Ok(Some(delivery))) => {
                    self.got(&delivery);
                    delivery.ack();
                }
                Ok(Ok(None)) => return,
                Ok(Err(error)) => {
                    tracing::debug!(%error, "a queue cannot be read");
                    tokio::time::sleep(AGAIN).await;
                }
                Err(_) => {}
            }
        }
        if self.plan.leaves
            && let Err(error) = stream.close().await
        {
            tracing::debug!(%error, "left without a commit");
        }
    }

    /// What it fails it did not get.
    fn fails(&self) -> bool {
        self.plan.push
            && self.clients.phase() == Phase::Work
            && madsim::rand::thread_rng().gen_ratio(1, FAILS_ONE_IN)
    }

    fn ends(&self) -> bool {
        let pushed = self.plan.alone || self.plan.push;
        let one_in = ENDS_ONE_IN * if pushed { POLL_MAX as u32 } else { 1 };
        self.clients.phase() == Phase::Work && madsim::rand::thread_rng().gen_ratio(1, one_in)
    }

    fn got(&self, delivery: &Delivery) {
        let value = body::decode(delivery.message.body(), self.clients.plan.body_bytes_max);
        self.clients.world.trace.happened(Effect::LifeRead);
        let group = self.plan.group.clone();
        self.clients
            .history
            .record(self.machine, Event::Got { group, value });
    }
}

/// Subscribes to topics; returns those that are not there at the moment.
async fn subscribed(consumer: &PullConsumer, topics: Vec<Arc<str>>) -> Vec<Arc<str>> {
    let mut missing = Vec::new();
    for topic in topics {
        let subscribing = consumer.subscribe(&topic, Filter::All).await;
        let subscriptions = consumer.subscriptions().await;
        if subscribing.is_err() && !subscriptions.iter().any(|known| **known == *topic) {
            missing.push(topic);
        }
    }
    missing
}
