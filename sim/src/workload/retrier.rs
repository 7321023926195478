//! A consumer that fails some of what it gets: sends messages back, gets them again, and settles them.
//!
//! Speaks to brokers itself, to any of them. A call whose outcome it does not know is made again, as long as
//! it lives: nothing but that makes it pass a message over. Remembers nothing when it begins anew, and then
//! gets everything once more.

use std::sync::Arc;
use std::time::Duration;

use host::Host;
use madsim::rand::Rng;
use prost::Message;
use proto::redelivery::{
    Failed, PullRetriesRequest, RedeliveryClient, RedeliveryResponse, Retry, SendBackRequest,
    SettleRequest,
};
use proto::v2::Code;
use raftmq_client::{Client, Delivery, PullConsumer, TopicQueue};
use tonic::{Request, Response, Status};

use super::{Clients, PATIENCE, Phase, RetrierPlan, connect, place, redelivery_call};
use crate::body;
use crate::effect::Effect;
use crate::history::{Event, Member, Outcome, Place, Queue};
use crate::machine::Machine;

/// How long a poll for new messages waits.
const POLL: Duration = Duration::from_millis(200);

/// Messages of one poll, at least, once everything is to be read.
const DRAIN_POLL: usize = 512;

/// How long a poll for retries waits, at most.
const RETRY_WAIT_MS: u64 = 300;

/// Pause after a call that failed.
const AGAIN: Duration = Duration::from_millis(200);

/// Works until clients are told to stop.
pub(super) async fn run(clients: Arc<Clients>, machine: Machine, host: Host, plan: RetrierPlan) {
    let number = clients.history.next_number();
    let id = format!("retrier-{number}");
    let connecting = connect(&clients, &host, id.clone(), true, PATIENCE);
    let Some(client) = connecting.await else {
        return;
    };
    let consumer = client.pull_consumer(&*plan.group).manual_commit().build();
    let retrier = Retrier {
        client: client.clone(),
        consumer: consumer.expect("no bound is 0"),
        member: Member {
            group: plan.group.clone(),
            member: number,
        },
        id,
        clients,
        machine,
        plan,
    };
    retrier.run().await;
}

struct Retrier {
    client: Client,
    consumer: PullConsumer,
    member: Member,
    id: String,
    clients: Arc<Clients>,
    machine: Machine,
    plan: RetrierPlan,
}

impl Retrier {
    async fn run(self) {
        self.record(Event::Join {
            member: self.member.clone(),
            topic: self.plan.topic.clone(),
            assigned: true,
        });
        let queues = self.queues().await;
        while self.clients.phase() < Phase::Stop {
            match self.consumer.poll(self.poll_max(), POLL).await {
                Ok(deliveries) => self.first_time(&deliveries).await,
                Err(error) => {
                    tracing::debug!(%error, "poll failed");
                    tokio::time::sleep(AGAIN).await;
                }
            }
            for queue in &queues {
                self.again(queue).await;
            }
        }
        self.record(Event::Leave {
            member: self.member.clone(),
        });
    }

    /// It takes its time, of which there is not enough in the end.
    fn poll_max(&self) -> usize {
        match self.clients.phase() {
            Phase::Work => self.plan.poll_max,
            _ => self.plan.poll_max.max(DRAIN_POLL),
        }
    }

    async fn queues(&self) -> Vec<Queue> {
        while self.clients.phase() < Phase::Stop {
            let assigning = async {
                let queues = self.client.queues(&self.plan.topic).await?;
                self.consumer.assign(queues.clone()).await?;
                Ok::<_, raftmq_client::Error>(queues)
            };
            match assigning.await {
                Ok(queues) if self.clients.plan.knows_all(&self.plan.topic, &queues) => {
                    return queues.iter().map(queue).collect();
                }
                Ok(_) => tracing::debug!("not all queues yet"),
                Err(error) => tracing::debug!(%error, "no queues yet"),
            }
            tokio::time::sleep(AGAIN).await;
        }
        Vec::new()
    }

    /// Messages that its group gets the first time.
    async fn first_time(&self, deliveries: &[Delivery]) {
        // All of a poll is written down in one moment.
        for delivery in deliveries {
            self.record(Event::Delivery {
                member: self.member.clone(),
                place: place(delivery),
                value: body::decode(delivery.message.body(), self.clients.plan.body_bytes_max),
            });
        }
        for delivery in deliveries {
            if self.fails() {
                self.send_back(place(delivery), 1).await;
            }
        }
    }

    /// Messages of a queue that its group gets again.
    async fn again(&self, queue: &Queue) {
        for (place, attempt) in self.pull(queue).await {
            match self.fails() {
                true => self.send_back(place, attempt).await,
                false => self.settle(place, attempt).await,
            }
        }
    }

