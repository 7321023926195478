//! A push consumer: is given messages, works on several at once, fails some, finishes the others; ends now and
//! then, in order or not, and begins anew. It shares the messages of its group (clustering), or gets them all
//! (broadcasting) and keeps its own progress on its machine's disk, which outlives it.
//!
//! What it says of a message goes to the SDK, which sees to the rest: progress, retries, dead letters.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use futures::future::{join, join_all};
use host::Host;
use madsim::rand::Rng;
use proto::v2::Code;
use raftmq_client::{
    Client, Consumption, Filter, PushConsumerBuilder, PushDelivery, PushStream, TopicQueue,
};

use super::{
    Clients, LITTLE_PATIENCE, PATIENCE, Phase, PushPlan, TopicPlan, connect, place, question,
    redelivery_call,
};
use crate::body;
use crate::effect::Effect;
use crate::history::{Event, Member, Queue};
use crate::machine::Machine;

/// How long it waits for a message before it looks whether it should go on.
const TURN: Duration = Duration::from_millis(500);

/// Pause after something that failed.
const AGAIN: Duration = Duration::from_millis(300);

/// Pause between two questions how far its group has come.
const ASKS_EVERY: Duration = Duration::from_millis(1_500);

/// The same once everything is to be read.
const ASKS_OFTEN: Duration = Duration::from_millis(500);

/// It forgets one of so many messages that it fails, instead of saying so.
const FORGETS_ONE_IN: u32 = 4;

/// Works until clients are told to stop.
pub(super) async fn run(clients: Arc<Clients>, machine: Machine, host: Host, plan: PushPlan) {
    while clients.phase() < Phase::Stop {
        let number = clients.history.next_number();
        let id = format!("push-{number}");
        let patience = match plan.leaves {
            true => PATIENCE,
            false => LITTLE_PATIENCE,
        };
        let connecting = connect(&clients, &host, id.clone(), true, patience);
        let Some(client) = connecting.await else {
            return;
        };
        let member = Member {
            group: plan.progress_of(),
            member: number,
        };
        let file = progress_file(&plan);
        if file.as_ref().is_some_and(|file| host.disk.exists(file)) {
            clients.world.trace.happened(Effect::GoesOnAlone);
        }
        // Where it begins is found out from here on.
        let join = Event::Join {
            member: member.clone(),
            topic: plan.topic.clone(),
            assigned: false,
        };
        clients.history.record(machine, join);
        match describe(&client, &plan, file).stream().await {
            Ok(stream) => {
                let consumer = Consumer {
                    stream,
                    client,
                    id,
                    member: member.clone(),
                    taken: AtomicU64::new(0),
                    over: AtomicBool::new(false),
                    clients: clients.clone(),
                    machine,
                    plan: plan.clone(),
                };
                consumer.run().await;
            }
            Err(error) => {
                tracing::debug!(%error, "no push consumer yet");
                tokio::time::sleep(AGAIN).await;
            }
        }
        clients.history.record(machine, Event::Leave { member });
    }
}

/// Where it keeps its progress, if its group does not.
fn progress_file(plan: &PushPlan) -> Option<PathBuf> {
    let number = plan.alone?;
    Some(format!("/{}-{number}.progress", plan.group).into())
}

fn describe(client: &Client, plan: &PushPlan, file: Option<PathBuf>) -> PushConsumerBuilder {
    let builder = client
        .push_consumer(&*plan.group)
        .subscribe(&*plan.topic, Filter::All)
        .concurrency(plan.concurrency)
        .commit_interval(Duration::from_millis(plan.commit_ms))
        .retry_pause(Duration::from_millis(plan.delay_ms_max))
        .heartbeat_interval(Duration::from_secs(1))
        .leave_timeout(Duration::from_secs(2))
        .long_polling_timeout(Duration::from_secs(5));
    let builder = match plan.in_order {
        true => builder.in_order(),
        false => builder,
    };
    match file {
        None => builder,
        progress_file => builder
            .consumption(Consumption::Broadcasting { progress_file })
            .max_attempts(plan.attempts_max),
    }
}

struct Consumer {
    stream: PushStream,
    client: Client,
    id: String,
    member: Member,
    /// Deliveries that it was given.
    taken: AtomicU64,
    /// It ends.
    over: AtomicBool,
    clients: Arc<Clients>,
    machine: Machine,
    plan: PushPlan,
}

impl Consumer {
    async fn run(self) {
        let hands = join_all((0..self.plan.concurrency).map(|_| self.work()));
        join(hands, self.ask()).await;
        let in_order = self.plan.leaves || self.clients.phase() == Phase::Stop;
        self.happened(match in_order {
            true => Effect::ConsumerLeft,
            false => Effect::ConsumerAway,
        });
        if in_order {
            self.save(self.stream.close()).await;
        }
    }

    /// Also tells when it begins and that it is done, of one whose progress the servers do not know.
    async fn save(&self, saving: impl Future<Output = Result<(), raftmq_client::Error>>) {
        let call = self.clients.history.next_number();
        if self.plan.alone.is_some() {
            let member = self.member.clone();
            self.record(Event::Save { call, member });
        }
        match saving.await {
            Ok(()) if self.plan.alone.is_some() => self.record(Event::Saved { call }),
            Ok(()) => {}
            Err(error) => tracing::debug!(%error, "progress is not saved"),
        }
    }

