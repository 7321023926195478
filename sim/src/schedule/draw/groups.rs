//! Faults that strike a whole broker group where there are several: the others go on.

use super::{Drawing, Kind};
use crate::machine::Machine;
use crate::network::Cut;
use crate::schedule::{Fault, Shape, Side};

impl Drawing<'_> {
    /// A group of several is cut off from somebody: from everybody, or in one direction only.
    pub(super) fn group_links(&mut self) -> Fault {
        let from = match self.chance.one_in(2) {
            true => Side::Leader,
            false => Side::Group,
        };
        let server = self.machine(self.mix.others.0, Machine::NameServer);
        let client = self.machine(self.mix.others.1, Machine::Client);
        let (from, to) = match self.chance.below(7) {
            0 => (Side::Group, Side::Everybody),
            1 => (Side::Group, Side::OtherGroups),
            2 => (from, Side::NameServers),
            3 | 4 => (Side::Group, Side::Machine(server)),
            5 => (from, Side::Clients),
            _ => (Side::Group, Side::Machine(client)),
        };
        let both = self.chance.one_in(2);
        // In one direction: what they say is not heard, or they hear nothing.
        let (from, to) = match !both && self.chance.one_in(2) {
            true => (to, from),
            false => (from, to),
        };
        Fault::Partition {
            shape: Shape::Between { from, to, both },
            how: self.cut(),
            for_ms: self.duration(),
        }
    }

    pub(super) fn group_down(&mut self) -> Fault {
        Fault::GroupDown {
            power: self.chance.one_in(2).then(|| self.chance.number()),
            down_ms: self.duration(),
        }
    }

    /// A group is lost, and goes on from a copy.
    pub(super) fn restore(&mut self, kind: Kind) -> Fault {
        let backup_ms = match kind {
            Kind::RestoreBackup => Some(self.chance.between(1_000..=8_000)),
            _ => None,
        };
        let down_ms = self.duration();
        let prey = self.prey();
        prey.restored = true;
        let by = prey.next_broker;
        prey.next_broker += prey.brokers;
        Fault::Restore {
            backup_ms,
            by,
            down_ms,
        }
    }

    /// A group is gone for so long that everybody notices.
    pub(super) fn group_away(&mut self) -> Fault {
        const AWAY_MS: u64 = 30_000;
        let how = match self.chance.below(4) {
            0 => {
                return Fault::GroupDown {
                    power: None,
                    down_ms: AWAY_MS,
                };
            }
            1 => {
                return Fault::GroupDown {
                    power: Some(self.chance.number()),
                    down_ms: AWAY_MS,
                };
            }
            2 => Cut::Hangs,
            _ => Cut::Refuses,
        };
        Fault::Partition {
            shape: Shape::Between {
                from: Side::Group,
                to: Side::Everybody,
                both: true,
            },
            how,
            for_ms: AWAY_MS,
        }
    }
}
