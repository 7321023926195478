//! A broker group is lost, and goes on from a copy of the disk of one of its replicas: as the guide for operators says.

use std::sync::Arc;
use std::time::Duration;

use store::LogId;

use super::{Nemesis, sleep};
use crate::broker_process::BrokerProcess;
use crate::disk::DiskCopy;
use crate::history::Event;
use crate::machine::Machine;
use crate::schedule::{Fault, Who};
use crate::world::Crash;

/// Time between two looks.
const TICK: Duration = Duration::from_millis(50);

/// Longest wait for a process that was asked to end.
const ENDS_WITHIN: Duration = Duration::from_secs(10);

/// Longest wait for a follower that has what everybody was told of.
const CATCHES_UP_WITHIN: Duration = Duration::from_secs(15);

impl Nemesis {
    /// Once begun, it has to be finished: nobody else brings the group back.
    pub(super) async fn restore(&self, fault: Fault) {
        let kind = fault.kind();
        let Fault::Restore {
            backup_ms,
            by,
            down_ms,
        } = fault
        else {
            return;
        };
        let backup = match backup_ms {
            Some(age_ms) => {
                let Some(copy) = self.back_up().await else {
                    return self.tell(format_args!("no follower could be copied"));
                };
                sleep(age_ms).await;
                Some(copy)
            }
            None => None,
        };
        let is_behind = backup.is_some();
        let voters = self.world.members(self.group).len() as u8;
        let lost = self.world.lose(self.group);
        let names: Vec<Machine> = lost.iter().map(|broker| broker.machine).collect();
        self.strikes(kind, format_args!("{}", super::links::names(&names)));
        if backup.is_none() {
            self.stop_in_order(&names).await;
        }
        for machine in &names {
            self.world.crash(*machine, Crash::Process);
        }
        let copy = match backup {
            Some(copy) => copy,
            None => match self.longest(&lost) {
                Some(copy) => copy,
                None => return self.tell(format_args!("no disk can be copied")),
            },
        };
        self.world.begin_history(self.group, by, is_behind);
        self.record(Event::Restored);
        sleep(down_ms).await;
        match self.world.restore(by, &copy).await {
            Ok(restored) => self.tell(format_args!(
                "broker-{by} alone is the group, with what broker-{} had up to {:?}",
                restored.from.broker_id, restored.last
            )),
            Err(error) => return self.tell(format_args!("not restored: {error}")),
        }
        for newcomer in by + 1..by + voters {
            let operator = &self.operator;
            operator
                .add_replica(&self.world, self.group, newcomer)
                .await;
            self.tell(format_args!("broker-{newcomer} votes"));
        }
    }

    /// A copy of the disk of a follower that has everything that anybody was told of until now; it is stopped meanwhile.
    async fn back_up(&self) -> Option<DiskCopy> {
        let deadline = tokio::time::Instant::now() + CATCHES_UP_WITHIN;
        let end = loop {
            if let Some(Machine::Broker(leader)) = self.world.leader(self.group)
                && let Some(live) = self.world.broker(leader).and_then(|broker| broker.live())
            {
                // Whoever leads has all that was acknowledged.
                self.record(Event::Copied);
                break live.group.status().appended;
            }
            if tokio::time::Instant::now() > deadline {
                return None;
            }
            tokio::time::sleep(TICK).await;
        };
        let (follower, disk) = loop {
            if let Some(machine @ Machine::Broker(id)) = self.find(Who::Follower(0))
                && let Some(broker) = self.world.broker(id)
                && let Some(live) = broker.live()
                && live.group.status().applied >= end
            {
                break (machine, broker.disk.clone());
            }
            if tokio::time::Instant::now() > deadline {
                return None;
            }
            tokio::time::sleep(TICK).await;
        };
        self.stop_in_order(&[follower]).await;
        let copy = disk.copy();
        self.tell(format_args!("{follower} is copied, behind entry {end:?}"));
        self.world.start(follower);
        Some(copy)
    }

    /// Who does not end is ended by force later.
    async fn stop_in_order(&self, machines: &[Machine]) {
        machines
            .iter()
            .for_each(|machine| self.world.stop(*machine));
        let deadline = tokio::time::Instant::now() + ENDS_WITHIN;
        while !(machines.iter()).all(|machine| self.world.has_ended(*machine))
            && tokio::time::Instant::now() < deadline
        {
            tokio::time::sleep(TICK).await;
        }
    }

    /// A copy of the disk whose log is longest: all that was acknowledged is in it, because nobody else can have more.
    fn longest(&self, lost: &[Arc<BrokerProcess>]) -> Option<DiskCopy> {
        let last = |broker: &Arc<BrokerProcess>| match self.world.last_entry(broker) {
            Ok(last) => Some((last?, broker.clone())),
            Err(error) => {
                self.tell(format_args!("{}: {error}", broker.machine));
                None
            }
        };
        let all: Vec<(LogId, Arc<BrokerProcess>)> = lost.iter().filter_map(last).collect();
        let (_, longest) = all.into_iter().max_by_key(|(last, _)| *last)?;
        self.record(Event::Copied);
        Some(longest.disk.copy())
    }
}
