//! A producer: sends unique messages one after the other, several under way at a time, or in batches.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use host::Host;
use madsim::rand::Rng;
use raftmq_client::{Client, Error, Message, Producer, SendReceipt, TopicQueue};
use tokio::sync::Semaphore;

use super::{Clients, PATIENCE, Phase, ProducerPlan, Targets, connect, failure};
use crate::body;
use crate::effect::Effect;
use crate::history::{Event, Outcome, Place, Queue, Target, Value};
use crate::machine::Machine;

/// A producer asks for the end of a queue after one message of so many.
const ASKS_ONCE_IN: u32 = 16;

/// A producer thinks so often, at most, between two batches.
const THINKS_AT_MOST: u64 = 6;

/// One message of so many is larger than brokers take: it must be refused, and not be stored.
const TOO_LARGE_ONE_IN: u64 = 97;

/// Its body; whoever reads it sees that nobody sent it.
static TOO_LARGE: [u8; 5 << 10] = [0; 5 << 10];

/// Whether a message is one that must be refused.
pub fn is_too_large(value: Value) -> bool {
    value.is_multiple_of(TOO_LARGE_ONE_IN)
}

/// Works until clients are told to produce no more.
pub(super) async fn run(clients: Arc<Clients>, machine: Machine, host: Host, plan: ProducerPlan) {
    let lane = clients.history.next_number();
    let id = format!("producer-{lane}");
    let Some(client) = connect(&clients, &host, id, plan.name_servers, PATIENCE).await else {
        return;
    };
    let building = client
        .producer()
        // A body that is too large must stay so.
        .compress_from_bytes(usize::MAX)
        .send_timeout(Duration::from_millis(plan.send_timeout_ms))
        .build();
    let sender = Sender {
        client: client.clone(),
        producer: building.expect("no bound is 0"),
        clients,
        machine,
        lane,
        plan,
        host,
        last_id: Mutex::default(),
    };
    sender.run().await;
}

struct Sender {
    client: Client,
    producer: Producer,
    clients: Arc<Clients>,
    machine: Machine,
    lane: u64,
    plan: ProducerPlan,
    host: Host,
    /// The second of the last official id, and how many there were in it.
    last_id: Mutex<(u64, u32)>,
}

impl Sender {
    async fn run(self) {
        match self.plan.batch {
            0 | 1 => self.run_one_by_one().await,
            batch => self.run_batches(batch).await,
        }
    }

    /// One batch after the other: only what nobody else of this producer waits with is sent in one piece.
    async fn run_batches(self, batch: u64) {
        let mut sequence = 0;
        while self.clients.phase() == Phase::Work {
            let first = (self.lane << 32) | (sequence + 1);
            let values: Vec<Value> = (first..first + batch).collect();
            sequence += batch;
            self.record(Event::Batch {
                values: values.clone(),
            });
            let messages = values.iter().map(|value| self.hand_over(*value)).collect();
            let under_way = self.clients.hand_over();
            let results = self.producer.send_batch(messages).await;
            self.clients.world.trace.happened(Effect::BatchSent);
            let mut stored = None;
            for (value, result) in values.into_iter().zip(results) {
                if let Outcome::Done(place) = returned(&self.clients, self.machine, value, result) {
                    stored = Some(place.queue);
                }
            }
            drop(under_way);
            if let Some(queue) = stored
                && happens_once_in(ASKS_ONCE_IN / batch as u32)
            {
                ask_end(&self.clients, self.machine, &self.client, queue).await;
            }
            // Hardly more messages a second than one by one.
            for _ in 0..batch.min(THINKS_AT_MOST) {
                self.think().await;
            }
        }
    }

    async fn run_one_by_one(self) {
        let places = Arc::new(Semaphore::new(self.plan.in_flight as usize));
        let mut sequence = 0;
        while self.clients.phase() == Phase::Work {
            let permit = places.clone().acquire_owned().await;
            let permit = permit.expect("nobody closes the semaphore");
            sequence += 1;
            let value = (self.lane << 32) | sequence;
            let message = self.hand_over(value);
            let under_way = self.clients.hand_over();
            let handed_over = self.producer.send_async(message).await;
            let (clients, machine) = (self.clients.clone(), self.machine);
            let client = self.client.clone();
            tokio::spawn(async move {
                let result = match handed_over {
                    Ok(handle) => handle.await,
                    Err(error) => Err(error),
                };
                let outcome = returned(&clients, machine, value, result);
                drop((permit, under_way));
                if let Outcome::Done(place) = outcome
                    && happens_once_in(ASKS_ONCE_IN)
                {
                    ask_end(&clients, machine, &client, place.queue).await;
                }
            });
            self.think().await;
        }
    }

