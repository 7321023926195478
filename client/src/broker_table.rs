//! The broker_addr_table: where each broker group's leader and replicas are reached, as far as we were told.
//!
//! Every address is a guess: what follows from a wrong one is a redirect or a second attempt, never a lost message.
//! Pure but for its lock; asks nobody.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

/// The group of calls for routes, which no group has: a broker knows its own queues only, a name server those of all
/// groups that share a topic. So the seeds are asked, and brokers only when no seed answers.
pub(crate) const ROUTES: &str = ":routes";

/// Addresses, `host:port`.
type Address = Arc<str>;

/// Most addresses kept for one group beside the seeds.
const REPLICAS_MAX: usize = 16;

/// See the module's text. The group of name "" is 'any group': what was learnt without knowing whom it is about.
#[derive(Debug)]
pub(crate) struct BrokerTable {
    seeds: Vec<Address>,
    groups: Mutex<BTreeMap<Arc<str>, Group>>,
    /// Place of the seed that is asked for routes first: one that answered, as far as we know.
    route_seed: AtomicUsize,
}

#[derive(Debug, Default)]
struct Group {
    leader: Option<Address>,
    /// The latest term in which somebody said that it leads; 0: nobody said in which.
    term: u64,
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
            route_seed: AtomicUsize::new(0),
        }
    }

    pub(crate) fn seeds(&self) -> &[Address] {
        &self.seeds
    }

    /// The address for the `turn`-th attempt: the leader, then its peers, then the seeds, then the same again. A seed that
    /// is another group's broker is left out, if there is anybody else: it has other queues of the same numbers.
    pub(crate) fn address(&self, group: &str, turn: usize) -> Address {
        let candidates = self.candidates(group);
        candidates[turn % candidates.len()].clone()
    }

    /// Whom else than `address` to ask who leads a group: so many at the most, and only those that are known as its own. A
    /// seed may be of another group, and would name that one's leader.
    pub(crate) fn others(&self, group: &str, address: &str, most: usize) -> Vec<Address> {
        let groups = self.lock();
        let own = groups.get(group).into_iter().flat_map(Group::addresses);
        let others = own.filter(|other| &***other != address);
        others.take(most).cloned().collect()
    }

    /// Whether an address is known as one of a group's own.
    pub(crate) fn is_of(&self, group: &str, address: &str) -> bool {
        let groups = self.lock();
        let mut own = groups.get(group).into_iter().flat_map(Group::addresses);
        own.any(|own| &**own == address)
    }

    /// The latest term in which this address is known to lead; 0 if it is not known to lead, or not in which.
    pub(crate) fn leads_in(&self, group: &str, address: &str) -> u64 {
        let groups = self.lock();
        let group = groups.get(group);
        let leads = group.filter(|group| group.leader.as_deref() == Some(address));
        leads.map_or(0, |group| group.term)
    }

    /// Whether this is the leader that we know, and it did not answer lately.
    pub(crate) fn is_suspect(&self, group: &str, leader: &str) -> bool {
        let groups = self.lock();
        groups
            .get(group)
            .is_some_and(|group| group.suspect && group.leader.as_deref() == Some(leader))
    }

    /// Never empty.
    fn candidates(&self, group: &str) -> Vec<Address> {
        let mut candidates: Vec<Address> = Vec::new();
        let mut add = |address: &Address| {
            if !candidates.contains(address) {
                candidates.push(address.clone());
            }
        };
        let (for_routes, name) = named(group);
        let groups = self.lock();
        if for_routes {
            let (later, first) = self.seeds.split_at(self.route_seed.load(Ordering::Relaxed));
            first.iter().chain(later).for_each(&mut add);
        }
        if let Some(group) = groups.get(name) {
            group.addresses().for_each(&mut add);
        }
        if for_routes {
            // All seeds may have been replaced by others.
            groups
                .values()
                .flat_map(Group::addresses)
                .for_each(&mut add);
        } else {
            let others = groups
                .iter()
                .filter(|(other, _)| !name.is_empty() && !other.is_empty() && &***other != name);
            let foreign: Vec<&Address> = others.flat_map(|(_, other)| other.addresses()).collect();
            let seeds = self.seeds.iter().filter(|seed| !foreign.contains(seed));
            seeds.for_each(&mut add);
        }
        if candidates.is_empty() {
            candidates.extend(self.seeds.iter().cloned());
        }
        candidates
    }

    /// An answer named the leader. Returns whether that is someone else than who was asked, and better asked.
    pub(crate) fn heard(&self, group: &str, leader: &str, asked: &str) -> bool {
        let (for_routes, group) = named(group);
        let mut groups = self.lock();
        let group = entry(&mut groups, group);
        group.lead(leader);
        group.suspect = false;
        leader != asked && !for_routes
    }

    /// Somebody else was elected, in this term; 0: in one that nobody said.
    pub(crate) fn elected(&self, group: &str, leader: &str, term: u64) {
        let mut groups = self.lock();
        let group = entry(&mut groups, group);
        group.lead(leader);
        group.suspect = false;
        group.term = group.term.max(term);
    }

    /// Whom we know to lead does so in this term.
    pub(crate) fn led(&self, group: &str, leader: &str, term: u64) {
        if let Some(group) = self.lock().get_mut(group)
            && group.leader.as_deref() == Some(leader)
        {
            group.term = group.term.max(term);
        }
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

    /// The first by name of the broker groups that are known.
    pub(crate) fn first_group(&self) -> Option<Arc<str>> {
        let groups = self.lock();
        let mut named = groups.keys().filter(|name| !name.is_empty());
        named.next().cloned()
    }

    /// Whether any address of the group is known.
    pub(crate) fn knows(&self, group: &str) -> bool {
        let groups = self.lock();
        groups
            .get(group)
            .is_some_and(|group| group.leader.is_some() || !group.replicas.is_empty())
    }

    /// An address answered. A seed that did is the first to be asked for the next route: who moves on within one call
    /// counts turns, and must not be moved besides.
    pub(crate) fn answered(&self, group: &str, address: &str) {
        let (for_routes, _) = named(group);
        let place = self.seeds.iter().position(|seed| &**seed == address);
        if for_routes && let Some(place) = place {
            self.route_seed.store(place, Ordering::Relaxed);
        }
    }

    /// An address did not answer.
    pub(crate) fn failed(&self, group: &str, address: &str) {
        let (_, group) = named(group);
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

/// Whether a call is for routes; the group whose addresses it may use.
fn named(group: &str) -> (bool, &str) {
    match group {
        ROUTES => (true, ""),
        group => (false, group),
    }
}

fn entry<'a>(groups: &'a mut BTreeMap<Arc<str>, Group>, name: &str) -> &'a mut Group {
    if !groups.contains_key(name) {
        groups.insert(name.into(), Group::default());
    }
    groups.get_mut(name).expect("was just inserted")
}

