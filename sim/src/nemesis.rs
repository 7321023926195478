//! Does what the schedule says, each fault in a task of its own, and undoes it.
//!
//! Decides nothing: what is drawn is drawn in the schedule. When the chaos ends the world is healed whether
//! or not every fault has ended by itself.

mod links;
mod operation;
mod restore;
mod tables;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinHandle;

use crate::broker_group::BrokerGroup;
use crate::clock::SimClock;
use crate::effect::FaultKind;
use crate::history::Event;
use crate::machine::Machine;
use crate::operator::Operator;
use crate::schedule::{Fault, Schedule, Shape, Timed, Who, crash_kind};
use crate::workload::Clients;
use crate::world::{Crash, World};

/// Who does it, in one broker group.
pub struct Nemesis {
    pub(crate) world: Arc<World>,
    pub(crate) clients: Arc<Clients>,
    pub(crate) operator: Operator,
    pub(crate) group: BrokerGroup,
}

/// Runs the whole chaos. One nemesis for each broker group, in their order. Returns what must be finished, and is not.
pub async fn run(nemeses: Vec<Arc<Nemesis>>, schedule: &Schedule) -> Vec<JoinHandle<()>> {
    let begin = tokio::time::Instant::now();
    let (mut tasks, mut to_be_finished) = (Vec::new(), Vec::new());
    for Timed {
        at_ms,
        group,
        fault,
    } in &schedule.faults
    {
        let Some(nemesis) = nemeses.get(usize::from(*group)) else {
            continue;
        };
        tokio::time::sleep_until(begin + Duration::from_millis(*at_ms)).await;
        let (nemesis, fault) = (nemesis.clone(), fault.clone());
        let kept = match fault {
            // Half of it would leave no group.
            Fault::Restore { .. } => &mut to_be_finished,
            _ => &mut tasks,
        };
        kept.push(tokio::spawn(async move { nemesis.strike(fault).await }));
    }
    tokio::time::sleep_until(begin + Duration::from_millis(schedule.chaos_ms)).await;
    for task in tasks {
        task.abort();
    }
    to_be_finished
}

impl Nemesis {
    async fn strike(&self, fault: Fault) {
        let kind = fault.kind();
        match fault {
            Fault::Partition { shape, how, for_ms } => match shape {
                Shape::Swizzle(links) => self.swizzle(&links, how, for_ms).await,
                shape => self.partition(kind, &shape, how, for_ms).await,
            },
            Fault::Weather { weather, for_ms } => {
                self.strikes(kind, format_args!("{weather:?} for {for_ms} ms"));
                self.world.network.set_weather(weather);
                sleep(for_ms).await;
                self.world.network.set_weather(Default::default());
            }
            Fault::Crash {
                who,
                power,
                down_ms,
                storm,
            } => self.crash(&who, power, down_ms, storm).await,
            Fault::GroupDown { power, down_ms } => self.group_down(kind, power, down_ms).await,
            Fault::Stop { who, down_ms, .. } => {
                if let Some(machine) = self.find(who) {
                    self.strikes(kind, format_args!("{machine} for {down_ms} ms"));
                    self.world.stop(machine);
                    sleep(down_ms).await;
                    self.world.start(machine);
                }
            }
            Fault::Pause { who, for_ms } => self.pause(kind, who, for_ms).await,
            Fault::DiskFails { who, .. }
            | Fault::DiskRoom { who, .. }
            | Fault::SlowSyncs { who, .. } => self.disk(who, fault).await,
            Fault::TablesStall { who, .. }
            | Fault::TablesFail { who, .. }
            | Fault::TablesRefuse { who, .. }
            | Fault::SlowCheckpoints { who, .. } => self.tables(who, fault).await,
            Fault::TablesRot { machine, .. } => self.tables(Who::Machine(machine), fault).await,
            Fault::Rot { machine, .. }
            | Fault::Misdirect { machine, .. }
            | Fault::Unreadable { machine, .. } => {
                self.disk(Who::Machine(machine), fault).await;
            }
            Fault::Wipe {
                machine,
                by,
                after_ms,
            } => self.wipe(machine, by, after_ms).await,
            Fault::LoseMark {
                machine,
                seed,
                down_ms,
            } => self.lose_mark(machine, seed, down_ms).await,
            Fault::RollBack { .. } => self.roll_back(fault).await,
            Fault::Restore { .. } => self.restore(fault).await,
            Fault::ClockOffset { who, by_ms } | Fault::ClockJump { who, by_ms } => {
                self.clock(kind, who, |clock| clock.jump_ms(by_ms), by_ms);
            }
            Fault::ClockDrift { who, ppm } => {
                self.clock(kind, who, |clock| clock.drift_ppm(ppm), ppm);
            }
            Fault::ClocksWrong { by_ms, for_ms } => self.clocks_wrong(kind, by_ms, for_ms).await,
            operation => self.operate(operation).await,
        }
    }

