//! Clients that sent a heartbeat lately, the consumer group of each, what it subscribes to, and which process it is.
//!
//! Two living processes that claim one client id are one member to everybody else: both would take the same queues, and
//! each message would be worked on twice. So who came first keeps the id while it lives. Another one is put off until that is
//! known: refused once the first was heard after it asked; let in once the first has missed its heartbeats, which is how
//! a process that was killed and started again gets its own id back.
//!
//! Kept in the leader's memory only: nothing that is stored depends on it. A new leader's list fills within one
//! heartbeat interval. Bounded; pure but for the lock.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use tokio::time::Instant;

/// Heartbeats that a process misses before another one may have its id.
const BEATS_MISSED: u32 = 3;

/// Processes that claim one id and are remembered.
const RIVALS_MAX: usize = 8;

/// Why a heartbeat was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum NotTaken {
    /// The registry is full; the client was not remembered.
    #[error("{0} clients are connected already")]
    TooManyClients(usize),
    /// Another process has the client id, and it is not known yet whether it lives.
    #[error(
        "this client id was another process's {} ms ago; it is free once that has been silent for {} ms",
        silent.as_millis(), patience.as_millis()
    )]
    Undecided {
        /// Since the other one's last heartbeat.
        silent: Duration,
        /// How long it may be silent.
        patience: Duration,
    },
    /// Another living process has the client id.
    #[error(
        "another living process is a consumer with this client id, heard {} ms ago: give each its own, or none, which is unique by itself",
        silent.as_millis()
    )]
    Taken {
        /// Since the other one's last heartbeat.
        silent: Duration,
        /// For the first refusal of a dispute only, so that a log tells it once.
        news: bool,
    },
}

/// Which process a client is, as far as it says so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Process {
    /// Drawn when the client was made.
    pub(crate) incarnation: u64,
    /// Time between its heartbeats.
    pub(crate) beat_interval: Duration,
}

/// A living member of a consumer group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Member {
    pub(crate) client_id: String,
    /// Since its last heartbeat.
    pub(crate) silent: Duration,
    /// Since another process claimed its id, if one does.
    pub(crate) disputed: Option<Duration>,
}

/// Who lives.
#[derive(Debug)]
pub(crate) struct Clients {
    living: Mutex<BTreeMap<String, Client>>,
    expiry: Duration,
    clients_max: usize,
}

#[derive(Debug)]
struct Client {
    /// Absent for producers.
    group: Option<String>,
    /// Topics that it subscribes to, if it said so.
    topics: Option<Arc<[String]>>,
    process: Option<Process>,
    seen: Instant,
    /// Of the processes that claimed the id lately; at most [`RIVALS_MAX`].
    disputes: Vec<Dispute>,
}

/// Another process claims the id.
#[derive(Clone, Copy, Debug)]
struct Dispute {
    incarnation: u64,
    since: Instant,
    last: Instant,
    told: bool,
}

impl Client {
    fn new(group: Option<String>, process: Option<Process>, now: Instant) -> Client {
        Client {
            group,
            topics: None,
            process,
            seen: now,
            disputes: Vec::new(),
        }
    }

    /// How long it may be silent before another process has its id; `None` if the caller is no other process, as far as is
    /// known, or this is no consumer.
    fn patience_with(&self, caller: Option<Process>) -> Option<Duration> {
        let (own, caller) = (self.process?, caller?);
        self.group.as_ref()?;
        let patience = own.beat_interval.saturating_mul(BEATS_MISSED);
        (own.incarnation != caller.incarnation).then_some(patience)
    }

    /// Another process claims the id.
    fn disputed(&mut self, incarnation: u64, now: Instant, patience: Duration) -> NotTaken {
        let silent = now.saturating_duration_since(self.seen);
        let disputes = &mut self.disputes;
        disputes.retain(|dispute| now.saturating_duration_since(dispute.last) < patience);
        let mut dispute = Dispute {
            incarnation,
            since: now,
            last: now,
            told: false,
        };
        let known = disputes.iter();
        let mut known = known
            .enumerate()
            .filter(|(_, one)| one.incarnation == incarnation);
        if let Some((place, known)) = known.next() {
            (dispute.since, dispute.told) = (known.since, known.told);
            disputes.remove(place);
        } else if disputes.len() >= RIVALS_MAX {
            // Sorted by when each asked last.
            disputes.remove(0);
        }
        let lives = self.seen > dispute.since;
        let news = lives && !std::mem::replace(&mut dispute.told, lives);
        disputes.push(dispute);
        match lives {
            true => NotTaken::Taken { silent, news },
            false => NotTaken::Undecided { silent, patience },
        }
    }
}

impl Clients {
    pub(crate) fn new(expiry: Duration, clients_max: usize) -> Clients {
        Clients {
            living: Mutex::new(BTreeMap::new()),
            expiry,
            clients_max,
        }
    }

