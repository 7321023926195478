//! Which broker groups a world has, who is in them, and who leads: as the replicas say.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError};

use super::World;
use crate::broker_group::BrokerGroup;
use crate::broker_process::BrokerProcess;
use crate::machine::Machine;

/// Of a broker group: who votes, and the last entry that whoever said so had applied.
pub(super) type Voters = BTreeMap<BrokerGroup, (Option<u64>, Vec<u8>)>;

impl World {
    /// Its broker groups.
    pub fn groups(&self) -> impl Iterator<Item = BrokerGroup> + Clone + use<> {
        BrokerGroup::all(self.group_count())
    }

    /// How many there are.
    pub fn group_count(&self) -> u8 {
        self.shape.group_count()
    }

    /// Whose broker has this number.
    pub fn group_of(&self, id: u8) -> BrokerGroup {
        BrokerGroup::of_broker(id, self.group_count())
    }

    /// Who has the queue of this number, in whatever topic.
    pub fn group_of_queue(&self, queue: u32) -> BrokerGroup {
        BrokerGroup::of_queue(queue, self.group_count())
    }

    /// All brokers that there ever were in a group, by id.
    pub fn brokers_of(&self, group: BrokerGroup) -> Vec<Arc<BrokerProcess>> {
        let brokers = self.brokers();
        let of_group = brokers
            .iter()
            .filter(|(id, _)| self.group_of(**id) == group);
        of_group.map(|(_, broker)| broker.clone()).collect()
    }

    /// The broker that leads a group, in the highest term that any leader of it has.
    pub fn leader(&self, group: BrokerGroup) -> Option<Machine> {
        let leads = |broker: &Arc<BrokerProcess>| {
            let leadership = broker.live()?.group.leadership().borrow().clone();
            leadership
                .is_leader
                .then_some((leadership.term, broker.machine))
        };
        let leaders = self.brokers_of(group);
        let leaders = leaders.iter().filter_map(leads).max();
        leaders.map(|(_, machine)| machine)
    }

    /// Ids of the brokers that vote in a group, as the replica knows it, or knew it, that has applied most.
    pub fn members(&self, group: BrokerGroup) -> Vec<u8> {
        let voters = |broker: &Arc<BrokerProcess>| {
            let status = broker.live()?.group.status();
            let voters = status.members.iter().filter(|member| member.voter);
            let ids: Vec<u8> = voters.map(|member| member.member.broker_id as u8).collect();
            (!ids.is_empty()).then_some((status.applied, ids))
        };
        let brokers = self.brokers_of(group);
        let newest = brokers.iter().filter_map(voters).max();
        let known = self.members.lock();
        let mut known = known.unwrap_or_else(PoisonError::into_inner);
        let known = known.entry(group).or_default();
        // Those who know better may all be down.
        if let Some(newest) = newest.filter(|newest| newest.0 >= known.0) {
            *known = newest;
        }
        known.1.clone()
    }
}
