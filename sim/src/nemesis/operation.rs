//! What operators do in the middle of it all.

use std::time::Duration;

use raftmq_client::{GroupSettings, TopicSettings};

use super::{Nemesis, sleep};
use crate::chance::Chance;
use crate::history::{Outcome, Place, Queue};
use crate::machine::{CLIENT_PORT, Machine, PEER_PORT};
use crate::operator::BRIEF;
use crate::schedule::Fault;

/// Messages that are sent to a topic that will be deleted.
const BRIEF_MESSAGES: u64 = 40;

impl Nemesis {
    pub(super) async fn operate(&self, operation: Fault) {
        let kind = operation.kind();
        let done = match operation {
            Fault::TransferLeader { to } => match self.find(to) {
                Some(Machine::Broker(id)) => {
                    self.tell(format_args!("operator asks to hand over to broker-{id}"));
                    text(self.operator.admin().transfer_leader(id.into()).await)
                }
                _ => return,
            },
            Fault::Replace { who, by } => match self.find(who) {
                Some(Machine::Broker(id)) => match self.operator.replace(&self.world, id, by).await
                {
                    Ok(false) => return,
                    Ok(true) => self.say_where(by, id).await,
                    Err(error) => Err(error),
                },
                _ => return,
            },
            Fault::Checkpoint { who } => match self.find(who) {
                Some(machine) => {
                    let address = machine.address(CLIENT_PORT);
                    text(self.operator.admin().checkpoint(&address).await)
                }
                None => return,
            },
            Fault::DropLog { retain_bytes } => {
                text(self.operator.admin().drop_log(retain_bytes).await)
            }
            Fault::Scrub { who } => self.scrub(self.find(who)).await,
            Fault::ResetOffset { seed } => self.reset_offset(seed).await,
            Fault::BriefTopic { number, for_ms } => self.brief_topic(number, for_ms).await,
            Fault::BriefGroup { number, for_ms } => self.brief_group(number, for_ms).await,
            Fault::AskCommitted => {
                self.ask_committed().await;
                Ok(())
            }
            Fault::AskEverything => text(self.operator.ask_everything(&self.world).await),
            _ => return,
        };
        match done {
            Ok(()) => self.world.trace.struck(kind),
            Err(error) => self.tell(format_args!("{} failed: {error}", kind.name())),
        }
    }

    /// Says to brokers that one is where another one was: a wrong word, which must do no harm.
    async fn say_where(&self, broker: u8, at: u8) -> Result<(), String> {
        let address = Machine::Broker(at).address(PEER_PORT);
        self.tell(format_args!(
            "operator says that broker-{broker} is at broker-{at}'s"
        ));
        let admin = self.operator.admin();
        // Whoever does not answer, or is that one itself, takes it not.
        for (listener, taken) in admin.set_address(broker.into(), &address).await {
            tracing::debug!(listener, ?taken, "was told where a broker is");
        }
        Ok(())
    }

    async fn scrub(&self, machine: Option<Machine>) -> Result<(), String> {
        let Some(Machine::Broker(id)) = machine else {
            return Ok(());
        };
        let Some(live) = self.world.broker(id).and_then(|broker| broker.live()) else {
            return Ok(());
        };
        let repaired = live
            .group
            .scrub()
            .await
            .map_err(|error| error.to_string())?;
        self.tell(format_args!(
            "broker-{id} scrubbed, {repaired} segments repaired"
        ));
        Ok(())
    }

    async fn reset_offset(&self, seed: u64) -> Result<(), String> {
        let mut chance = Chance::new(seed, "reset");
        let plan = &self.clients.plan;
        let topic = chance.pick(&plan.topics).clone();
        let groups = plan.groups(&topic.name);
        let queue = Queue {
            topic: topic.name.clone(),
            queue: *chance.pick(&topic.numbers()),
        };
        let place = Place {
            queue,
            offset: chance.below(50),
        };
        let group = chance.pick(&groups).clone();
        self.tell(format_args!("operator resets {group} to {place:?}"));
        match self.operator.reset_offset(&group, place).await {
            Outcome::Done(()) => Ok(()),
            Outcome::NotDone(why) | Outcome::Unknown(why) => Err(why),
        }
    }

    async fn brief_topic(&self, number: u64, for_ms: u64) -> Result<(), String> {
        let name = format!("{BRIEF}{number}");
        let settings = TopicSettings {
            if_absent: true,
            ..TopicSettings::default()
        };
        self.tell(format_args!("operator makes {name} for {for_ms} ms"));
        text(self.operator.admin().create_topic(&name, &settings).await)?;
        let sending = self.operator.send_to(&name, BRIEF_MESSAGES);
        // Whatever becomes of them: they are gone with their topic.
        let sent = tokio::time::timeout(Duration::from_millis(for_ms), sending).await;
        match sent {
            Ok(stored) => self.tell(format_args!("{name} got {stored} messages")),
            Err(_) => self.tell(format_args!("{name}: not all sends were answered in time")),
        }
        sleep(for_ms).await;
        let more = TopicSettings {
            queue_count: settings.queue_count + 1,
            ..settings
        };
        text(self.operator.admin().alter_topic(&name, &more).await)?;
        text(self.operator.admin().delete_topic(&name).await)
    }

    async fn brief_group(&self, number: u64, for_ms: u64) -> Result<(), String> {
        let name = format!("brief-group-{number}");
        let settings = GroupSettings {
            if_absent: true,
            ..GroupSettings::default()
        };
        self.tell(format_args!("operator makes {name} for {for_ms} ms"));
        text(self.operator.admin().create_group(&name, &settings).await)?;
        sleep(for_ms).await;
        let other = GroupSettings {
            max_attempts: 3,
            ..settings
        };
        text(self.operator.admin().alter_group(&name, &other).await)?;
        text(self.operator.admin().delete_group(&name).await)
    }

    async fn ask_committed(&self) {
        for topic in &self.clients.plan.topics {
            let push_groups = self.clients.plan.push_groups();
            let push_groups = push_groups.filter(|consumer| consumer.topic == topic.name);
            let push_groups = push_groups.map(|consumer| consumer.group.clone());
            let groups = self.clients.plan.groups(&topic.name);
            for group in groups.into_iter().chain(push_groups) {
                for queue in topic.numbers() {
                    let topic = topic.name.clone();
                    let queue = Queue { topic, queue };
                    self.operator.ask_committed(&group, queue).await;
                }
            }
        }
    }
}

fn text<T>(result: Result<T, raftmq_client::Error>) -> Result<(), String> {
    result.map(|_| ()).map_err(|error| error.to_string())
}