    /// A heartbeat. A client that names no group keeps none.
    pub(crate) fn beat(
        &self,
        client_id: &str,
        group: Option<String>,
        process: Option<Process>,
        now: Instant,
    ) -> Result<(), NotTaken> {
        let mut living = self.lock();
        if let Some(client) = living.get_mut(client_id) {
            let silent = now.saturating_duration_since(client.seen);
            let patience = client
                .patience_with(process)
                .map(|max| max.min(self.expiry));
            if let (Some(patience), Some(process)) = (patience, process)
                && silent < patience
            {
                return match group {
                    // It reads nothing: what the other one is does not change.
                    None => Ok(()),
                    Some(_) => Err(client.disputed(process.incarnation, now, patience)),
                };
            }
            if patience.is_some() || client.group != group {
                // Another one from here on, or another group's.
                *client = Client::new(group, process, now);
            } else {
                (client.process, client.seen) = (process, now);
            }
            return Ok(());
        }
        if living.len() >= self.clients_max {
            self.forget_expired(&mut living, now);
        }
        if living.len() >= self.clients_max {
            return Err(NotTaken::TooManyClients(living.len()));
        }
        living.insert(client_id.to_owned(), Client::new(group, process, now));
        Ok(())
    }

    /// A member of a consumer group subscribes to these topics and no others. Nothing is remembered of one that is not.
    pub(crate) fn subscribes(&self, client_id: &str, group: &str, topics: &[String]) {
        let mut living = self.lock();
        let client = living.get_mut(client_id);
        if let Some(client) = client.filter(|client| client.group.as_deref() == Some(group))
            && client.topics.as_deref() != Some(topics)
        {
            client.topics = Some(topics.into());
        }
    }

    /// The living members of a consumer group, sorted, and what each subscribes to, if it said so.
    pub(crate) fn subscriptions(
        &self,
        group: &str,
        now: Instant,
    ) -> Vec<(String, Option<Arc<[String]>>)> {
        let living = self.lock();
        let members = living.iter().filter(|(_, client)| {
            client.group.as_deref() == Some(group) && self.is_alive(client, now)
        });
        members
            .map(|(client_id, client)| (client_id.clone(), client.topics.clone()))
            .collect()
    }

    /// A client said good-bye. Whether that was the one that is known by this id.
    pub(crate) fn remove(&self, client_id: &str, process: Option<Process>) -> bool {
        let mut living = self.lock();
        let known = living.get(client_id);
        let is_another = known.is_some_and(|client| client.patience_with(process).is_some());
        if !is_another {
            living.remove(client_id);
        }
        !is_another
    }

    /// The ids of the living members of a consumer group, sorted.
    pub(crate) fn members(&self, group: &str, now: Instant) -> Vec<String> {
        let members = self.members_seen(group, now).into_iter();
        members.map(|member| member.client_id).collect()
    }

    /// The living members of a consumer group, sorted by id.
    pub(crate) fn members_seen(&self, group: &str, now: Instant) -> Vec<Member> {
        let living = self.lock();
        let members = living.iter().filter(|(_, client)| {
            client.group.as_deref() == Some(group) && self.is_alive(client, now)
        });
        members
            .map(|(client_id, client)| {
                let ago = |then: Instant| now.saturating_duration_since(then);
                let disputed = client.disputes.last().map(|dispute| ago(dispute.last));
                Member {
                    client_id: client_id.clone(),
                    silent: ago(client.seen),
                    disputed: disputed.filter(|ago| *ago < self.expiry),
                }
            })
            .collect()
    }

    /// Forgets those who have not been heard of; for the ticker.
    pub(crate) fn expire(&self, now: Instant) {
        self.forget_expired(&mut self.lock(), now);
    }

    fn forget_expired(&self, living: &mut BTreeMap<String, Client>, now: Instant) {
        living.retain(|_, client| self.is_alive(client, now));
    }

