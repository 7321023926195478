//! Where the other replicas are reached.
//!
//! The group's log says so, and may be wrong: a machine gets another address, and its replica can tell only those that it
//! reaches. So a replica announces itself to everybody; what it announces is used at once, and passed on by whoever reached
//! it there. When nobody answers at an address, all others that were heard of are tried: what the operator said, what the
//! configuration says. Where the right replica answered last is where everything goes.
//!
//! Nothing here is a fact: a request says which replica, and which data directory of it, it is for, and anybody else
//! refuses it. Never connects, never decides who is a member.

use std::collections::BTreeMap;
use std::fmt::{self, Display, Formatter};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use proto::raft::Announcement;
use tokio::time::Instant;

use crate::incarnation::starts_of;
use crate::member::Member;

/// A replica that was not reached for so long is told of, and again each time as long.
const TOLD_AFTER: Duration = Duration::from_secs(60);

/// Longest address that is kept, in bytes.
pub(crate) const ADDRESS_BYTES_MAX: usize = 512;

/// Replicas that are kept at most. A group has fewer; this only guards against nonsense.
const REPLICAS_MAX: usize = 64;

/// Who says that a replica is at an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Source {
    /// The replica itself.
    Announced,
    /// Nobody: it answered there last.
    Answered,
    /// `raftmq group set-address`.
    Operator,
    /// The membership.
    Log,
    /// This replica's configuration.
    Configuration,
}

impl Display for Source {
    fn fmt(&self, formatter: &mut Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Source::Announced => "announced by itself",
            Source::Answered => "where it answered last",
            Source::Operator => "set by an operator",
            Source::Log => "from the group's log",
            Source::Configuration => "from members in the configuration",
        })
    }
}

/// Where each replica is reached. Cheap to clone; clones are one.
#[derive(Clone)]
pub(crate) struct Addresses {
    own: Arc<Announcement>,
    others: Arc<Mutex<BTreeMap<u64, Known>>>,
}

/// What is known of one other replica.
#[derive(Debug, Default)]
struct Known {
    announced: Option<Announcement>,
    set: Option<String>,
    configured: Option<String>,
    /// Where it answered last.
    answered: Option<String>,
    /// The same, or where it announced itself since: where everything goes.
    current: Option<String>,
    /// It answered there in the last round.
    answers: bool,
    /// It reached us where we say that we are.
    reached_us: bool,
    silent_since: Option<Instant>,
    told: Option<Instant>,
    stranger_told: Option<Instant>,
}

/// How somebody came to say where a replica is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Word {
    /// The replica says it: it was admitted as the one process of its data directory, or answered.
    Own,
    /// Somebody else, who reached it there, a moment ago or longer.
    Passed,
}

impl Addresses {
    /// Of a replica that is reached itself where `own` says; `configured` are the others.
    pub(crate) fn new(own: Announcement, configured: &[Member]) -> Addresses {
        let others = configured
            .iter()
            .filter(|one| one.broker_id != own.broker_id);
        let known = |member: &Member| Known {
            configured: Some(member.peer_address.clone()),
            ..Known::default()
        };
        let others = others.map(|member| (member.broker_id, known(member)));
        Addresses {
            others: Arc::new(Mutex::new(others.collect())),
            own: Arc::new(own),
        }
    }

    /// What this replica announces.
    pub(crate) fn own(&self) -> &Announcement {
        &self.own
    }

    /// Where to reach a replica that the log has at `logged`.
    pub(crate) fn of(&self, broker_id: u64, logged: &str) -> String {
        let others = self.lock();
        let current = others.get(&broker_id).and_then(|one| one.current.clone());
        current.unwrap_or_else(|| logged.to_owned())
    }

    /// Where a replica answered in the last round.
    pub(crate) fn reached_at(&self, broker_id: u64) -> Option<String> {
        let others = self.lock();
        let known = others.get(&broker_id).filter(|one| one.answers)?;
        known.current.clone()
    }

    /// Where a replica may be that the log has at `logged`, if it has it at all: the one place where it answers, and the one
    /// that it announces, which others may need; or all that were heard of.
    pub(crate) fn candidates(&self, broker_id: u64, logged: Option<&str>) -> Vec<(String, Source)> {
        let others = self.lock();
        let Some(known) = others.get(&broker_id) else {
            return logged
                .map(|one| (one.to_owned(), Source::Log))
                .into_iter()
                .collect();
        };
        let mut candidates = known.all(logged);
        if let Some(current) = known.current.as_ref().filter(|_| known.answers) {
            candidates
                .retain(|(address, source)| address == current || *source == Source::Announced);
        }
        candidates
    }

