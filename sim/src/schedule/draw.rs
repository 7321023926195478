//! Draws schedules: which faults, how many, how long, from a mix of kinds.

mod compound;
mod groups;
mod prey;
mod tables;

use self::prey::Prey;
use super::kind::Kind;
use super::swarm::{Swarm, some_of};
use super::{Fault, Schedule, Shape, Timed, Who};
use crate::broker_group::BrokerGroup;
use crate::chance::Chance;
use crate::disk::Failing;
use crate::machine::Machine;
use crate::network::{Cut, Weather};

/// How many shapes of partitions there are.
const PARTITIONS: u64 = 12;

/// Which kinds of faults, and how likely each is.
#[derive(Clone, Debug)]
pub struct Mix {
    /// Of which scenario: of one seed each has other kinds.
    pub scenario: &'static str,
    /// Kinds and their weights.
    pub kinds: Vec<(Kind, u64)>,
    /// Mean time between two faults, in milliseconds.
    pub every_ms: u64,
    /// How long the chaos lasts, in milliseconds.
    pub chaos_ms: u64,
    /// Brokers of each group.
    pub brokers: Vec<u8>,
    /// Name servers and client machines.
    pub others: (u8, u8),
}

impl Mix {
    /// A schedule for a seed.
    pub fn draw(&self, seed: u64) -> Schedule {
        let swarm = Swarm::draw(seed, self.scenario, &self.kinds);
        let mut of_shapes = Chance::new(seed, &format!("shapes of {}", self.scenario));
        let mut drawing = Drawing {
            chance: Chance::new(seed, "schedule"),
            mix: self,
            kinds: swarm.kinds,
            shapes: some_of(&mut of_shapes, PARTITIONS),
            groups: Vec::new(),
            now: 0,
            made: 0,
        };
        let groups = BrokerGroup::all(BrokerGroup::MOST).zip(&self.brokers);
        for (group, brokers) in groups {
            let prey = Prey::new(group, *brokers, &mut drawing.chance);
            drawing.groups.push(prey);
        }
        let mut faults = drawing.clocks_never_set_right();
        // The kind that gives a scenario its name happens in each of its worlds.
        let mut at_ms = drawing.pause();
        for (kind, _) in self.kinds.iter().take(1) {
            let certain_ms = self.chaos_ms / 4..=self.chaos_ms / 2;
            let certain_ms = drawing.chance.between(certain_ms);
            faults.extend(drawing.at(certain_ms, *kind));
        }
        // And before it the one whose turn it is: what it begins may take long, and needs machines as they were.
        if let Some(kind) = swarm.turn {
            let certain_ms = self.chaos_ms / 40..=self.chaos_ms / 8;
            let certain_ms = drawing.chance.between(certain_ms);
            faults.extend(drawing.at(certain_ms, kind));
        }
        while !drawing.kinds.is_empty() && at_ms < self.chaos_ms {
            let kind = drawing.kind();
            faults.extend(drawing.at(at_ms, kind));
            at_ms += drawing.pause();
        }
        faults.retain(|timed| timed.at_ms < self.chaos_ms);
        faults.sort_by_key(|timed| timed.at_ms);
        Schedule {
            chaos_ms: self.chaos_ms,
            faults,
        }
    }
}

struct Drawing<'a> {
    chance: Chance,
    mix: &'a Mix,
    /// Those of its kinds that are on.
    kinds: Vec<(Kind, u64)>,
    /// Those shapes of partitions that are on, by their numbers.
    shapes: Vec<u64>,
    groups: Vec<Prey>,
    /// The broker group that faults are drawn for now: its place among them.
    now: usize,
    /// Topics and groups that somebody makes.
    made: u64,
}

