//! Clients that sent a heartbeat lately, the consumer group of each, and what it subscribes to.
//!
//! Kept in the leader's memory only: nothing depends on it but what operators and rebalancing consumers
//! are shown. A new leader's list fills within one heartbeat interval. Bounded; pure but for the lock.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use tokio::time::Instant;

/// The registry is full; the client was not remembered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0} clients are connected already")]
pub(crate) struct TooManyClients(pub(crate) usize);

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
    seen: Instant,
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
        now: Instant,
    ) -> Result<(), TooManyClients> {
        let mut living = self.lock();
        if let Some(client) = living.get_mut(client_id) {
            if client.group != group {
                client.topics = None;
            }
            client.group = group;
            client.seen = now;
            return Ok(());
        }
        if living.len() >= self.clients_max {
            self.forget_expired(&mut living, now);
        }
        if living.len() >= self.clients_max {
            return Err(TooManyClients(living.len()));
        }
        let client = Client {
            group,
            topics: None,
            seen: now,
        };
        living.insert(client_id.to_owned(), client);
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

    /// A client said good-bye.
    pub(crate) fn remove(&self, client_id: &str) {
        self.lock().remove(client_id);
    }

    /// The living members of a consumer group, sorted.
    pub(crate) fn members(&self, group: &str, now: Instant) -> Vec<String> {
        let living = self.lock();
        let members = living.iter().filter(|(_, client)| {
            client.group.as_deref() == Some(group) && self.is_alive(client, now)
        });
        members.map(|(client_id, _)| client_id.clone()).collect()
    }

    /// The same with the time since each one's last heartbeat.
    pub(crate) fn members_seen(&self, group: &str, now: Instant) -> Vec<(String, Duration)> {
        let living = self.lock();
        let members = living.iter().filter(|(_, client)| {
            client.group.as_deref() == Some(group) && self.is_alive(client, now)
        });
        members
            .map(|(client_id, client)| {
                let ago = now.saturating_duration_since(client.seen);
                (client_id.clone(), ago)
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
        clients.beat("b", group("g"), start).unwrap();
        clients.beat("a", group("g"), start + EXPIRY / 2).unwrap();
        clients.beat("p", None, start).unwrap();
        clients.beat("other", group("h"), start).unwrap();
        assert_eq!(clients.members("g", start + EXPIRY / 2), ["a", "b"]);
        assert_eq!(clients.members("g", start + EXPIRY), ["a"]);
        clients.remove("a");
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
        clients.beat("a", group("g"), now).unwrap();
        assert_eq!(topics(&clients, "g"), [("a".to_owned(), None)]);
        clients.subscribes("a", "g", &["t".to_owned()]);
        clients.subscribes("a", "h", &["u".to_owned()]);
        clients.beat("a", group("g"), now).unwrap();
        let told = Some(vec!["t".to_owned()]);
        assert_eq!(topics(&clients, "g"), [("a".to_owned(), told)]);
        clients.beat("a", group("h"), now).unwrap();
        assert_eq!(topics(&clients, "h"), [("a".to_owned(), None)]);
    }

    /// Catches a registry that a stranger can fill for ever.
    #[test]
    fn the_bound_holds_and_the_expired_make_room() {
        let (clients, start) = (Clients::new(EXPIRY, 2), Instant::now());
        clients.beat("a", None, start).unwrap();
        clients.beat("b", None, start).unwrap();
        assert_eq!(clients.beat("c", None, start), Err(TooManyClients(2)));
        clients.beat("a", None, start + EXPIRY / 2).unwrap();
        clients.beat("c", None, start + EXPIRY).unwrap();
    }
}