    /// Writes down that a message is sent, and makes it.
    fn hand_over(&self, value: Value) -> Message {
        let (target, message) = self.message(value);
        self.record(Event::Send {
            value,
            topic: self.plan.topic.clone(),
            target,
            lane: self.lane,
        });
        message
    }

    fn message(&self, value: Value) -> (Target, Message) {
        let body = match is_too_large(value) {
            true => Bytes::from_static(&TOO_LARGE),
            false => body::encode(value, self.clients.plan.body_bytes_max),
        };
        let message = Message::builder(self.plan.topic.clone()).body(body);
        let (target, message) = match self.plan.targets {
            Targets::Any => (Target::Any, message),
            Targets::Queue(queue) => (Target::Queue(queue), message.queue(queue)),
            Targets::Groups(groups) => {
                // Of this producer alone: others may use the same name, and share its queue.
                let group = format!("g{}", value % groups);
                (Target::Group(group.clone()), message.message_group(group))
            }
        };
        let message = match self.plan.official_ids {
            Some(process) => message.message_id(self.official_id(process)),
            None => message,
        };
        (target, message.build().expect("keeps the rules"))
    }

    /// The hardware address and the number of the process, the second, and a count. That starts anew with each second here,
    /// so that processes which take themselves for the same one make the same ids all the time, not only now and then.
    fn official_id(&self, process: u8) -> String {
        let second = self.host.clock.now_ms() / 1_000;
        let mut last = self.last_id.lock().unwrap_or_else(PoisonError::into_inner);
        // A clock that goes back, on which official clients would make one id twice themselves.
        let second = second.max(last.0);
        let count = if second == last.0 { last.1 + 1 } else { 0 };
        *last = (second, count);
        format!("0102420000000{process:X}0001{second:08X}{count:08X}")
    }

    async fn think(&self) {
        let pause = madsim::rand::thread_rng().gen_range(0..=self.plan.think_ms_max);
        tokio::time::sleep(Duration::from_millis(pause)).await;
    }

    fn record(&self, event: Event) {
        self.clients.history.record(self.machine, event);
    }
}

fn happens_once_in(times: u32) -> bool {
    madsim::rand::thread_rng().gen_range(0..times.max(1)) == 0
}

/// Writes down what became of a send.
fn returned(
    clients: &Clients,
    machine: Machine,
    value: Value,
    result: Result<SendReceipt, Error>,
) -> Outcome<Place> {
    let outcome = outcome(result);
    let sent = Event::Sent {
        value,
        outcome: outcome.clone(),
    };
    clients.history.record(machine, sent);
    let trace = &clients.world.trace;
    match &outcome {
        Outcome::Done(_) => {}
        Outcome::NotDone(_) => trace.happened(Effect::SendRefused),
        Outcome::Unknown(_) => trace.happened(Effect::SendUnknown),
    }
    outcome
}

/// Where a queue ends, as the servers say.
async fn ask_end(clients: &Clients, machine: Machine, client: &Client, queue: Queue) {
    let call = clients.history.next_number();
    let asked = TopicQueue::new(queue.topic.clone(), queue.queue);
    clients
        .history
        .record(machine, Event::AskEnd { call, queue });
    // A question without an answer says nothing.
    if let Ok(offset) = client.max_offset(&asked).await {
        clients
            .history
            .record(machine, Event::ToldEnd { call, offset });
    }
}

fn outcome(result: Result<SendReceipt, Error>) -> Outcome<Place> {
    match result {
        Ok(receipt) => Outcome::Done(Place {
            queue: Queue {
                topic: receipt.topic,
                queue: receipt.queue,
            },
            offset: receipt.offset,
        }),
        Err(error) => failure(&error),
    }
}
