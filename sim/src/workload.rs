//! Clients: producers and consumers as programs use them, through the shipped SDK.
//!
//! What they do is planned from the seed; what they get is written into the history. They judge nothing,
//! and a call that fails is tried no further than a program would.

mod client;
mod consumer;
mod lives;
mod machine;
mod plan;
mod producer;
mod push_consumer;
pub mod question;
mod rebirth;
mod redelivery_call;
mod retrier;
mod through_restore;

use std::sync::Arc;

use raftmq_client::{Delivery, Error, TopicQueue};
use tokio::sync::watch;

use crate::history::{Event, History, Member, Outcome, Place, Queue};
use crate::world::World;

pub use client::{LITTLE_PATIENCE, PATIENCE, connect};
pub use machine::run_client;
pub use plan::{
    Commits, ConsumerPlan, HASTY_MS, LifePlan, Lives, Plan, ProducerPlan, PushPlan, RetrierPlan,
    Share, Size, Targets, TopicPlan,
};
pub use producer::is_too_large;
pub use rebirth::Rebirth;
pub use through_restore::ThroughRestore;

/// What clients are to do at the moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// Produce and consume.
    Work,
    /// Consume what there is.
    Drain,
    /// Nothing any more.
    Stop,
}

/// What all clients of a world share.
pub struct Clients {
    /// Where they live.
    pub world: Arc<World>,
    /// Where they write down what they do and see.
    pub history: Arc<History>,
    /// What they are to do.
    pub plan: Plan,
    phase: watch::Sender<Phase>,
    /// Messages that were handed over and have not returned, of processes that live.
    under_way: watch::Sender<u64>,
}

/// One message that is under way, until this is dropped.
pub struct UnderWay {
    clients: Arc<Clients>,
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.clients.under_way.send_modify(|count| *count -= 1);
    }
}

impl Clients {
    /// Clients that are about to begin.
    pub fn new(world: Arc<World>, history: Arc<History>, plan: Plan) -> Clients {
        Clients {
            world,
            history,
            plan,
            phase: watch::Sender::new(Phase::Work),
            under_way: watch::Sender::default(),
        }
    }

    /// A message is handed over.
    pub fn hand_over(self: &Arc<Self>) -> UnderWay {
        self.under_way.send_modify(|count| *count += 1);
        UnderWay {
            clients: self.clone(),
        }
    }

    /// Returns when no message is under way.
    pub async fn all_returned(&self) {
        let mut under_way = self.under_way.subscribe();
        while *under_way.borrow_and_update() > 0 {
            under_way.changed().await.expect("the sender is in here");
        }
    }

    /// Tells all clients what to do from now on.
    pub fn enter(&self, phase: Phase) {
        self.phase.send_replace(phase);
    }

    /// What to do now.
    pub fn phase(&self) -> Phase {
        *self.phase.borrow()
    }

    /// Tells when that changes.
    pub fn phases(&self) -> watch::Receiver<Phase> {
        self.phase.subscribe()
    }
}

/// Where a message lies that a client got.
pub fn place(delivery: &Delivery) -> Place {
    let queue = Queue {
        topic: delivery.topic.clone(),
        queue: delivery.queue,
    };
    Place {
        queue,
        offset: delivery.offset,
    }
}

/// What a member says that it holds.
fn holds(member: &Member, held: &[TopicQueue]) -> Event {
    let queue = |held: &TopicQueue| Queue {
        topic: held.topic.clone(),
        queue: held.queue,
    };
    Event::Holds {
        member: member.clone(),
        queues: held.iter().map(queue).collect(),
    }
}

/// What the SDK's error says about the call.
pub fn failure<T>(error: &Error) -> Outcome<T> {
    match error.is_outcome_unknown() {
        true => Outcome::Unknown(error.to_string()),
        false => Outcome::NotDone(error.to_string()),
    }
}
