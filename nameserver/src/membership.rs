//! Which other name servers there are, and which of them to talk to next.
//!
//! Configured peers stay for ever. Others are learned by gossip, and dropped when they stay silent; only those that
//! answered lately are told on, so that the address of a server that is gone dies out instead of going round. Pure: `now`
//! is passed in, nothing is sent.

use std::collections::BTreeMap;

use rand::Rng;
use rand::seq::SliceRandom;

use crate::registration::is_address;
use crate::registry::MonotonicMs;

/// Most name servers that one knows of.
pub const MEMBERS_MAX: usize = 64;

/// A learned name server that did not answer for this long is dropped.
pub const SILENT_MS_MAX: u64 = 600_000;

/// A peer that fails is left alone for 2, 4, … up to this many gossip intervals.
const BACKOFF_INTERVALS_MAX: u64 = 8;

/// The name servers known to this one, itself excluded.
#[derive(Debug)]
pub struct Membership {
    own: String,
    interval_ms: u64,
    members: BTreeMap<String, Member>,
}

#[derive(Debug)]
struct Member {
    configured: bool,
    answered: Option<MonotonicMs>,
    learned: MonotonicMs,
    failures: u32,
    /// Not to be picked before.
    rests_until: MonotonicMs,
}

impl Membership {
    /// The configured peers of the name server that others know as `own`.
    pub fn new(own: &str, interval_ms: u64, peers: &[String]) -> Membership {
        let mut membership = Membership {
            own: own.to_owned(),
            interval_ms,
            members: BTreeMap::new(),
        };
        for peer in peers {
            membership.insert(peer, true, 0);
        }
        membership
    }

    /// Others say that these exist.
    pub fn learn<'a>(&mut self, addresses: impl IntoIterator<Item = &'a String>, now: MonotonicMs) {
        for address in addresses {
            self.insert(address, false, now);
        }
    }

    /// A peer called; so a peer that was thought gone is back, and worth a call.
    pub fn called(&mut self, address: &str, now: MonotonicMs) {
        self.insert(address, false, now);
        if let Some(member) = self.members.get_mut(address) {
            member.rests_until = now;
        }
    }

    /// A peer answered.
    pub fn answered(&mut self, address: &str, now: MonotonicMs) {
        if let Some(member) = self.members.get_mut(address) {
            member.answered = Some(now);
            member.failures = 0;
            member.rests_until = now;
        }
    }

    /// A peer did not answer.
    pub fn failed(&mut self, address: &str, now: MonotonicMs) {
        if let Some(member) = self.members.get_mut(address) {
            member.failures = member.failures.saturating_add(1);
            let intervals = BACKOFF_INTERVALS_MAX.min(1 << member.failures.min(16));
            member.rests_until = now.saturating_add(self.interval_ms.saturating_mul(intervals));
        }
    }

    /// Up to `count` peers at random, of those that are not resting. Drops those that were silent for too long.
    pub fn pick(&mut self, count: usize, now: MonotonicMs, random: &mut impl Rng) -> Vec<String> {
        self.members.retain(|_, member| {
            let last = member.answered.unwrap_or(member.learned);
            member.configured || now.saturating_sub(last) < SILENT_MS_MAX
        });
        let awake = |(address, member): (&String, &Member)| {
            (member.rests_until <= now).then(|| address.clone())
        };
        let mut picked: Vec<String> = self.members.iter().filter_map(awake).collect();
        picked.shuffle(random);
        picked.truncate(count);
        picked
    }

    /// All peers, resting ones too.
    pub fn all(&self) -> Vec<String> {
        self.members.keys().cloned().collect()
    }

    /// Whom to tell others of: this one, the configured ones, and those that answered lately.
    pub fn worth_telling(&self, now: MonotonicMs) -> Vec<String> {
        let lately = |member: &Member| {
            member
                .answered
                .is_some_and(|answered| now.saturating_sub(answered) < SILENT_MS_MAX)
        };
        let told = self
            .members
            .iter()
            .filter(|(_, member)| member.configured || lately(member));
        std::iter::once(self.own.clone())
            .chain(told.map(|(address, _)| address.clone()))
            .collect()
    }

    fn insert(&mut self, address: &str, configured: bool, now: MonotonicMs) {
        let known = self.members.contains_key(address);
        let full = self.members.len() >= MEMBERS_MAX && !configured;
        if known || full || address == self.own || !is_address(address) {
            return;
        }
        let member = Member {
            configured,
            answered: None,
            learned: now,
            failures: 0,
            rests_until: 0,
        };
        self.members.insert(address.to_owned(), member);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const INTERVAL_MS: u64 = 100;

    fn address(number: usize) -> String {
        format!("ns{number}:9876")
    }

    fn membership(peers: &[usize]) -> Membership {
        let peers: Vec<String> = peers.iter().map(|number| address(*number)).collect();
        Membership::new("self:9876", INTERVAL_MS, &peers)
    }

    fn picked(membership: &mut Membership, now: MonotonicMs) -> Vec<String> {
        let mut picked = membership.pick(usize::MAX, now, &mut rand::rng());
        picked.sort();
        picked
    }

    /// Catches a name server that gossips with itself, believes garbage, or lets strangers fill its memory.
    #[test]
    fn learning_is_bounded_and_choosy() {
        let mut membership = membership(&[1]);
        membership.learn(&["self:9876".into(), "garbage".into(), address(2)], 0);
        assert_eq!(membership.all(), [address(1), address(2)]);
        membership.learn(&(0..1_000).map(address).collect::<Vec<_>>(), 0);
        assert_eq!(membership.all().len(), MEMBERS_MAX);
    }

    /// Catches rounds that are wasted on a peer that is down, and a peer that is never tried again.
    #[test]
    fn a_peer_that_fails_rests_longer_each_time_but_is_tried_again() {
        let mut membership = membership(&[1, 2]);
        let mut now = 0;
        let mut rests = Vec::new();
        for _ in 0..5 {
            membership.failed(&address(1), now);
            let start = now;
            while picked(&mut membership, now) == [address(2)] {
                now += 1;
            }
            rests.push((now - start) / INTERVAL_MS);
        }
        assert_eq!(rests, [2, 4, 8, 8, 8]);
        membership.failed(&address(1), now);
        membership.called(&address(1), now);
        assert_eq!(
            picked(&mut membership, now).len(),
            2,
            "it called, so it is back"
        );
    }

    /// Catches the address of a server that is gone being told round for ever.
    #[test]
    fn what_is_learned_is_told_on_only_once_it_answered_and_dies_out() {
        let mut membership = membership(&[1]);
        membership.learn(&[address(2), address(3)], 0);
        membership.answered(&address(2), 10);
        let told = [String::from("self:9876"), address(1), address(2)];
        assert_eq!(membership.worth_telling(20), told);
        assert_eq!(membership.worth_telling(10 + SILENT_MS_MAX), told[..2]);
        assert_eq!(
            picked(&mut membership, SILENT_MS_MAX),
            [address(1), address(2)]
        );
        assert_eq!(picked(&mut membership, 10 + SILENT_MS_MAX), [address(1)]);
    }
}
