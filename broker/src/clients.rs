//! Clients that sent a heartbeat lately, and the consumer group of each.
//!
//! Kept in the leader's memory only: nothing depends on it but what operators and rebalancing consumers
//! are shown. A new leader's list fills within one heartbeat interval. Bounded; pure but for the lock.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard};
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
            *client = Client { group, seen: now };
            return Ok(());
        }
        if living.len() >= self.clients_max {
            self.forget_expired(&mut living, now);
        }
        if living.len() >= self.clients_max {
            return Err(TooManyClients(living.len()));
        }
        living.insert(client_id.to_owned(), Client { group, seen: now });
        Ok(())
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