    /// A replica says where it is, itself or through somebody who reached it there. The caller knows that it is a member, with
    /// this data directory.
    pub(crate) fn heard(&self, announcement: &Announcement, word: Word) {
        if announcement.broker_id == self.own.broker_id || !is_sound(announcement) {
            return;
        }
        let mut others = self.lock();
        if others.len() >= REPLICAS_MAX && !others.contains_key(&announcement.broker_id) {
            return;
        }
        let known = others.entry(announcement.broker_id).or_default();
        let newer = (known.announced.as_ref()).is_none_or(|before| {
            let (starts, starts_before) = (
                starts_of(announcement.incarnation),
                starts_of(before.incarnation),
            );
            // A start that peers refused is taken back, and the next one has its number: of two such only the replica itself
            // knows which one lives.
            let same_starts = starts == starts_before && word == Word::Own;
            before.replica_id != announcement.replica_id
                || starts > starts_before
                || (same_starts && announcement.incarnation != before.incarnation)
        });
        if !newer {
            return;
        }
        let address = &announcement.peer_address;
        if known
            .current
            .as_ref()
            .is_some_and(|current| current != address)
        {
            tracing::info!(
                broker_id = announcement.broker_id,
                address,
                "a replica says that it is reached elsewhere"
            );
        }
        known.current = Some(address.clone());
        known.answers = false;
        known.announced = Some(announcement.clone());
    }

    /// What operators said.
    pub(crate) fn all_set(&self) -> BTreeMap<u64, String> {
        let others = self.lock();
        let set = others
            .iter()
            .filter_map(|(broker_id, one)| Some((*broker_id, one.set.clone()?)));
        set.collect()
    }

    /// An operator says where a replica is; `None`: takes that back. What is too long for an address is none.
    pub(crate) fn set(&self, broker_id: u64, address: Option<&str>) {
        let address = address.filter(|address| address.len() <= ADDRESS_BYTES_MAX);
        let mut others = self.lock();
        if address.is_none() && !others.contains_key(&broker_id) {
            return;
        }
        let known = others.entry(broker_id).or_default();
        known.set = address.map(str::to_owned);
        known.answers = false;
    }

    /// The right replica answered there. `reached_us`: it reaches this one where this one says that it is.
    pub(crate) fn answered(&self, broker_id: u64, address: &str, reached_us: bool) {
        let mut others = self.lock();
        let known = others.entry(broker_id).or_default();
        known.answered = Some(address.to_owned());
        known.current = known.answered.clone();
        known.answers = true;
        known.reached_us = reached_us;
        (known.silent_since, known.told) = (None, None);
    }

    /// It answered nowhere in this round. Says so where operators look, once a minute.
    pub(crate) fn silent(&self, broker_id: u64, logged: Option<&str>, now: Instant) {
        let mut others = self.lock();
        let known = others.entry(broker_id).or_default();
        (known.answers, known.reached_us) = (false, false);
        let since = *known.silent_since.get_or_insert(now);
        let due = known.told.unwrap_or(since) + TOLD_AFTER;
        if now < due {
            return;
        }
        known.told = Some(now);
        let tried = known.all(logged);
        let tried: Vec<String> = tried
            .iter()
            .map(|(address, source)| format!("{address} ({source})"))
            .collect();
        tracing::warn!(
            broker_id,
            silent_s = now.duration_since(since).as_secs(),
            tried = tried.join(", "),
            "a replica is not reached; if it has another address, start it with that one in `members`, or say so to this \
             broker with `raftmq group set-address`"
        );
    }

    /// Somebody else is where a member was looked for. Whether that is due to be told: the member may be anywhere else.
    pub(crate) fn stranger(&self, broker_id: u64, now: Instant) -> bool {
        let mut others = self.lock();
        let told = &mut others.entry(broker_id).or_default().stranger_told;
        let due = told.is_none_or(|told| now >= told + TOLD_AFTER);
        if due {
            *told = Some(now);
        }
        due
    }

