//! The broker groups of a world: what they are called, which machines and which queue numbers are theirs.
//!
//! Brokers are numbered across all groups, so that a number is a machine wherever it is said; so are queues, because
//! clients know the queues of a topic by their numbers. In a world of one group all numbers are that one's.

/// Names, as brokers are configured and clients are told.
const NAMES: [&str; 3] = ["broker-a", "broker-b", "broker-c"];

/// Numbers of brokers that a group has, those that schedules name included.
const BROKERS: u8 = 20;

/// The first number for brokers that no schedule names.
const FIRST_SPARE: u8 = 200;

/// Numbers that a group has for those.
const SPARES: u8 = 10;

/// Numbers of queues that a group has in each topic.
const QUEUES: u32 = 10;

/// One broker group, by its place among the names.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct BrokerGroup(u8);

impl BrokerGroup {
    /// The only one of most worlds.
    pub const FIRST: BrokerGroup = BrokerGroup(0);

    /// Most that a world may have.
    pub const MOST: u8 = NAMES.len() as u8;

    /// So many of them.
    pub fn all(count: u8) -> impl Iterator<Item = BrokerGroup> + Clone {
        (0..count.min(BrokerGroup::MOST)).map(BrokerGroup)
    }

    /// The one of this number, or the last that there may be.
    pub fn numbered(number: u8) -> BrokerGroup {
        BrokerGroup(number.min(BrokerGroup::MOST - 1))
    }

    /// Its number, from 0 on.
    pub fn number(self) -> u8 {
        self.0
    }

    /// What it is called.
    pub fn name(self) -> &'static str {
        NAMES[usize::from(self.0)]
    }

    /// The number before that of its first broker.
    pub fn base(self) -> u8 {
        BROKERS * self.0
    }

    /// The first number for brokers of it that no schedule names.
    pub fn first_spare(self) -> u8 {
        FIRST_SPARE + SPARES * self.0
    }

    /// Whose broker has this number, in a world of so many groups.
    pub fn of_broker(id: u8, groups: u8) -> BrokerGroup {
        let number = match id.checked_sub(FIRST_SPARE) {
            Some(spare) => spare / SPARES,
            None => id.saturating_sub(1) / BROKERS,
        };
        BrokerGroup(number.min(groups.saturating_sub(1)))
    }

    /// Number of its first queue in a topic that others have too, and of its dead-letter queues.
    pub fn first_queue(self) -> u32 {
        QUEUES * u32::from(self.0)
    }

    /// Who has the queue of this number, in a world of so many groups.
    pub fn of_queue(queue: u32, groups: u8) -> BrokerGroup {
        let number = u8::try_from(queue / QUEUES).unwrap_or(u8::MAX);
        BrokerGroup(number.min(groups.saturating_sub(1)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Would catch a broker or a queue that is taken for another group's.
    #[test]
    fn every_number_is_one_groups() {
        for group in BrokerGroup::all(BrokerGroup::MOST) {
            let spares = group.first_spare()..group.first_spare() + SPARES;
            for id in (group.base() + 1..=group.base() + BROKERS).chain(spares) {
                assert_eq!(BrokerGroup::of_broker(id, BrokerGroup::MOST), group, "{id}");
                assert_eq!(BrokerGroup::of_broker(id, 1), BrokerGroup::FIRST);
            }
            for queue in group.first_queue()..group.first_queue() + QUEUES {
                let of_queue = BrokerGroup::of_queue(queue, BrokerGroup::MOST);
                assert_eq!(of_queue, group, "{queue}");
            }
        }
        assert_eq!(BrokerGroup::numbered(9).name(), "broker-c");
    }
}