    /// All its parts end together, whatever clients are told to do next.
    fn goes_on(&self) -> bool {
        let had_enough =
            self.plan.deliveries > 0 && self.taken.load(Ordering::Relaxed) >= self.plan.deliveries;
        let ends = match self.clients.phase() {
            Phase::Work => had_enough,
            Phase::Drain => false,
            Phase::Stop => true,
        };
        self.over.fetch_or(ends, Ordering::Relaxed);
        !self.over.load(Ordering::Relaxed)
    }

    /// One message after the other; several hands do this at once.
    async fn work(&self) {
        while self.goes_on() {
            match tokio::time::timeout(TURN, self.stream.next()).await {
                Ok(Ok(Some(delivery))) => self.work_on(delivery).await,
                Ok(Ok(None)) => return,
                Ok(Err(error)) => {
                    tracing::debug!(%error, "a queue cannot be read");
                    tokio::time::sleep(AGAIN).await;
                }
                Err(_) => {}
            }
        }
    }

    async fn work_on(&self, delivery: PushDelivery) {
        self.taken.fetch_add(1, Ordering::Relaxed);
        let member = self.member.clone();
        let (place, attempt) = (place(&delivery), delivery.attempt);
        self.record(Event::Handed {
            member: member.clone(),
            place: place.clone(),
            attempt,
            value: body::decode(delivery.message.body(), self.clients.plan.body_bytes_max),
        });
        self.pause().await;
        if !self.draws(self.plan.fails_one_in) {
            self.record(Event::Finished {
                member,
                place,
                attempt,
            });
            return delivery.ack();
        }
        let dead = self.draws(self.plan.dead_one_in);
        self.record(Event::Failed {
            member,
            place,
            attempt,
            dead,
        });
        self.happened(match self.plan.is_last(attempt, dead) {
            true => Effect::PushGivenUp,
            false => Effect::PushFailed,
        });
        self.fail(delivery, dead);
    }

    fn fail(&self, delivery: PushDelivery, dead: bool) {
        if dead {
            return delivery.dead_letter();
        }
        if madsim::rand::thread_rng().gen_ratio(1, FORGETS_ONE_IN) {
            return drop(delivery);
        }
        match madsim::rand::thread_rng().gen_range(0..=self.plan.delay_ms_max) {
            0 => delivery.retry_later(),
            delay => delivery.retry_after(Duration::from_millis(delay)),
        }
    }

    /// Never at the end, when everything is to be finished.
    fn draws(&self, one_in: u64) -> bool {
        self.clients.phase() == Phase::Work && madsim::rand::thread_rng().gen_range(0..one_in) == 0
    }

    async fn pause(&self) {
        let longest = self.plan.work_ms_max;
        if longest > 0 && self.clients.phase() == Phase::Work {
            let pause = madsim::rand::thread_rng().gen_range(0..=longest);
            tokio::time::sleep(Duration::from_millis(pause)).await;
        }
    }

    /// Asks how far its group has come, and in the end whether anything is left.
    async fn ask(&self) {
        if self.plan.alone.is_some() {
            return self.save_often().await;
        }
        let asker = self.client.pull_consumer(&*self.plan.group);
        let asker = asker.manual_commit().build().expect("no bound is 0");
        let topics = self.clients.plan.topics.iter();
        let topic = topics.filter(|topic| topic.name == self.plan.topic);
        let numbers: Vec<u32> = topic.flat_map(TopicPlan::numbers).collect();
        let count = numbers.len() as u32;
        let mut held = self.stream.assignment();
        while self.goes_on() {
            self.look_what_is_held(&mut held);
            let is_end = self.clients.phase() != Phase::Work;
            let one = madsim::rand::thread_rng().gen_range(0..count.max(1));
            let asked = (0..).zip(&numbers);
            for (_, number) in asked.filter(|(place, _)| is_end || *place == one) {
                let queue = Queue {
                    topic: self.plan.topic.clone(),
                    queue: *number,
                };
                let (history, group) = (&self.clients.history, &self.plan.group);
                question::ask_committed(history, self.machine, &asker, group, &queue).await;
                if is_end {
                    self.ask_retries(&queue).await;
                }
            }
            let pause = if is_end { ASKS_OFTEN } else { ASKS_EVERY };
            tokio::time::sleep(pause).await;
        }
    }

    /// The servers know nothing of its progress.
    async fn save_often(&self) {
        while self.goes_on() {
            tokio::time::sleep(ASKS_OFTEN).await;
            self.save(self.stream.commit()).await;
        }
    }

    fn look_what_is_held(&self, held: &mut Vec<TopicQueue>) {
        let now = self.stream.assignment();
        if *held != now {
            self.record(super::holds(&self.member, &now));
            *held = now;
        }
    }

    async fn ask_retries(&self, queue: &Queue) {
        let call = self.clients.history.next_number();
        self.record(Event::AskRetries {
            call,
            group: self.plan.group.clone(),
            queue: queue.clone(),
        });
        let request = redelivery_call::pull_request(&self.plan.group, queue);
        let at = (&*self.clients.world, queue.queue);
        let pulling = redelivery_call::call(at, &self.id, request, async |mut client, request| {
            client.pull_retries(request).await
        });
        if let Some(answer) = pulling.await
            && answer.code == Code::Ok as i32
            && answer.retries.is_empty()
            && answer.next_due_ms == 0
        {
            self.record(Event::NoRetries { call });
        }
    }

    fn happened(&self, effect: Effect) {
        self.clients.world.trace.happened(effect);
    }

    fn record(&self, event: Event) {
        self.clients.history.record(self.machine, event);
    }
}