    /// Where a replica says that it is.
    pub(crate) fn announced(&self, broker_id: u64) -> Option<String> {
        let others = self.lock();
        let announced = others.get(&broker_id)?.announced.as_ref()?;
        Some(announced.peer_address.clone())
    }

    /// What was announced by those that were reached there a moment ago.
    pub(crate) fn reached(&self) -> Vec<Announcement> {
        let others = self.lock();
        others
            .values()
            .filter_map(Known::reached)
            .cloned()
            .collect()
    }

    /// What a replica announced and was reached at: of this one itself, if another one reached it.
    pub(crate) fn verified(&self, broker_id: u64) -> Option<Announcement> {
        let others = self.lock();
        if broker_id == self.own.broker_id {
            let reached = others.values().any(|one| one.answers && one.reached_us);
            return (reached && is_sound(&self.own)).then(|| (*self.own).clone());
        }
        others.get(&broker_id)?.reached().cloned()
    }

    /// Whether a peer's list of those that it reached has this replica, where it says that it is.
    pub(crate) fn has_own(&self, reached: &[Announcement]) -> bool {
        reached.iter().any(|one| *one == *self.own)
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<u64, Known>> {
        self.others
            .lock()
            .expect("nothing panics while the addresses are locked")
    }
}

impl Known {
    fn reached(&self) -> Option<&Announcement> {
        let announced = self.announced.as_ref()?;
        let there = self.current.as_ref() == Some(&announced.peer_address);
        (self.answers && there).then_some(announced)
    }

