//! Who is in the consumer group, according to what the leader says now and what was known before. Pure.
//!
//! Brokers know members by their heartbeats, in the leader's memory. A new leader knows nobody at first: whoever asked it
//! then would see itself alone and take all queues, to give them back a heartbeat later. So after a change of leader
//! those known before count as members for a while, unless they come by themselves. The same if another broker group's list
//! counts from now on.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

/// See the module's text.
#[derive(Debug, Default)]
pub(super) struct Membership {
    /// Whose list it was: a broker group, and its leader's address.
    leader: Option<(Arc<str>, Arc<str>)>,
    members: Vec<String>,
    /// Until then the leader may not know everybody.
    grace_ends: Option<Instant>,
}

impl Membership {
    /// The present list of a broker group's leader. Returns the members that count, sorted.
    pub(super) fn observe(
        &mut self,
        leader: (Arc<str>, Arc<str>),
        mut listed: Vec<String>,
        now: Instant,
        grace: Duration,
    ) -> &[String] {
        if self.leader.as_ref().is_some_and(|known| *known != leader) {
            self.grace_ends = Some(now + grace);
        }
        self.leader = Some(leader);
        if self.grace_ends.is_some_and(|ends| now < ends) {
            listed.extend(self.members.iter().cloned());
        }
        listed.sort();
        listed.dedup();
        self.members = listed;
        &self.members
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GRACE: Duration = Duration::from_secs(6);

    fn list(members: &str) -> Vec<String> {
        members.split_whitespace().map(str::to_owned).collect()
    }

    fn from(broker_group: &str, leader: &str) -> (Arc<str>, Arc<str>) {
        (broker_group.into(), leader.into())
    }

    /// Catches a rebalance storm at every election, and members that count for ever.
    #[test]
    fn a_new_leader_is_given_time_to_hear_of_everybody() {
        let (mut membership, start) = (Membership::default(), Instant::now());
        let at = |second| start + Duration::from_secs(second);
        let (old, new) = (from("g", "a"), from("g", "b"));
        assert_eq!(
            membership.observe(old.clone(), list("m1 m2 m3"), at(0), GRACE),
            list("m1 m2 m3")
        );
        assert_eq!(
            membership.observe(old, list("m1 m2"), at(2), GRACE),
            list("m1 m2"),
            "left"
        );
        assert_eq!(
            membership.observe(new.clone(), list("m1"), at(4), GRACE),
            list("m1 m2")
        );
        assert_eq!(
            membership.observe(new.clone(), list("m1 m4"), at(6), GRACE),
            list("m1 m2 m4")
        );
        assert_eq!(
            membership.observe(new, list("m1 m4"), at(10), GRACE),
            list("m1 m4")
        );
    }

    /// Catches a member that is alone for a moment when another broker group's list begins to count, because its own beat
    /// was the first there.
    #[test]
    fn another_groups_list_is_given_time_too() {
        let (mut membership, start) = (Membership::default(), Instant::now());
        // No leader is known of either group yet: it is the same seed that is asked.
        membership.observe(from("g", "seed"), list("m1 m2"), start, GRACE);
        let first = membership.observe(from("h", "seed"), list("m1"), start, GRACE);
        assert_eq!(first, list("m1 m2"));
        let later = start + GRACE;
        let then = membership.observe(from("h", "seed"), list("m1"), later, GRACE);
        assert_eq!(then, list("m1"));
    }
}
