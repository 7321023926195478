//! Draws schedules: which faults, how many, how long, from a mix of kinds.

mod tables;

use super::{Fault, Schedule, Shape, Timed, Who};
use crate::chance::Chance;
use crate::disk::{self, Room};
use crate::machine::Machine;
use crate::network::{Cut, Weather};

/// A family of faults.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[allow(missing_docs, reason = "each is named for its faults")]
pub enum Kind {
    Partition,
    Silence,
    NameServers,
    Weather,
    Kill,
    PowerLoss,
    PowerLossOfAll,
    RestartStorm,
    Stop,
    Pause,
    DiskError,
    DiskRoom,
    SlowSyncs,
    TablesStall,
    TablesFail,
    TablesRot,
    SlowCheckpoints,
    Rot,
    LoseMark,
    RollBack,
    Wipe,
    Clock,
    Transfer,
    Replace,
    Checkpoint,
    DropLog,
    ResetOffset,
    Topic,
    Clients,
    AskCommitted,
    AskEverything,
}

/// Which kinds of faults, and how likely each is.
#[derive(Clone, Debug)]
pub struct Mix {
    /// Kinds and their weights.
    pub kinds: Vec<(Kind, u64)>,
    /// Mean time between two faults, in milliseconds.
    pub every_ms: u64,
    /// How long the chaos lasts, in milliseconds.
    pub chaos_ms: u64,
    /// Brokers, name servers, client machines.
    pub machines: (u8, u8, u8),
}

