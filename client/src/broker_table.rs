//! The broker_addr_table: where each broker group's leader and replicas are reached, as far as we were told.
//!
//! Every address is a guess: what follows from a wrong one is a redirect or a second attempt, never a lost message.
//! Pure but for its lock; asks nobody.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

/// Addresses, `host:port`.
type Address = Arc<str>;

/// Most addresses kept for one group beside the seeds.
const REPLICAS_MAX: usize = 16;

/// See the module's text. The group of name "" is 'any group': what was learnt without knowing whom it is about.
#[derive(Debug)]
pub(crate) struct BrokerTable {
    seeds: Vec<Address>,
    groups: Mutex<BTreeMap<Arc<str>, Group>>,
}

#[derive(Debug, Default)]
struct Group {
    leader: Option<Address>,
    /// The leader did not answer lately: a route may replace it.
    suspect: bool,
    /// Others of the group, the most recently learnt first.
    replicas: Vec<Address>,
}

impl BrokerTable {
    pub(crate) fn new(seeds: Vec<Address>) -> BrokerTable {
        assert!(!seeds.is_empty(), "a client has at least one seed");
        BrokerTable {
            seeds,
            groups: Mutex::new(BTreeMap::new()),
        }
    }

    pub(crate) fn seeds(&self) -> &[Address] {
        &self.seeds
    }

    /// The address for the `turn`-th attempt: the leader, then its peers, then the seeds, then the same again. A seed that
    /// is another group's broker is left out, if there is anybody else: it has other queues of the same numbers.
    pub(crate) fn address(&self, group: &str, turn: usize) -> Address {
        let mut candidates: Vec<Address> = Vec::new();
        let groups = self.lock();
        if let Some(group) = groups.get(group) {
            candidates.extend(group.leader.iter().cloned());
            candidates.extend(group.replicas.iter().cloned());
        }
        let foreign = |seed: &Address| {
            let others = groups.iter().filter(|(name, _)| !name.is_empty());
            let mut others = others.filter(|(name, _)| !group.is_empty() && &***name != group);
            others.any(|(_, other)| other.has(seed))
        };
        for seed in &self.seeds {
            if !candidates.contains(seed) && !foreign(seed) {
                candidates.push(seed.clone());
            }
        }
        if candidates.is_empty() {
            candidates.extend(self.seeds.iter().cloned());
        }
        candidates[turn % candidates.len()].clone()
    }

    /// An answer named the leader. Returns whether that is someone else than who was asked.
    pub(crate) fn heard(&self, group: &str, leader: &str, asked: &str) -> bool {
        let mut groups = self.lock();
        let group = entry(&mut groups, group);
        group.lead(leader);
        group.suspect = false;
        leader != asked
    }

    /// A route names the leader. It may be older than what an answer said, so it counts only if we know no better.
    pub(crate) fn routed(&self, group: &str, leader: &str) {
        let mut groups = self.lock();
        let group = entry(&mut groups, group);
        if group.leader.is_none() || group.suspect {
            group.lead(leader);
            group.suspect = false;
        } else {
            group.remember(leader);
        }
    }

    /// The members of a group, as one of them told.
    pub(crate) fn members(&self, group: &str, addresses: impl IntoIterator<Item = Address>) {
        let mut groups = self.lock();
        let group = entry(&mut groups, group);
        group.replicas.clear();
        for address in addresses {
            group.remember(&address);
        }
    }

    /// Whether any address of the group is known.
    pub(crate) fn knows(&self, group: &str) -> bool {
        let groups = self.lock();
        groups
            .get(group)
            .is_some_and(|group| group.leader.is_some() || !group.replicas.is_empty())
    }

    /// An address did not answer.
    pub(crate) fn failed(&self, group: &str, address: &str) {
        if let Some(group) = self.lock().get_mut(group)
            && group.leader.as_deref() == Some(address)
        {
            group.suspect = true;
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<Arc<str>, Group>> {
        self.groups
            .lock()
            .expect("nothing panics while the table is locked")
    }
}

fn entry<'a>(groups: &'a mut BTreeMap<Arc<str>, Group>, name: &str) -> &'a mut Group {
    if !groups.contains_key(name) {
        groups.insert(name.into(), Group::default());
    }
    groups.get_mut(name).expect("was just inserted")
}

impl Group {
    fn lead(&mut self, leader: &str) {
        if self.leader.as_deref() == Some(leader) {
            return;
        }
        self.replicas.retain(|replica| &**replica != leader);
        if let Some(former) = self.leader.replace(leader.into()) {
            self.remember(&former);
        }
    }

    fn has(&self, address: &str) -> bool {
        let mut all = self.leader.iter().chain(&self.replicas);
        all.any(|known| &**known == address)
    }

    fn remember(&mut self, address: &str) {
        let known = self.replicas.iter().any(|replica| &**replica == address);
        if known || self.leader.as_deref() == Some(address) {
            return;
        }
        self.replicas.insert(0, address.into());
        self.replicas.truncate(REPLICAS_MAX);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table() -> BrokerTable {
        BrokerTable::new(vec!["seed:1".into(), "seed:2".into()])
    }

    fn turns(table: &BrokerTable, count: usize) -> Vec<String> {
        (0..count)
            .map(|turn| table.address("g", turn).to_string())
            .collect()
    }

    /// Catches a client that keeps asking one dead address while others would answer.
    #[test]
    fn attempts_go_round_the_leader_its_peers_and_the_seeds() {
        let table = table();
        assert_eq!(turns(&table, 3), ["seed:1", "seed:2", "seed:1"]);
        table.routed("g", "a:1");
        table.members("g", ["a:1", "b:1", "seed:2"].map(Address::from));
        assert_eq!(turns(&table, 5), ["a:1", "seed:2", "b:1", "seed:1", "a:1"]);
    }

    /// Catches a message for a queue of one group that is stored by another, in its queue of that number.
    #[test]
    fn brokers_of_other_groups_are_not_asked() {
        let table = table();
        table.routed("h", "seed:1");
        assert_eq!(turns(&table, 2), ["seed:2", "seed:2"]);
        table.members("h", ["seed:1", "seed:2"].map(Address::from));
        assert_eq!(turns(&table, 2), ["seed:1", "seed:2"], "better than nobody");
        table.routed("g", "a:1");
        assert_eq!(turns(&table, 2), ["a:1", "a:1"]);
        assert_eq!(&*table.address("", 1), "seed:2", "any group will do");
    }

    /// Catches a stale route that undoes what the leader itself said, for 30 s.
    #[test]
    fn an_answer_outweighs_a_route_until_the_leader_is_silent() {
        let table = table();
        table.routed("g", "old:1");
        assert!(table.heard("g", "new:1", "old:1"));
        assert!(!table.heard("g", "new:1", "new:1"));
        table.routed("g", "old:1");
        assert_eq!(turns(&table, 2), ["new:1", "old:1"]);
        table.failed("g", "new:1");
        table.routed("g", "old:1");
        assert_eq!(turns(&table, 2), ["old:1", "new:1"]);
    }

    /// Catches a list that grows for as long as addresses change.
    #[test]
    fn the_number_of_addresses_is_bounded() {
        let table = table();
        for port in 0..100 {
            table.heard("g", &format!("a:{port}"), "x");
        }
        let mut all = turns(&table, 200);
        all.sort();
        all.dedup();
        assert_eq!(all.len(), REPLICAS_MAX + 1 + 2);
    }
}