impl Drawing<'_> {
    /// Where clocks go wrong none was ever right.
    fn clocks_never_set_right(&mut self) -> Vec<Timed> {
        if !self.kinds.iter().any(|(kind, _)| *kind == Kind::Clock) {
            return Vec::new();
        }
        let brokers: Vec<Machine> = self.groups.iter().flat_map(Prey::brokers).collect();
        let offsets = brokers.into_iter().map(|broker| Timed {
            at_ms: 0,
            group: 0,
            fault: Fault::ClockOffset {
                who: Who::Machine(broker),
                by_ms: *self.chance.pick(&[-60_000, -300, -20, 20, 300, 60_000]),
            },
        });
        offsets.collect()
    }

    fn at(&mut self, at_ms: u64, kind: Kind) -> Vec<Timed> {
        self.turn_to_some_group();
        let group = self.now as u8;
        let drawn = self.faults(kind).into_iter();
        let timed = drawn.map(|(after_ms, fault)| Timed {
            at_ms: at_ms + after_ms,
            group,
            fault,
        });
        timed.collect()
    }

    /// Where there is one group only, nothing is drawn.
    fn turn_to_some_group(&mut self) {
        if self.groups.len() > 1 {
            self.now = self.chance.below(self.groups.len() as u64) as usize;
        }
    }

    fn prey(&mut self) -> &mut Prey {
        &mut self.groups[self.now]
    }

    fn pause(&mut self) -> u64 {
        self.chance.between(1..=2 * self.mix.every_ms)
    }

    fn kind(&mut self) -> Kind {
        let total = self.kinds.iter().map(|(_, weight)| weight).sum();
        let mut drawn = self.chance.below(total);
        for (kind, weight) in &self.kinds {
            if drawn < *weight {
                return *kind;
            }
            drawn -= weight;
        }
        unreachable!("the weights add up to the total")
    }

    /// A duration: mostly short, now and then longer than any lease.
    fn duration(&mut self) -> u64 {
        match self.chance.below(4) {
            0 => self.chance.between(50..=400),
            1 | 2 => self.chance.between(400..=3_000),
            _ => self.chance.between(3_000..=9_000),
        }
    }

    fn machine(&mut self, number: u8, make: fn(u8) -> Machine) -> Machine {
        make(self.chance.between(1..=number.max(1).into()) as u8)
    }

    fn broker(&mut self) -> Who {
        match self.chance.below(3) {
            0 => Who::Leader,
            1 => {
                let followers = self.prey().brokers.saturating_sub(1).max(1);
                Who::Follower(self.chance.below(followers.into()) as u8)
            }
            _ => {
                let all: Vec<Machine> = self.prey().all().collect();
                Who::Machine(*self.chance.pick(&all))
            }
        }
    }

    /// Any of these machines, and at least one.
    fn some_of(&mut self, machines: impl IntoIterator<Item = Machine>) -> Vec<Machine> {
        let all: Vec<Machine> = machines.into_iter().collect();
        let drawn = all.iter().copied().filter(|_| self.chance.one_in(2));
        let some: Vec<Machine> = drawn.collect();
        match some.is_empty() {
            true => vec![*self.chance.pick(&all)],
            false => some,
        }
    }

    fn name_server(&mut self) -> Who {
        Who::Machine(self.machine(self.mix.others.0, Machine::NameServer))
    }

    fn client(&mut self) -> Who {
        Who::Machine(self.machine(self.mix.others.1, Machine::Client))
    }

    fn faults(&mut self, kind: Kind) -> Vec<(u64, Fault)> {
        let fault = match kind {
            Kind::RestartStorm => return self.restart_storm(),
            Kind::Rot => return self.rot(),
            Kind::Unreadable => return self.unreadable(),
            Kind::Silence => return self.silence(),
            Kind::Depose => return self.depose(),
            Kind::Wipe if !self.prey().wiped => return self.wipe(),
            Kind::Restore | Kind::RestoreBackup if !self.prey().restored => self.restore(kind),
            Kind::SlowSyncs => return self.slow_syncs(),
            Kind::Checkpoint => return self.checkpoint(),
            Kind::SlowCheckpoints => return self.slow_checkpoints(),
            Kind::TablesRot => return self.tables_rot(),
            Kind::TablesStall => self.tables_stall(),
            Kind::TablesFail => self.tables_fail(),
            Kind::Replace => return self.replace(),
            Kind::Clients => return self.clients(),
            Kind::Clock => return self.clock(),
            Kind::Partition => self.partition(),
            Kind::GroupLinks => self.group_links(),
            Kind::GroupDown => self.group_down(),
            Kind::GroupAway => self.group_away(),
            Kind::NameServers => self.name_servers(),
            Kind::Weather => self.weather(),
            Kind::Kill | Kind::PowerLoss | Kind::PowerLossOfAll => self.crash(kind),
            Kind::Stop => Fault::Stop {
                who: self.broker(),
                down_ms: self.duration(),
                rolling: false,
            },
            Kind::Pause => Fault::Pause {
                who: self.broker(),
                for_ms: self.duration(),
            },
            Kind::DiskError => Fault::DiskFails {
                who: self.broker(),
                failing: *self
                    .chance
                    .pick(&[Failing::Read, Failing::Write, Failing::Sync]),
            },
            Kind::DiskRoom => return self.disk_room(),
            _ => self.operation(kind),
        };
        vec![(0, fault)]
    }

    fn partition(&mut self) -> Fault {
        let number = *self.chance.pick(&self.shapes);
        let shape = match number {
            0 => Shape::Isolate(Who::Leader),
            1 => Shape::Isolate(self.broker()),
            2 => Shape::LeaderWithClients,
            3 => Shape::OneWay(self.broker(), Who::Leader),
            4 => Shape::Deaf(self.broker()),
            5 => Shape::Mute(self.broker()),
            6 => Shape::Ring,
            7 => Shape::Bridge(self.broker()),
            8 => Shape::ClientsFrom(self.broker()),
            9 => Shape::Split(self.split()),
            10 => Shape::Followers,
            _ => Shape::Swizzle(self.swizzle()),
        };
        Fault::Partition {
            shape,
            how: self.cut(),
            for_ms: self.duration(),
        }
    }

    fn split(&mut self) -> Vec<Machine> {
        let (name_servers, clients) = self.mix.others;
        let brokers: Vec<Machine> = self.groups.iter().flat_map(Prey::all).collect();
        let name_servers = (1..=name_servers).map(Machine::NameServer);
        let clients = (1..=clients).map(Machine::Client);
        self.some_of(brokers.into_iter().chain(name_servers).chain(clients))
    }

    fn cut(&mut self) -> Cut {
        match self.chance.one_in(2) {
            true => Cut::Hangs,
            false => Cut::Refuses,
        }
    }

    fn swizzle(&mut self) -> Vec<(Machine, Machine)> {
        let brokers = self.prey().brokers();
        let mut links: Vec<_> = brokers
            .clone()
            .flat_map(|from| brokers.clone().map(move |to| (from, to)))
            .filter(|(from, to)| from != to)
            .collect();
        self.chance.shuffle(&mut links);
        let count = self.chance.between(1..=links.len().max(1) as u64);
        links.truncate(count as usize);
        links
    }

    fn some_links_to_name_servers(&mut self) -> Vec<(Machine, Machine)> {
        let (name_servers, _) = self.mix.others;
        let servers = (1..=name_servers).map(Machine::NameServer);
        let mut links: Vec<_> = (self.prey().brokers())
            .flat_map(|broker| servers.clone().map(move |server| (broker, server)))
            .collect();
        self.chance.shuffle(&mut links);
        let count = self.chance.between(1..=(links.len() as u64 / 2).max(1));
        links.truncate(count as usize);
        links
    }

    fn name_servers(&mut self) -> Fault {
        let shape = match self.chance.below(8) {
            0 => Shape::NameServersFromBrokers,
            1 => Shape::NameServersApart,
            2 => Shape::Isolate(self.name_server()),
            3 => Shape::OneWay(Who::Leader, self.name_server()),
            4 | 5 => Shape::NameServersInPart(self.some_links_to_name_servers()),
            6 => {
                return Fault::Crash {
                    who: vec![self.name_server()],
                    power: None,
                    down_ms: self.duration(),
                    storm: false,
                };
            }
            _ => {
                return Fault::Pause {
                    who: self.name_server(),
                    for_ms: self.duration(),
                };
            }
        };
        Fault::Partition {
            shape,
            how: self.cut(),
            for_ms: self.duration(),
        }
    }

    fn weather(&mut self) -> Fault {
        let weather = Weather {
            loss: *self.chance.pick(&[0, 10, 50, 200]),
            broken: *self.chance.pick(&[0, 5, 30]),
            slow: *self.chance.pick(&[0, 20, 200]),
            slow_ms: *self.chance.pick(&[50, 400, 2_000]),
            twice: *self.chance.pick(&[0, 20, 200]),
        };
        Fault::Weather {
            weather,
            for_ms: self.duration(),
        }
    }

    fn crash(&mut self, kind: Kind) -> Fault {
        let brokers = self.prey().all();
        let who = match (kind, self.chance.below(8)) {
            (Kind::PowerLossOfAll, _) => brokers.map(Who::Machine).collect(),
            (Kind::Kill, 0) => {
                let some = self.some_of(brokers).into_iter();
                some.map(Who::Machine).collect()
            }
            (_, 0 | 1) => vec![Who::Leader, Who::Follower(0)],
            _ => vec![self.broker()],
        };
        let loses_power = matches!(kind, Kind::PowerLoss | Kind::PowerLossOfAll);
        Fault::Crash {
            who,
            power: loses_power.then(|| self.chance.number()),
            down_ms: self.duration(),
            storm: false,
        }
    }

    fn operation(&mut self, kind: Kind) -> Fault {
        match kind {
            Kind::LoseMark => Fault::LoseMark {
                machine: Machine::Broker(self.prey().victim),
                seed: self.chance.number(),
                down_ms: self.duration(),
            },
            Kind::RollBack if !self.prey().wiped => {
                self.prey().wiped = true;
                self.prey().next_broker += 1;
                Fault::RollBack {
                    machine: Machine::Broker(self.prey().victim),
                    age_ms: self.chance.between(8_000..=15_000),
                    others_restart: self.chance.one_in(2),
                    by: self.prey().next_broker - 1,
                    after_ms: self.duration(),
                }
            }
            Kind::Transfer => Fault::TransferLeader { to: self.broker() },
            Kind::DropLog => Fault::DropLog {
                retain_bytes: *self.chance.pick(&[0, 256 << 10, 1 << 20]),
            },
            Kind::ResetOffset => Fault::ResetOffset {
                seed: self.chance.number(),
            },
            Kind::Topic => {
                self.made += 1;
                let (number, for_ms) = (self.made, self.duration());
                match self.chance.one_in(2) {
                    true => Fault::BriefTopic { number, for_ms },
                    false => Fault::BriefGroup { number, for_ms },
                }
            }
            Kind::AskEverything => Fault::AskEverything,
            _ => Fault::AskCommitted,
        }
    }
}