    /// Everywhere it may be, the likeliest first.
    fn all(&self, logged: Option<&str>) -> Vec<(String, Source)> {
        let announced = self.announced.as_ref().map(|one| one.peer_address.as_str());
        let heard = [
            (announced, Source::Announced),
            (self.answered.as_deref(), Source::Answered),
            (self.set.as_deref(), Source::Operator),
            (logged, Source::Log),
            (self.configured.as_deref(), Source::Configuration),
        ];
        let mut all: Vec<(String, Source)> = Vec::new();
        for (address, source) in heard {
            if let Some(address) = address
                && all.iter().all(|(known, _)| known != address)
            {
                all.push((address.to_owned(), source));
            }
        }
        all
    }
}

fn is_sound(announcement: &Announcement) -> bool {
    let addresses = [&announcement.peer_address, &announcement.client_address];
    let sound = |address: &&String| !address.is_empty() && address.len() <= ADDRESS_BYTES_MAX;
    announcement.broker_id != 0 && addresses.iter().all(sound)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn announced(broker_id: u64, starts: u64, address: &str) -> Announcement {
        Announcement {
            broker_id,
            replica_id: broker_id * 10,
            incarnation: starts << 32 | 5,
            peer_address: address.into(),
            client_address: format!("{address}0"),
        }
    }

    fn addresses() -> Addresses {
        let member = |broker_id: u64| Member {
            broker_id,
            peer_address: format!("configured-{broker_id}:1"),
            client_address: format!("client-{broker_id}:1"),
        };
        let members: Vec<Member> = (1..=3).map(member).collect();
        Addresses::new(announced(1, 1, "own:1"), &members)
    }

    fn places(addresses: &Addresses, logged: &str) -> Vec<String> {
        let candidates = addresses.candidates(2, Some(logged));
        candidates.into_iter().map(|(address, _)| address).collect()
    }

    /// Catches a replica that is dialled for ever where it was, and one that is not looked for where it may be.
    #[test]
    fn all_places_are_tried_until_one_answers() {
        let addresses = addresses();
        assert_eq!(
            places(&addresses, "logged:1"),
            ["logged:1", "configured-2:1"]
        );
        assert_eq!(addresses.of(2, "logged:1"), "logged:1");
        addresses.set(2, Some("set:1"));
        addresses.heard(&announced(2, 1, "said:1"), Word::Passed);
        let all = ["said:1", "set:1", "logged:1", "configured-2:1"];
        assert_eq!(places(&addresses, "logged:1"), all);
        assert_eq!(addresses.of(2, "logged:1"), "said:1");
        addresses.answered(2, "set:1", false);
        assert_eq!(
            places(&addresses, "logged:1"),
            ["said:1", "set:1"],
            "others may need the first"
        );
        assert_eq!(addresses.of(2, "logged:1"), "set:1");
        addresses.silent(2, Some("logged:1"), Instant::now());
        assert_eq!(places(&addresses, "logged:1"), all);
        addresses.answered(2, "said:1", false);
        assert_eq!(places(&addresses, "logged:1"), ["said:1"]);
        let long = "a".repeat(ADDRESS_BYTES_MAX + 1);
        addresses.set(2, Some(long.as_str()));
        let unset = ["said:1", "logged:1", "configured-2:1"];
        assert_eq!(places(&addresses, "logged:1"), unset);
    }

    /// Catches a replica that is lost because it says that it is where nobody reaches it, while it is where it was.
    #[test]
    fn where_it_answered_last_is_tried_too() {
        let addresses = addresses();
        addresses.answered(2, "here:1", false);
        addresses.heard(&announced(2, 2, "nowhere:1"), Word::Own);
        assert_eq!(addresses.of(2, "logged:1"), "nowhere:1");
        assert_eq!(addresses.reached_at(2), None, "not there");
        let tried = ["nowhere:1", "here:1", "logged:1", "configured-2:1"];
        assert_eq!(places(&addresses, "logged:1"), tried);
        addresses.answered(2, "here:1", false);
        assert_eq!(addresses.of(2, "logged:1"), "here:1");
        assert_eq!(addresses.reached_at(2).as_deref(), Some("here:1"));
        assert_eq!(places(&addresses, "logged:1"), ["nowhere:1", "here:1"]);
    }

    /// Catches a new address that is not believed, because the start before it was refused and taken back: both have one
    /// number, and the other had the greater random one. And one that comes back by hearsay then.
    #[test]
    fn of_two_starts_of_one_number_the_replica_itself_knows() {
        let addresses = addresses();
        addresses.heard(&announced(2, 3, "refused:1"), Word::Own);
        let mut living = announced(2, 3, "living:1");
        living.incarnation -= 1;
        addresses.heard(&living, Word::Passed);
        assert_eq!(addresses.of(2, "logged:1"), "refused:1");
        addresses.heard(&living, Word::Own);
        assert_eq!(addresses.of(2, "logged:1"), "living:1");
        addresses.heard(&announced(2, 3, "refused:1"), Word::Passed);
        addresses.heard(&announced(2, 2, "earlier:1"), Word::Own);
        assert_eq!(addresses.of(2, "logged:1"), "living:1");
    }

    /// Catches a log that is filled by a stranger who stays.
    #[test]
    fn a_stranger_is_told_of_once_a_minute() {
        let addresses = addresses();
        let now = Instant::now();
        assert!(addresses.stranger(2, now));
        assert!(!addresses.stranger(2, now + TOLD_AFTER / 2));
        assert!(addresses.stranger(2, now + TOLD_AFTER));
    }

    /// Catches an address that comes back by hearsay after its replica has left it, and one that nobody reached and that
    /// becomes the group's.
    #[test]
    fn the_latest_start_counts_and_only_what_was_reached() {
        let addresses = addresses();
        addresses.heard(&announced(2, 2, "new:1"), Word::Own);
        addresses.heard(&announced(2, 1, "old:1"), Word::Passed);
        assert_eq!(addresses.of(2, "logged:1"), "new:1");
        assert_eq!(addresses.verified(2), None);
        addresses.answered(2, "logged:1", false);
        assert_eq!(addresses.verified(2), None, "it is elsewhere");
        addresses.answered(2, "new:1", false);
        assert_eq!(addresses.verified(2), Some(announced(2, 2, "new:1")));
        assert_eq!(addresses.reached().len(), 1);
        addresses.silent(2, Some("logged:1"), Instant::now());
        assert_eq!(addresses.verified(2), None);
    }

    /// Catches an own address that is proposed although nobody reaches it.
    #[test]
    fn the_own_address_counts_once_a_peer_reached_it() {
        let addresses = addresses();
        addresses.answered(2, "b:1", false);
        assert_eq!(addresses.verified(1), None);
        assert!(addresses.has_own(&[announced(1, 1, "own:1")]));
        assert!(
            !addresses.has_own(&[announced(1, 0, "own:1")]),
            "an earlier start's"
        );
        addresses.answered(2, "b:1", true);
        assert_eq!(addresses.verified(1), Some(announced(1, 1, "own:1")));
    }
}