    async fn pull(&self, queue: &Queue) -> Vec<(Place, u32)> {
        let call = self.clients.history.next_number();
        self.record(Event::AskRetries {
            call,
            group: self.plan.group.clone(),
            queue: queue.clone(),
        });
        let request = PullRetriesRequest {
            messages_max: self.poll_max() as u32,
            wait_ms: madsim::rand::thread_rng().gen_range(0..=RETRY_WAIT_MS),
            ..redelivery_call::pull_request(&self.plan.group, queue)
        };
        let pulling = self.call(queue.queue, request, async |mut client, request| {
            client.pull_retries(request).await
        });
        let Some(answer) = pulling
            .await
            .filter(|answer| answer.code == Code::Ok as i32)
        else {
            return Vec::new();
        };
        if answer.retries.is_empty() && answer.next_due_ms == 0 {
            self.record(Event::NoRetries { call });
        }
        let retries = answer.retries.iter();
        retries
            .map(|retry| self.redelivered(call, queue, retry))
            .collect()
    }

    fn redelivered(&self, call: u64, queue: &Queue, retry: &Retry) -> (Place, u32) {
        let message = proto::v2::Message::decode(retry.message.clone()).unwrap_or_default();
        let properties = message.system_properties.unwrap_or_default();
        let place = Place {
            queue: queue.clone(),
            offset: properties.queue_offset.unwrap_or(i64::MAX) as u64,
        };
        // The two must agree; if they do not, the delivery is one that nobody failed before.
        let attempt = match properties.delivery_attempt == Some(retry.attempt as i32) {
            true => retry.attempt,
            false => u32::MAX,
        };
        self.record(Event::Redelivery {
            call,
            group: self.plan.group.clone(),
            place: place.clone(),
            attempt,
            value: body::decode(&message.body, self.clients.plan.body_bytes_max),
        });
        (place, attempt)
    }

    fn fails(&self) -> bool {
        let one_in = self.plan.fails_one_in;
        // At the end everything is to be settled.
        self.clients.phase() == Phase::Work && madsim::rand::thread_rng().gen_range(0..one_in) == 0
    }

    /// Until it is known that it was done.
    async fn send_back(&self, place: Place, attempt: u32) {
        let dead = madsim::rand::thread_rng().gen_range(0..self.plan.dead_one_in) == 0;
        if attempt >= self.plan.attempts_max {
            self.happened(Effect::AttemptsUsedUp);
        }
        let request = SendBackRequest {
            group: self.plan.group.to_string(),
            topic: place.queue.topic.to_string(),
            queue: place.queue.queue,
            failed: vec![failed(&place, attempt)],
            delay_ms: madsim::rand::thread_rng().gen_range(1..=self.plan.delay_ms_max),
            dead,
        };
        while self.clients.phase() < Phase::Stop {
            let call = self.clients.history.next_number();
            self.record(Event::SendBack {
                call,
                group: self.plan.group.clone(),
                place: place.clone(),
                attempt,
                dead,
                delay_ms: request.delay_ms,
            });
            let (number, request) = (request.queue, request.clone());
            let sending = self.call(number, request, async |mut client, request| {
                client.send_back(request).await
            });
            let (outcome, is_missing) = outcome(sending.await);
            if is_missing {
                self.happened(Effect::MessageMissing);
            }
            let done = matches!(outcome, Outcome::Done(())) || is_missing;
            self.record(Event::SentBack { call, outcome });
            if done {
                return;
            }
            self.happened(Effect::SendBackUnknown);
            tokio::time::sleep(AGAIN).await;
        }
    }

    /// Once: what is not settled comes again.
    async fn settle(&self, place: Place, attempt: u32) {
        let call = self.clients.history.next_number();
        self.record(Event::Settle {
            call,
            group: self.plan.group.clone(),
            place: place.clone(),
            attempt,
        });
        let request = SettleRequest {
            group: self.plan.group.to_string(),
            topic: place.queue.topic.to_string(),
            queue: place.queue.queue,
            settled: vec![failed(&place, attempt)],
        };
        let settling = self.call(request.queue, request, async |mut client, request| {
            client.settle(request).await
        });
        let (outcome, _) = outcome(settling.await);
        if matches!(outcome, Outcome::Unknown(_)) {
            self.happened(Effect::SettleUnknown);
        }
        self.record(Event::Settled { call, outcome });
    }

    /// Asks any broker that may have a queue; none if there was no answer.
    async fn call<Q, A>(
        &self,
        queue: u32,
        request: Q,
        call: impl AsyncFnOnce(RedeliveryClient, Request<Q>) -> Result<Response<A>, Status>,
    ) -> Option<A> {
        let at = (&*self.clients.world, queue);
        redelivery_call::call(at, &self.id, request, call).await
    }

    fn happened(&self, effect: Effect) {
        self.clients.world.trace.happened(effect);
    }

    fn record(&self, event: Event) {
        self.clients.history.record(self.machine, event);
    }
}

/// What became of a call, and whether its message is not kept any more.
fn outcome(answer: Option<RedeliveryResponse>) -> (Outcome<()>, bool) {
    let Some(answer) = answer else {
        return (Outcome::Unknown("no answer".to_owned()), false);
    };
    match Code::try_from(answer.code) {
        Ok(Code::Ok) => (Outcome::Done(()), false),
        Ok(Code::OffsetNotFound) => (Outcome::NotDone(answer.message), true),
        _ => (Outcome::Unknown(answer.message), false),
    }
}

fn failed(place: &Place, attempt: u32) -> Failed {
    let offset = place.offset;
    Failed { offset, attempt }
}

fn queue(queue: &TopicQueue) -> Queue {
    Queue {
        topic: queue.topic.clone(),
        queue: queue.queue,
    }
}
