//! Who sends to a topic whose broker group is lost and goes on from a copy: and writes down which groups must get what.
//!
//! Senders live all the time, as consumers do. A message is owed to each group from its acknowledgement on. What became of one
//! whose call the loss came across nobody knows: it was acknowledged by those who were lost, or by those who came after them.

use std::sync::Arc;
use std::time::Duration;

use futures::future::{join, join_all};
use madsim::rand::Rng;
use raftmq_client::{Admin, GroupSettings, Message, Producer, TopicSettings};

use super::plan::{LIFE_ALL, LIFE_EACH, LIFE_LAST, LIFE_PUSH, LIFE_STAYS};
use super::{Clients, Phase};
use crate::body;
use crate::history::{Event, Value};
use crate::machine::Machine;
use crate::operator::Operator;

/// Pause after something that failed.
const AGAIN: Duration = Duration::from_millis(300);

/// Messages that one sender has under way at a time, at most.
const AT_ONCE_MAX: u64 = 8;

/// Pause between two sends, at most, in milliseconds.
const PAUSE_MS_MAX: u64 = 400;

/// How long a sender tries, so that one that nobody answers does not end the world late.
const SENDS_FOR: Duration = Duration::from_secs(5);

/// Everybody who must get everything. The last one begins when all is stored.
const GROUPS: [&str; 4] = [LIFE_ALL, LIFE_PUSH, LIFE_EACH, LIFE_LAST];

/// See the module's text.
pub struct ThroughRestore {
    clients: Arc<Clients>,
    admin: Admin,
    producers: [Producer; 2],
}

impl ThroughRestore {
    /// Of a topic that does not exist yet.
    pub fn new(clients: &Arc<Clients>, operator: &Operator) -> ThroughRestore {
        let producer = || operator.producer_for(SENDS_FOR);
        ThroughRestore {
            clients: clients.clone(),
            admin: operator.admin(),
            producers: [producer(), producer()],
        }
    }

    /// Makes the topic and its groups, however long it takes: any copy has them.
    pub async fn prepare(&self) {
        let topic = TopicSettings {
            queue_count: draw(1..5) as u32,
            if_absent: true,
            ..TopicSettings::default()
        };
        while let Err(error) = self.admin.create_topic(LIFE_STAYS, &topic).await {
            tracing::debug!(%error, "no topic yet");
            tokio::time::sleep(AGAIN).await;
        }
        let group = GroupSettings {
            attributes: [("retry.backoff".to_owned(), "200ms".to_owned())].into(),
            if_absent: true,
            ..GroupSettings::default()
        };
        for name in GROUPS {
            while let Err(error) = self.admin.create_group(name, &group).await {
                tracing::debug!(%error, "no group yet");
                tokio::time::sleep(AGAIN).await;
            }
        }
    }

    /// Until clients are told to produce no more. What is owed then stays so, and the last group begins.
    pub async fn run(self) {
        for group in &GROUPS[..GROUPS.len() - 1] {
            let group = (*group).into();
            self.record(Event::StartsNow { group });
        }
        let [one, other] = &self.producers;
        join(self.send_all(one), self.send_all(other)).await;
        let group = LIFE_LAST.into();
        self.record(Event::StartsNow { group });
        self.record(Event::AllOwed);
    }

    async fn send_all(&self, producer: &Producer) {
        let lane = self.clients.history.next_number();
        let mut sent = 0;
        // One round more: something must be stored after the loss, however late it was.
        let mut goes_on = true;
        while goes_on {
            goes_on = self.clients.phase() == Phase::Work;
            let count = draw(1..AT_ONCE_MAX + 1);
            let values = (sent + 1..=sent + count).map(|number| (lane << 32) | number);
            sent += count;
            join_all(values.map(|value| self.send(producer, value))).await;
            tokio::time::sleep(Duration::from_millis(draw(0..PAUSE_MS_MAX))).await;
        }
    }

    async fn send(&self, producer: &Producer, value: Value) {
        let body = body::encode(value, self.clients.plan.body_bytes_max);
        let message = Message::new(LIFE_STAYS, body).expect("keeps the rules");
        let histories = self.clients.world.histories();
        match producer.send(message).await {
            Ok(_) if self.clients.world.histories() == histories => self.owe(value),
            Ok(_) => tracing::debug!(value, "stored by those who were lost, or by others"),
            Err(error) => tracing::debug!(%error, "not sent"),
        }
    }

    fn owe(&self, value: Value) {
        self.record(Event::Owed {
            groups: GROUPS.map(Arc::from).into(),
            topic: LIFE_STAYS.into(),
            value,
        });
    }

    fn record(&self, event: Event) {
        self.clients.history.record(Machine::Operator, event);
    }
}

fn draw(range: std::ops::Range<u64>) -> u64 {
    madsim::rand::thread_rng().gen_range(range)
}