impl Group {
    fn addresses(&self) -> impl Iterator<Item = &Address> {
        self.leader.iter().chain(&self.replicas)
    }

    fn lead(&mut self, leader: &str) {
        if self.leader.as_deref() == Some(leader) {
            return;
        }
        self.term = 0;
        self.replicas.retain(|replica| &**replica != leader);
        if let Some(former) = self.leader.replace(leader.into()) {
            self.remember(&former);
        }
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

    /// Catches a client that asks a leader which says nothing whether it leads, and one that goes back to it.
    #[test]
    fn who_else_is_asked_about_a_leader_and_whether_it_was_heard_lately() {
        let table = table();
        table.routed("g", "a:1");
        table.members("g", ["a:1", "b:1", "c:1"].map(Address::from));
        let others = |address| table.others("g", address, 2);
        assert_eq!(others("a:1"), ["c:1", "b:1"].map(Address::from));
        assert_eq!(others("b:1"), ["a:1", "c:1"].map(Address::from));
        assert!(table.is_of("g", "a:1") && table.is_of("g", "c:1"));
        assert!(!table.is_suspect("g", "a:1"));
        table.failed("g", "a:1");
        assert!(table.is_suspect("g", "a:1") && !table.is_suspect("g", "b:1"));
        table.heard("g", "a:1", "b:1");
        assert!(!table.is_suspect("g", "a:1"), "somebody says so again");
    }

    /// Catches a message for one group that is stored in another, because a seed of that one was asked who leads, or named.
    #[test]
    fn only_a_groups_own_replicas_are_asked_who_leads_it() {
        let table = table();
        assert!(table.others("g", "a:1", 4).is_empty(), "no seed");
        table.routed("g", "a:1");
        table.routed("h", "d:1");
        table.members("g", ["a:1", "b:1"].map(Address::from));
        assert_eq!(table.others("g", "a:1", 4), ["b:1"].map(Address::from));
        assert!(!table.is_of("g", "seed:1") && !table.is_of("g", "d:1"));
    }

    /// Catches a term that outlives the leader whose it was: its successor would never be left.
    #[test]
    fn a_term_is_that_of_one_leader() {
        let table = table();
        table.routed("g", "a:1");
        table.led("g", "b:1", 9);
        assert_eq!(table.leads_in("g", "a:1"), 0, "b's");
        table.led("g", "a:1", 7);
        table.led("g", "a:1", 6);
        assert_eq!(table.leads_in("g", "a:1"), 7);
        assert_eq!(table.leads_in("g", "b:1"), 0);
        table.elected("g", "b:1", 8);
        assert_eq!(table.leads_in("g", "b:1"), 8);
        table.heard("g", "a:1", "b:1");
        assert_eq!(table.leads_in("g", "a:1"), 0, "nobody said in which");
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

    /// Catches a client that asks one broker group for the queues of all, and one that has nobody to ask when its
    /// name servers are gone, or asks the dead one first each time.
    #[test]
    fn seeds_are_asked_for_routes_and_brokers_only_after_them() {
        let table = table();
        let turns = || (0..3).map(|turn| table.address(ROUTES, turn).to_string());
        assert!(!table.heard(ROUTES, "a:1", "seed:1"));
        assert_eq!(turns().collect::<Vec<_>>(), ["seed:1", "seed:2", "a:1"]);
        assert_eq!(&*table.address("", 0), "a:1");
        table.failed(ROUTES, "seed:1");
        assert_eq!(
            &*table.address(ROUTES, 1),
            "seed:2",
            "the other one is next"
        );
        table.answered(ROUTES, "seed:2");
        assert_eq!(turns().collect::<Vec<_>>(), ["seed:2", "seed:1", "a:1"]);
        table.answered(ROUTES, "a:1");
        table.answered("g", "seed:1");
        assert_eq!(&*table.address(ROUTES, 0), "seed:2", "another kind of call");
    }

    /// Catches a client that can never find a route again once all seeds were replaced.
    #[test]
    fn whoever_is_known_may_be_asked_about_routes() {
        let table = table();
        table.routed("g", "a:1");
        table.members("g", ["b:1"].map(Address::from));
        let asked: Vec<Address> = (0..4).map(|turn| table.address(ROUTES, turn)).collect();
        let expected = ["seed:1", "seed:2", "a:1", "b:1"].map(Address::from);
        assert_eq!(asked, expected);
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
