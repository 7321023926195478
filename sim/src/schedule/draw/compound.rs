//! Faults that come together: what one begins another one finds half done.
//!
//! Draws from the same chance as its parent, and knows no more of the world than that.

use super::Drawing;
use crate::disk::Room;
use crate::machine::Machine;
use crate::network::Cut;
use crate::schedule::{Fault, Shape, Who};

impl Drawing<'_> {
    /// Clients reach nobody: what brokers have to write they write for themselves.
    fn nobody_asks(&mut self) -> Fault {
        Fault::Partition {
            shape: Shape::Split((1..=self.mix.others.1).map(Machine::Client).collect()),
            how: Cut::Refuses,
            for_ms: self.chance.between(500..=2_000),
        }
    }

    /// Three times, long after one another, the machine that leads then vanishes without a word.
    pub(super) fn silence(&mut self) -> Vec<(u64, Fault)> {
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

    /// A leader goes on with clients while the others elect another one, and what it has taken goes when it hears of that;
    /// then, mostly, brokers start again, before much else is in their logs.
    pub(super) fn depose(&mut self) -> Vec<(u64, Fault)> {
        let shape = match self.chance.below(3) {
            0 => Shape::LeaderWithClients,
            _ => Shape::Followers,
        };
        let for_ms = self.chance.between(600..=3_500);
        let apart = Fault::Partition {
            shape,
            how: self.cut(),
            for_ms,
        };
        let mut faults = vec![(0, apart)];
        if self.chance.one_in(2) {
            faults.push((for_ms, self.nobody_asks()));
        }
        if !self.chance.one_in(4) {
            // Who led is not known: one of those that do not lead any more.
            let who = match self.chance.one_in(2) {
                true => self.prey().brokers().map(Who::Machine).collect(),
                false => (0..self.prey().brokers - 1).map(Who::Follower).collect(),
            };
            let crash = Fault::Crash {
                who,
                power: self.chance.one_in(3).then(|| self.chance.number()),
                down_ms: self.chance.between(50..=1_000),
                storm: false,
            };
            let after_ms = for_ms + self.chance.between(20..=600);
            faults.push((after_ms, crash));
        }
        faults
    }

    /// One broker that comes up and goes down again and again; or each in turn, in order.
    pub(super) fn restart_storm(&mut self) -> Vec<(u64, Fault)> {
        let mut after_ms = 0;
        let rolling = self.chance.one_in(2);
        let who = self.broker();
        let mut faults = Vec::new();
        for round in 0..self.chance.between(3..=8) {
            let prey = self.prey();
            let broker = prey.base + (round % u64::from(prey.brokers)) as u8 + 1;
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

    /// A disk has little room, or all of a group fill together, and often a checkpoint needs some: a log that has its files does
    /// not notice.
    pub(super) fn disk_room(&mut self) -> Vec<(u64, Fault)> {
        let who = self.broker();
        let for_ms = self.duration();
        let room = *self
            .chance
            .pick(&[Room::Full, Room::Free(200 << 10), Room::Free(400 << 10)]);
        if self.chance.one_in(4) {
            let all = self.prey().brokers().map(Who::Machine);
            let full = all.map(|who| (0, Fault::DiskRoom { who, room, for_ms }));
            return full.collect();
        }
        let mut faults = vec![(0, Fault::DiskRoom { who, room, for_ms })];
        if !self.chance.one_in(3) {
            let after_ms = self.chance.between(1..=for_ms);
            faults.push((after_ms, Fault::Checkpoint { who }));
        }
        faults
    }

    /// Slow syncs, and often a power cut in the middle of them: then much is not synced.
    pub(super) fn slow_syncs(&mut self) -> Vec<(u64, Fault)> {
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
    pub(super) fn power_loss_while_saving(&mut self, who: Who) -> Vec<(u64, Fault)> {
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
    pub(super) fn checkpoint(&mut self) -> Vec<(u64, Fault)> {
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
    pub(super) fn replace(&mut self) -> Vec<(u64, Fault)> {
        self.prey().next_broker += 1;
        let by = self.prey().next_broker - 1;
        if self.chance.one_in(2) {
            let who = self.broker();
            return vec![(0, Fault::Replace { who, by })];
        }
        let first: Vec<Machine> = self.prey().brokers().collect();
        let who = Who::Machine(*self.chance.pick(&first));
        let away = Fault::Crash {
            who: vec![who],
            power: None,
            down_ms: self.chance.between(4_000..=25_000),
            storm: false,
        };
        let after_ms = self.chance.between(100..=1_000);
        vec![(0, away), (after_ms, Fault::Replace { who, by })]
    }

    /// A machine loses its disk; mostly while another one is away that does not learn who takes whose place, and that wants
    /// to be elected by those whom it knows when it is back.
    pub(super) fn wipe(&mut self) -> Vec<(u64, Fault)> {
        self.prey().wiped = true;
        let victim = Machine::Broker(self.prey().victim);
        let brokers = self.prey().brokers();
        let others: Vec<Machine> = brokers.filter(|broker| *broker != victim).collect();
        let (mut faults, mut at_ms) = (Vec::new(), 0);
        let refused_ms = self.duration();
        if !others.is_empty() && !self.chance.one_in(3) {
            let who = Who::Machine(*self.chance.pick(&others));
            let replaced_ms = self.chance.between(100..=1_000);
            at_ms = replaced_ms + self.chance.between(2_000..=5_000);
            let down_ms = at_ms + refused_ms + self.chance.between(1_000..=18_000);
            let away = Fault::Crash {
                who: vec![who],
                power: None,
                down_ms,
                storm: false,
            };
            self.prey().next_broker += 1;
            let by = self.prey().next_broker - 1;
            faults.extend([(0, away), (replaced_ms, Fault::Replace { who, by })]);
        }
        self.prey().next_broker += 1;
        let wiped = Fault::Wipe {
            machine: victim,
            by: self.prey().next_broker - 1,
            after_ms: refused_ms,
        };
        faults.push((at_ms, wiped));
        faults
    }

    /// Rot in some places, and then somebody who looks.
    pub(super) fn rot(&mut self) -> Vec<(u64, Fault)> {
        let machine = Machine::Broker(self.prey().victim);
        let mut faults = Vec::new();
        for _ in 0..self.chance.between(1..=3) {
            let seed = self.chance.number();
            let rot = match self.chance.one_in(4) {
                true => Fault::Misdirect { machine, seed },
                false => Fault::Rot { machine, seed },
            };
            faults.push((0, rot));
        }
        let after_ms = self.chance.between(10..=2_000);
        let looks = match self.chance.below(4) {
            0 => None,
            1 => Some(self.scrub()),
            _ => Some(self.starts_again(None)),
        };
        faults.extend(looks.map(|looks| (after_ms, looks)));
        faults
    }

    /// Parts of files that cannot be read any more, and then, mostly, somebody who has to read: whoever looks for rot, the next
    /// process, or the leader that the machine becomes.
    pub(super) fn unreadable(&mut self) -> Vec<(u64, Fault)> {
        let machine = Machine::Broker(self.prey().victim);
        let mut faults = Vec::new();
        for _ in 0..self.chance.between(1..=3) {
            let seed = self.chance.number();
            faults.push((0, Fault::Unreadable { machine, seed }));
        }
        let after_ms = self.chance.between(10..=2_000);
        let looks = match self.chance.below(6) {
            0 => None,
            1 => Some(self.scrub()),
            2 => Some(Fault::TransferLeader {
                to: Who::Machine(machine),
            }),
            3 => {
                let power = Some(self.chance.number());
                Some(self.starts_again(power))
            }
            _ => Some(self.starts_again(None)),
        };
        faults.extend(looks.map(|looks| (after_ms, looks)));
        faults
    }

    /// The machine whose disk spoils reads all that it has sealed.
    fn scrub(&mut self) -> Fault {
        let victim = Machine::Broker(self.prey().victim);
        Fault::Scrub {
            who: Who::Machine(victim),
        }
    }

    /// The process on it ends by force, or with the power, and starts again.
    fn starts_again(&mut self, power: Option<u64>) -> Fault {
        let victim = Machine::Broker(self.prey().victim);
        Fault::Crash {
            who: vec![Who::Machine(victim)],
            power,
            down_ms: self.duration(),
            storm: false,
        }
    }

    /// A clock is set, by milliseconds to years, and often set back after a while; or it goes fast or slow; or what sets the
    /// clocks of all is wrong for a while.
    pub(super) fn clock(&mut self) -> Vec<(u64, Fault)> {
        if self.chance.one_in(6) {
            let by_ms = *self.chance.pick(&[60_000, 3_600_000, 366 * 86_400_000]);
            let by_ms = match self.chance.one_in(4) {
                true => -by_ms,
                false => by_ms,
            };
            let for_ms = self.chance.between(2_000..=12_000);
            return vec![(0, Fault::ClocksWrong { by_ms, for_ms })];
        }
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

    pub(super) fn clients(&mut self) -> Vec<(u64, Fault)> {
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
}