    async fn pause(&self, kind: FaultKind, who: Who, for_ms: u64) {
        if let Some(machine) = self.find(who) {
            self.strikes(kind, format_args!("{machine} for {for_ms} ms"));
            self.world.pause(machine);
            sleep(for_ms).await;
            self.world.resume(machine);
        }
    }

    async fn crash(&self, who: &[Who], power: Option<u64>, down_ms: u64, storm: bool) {
        let mut machines: Vec<Machine> = who.iter().filter_map(|who| self.find(*who)).collect();
        machines.dedup();
        if machines.is_empty() {
            return;
        }
        // Who leads may be nobody.
        let struck: Vec<Who> = machines.iter().copied().map(Who::Machine).collect();
        let kind = match storm {
            true => FaultKind::RestartStorm,
            false => crash_kind(&struck, power.is_some()),
        };
        self.crash_all(kind, machines, power, down_ms).await;
    }

    async fn group_down(&self, kind: FaultKind, power: Option<u64>, down_ms: u64) {
        let brokers = self.world.brokers_of(self.group);
        let machines = brokers.iter().map(|broker| broker.machine).collect();
        self.goes_away();
        self.crash_all(kind, machines, power, down_ms).await;
        self.comes_back();
    }

    /// The group's queues cannot be reached from now on.
    pub(crate) fn goes_away(&self) {
        let first = self.group.first_queue();
        let end = BrokerGroup::numbered(self.group.number() + 1).first_queue();
        // The last one has no next one.
        let end = if end > first { end } else { u32::MAX };
        self.record(Event::Away { first, end });
    }

    /// They can again.
    pub(crate) fn comes_back(&self) {
        let first = self.group.first_queue();
        self.record(Event::Back { first });
    }

    fn record(&self, event: Event) {
        self.clients.history.record(Machine::Operator, event);
    }

    async fn crash_all(
        &self,
        kind: FaultKind,
        machines: Vec<Machine>,
        power: Option<u64>,
        down_ms: u64,
    ) {
        let names = links::names(&machines);
        self.strikes(kind, format_args!("{names} for {down_ms} ms"));
        for (place, machine) in machines.iter().enumerate() {
            let crash = match power {
                Some(seed) => Crash::Power(seed.wrapping_add(place as u64)),
                None => Crash::Process,
            };
            self.world.crash(*machine, crash);
        }
        sleep(down_ms).await;
        for machine in machines {
            self.world.start(machine);
        }
    }

    async fn disk(&self, who: Who, fault: Fault) {
        let kind = fault.kind();
        let Some(machine) = self.find(who) else {
            return;
        };
        let Some(disk) = self.world.disk(machine) else {
            return;
        };
        match fault {
            Fault::DiskFails { failing, .. } => {
                self.strikes(kind, format_args!("next {failing:?} of {machine}"));
                disk.fail_next(failing);
            }
            Fault::DiskRoom { room, for_ms, .. } => {
                self.strikes(kind, format_args!("{machine}: {room:?} for {for_ms} ms"));
                disk.set_room(room);
                sleep(for_ms).await;
                disk.set_room(Default::default());
            }
            Fault::SlowSyncs {
                longest_ms, for_ms, ..
            } => {
                self.strikes(
                    kind,
                    format_args!("{machine}, up to {longest_ms} ms for {for_ms} ms"),
                );
                disk.slow_syncs(Duration::from_millis(longest_ms));
                sleep(for_ms).await;
                disk.slow_syncs(Duration::ZERO);
            }
            Fault::Rot { seed, .. } => {
                if let Some(place) = disk.rot(seed, may_rot) {
                    self.strikes(kind, format_args!("{machine}, {place}"));
                }
            }
            Fault::Misdirect { seed, .. } => {
                if let Some(place) = disk.misdirect(seed, may_rot) {
                    self.strikes(kind, format_args!("{machine}, {place}"));
                }
            }
            Fault::Unreadable { seed, .. } => {
                if let Some(place) = disk.make_unreadable(seed, may_be_unreadable) {
                    self.strikes(kind, format_args!("{machine}, {place}"));
                }
            }
            _ => {}
        }
    }

    /// Only a member's disk: one that is not needed any more may be empty.
    async fn wipe(&self, machine: Machine, by: u8, after_ms: u64) {
        let Machine::Broker(id) = machine else {
            return;
        };
        if !self.members_with(id).contains(&id) {
            return;
        }
        self.strikes(FaultKind::DiskWiped, format_args!("{machine}"));
        self.world.wipe(id);
        sleep(after_ms).await;
        self.world.start(machine);
        if let Err(error) = self.operator.replace(&self.world, id, by).await {
            self.tell(format_args!("{machine} is not replaced: {error}"));
        }
    }

