//! Whether a broker that has not answered for a while still leads: asks its peers.
//!
//! A machine that vanishes says nothing, and whoever waits for it alone waits for as long as it is allowed to. Its peers
//! elect another leader within about a second. A slow leader is another thing: as long as its peers follow it, nothing is
//! gained by asking somebody else, and all that is sent twice costs it more. So a call goes on waiting until a peer names
//! another leader, and only questions are sent meanwhile: one for all calls to a broker group that wait at a time.
//!
//! What a peer says is a guess, as every address is. Decides nothing about calls; may be wrong about who leads.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use proto::cluster::ListRequest;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout};

use crate::answer::leader_hint;
use crate::connection::Connection;

/// How long an answer is waited for before peers are asked; again after half as long.
pub(crate) const PATIENCE: Duration = Duration::from_millis(500);
/// The same where the answer may take its time: a pull that waits for messages.
pub(crate) const PATIENCE_PARKED: Duration = Duration::from_secs(2);
/// Shortest time between two questions about one broker group, and longest wait for an answer to one.
const INTERVAL: Duration = Duration::from_millis(200);
/// Peers that are asked at the same time.
const ASKED_MAX: usize = 4;
/// Broker groups that are looked after. They are as many as routes name; this only guards against nonsense in them.
const GROUPS_MAX: usize = 1_024;

/// Who is said to lead each broker group, by those who were asked.
#[derive(Debug, Default)]
pub(crate) struct Lookout {
    groups: Mutex<BTreeMap<Arc<str>, Arc<Looked>>>,
}

/// One broker group.
#[derive(Debug)]
struct Looked {
    leader: watch::Sender<Option<Arc<str>>>,
    /// Held while peers are asked: when that was last.
    asked: tokio::sync::Mutex<Option<Instant>>,
}

impl Lookout {
    fn group(&self, group: &str) -> Arc<Looked> {
        let mut groups = self
            .groups
            .lock()
            .expect("nothing panics while the groups are locked");
        if let Some(looked) = groups.get(group) {
            return looked.clone();
        }
        if groups.len() >= GROUPS_MAX {
            groups.pop_first();
        }
        let looked = Arc::new(Looked {
            leader: watch::Sender::new(None),
            asked: tokio::sync::Mutex::default(),
        });
        groups.insert(group.into(), looked.clone());
        looked
    }
}

impl Looked {
    /// Returns when somebody is said from now on to lead who is not at `address`.
    async fn another_than(&self, address: &str) {
        // What was said before is known to the table.
        let mut leader = self.leader.subscribe();
        while leader.changed().await.is_ok() {
            let now = leader.borrow_and_update().clone();
            if now.is_some_and(|now| &*now != address) {
                return;
            }
        }
    }
}

impl Connection {
    /// Returns when a peer of `address` says that another one leads `group`, who is known to the table then: no answer is to
    /// be expected from `address` any more. Asks nobody before `patience` is over. Never returns otherwise.
    pub(crate) async fn overtaken(&self, group: &str, address: &str, patience: Duration) {
        if group.is_empty() {
            // Nobody knows whom to ask about it.
            return std::future::pending().await;
        }
        let looked = self.lookout.group(group);
        tokio::select! {
            biased;
            () = looked.another_than(address) => {}
            () = self.look(&looked, group, address, patience) => {}
        }
        tracing::debug!(group, address, "does not answer, and another one leads");
        // If it comes back, then not by what was opened before.
        self.forget(address);
    }

    async fn look(&self, looked: &Looked, group: &str, address: &str, patience: Duration) {
        sleep(patience).await;
        loop {
            // Whoever asks already asks for all.
            if let Ok(mut asked) = looked.asked.try_lock()
                && asked.is_none_or(|asked| asked.elapsed() >= INTERVAL)
            {
                *asked = Some(Instant::now());
                if let Some(leader) = self.ask_peers(group, address).await {
                    self.brokers.heard(group, &leader, address);
                    looked.leader.send_replace(Some(leader));
                    return;
                }
            }
            sleep(patience / 2).await;
        }
    }

    /// The first leader named by a peer of `address` that is another one than it.
    async fn ask_peers(&self, group: &str, address: &str) -> Option<Arc<str>> {
        let peers = self.brokers.others(group, address, ASKED_MAX);
        let mut asked: FuturesUnordered<_> = peers.iter().map(|peer| self.ask_peer(peer)).collect();
        while let Some(said) = asked.next().await {
            match said {
                Some(leader) if &*leader != address && !self.brokers.is_suspect(group, &leader) => {
                    return Some(leader);
                }
                _ => {}
            }
        }
        None
    }

    /// Who leads, as one broker says.
    async fn ask_peer(&self, peer: &str) -> Option<Arc<str>> {
        let mut inquiry = self.inquiry(peer).ok()?;
        let question = inquiry.list_replicas(self.request(ListRequest {}, INTERVAL));
        let answer = timeout(INTERVAL, question).await.ok()?.ok()?;
        leader_hint(answer.metadata()).map(Arc::from)
    }
}
