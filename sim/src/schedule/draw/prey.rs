//! What a draw has done to a broker group so far, so that it leaves a majority of it whole.

use crate::broker_group::BrokerGroup;
use crate::chance::Chance;
use crate::machine::Machine;

/// A broker group, as far as faults have been drawn for it.
pub(super) struct Prey {
    /// The number before that of its first broker.
    pub(super) base: u8,
    pub(super) brokers: u8,
    /// Rot strikes one replica of a group, and so does a wipe: a minority, whatever else happens.
    pub(super) victim: u8,
    pub(super) wiped: bool,
    /// All that it had were lost once: those that came after them stay.
    pub(super) restored: bool,
    pub(super) next_broker: u8,
}

impl Prey {
    pub(super) fn new(group: BrokerGroup, brokers: u8, chance: &mut Chance) -> Prey {
        let base = group.base();
        Prey {
            base,
            brokers,
            victim: base + chance.between(1..=brokers.into()) as u8,
            // One that is alone has nobody who could give it back what it lost.
            wiped: brokers < 3,
            restored: false,
            next_broker: base + brokers + 1,
        }
    }

    /// Those with which it begins.
    pub(super) fn brokers(&self) -> impl Iterator<Item = Machine> + Clone + use<> {
        (self.base + 1..=self.base + self.brokers).map(Machine::Broker)
    }

    /// Those that took another one's place, too.
    pub(super) fn all(&self) -> impl Iterator<Item = Machine> + Clone + use<> {
        (self.base + 1..self.next_broker).map(Machine::Broker)
    }
}