    async fn lose_mark(&self, machine: Machine, seed: u64, down_ms: u64) {
        let Some(disk) = self.world.disk(machine) else {
            return;
        };
        self.world.crash(machine, Crash::Process);
        if let Some(what) = disk.lose_mark(seed) {
            self.strikes(FaultKind::MarkLost, format_args!("{machine}, {what}"));
        }
        sleep(down_ms).await;
        self.world.start(machine);
    }

    /// Only a member's disk, like a wipe.
    async fn roll_back(&self, fault: Fault) {
        let Fault::RollBack {
            machine: machine @ Machine::Broker(id),
            age_ms,
            others_restart,
            by,
            after_ms,
        } = fault
        else {
            return;
        };
        let members = self.members_with(id);
        let (Some(disk), true) = (self.world.disk(machine), members.contains(&id)) else {
            return;
        };
        let copy = disk.copy();
        sleep(age_ms).await;
        // Who was away since, or was replaced, does not know what the copy lacks: with that one the older members would be a
        // majority. README says so.
        let is_running = |id: &u8| self.world.is_running(Machine::Broker(*id));
        let all_know = self.world.network.is_whole() && members.iter().all(is_running);
        if self.members_with(id) != members || !all_know {
            return;
        }
        self.strikes(
            FaultKind::RolledBack,
            format_args!("{machine}, by {age_ms} ms"),
        );
        self.world.roll_back(id, &copy);
        if others_restart {
            let others = self.world.brokers_of(self.world.group_of(id)).into_iter();
            let others = others.map(|other| other.machine);
            let others = others.filter(|other| *other != machine);
            let others: Vec<Who> = others.map(Who::Machine).collect();
            self.crash(&others, None, after_ms.min(500), false).await;
        }
        self.world.start(machine);
        sleep(after_ms).await;
        if let Err(error) = self.operator.replace(&self.world, id, by).await {
            self.tell(format_args!("{machine} is not replaced: {error}"));
        }
    }

    /// Who votes in the group of this broker.
    fn members_with(&self, id: u8) -> Vec<u8> {
        self.world.members(self.world.group_of(id))
    }

    fn clock(&self, kind: FaultKind, who: Who, change: impl FnOnce(&SimClock), by: i64) {
        let Some(Machine::Broker(id)) = self.find(who) else {
            return;
        };
        if let Some(broker) = self.world.broker(id) {
            self.strikes(kind, format_args!("{}, by {by}", broker.machine));
            change(&broker.clock);
        }
    }

    /// Also those of brokers that are down. Who has come meanwhile was never wrong.
    async fn clocks_wrong(&self, kind: FaultKind, by_ms: i64, for_ms: u64) {
        let brokers = self.world.brokers_of(self.group);
        self.strikes(kind, format_args!("by {by_ms} ms for {for_ms} ms"));
        brokers.iter().for_each(|broker| broker.clock.set_ms(by_ms));
        sleep(for_ms).await;
        brokers.iter().for_each(|broker| broker.clock.heal());
        self.tell(format_args!("all clocks of a group are right again"));
    }

    /// The machine that is meant, as things are now.
    pub(crate) fn find(&self, who: Who) -> Option<Machine> {
        match who {
            Who::Machine(Machine::Broker(id)) if !self.world.has(Machine::Broker(id)) => {
                // One that was to take another one's place and is not there: a member in its stead.
                let members = self.members_with(id);
                let count = members.len().max(1);
                members
                    .get(usize::from(id) % count)
                    .copied()
                    .map(Machine::Broker)
            }
            Who::Machine(machine) => Some(machine),
            Who::Leader => self.world.leader(self.group),
            Who::Follower(number) => {
                let leader = self.world.leader(self.group);
                let brokers = self.world.members(self.group);
                let mut others = brokers
                    .into_iter()
                    .map(Machine::Broker)
                    .filter(|machine| Some(*machine) != leader);
                others.nth(number.into())
            }
        }
    }

    /// A fault strikes: it counts only now.
    pub(crate) fn strikes(&self, kind: FaultKind, what: std::fmt::Arguments<'_>) {
        self.world.trace.struck(kind);
        self.tell(format_args!("{}: {what}", kind.name()));
    }

    pub(crate) fn tell(&self, what: std::fmt::Arguments<'_>) {
        self.world.trace.tell(what);
    }
}

pub(crate) async fn sleep(ms: u64) {
    tokio::time::sleep(Duration::from_millis(ms)).await;
}

/// What rots: the log and what is derived from it. A replica whose superblock or identity is unreadable
/// must be replaced by an operator, which is a fault of its own.
fn may_rot(path: &Path) -> bool {
    let path = path.to_string_lossy();
    path.ends_with(".seg") || path.ends_with(".idx") || path.contains("/checkpoints/")
}

/// The same, and the note of what was synced.
fn may_be_unreadable(path: &Path) -> bool {
    may_rot(path) || path.ends_with("synced")
}
