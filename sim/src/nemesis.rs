//! Does what the schedule says, each fault in a task of its own, and undoes it.
//!
//! Decides nothing: what is drawn is drawn in the schedule. When the chaos ends the world is healed whether
//! or not every fault has ended by itself.

mod links;
mod operation;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use crate::machine::Machine;
use crate::operator::Operator;
use crate::schedule::{Fault, Schedule, Shape, Timed, Who};
use crate::workload::Clients;
use crate::world::{Crash, World};

/// Who does it.
pub struct Nemesis {
    pub(crate) world: Arc<World>,
    pub(crate) clients: Arc<Clients>,
    pub(crate) operator: Operator,
}

/// Runs the whole chaos.
pub async fn run(nemesis: Arc<Nemesis>, schedule: &Schedule) {
    let begin = tokio::time::Instant::now();
    let mut tasks = Vec::new();
    for Timed { at_ms, fault } in &schedule.faults {
        tokio::time::sleep_until(begin + Duration::from_millis(*at_ms)).await;
        let (nemesis, fault) = (nemesis.clone(), fault.clone());
        tasks.push(tokio::spawn(async move { nemesis.strike(fault).await }));
    }
    tokio::time::sleep_until(begin + Duration::from_millis(schedule.chaos_ms)).await;
    for task in tasks {
        task.abort();
    }
}

impl Nemesis {
    async fn strike(&self, fault: Fault) {
        let name = fault.name();
        self.world.trace.count(&format!("fault {name}"));
        match fault {
            Fault::Partition { shape, how, for_ms } => match shape {
                Shape::Swizzle(links) => self.swizzle(&links, how, for_ms).await,
                shape => self.partition(&shape, how, for_ms).await,
            },
            Fault::Weather { weather, for_ms } => {
                self.tell(format_args!("{name}: {weather:?} for {for_ms} ms"));
                self.world.network.set_weather(weather);
                sleep(for_ms).await;
                self.world.network.set_weather(Default::default());
            }
            Fault::Crash {
                who,
                power,
                down_ms,
            } => self.crash(&who, power, down_ms).await,
            Fault::Stop { who, down_ms } => {
                if let Some(machine) = self.find(who) {
                    self.tell(format_args!("{name} of {machine} for {down_ms} ms"));
                    self.world.stop(machine);
                    sleep(down_ms).await;
                    self.world.start(machine);
                }
            }
            Fault::Pause { who, for_ms } => {
                if let Some(machine) = self.find(who) {
                    self.tell(format_args!("{name} of {machine} for {for_ms} ms"));
                    self.world.pause(machine);
                    sleep(for_ms).await;
                    self.world.resume(machine);
                }
            }
            Fault::DiskFails { .. }
            | Fault::DiskRoom { .. }
            | Fault::SlowSyncs { .. }
            | Fault::Rot { .. }
            | Fault::Misdirect { .. } => self.disk(name, fault).await,
            Fault::Wipe {
                machine,
                by,
                after_ms,
            } => self.wipe(machine, by, after_ms).await,
            Fault::ClockJump { who, by_ms } => self.clock(who, |clock| clock.jump_ms(by_ms), by_ms),
            Fault::ClockDrift { who, ppm } => self.clock(who, |clock| clock.drift_ppm(ppm), ppm),
            operation => self.operate(operation).await,
        }
    }

    async fn crash(&self, who: &[Who], power: Option<u64>, down_ms: u64) {
        let mut machines: Vec<Machine> = who.iter().filter_map(|who| self.find(*who)).collect();
        machines.dedup();
        let names: Vec<String> = machines.iter().map(Machine::to_string).collect();
        let what = if power.is_some() {
            "power loss"
        } else {
            "kill"
        };
        self.tell(format_args!(
            "{what} of {} for {down_ms} ms",
            names.join(", ")
        ));
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

    async fn disk(&self, name: &str, fault: Fault) {
        let who = match &fault {
            Fault::DiskFails { who, .. }
            | Fault::DiskRoom { who, .. }
            | Fault::SlowSyncs { who, .. } => *who,
            Fault::Rot { machine, .. } | Fault::Misdirect { machine, .. } => Who::Machine(*machine),
            _ => return,
        };
        let Some(Machine::Broker(id)) = self.find(who) else {
            return;
        };
        let Some(broker) = self.world.broker(id) else {
            return;
        };
        let (machine, disk) = (broker.machine, &broker.disk);
        match fault {
            Fault::DiskFails { failing, .. } => disk.fail_next(failing),
            Fault::DiskRoom { room, for_ms, .. } => {
                self.tell(format_args!("{machine} has room: {room:?} for {for_ms} ms"));
                disk.set_room(room);
                sleep(for_ms).await;
                disk.set_room(Default::default());
            }
            Fault::SlowSyncs {
                longest_ms, for_ms, ..
            } => {
                self.tell(format_args!(
                    "{machine} syncs in up to {longest_ms} ms for {for_ms} ms"
                ));
                disk.slow_syncs(Duration::from_millis(longest_ms));
                sleep(for_ms).await;
                disk.slow_syncs(Duration::ZERO);
            }
            Fault::Rot { seed, .. } => {
                if let Some(place) = disk.rot(seed, may_rot) {
                    self.tell(format_args!("{name} on {machine}: {place}"));
                }
            }
            Fault::Misdirect { seed, .. } => {
                if let Some(place) = disk.misdirect(seed, may_rot) {
                    self.tell(format_args!("{name} on {machine}: {place}"));
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
        if !self.world.members().contains(&id) {
            return;
        }
        self.tell(format_args!("disk of {machine} is wiped"));
        self.world.wipe(id);
        sleep(after_ms).await;
        self.world.start(machine);
        if let Err(error) = self.operator.replace(&self.world, id, by).await {
            self.tell(format_args!("{machine} is not replaced: {error}"));
        }
    }

    fn clock(&self, who: Who, change: impl FnOnce(&crate::clock::SimClock), by: i64) {
        let Some(Machine::Broker(id)) = self.find(who) else {
            return;
        };
        if let Some(broker) = self.world.broker(id) {
            self.tell(format_args!("clock of {} changes by {by}", broker.machine));
            change(&broker.clock);
        }
    }

    /// The machine that is meant, as things are now.
    pub(crate) fn find(&self, who: Who) -> Option<Machine> {
        match who {
            Who::Machine(machine) => Some(machine),
            Who::Leader => self.world.leader(),
            Who::Follower(number) => {
                let leader = self.world.leader();
                let brokers = self.world.members();
                let mut others = brokers
                    .into_iter()
                    .map(Machine::Broker)
                    .filter(|machine| Some(*machine) != leader);
                others.nth(number.into())
            }
        }
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
