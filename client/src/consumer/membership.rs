//! Who in the consumer group shares a topic's queues, according to what the leader says now and what was known before. Pure.
//!
//! Brokers know members by their heartbeats, in the leader's memory. A new leader knows nobody at first: whoever asked it
//! then would see itself alone and take all queues, to give them back a heartbeat later. So after a change of leader
//! those known before count as members for a while, unless they come by themselves. The same if another broker group's list
//! counts from now on.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

/// A member of the group, as a leader lists it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Listed {
    pub(super) client_id: String,
    /// What it subscribes to; `None`: it has not told this leader.
    pub(super) topics: Option<BTreeSet<String>>,
}

impl Listed {
    /// Whether it has a part in a topic's queues, as far as is known.
    fn shares(&self, topic: &str) -> bool {
        (self.topics.as_ref()).is_none_or(|topics| topics.contains(topic))
    }
}

/// See the module's text.
#[derive(Debug, Default)]
pub(super) struct Membership {
    /// Whose list it was: a broker group, and its leader's address.
    leader: Option<(Arc<str>, Arc<str>)>,
    members: Vec<String>,
    /// Listed, but with other topics, as far as that was told.
    others: BTreeSet<String>,
    /// Until then the leader may not know everybody.
    grace_ends: Option<Instant>,
}

impl Membership {
    /// Whether this leader's list is the one that counted last, or the first.
    pub(super) fn is_told_by(&self, leader: &(Arc<str>, Arc<str>)) -> bool {
        self.leader.as_ref().is_none_or(|known| known == leader)
    }

    /// The present list of a broker group's leader. Returns the members that share this topic, sorted.
    pub(super) fn observe(
        &mut self,
        leader: (Arc<str>, Arc<str>),
        (listed, topic): (&[Listed], &str),
        now: Instant,
        grace: Duration,
    ) -> &[String] {
        if !self.is_told_by(&leader) {
            self.grace_ends = Some(now + grace);
        }
        self.leader = Some(leader);
        let (sharing, others): (Vec<&Listed>, Vec<&Listed>) = listed.iter().partition(|member| {
            // A new leader has heard a member's beat, and not yet what it subscribes to.
            let is_other = member.topics.is_none() && self.others.contains(&member.client_id);
            member.shares(topic) && !is_other
        });
        let name = |member: &Listed| member.client_id.clone();
        self.others = others.into_iter().map(name).collect();
        let mut members: Vec<String> = sharing.into_iter().map(name).collect();
        if self.grace_ends.is_some_and(|ends| now < ends) {
            // But not those of whom this leader knows better.
            let unlisted =
                |known: &&String| listed.iter().all(|member| member.client_id != **known);
            members.extend(self.members.iter().filter(unlisted).cloned());
        }
        members.sort();
        members.dedup();
        self.members = members;
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

    /// Members of which nobody knows what they subscribe to; after a colon, what each does.
    fn listed(members: &str) -> Vec<Listed> {
        let member = |member: &str| {
            let (id, topics) = match member.split_once(':') {
                None => (member, None),
                Some((id, topics)) => (id, Some(topics)),
            };
            Listed {
                client_id: id.to_owned(),
                topics: topics.map(|topics| topics.split(',').map(str::to_owned).collect()),
            }
        };
        members.split_whitespace().map(member).collect()
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
            membership.observe(old.clone(), (&listed("m1 m2 m3"), "t"), at(0), GRACE),
            list("m1 m2 m3")
        );
        assert_eq!(
            membership.observe(old, (&listed("m1 m2"), "t"), at(2), GRACE),
            list("m1 m2"),
            "left"
        );
        assert_eq!(
            membership.observe(new.clone(), (&listed("m1"), "t"), at(4), GRACE),
            list("m1 m2")
        );
        assert_eq!(
            membership.observe(new.clone(), (&listed("m1 m4"), "t"), at(6), GRACE),
            list("m1 m2 m4")
        );
        assert_eq!(
            membership.observe(new, (&listed("m1 m4"), "t"), at(10), GRACE),
            list("m1 m4")
        );
    }

    /// Catches a member that is alone for a moment when another broker group's list begins to count, because its own beat
    /// was the first there.
    #[test]
    fn another_groups_list_is_given_time_too() {
        let (mut membership, start) = (Membership::default(), Instant::now());
        // No leader is known of either group yet: it is the same seed that is asked.
        membership.observe(from("g", "seed"), (&listed("m1 m2"), "t"), start, GRACE);
        let first = membership.observe(from("h", "seed"), (&listed("m1"), "t"), start, GRACE);
        assert_eq!(first, list("m1 m2"));
        let later = start + GRACE;
        let then = membership.observe(from("h", "seed"), (&listed("m1"), "t"), later, GRACE);
        assert_eq!(then, list("m1"));
    }

    /// Catches queues that are given to a member which does not subscribe to their topic: nobody would read them.
    #[test]
    fn only_those_who_subscribe_share_a_topic() {
        let (mut membership, start) = (Membership::default(), Instant::now());
        let listing = listed("m1:t m2:u m3 m4:t,u");
        let mut observe = |leader, listing: &[Listed]| {
            let members = membership.observe(from("g", leader), (listing, "t"), start, GRACE);
            members.to_vec()
        };
        assert_eq!(observe("a", &listing), list("m1 m3 m4"));
        // A new leader knows m4 and what it does now, and m1 not yet.
        assert_eq!(observe("b", &listed("m2 m3 m4:u")), list("m1 m3"));
        assert_eq!(observe("b", &listed("m2:t m3 m4:u")), list("m1 m2 m3"));
    }
}