    fn is_alive(&self, client: &Client, now: Instant) -> bool {
        now.saturating_duration_since(client.seen) < self.expiry
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Client>> {
        self.living
            .lock()
            .expect("nothing panics while the clients are locked")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EXPIRY: Duration = Duration::from_secs(30);

    fn group(name: &str) -> Option<String> {
        Some(name.to_owned())
    }

    /// Catches members that stay for ever, and members that are forgotten while they live.
    #[test]
    fn a_member_lives_until_its_expiry() {
        let (clients, start) = (Clients::new(EXPIRY, 10), Instant::now());
        clients.beat("b", group("g"), None, start).unwrap();
        clients
            .beat("a", group("g"), None, start + EXPIRY / 2)
            .unwrap();
        clients.beat("p", None, None, start).unwrap();
        clients.beat("other", group("h"), None, start).unwrap();
        assert_eq!(clients.members("g", start + EXPIRY / 2), ["a", "b"]);
        assert_eq!(clients.members("g", start + EXPIRY), ["a"]);
        assert!(clients.remove("a", None));
        assert!(clients.members("g", start + EXPIRY / 2 + EXPIRY / 4) == ["b"]);
    }

    /// Catches a member that counts for topics to which it does not subscribe any more, or that belong to another group.
    #[test]
    fn what_a_member_subscribes_to_goes_with_it() {
        let (clients, now) = (Clients::new(EXPIRY, 10), Instant::now());
        let topics = |clients: &Clients, of: &str| -> Vec<(String, Option<Vec<String>>)> {
            let members = clients.subscriptions(of, now).into_iter();
            members
                .map(|(id, topics)| (id, topics.map(|topics| topics.to_vec())))
                .collect()
        };
        clients.subscribes("a", "g", &["t".to_owned()]);
        clients.beat("a", group("g"), None, now).unwrap();
        assert_eq!(topics(&clients, "g"), [("a".to_owned(), None)]);
        clients.subscribes("a", "g", &["t".to_owned()]);
        clients.subscribes("a", "h", &["u".to_owned()]);
        clients.beat("a", group("g"), None, now).unwrap();
        let told = Some(vec!["t".to_owned()]);
        assert_eq!(topics(&clients, "g"), [("a".to_owned(), told)]);
        clients.beat("a", group("h"), None, now).unwrap();
        assert_eq!(topics(&clients, "h"), [("a".to_owned(), None)]);
    }

    /// Catches a registry that a stranger can fill for ever.
    #[test]
    fn the_bound_holds_and_the_expired_make_room() {
        let (clients, start) = (Clients::new(EXPIRY, 2), Instant::now());
        clients.beat("a", None, None, start).unwrap();
        clients.beat("b", None, None, start).unwrap();
        assert_eq!(
            clients.beat("c", None, None, start),
            Err(NotTaken::TooManyClients(2))
        );
        clients.beat("a", None, None, start + EXPIRY / 2).unwrap();
        clients.beat("c", None, None, start + EXPIRY).unwrap();
    }

    const BEAT: Duration = Duration::from_secs(2);

    fn process(incarnation: u64) -> Option<Process> {
        Some(Process {
            incarnation,
            beat_interval: BEAT,
        })
    }

    /// Catches two processes that are one member to everybody and both read all, and one that pushes out who was there.
    #[test]
    fn who_came_first_keeps_its_id_while_it_lives() {
        let (clients, start) = (Clients::new(EXPIRY, 10), Instant::now());
        let beat = |who, after| clients.beat("c", group("g"), process(who), start + after);
        beat(1, Duration::ZERO).unwrap();
        let soon = BEAT / 4;
        let put_off = beat(2, soon);
        let silent = soon;
        let patience = 3 * BEAT;
        assert_eq!(put_off, Err(NotTaken::Undecided { silent, patience }));
        beat(1, BEAT).unwrap();
        let silent = soon;
        let refused = beat(2, BEAT + soon);
        assert_eq!(refused, Err(NotTaken::Taken { silent, news: true }));
        let again = beat(2, BEAT + soon);
        let news = false;
        assert_eq!(again, Err(NotTaken::Taken { silent, news }));
        // A third one learns nothing from what the second was told.
        let put_off = beat(3, BEAT + soon);
        assert_eq!(put_off, Err(NotTaken::Undecided { silent, patience }));
        let member = &clients.members_seen("g", start + BEAT + soon)[0];
        assert_eq!(member.disputed, Some(Duration::ZERO), "operators see it");
        assert!(!clients.remove("c", process(2)), "not its to take away");
        beat(1, 2 * BEAT).unwrap();
        assert!(clients.remove("c", process(1)));
        beat(2, 2 * BEAT).unwrap();
    }

    /// Catches a process that was killed and started again and is kept out of its own id, or gets it while it may live.
    #[test]
    fn who_was_killed_gets_its_id_back_when_it_was_missed() {
        let (clients, start) = (Clients::new(EXPIRY, 10), Instant::now());
        let beat = |who, after| clients.beat("c", group("g"), process(who), start + after);
        beat(1, Duration::ZERO).unwrap();
        let almost = 3 * BEAT - Duration::from_millis(1);
        for after in [BEAT / 2, BEAT, almost] {
            let put_off = beat(2, after);
            assert!(
                matches!(put_off, Err(NotTaken::Undecided { .. })),
                "{put_off:?}"
            );
        }
        beat(2, 3 * BEAT).unwrap();
        assert!(matches!(
            beat(1, 3 * BEAT + BEAT / 2),
            Err(NotTaken::Undecided { .. })
        ));
        // A producer with that id, or one that does not say who it is, changes nothing of this.
        let at = start + 3 * BEAT + BEAT / 2;
        clients.beat("c", None, process(3), at).unwrap();
        assert_eq!(clients.members("g", at), ["c"]);
    }
}