impl Mix {
    /// A schedule for a seed.
    pub fn draw(&self, seed: u64) -> Schedule {
        let mut drawing = Drawing {
            chance: Chance::new(seed, "schedule"),
            mix: self,
            // Rot strikes one replica of a world, and so does a wipe: a minority, whatever else happens.
            victim: 0,
            wiped: false,
            next_broker: self.machines.0 + 1,
            made: 0,
        };
        drawing.victim = drawing.chance.between(1..=self.machines.0.into()) as u8;
        let mut faults = drawing.clocks_never_set_right();
        // The kind that gives a scenario its name happens in each of its worlds.
        let certain_ms = drawing
            .chance
            .between(self.chaos_ms / 4..=self.chaos_ms / 2);
        let mut at_ms = drawing.pause();
        for (kind, _) in self.kinds.iter().take(1) {
            faults.extend(drawing.at(certain_ms, *kind));
        }
        while !self.kinds.is_empty() && at_ms < self.chaos_ms {
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
    victim: u8,
    wiped: bool,
    next_broker: u8,
    /// Topics and groups that somebody makes.
    made: u64,
}

impl Drawing<'_> {
    /// Where clocks go wrong none was ever right.
    fn clocks_never_set_right(&mut self) -> Vec<Timed> {
        if !self.mix.kinds.iter().any(|(kind, _)| *kind == Kind::Clock) {
            return Vec::new();
        }
        let brokers = 1..=self.mix.machines.0;
        let offsets = brokers.map(|broker| Timed {
            at_ms: 0,
            fault: Fault::ClockOffset {
                who: Who::Machine(Machine::Broker(broker)),
                by_ms: *self.chance.pick(&[-60_000, -300, -20, 20, 300, 60_000]),
            },
        });
        offsets.collect()
    }

    fn at(&mut self, at_ms: u64, kind: Kind) -> Vec<Timed> {
        let drawn = self.faults(kind).into_iter();
        let timed = drawn.map(|(after_ms, fault)| Timed {
            at_ms: at_ms + after_ms,
            fault,
        });
        timed.collect()
    }

    fn pause(&mut self) -> u64 {
        self.chance.between(1..=2 * self.mix.every_ms)
    }

    fn kind(&mut self) -> Kind {
        let total = self.mix.kinds.iter().map(|(_, weight)| weight).sum();
        let mut drawn = self.chance.below(total);
        for (kind, weight) in &self.mix.kinds {
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
                let followers = self.mix.machines.0.saturating_sub(1).max(1);
                Who::Follower(self.chance.below(followers.into()) as u8)
            }
            // Those that took another one's place, too.
            _ => Who::Machine(self.machine(self.next_broker - 1, Machine::Broker)),
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
        Who::Machine(self.machine(self.mix.machines.1, Machine::NameServer))
    }

    fn client(&mut self) -> Who {
        Who::Machine(self.machine(self.mix.machines.2, Machine::Client))
    }

    fn faults(&mut self, kind: Kind) -> Vec<(u64, Fault)> {
        let fault = match kind {
            Kind::RestartStorm => return self.restart_storm(),
            Kind::Rot => return self.rot(),
            Kind::Silence => return self.silence(),
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
            Kind::DiskError | Kind::DiskRoom => self.disk(kind),
            _ => self.operation(kind),
        };
        vec![(0, fault)]
    }

    fn partition(&mut self) -> Fault {
        let shape = match self.chance.below(12) {
            0 => Shape::Isolate(Who::Leader),
            1 => Shape::Isolate(self.broker()),
            2 => Shape::LeaderWithClients,
            3 => Shape::OneWay(self.broker(), Who::Leader),
            4 => Shape::Deaf(self.broker()),
            5 => Shape::Mute(self.broker()),
            6 => Shape::Ring,
            7 => Shape::Bridge(self.broker()),
            8 => Shape::ClientsFrom(self.broker()),
            9 | 10 => Shape::Split(self.split()),
            _ => Shape::Swizzle(self.swizzle()),
        };
        Fault::Partition {
            shape,
            how: self.cut(),
            for_ms: self.duration(),
        }
    }

    /// Three times, long after one another, the machine that leads then vanishes without a word.
    fn silence(&mut self) -> Vec<(u64, Fault)> {
        const APART_MS: u64 = 10_000;
        let silence = |after: u64| {
            let fault = Fault::Partition {
                shape: Shape::Isolate(Who::Leader),
                how: Cut::Hangs,
                for_ms: self.chance.between(2_000..=APART_MS / 2),
            };
            (after * APART_MS, fault)
        };
        (0..3).map(silence).collect()
    }

    fn split(&mut self) -> Vec<Machine> {
        let (_, name_servers, clients) = self.mix.machines;
        let brokers = (1..self.next_broker).map(Machine::Broker);
        let name_servers = (1..=name_servers).map(Machine::NameServer);
        let clients = (1..=clients).map(Machine::Client);
        self.some_of(brokers.chain(name_servers).chain(clients))
    }

    fn cut(&mut self) -> Cut {
        match self.chance.one_in(2) {
            true => Cut::Hangs,
            false => Cut::Refuses,
        }
    }

    fn swizzle(&mut self) -> Vec<(Machine, Machine)> {
        let brokers = self.mix.machines.0;
        let mut links: Vec<_> = (1..=brokers)
            .flat_map(|from| (1..=brokers).map(move |to| (from, to)))
            .filter(|(from, to)| from != to)
            .map(|(from, to)| (Machine::Broker(from), Machine::Broker(to)))
            .collect();
        self.chance.shuffle(&mut links);
        let count = self.chance.between(1..=links.len().max(1) as u64);
        links.truncate(count as usize);
        links
    }

    fn some_links_to_name_servers(&mut self) -> Vec<(Machine, Machine)> {
        let (brokers, name_servers, _) = self.mix.machines;
        let mut links: Vec<_> = (1..=brokers)
            .flat_map(|broker| (1..=name_servers).map(move |server| (broker, server)))
            .map(|(broker, server)| (Machine::Broker(broker), Machine::NameServer(server)))
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

    fn clients(&mut self) -> Vec<(u64, Fault)> {
        let who = self.client();
        let fault = match self.chance.below(6) {
            0 | 1 => Fault::Pause {
                who,
                for_ms: self.duration(),
            },
            2 | 3 => return self.power_loss_while_saving(who),
            _ => Fault::Crash {
                who: vec![who],
                power: self.chance.one_in(2).then(|| self.chance.number()),
                down_ms: self.duration(),
                storm: false,
            },
        };
        vec![(0, fault)]
    }

    fn crash(&mut self, kind: Kind) -> Fault {
        let brokers = (1..self.next_broker).map(Machine::Broker);
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

    /// One broker that comes up and goes down again and again; or each in turn, in order.
    fn restart_storm(&mut self) -> Vec<(u64, Fault)> {
        let mut after_ms = 0;
        let rolling = self.chance.one_in(2);
        let who = self.broker();
        let mut faults = Vec::new();
        for round in 0..self.chance.between(3..=8) {
            let broker = (round % u64::from(self.mix.machines.0)) as u8 + 1;
            let down_ms = self.chance.between(10..=500);
            let restart = match rolling {
                true => Fault::Stop {
                    who: Who::Machine(Machine::Broker(broker)),
                    down_ms,
                    rolling,
                },
                false => Fault::Crash {
                    who: vec![who],
                    power: self.chance.one_in(2).then(|| self.chance.number()),
                    down_ms,
                    storm: true,
                },
            };
            faults.push((after_ms, restart));
            after_ms += down_ms + self.chance.between(10..=1_500);
        }
        faults
    }

    fn disk(&mut self, kind: Kind) -> Fault {
        let who = self.broker();
        match kind {
            Kind::DiskError => Fault::DiskFails {
                who,
                failing: *self.chance.pick(&[
                    disk::Failing::Read,
                    disk::Failing::Write,
                    disk::Failing::Sync,
                ]),
            },
            _ => Fault::DiskRoom {
                who,
                room: *self.chance.pick(&[
                    Room::Full,
                    Room::Free(200 << 10),
                    Room::Free(400 << 10),
                ]),
                for_ms: self.duration(),
            },
        }
    }

    /// Slow syncs, and often a power cut in the middle of them: then much is not synced.
    fn slow_syncs(&mut self) -> Vec<(u64, Fault)> {
        let who = self.broker();
        let for_ms = self.duration();
        let slow = Fault::SlowSyncs {
            who,
            longest_ms: *self.chance.pick(&[20, 100, 600, 3_000]),
            for_ms,
        };
        let mut faults = vec![(0, slow)];
        if self.chance.one_in(2) {
            let crash = Fault::Crash {
                who: vec![who],
                power: Some(self.chance.number()),
                down_ms: self.duration(),
                storm: false,
            };
            faults.push((self.chance.between(1..=for_ms), crash));
        }
        faults
    }

    /// Whoever keeps its progress there is in the middle of saving it.
    fn power_loss_while_saving(&mut self, who: Who) -> Vec<(u64, Fault)> {
        let for_ms = self.chance.between(1_000..=6_000);
        let slow = Fault::SlowSyncs {
            who,
            longest_ms: *self.chance.pick(&[600, 3_000]),
            for_ms,
        };
        let crash = Fault::Crash {
            who: vec![who],
            power: Some(self.chance.number()),
            down_ms: self.duration(),
            storm: false,
        };
        vec![(0, slow), (self.chance.between(500..=for_ms), crash)]
    }

    /// A checkpoint, and often a power cut before it is whole.
    fn checkpoint(&mut self) -> Vec<(u64, Fault)> {
        let who = self.broker();
        let mut faults = vec![(0, Fault::Checkpoint { who })];
        if self.chance.one_in(2) {
            let crash = Fault::Crash {
                who: vec![who],
                power: Some(self.chance.number()),
                down_ms: self.duration(),
                storm: false,
            };
            faults.push((self.chance.between(1..=40), crash));
        }
        faults
    }

    /// A replica is replaced; often because it is away, and it comes back when the group has gone on without it.
    fn replace(&mut self) -> Vec<(u64, Fault)> {
        self.next_broker += 1;
        let by = self.next_broker - 1;
        if self.chance.one_in(2) {
            let who = self.broker();
            return vec![(0, Fault::Replace { who, by })];
        }
        let who = Who::Machine(self.machine(self.mix.machines.0, Machine::Broker));
        let away = Fault::Crash {
            who: vec![who],
            power: None,
            down_ms: self.chance.between(4_000..=25_000),
            storm: false,
        };
        let after_ms = self.chance.between(100..=1_000);
        vec![(0, away), (after_ms, Fault::Replace { who, by })]
    }

    /// Rot in some places, and then somebody who looks.
    fn rot(&mut self) -> Vec<(u64, Fault)> {
        let machine = Machine::Broker(self.victim);
        let mut faults = Vec::new();
        for _ in 0..self.chance.between(1..=3) {
            let seed = self.chance.number();
            let rot = match self.chance.one_in(4) {
                true => Fault::Misdirect { machine, seed },
                false => Fault::Rot { machine, seed },
            };
            faults.push((0, rot));
        }
        let who = Who::Machine(machine);
        let after_ms = self.chance.between(10..=2_000);
        match self.chance.below(4) {
            0 => {}
            1 => faults.push((after_ms, Fault::Scrub { who })),
            _ => faults.push((
                after_ms,
                Fault::Crash {
                    who: vec![who],
                    power: None,
                    down_ms: self.duration(),
                    storm: false,
                },
            )),
        }
        faults
    }

    /// A clock is set, by milliseconds to years, and often set back after a while; or it goes fast or slow.
    fn clock(&mut self) -> Vec<(u64, Fault)> {
        let who = self.broker();
        if self.chance.one_in(3) {
            let ppm = *self.chance.pick(&[-200_000, -500, 500, 200_000]);
            return vec![(0, Fault::ClockDrift { who, ppm })];
        }
        let by_ms = *self.chance.pick(&[
            200,
            5_000,
            60_000,
            3_600_000,
            73 * 3_600_000,
            366 * 86_400_000,
        ]);
        let by_ms = match self.chance.below(3) {
            0 => -by_ms,
            _ => by_ms,
        };
        let mut faults = vec![(0, Fault::ClockJump { who, by_ms })];
        if self.chance.one_in(2) {
            let back = Fault::ClockJump { who, by_ms: -by_ms };
            faults.push((self.duration(), back));
        }
        faults
    }

    fn operation(&mut self, kind: Kind) -> Fault {
        match kind {
            Kind::LoseMark => Fault::LoseMark {
                machine: Machine::Broker(self.victim),
                seed: self.chance.number(),
                down_ms: self.duration(),
            },
            Kind::RollBack if !self.wiped => {
                self.wiped = true;
                self.next_broker += 1;
                Fault::RollBack {
                    machine: Machine::Broker(self.victim),
                    age_ms: self.chance.between(8_000..=15_000),
                    others_restart: self.chance.one_in(2),
                    by: self.next_broker - 1,
                    after_ms: self.duration(),
                }
            }
            Kind::Wipe if !self.wiped => {
                self.wiped = true;
                self.next_broker += 1;
                Fault::Wipe {
                    machine: Machine::Broker(self.victim),
                    by: self.next_broker - 1,
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
