//! Whether a broker that has not answered for a while still leads: asks its peers.
//!
//! A machine that vanishes says nothing, and whoever waits for it alone waits for as long as it is allowed to. Its peers
//! elect another leader within about a second. A slow leader is another thing: as long as its peers follow it, nothing is
//! gained by asking somebody else, and all that is sent twice costs it more. So a call goes on waiting until a peer names
//! another leader, and only questions are sent meanwhile: one for all calls to a broker group that wait at a time.
//!
//! What a peer says is a guess, as every address is, and may be old: one that is cut off names a leader of long ago. So all
//! that answer within a moment are heard, and whoever names a leader says of which term it is. Only the group's own replicas
//! are asked, and only one of them counts as its leader.
//!
//! Decides nothing about calls but that one is not waited for any more; may be wrong about who leads.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use proto::cluster::ListRequest;
use tokio::time::{Instant, sleep, timeout};

use crate::answer::leader_hint;
use crate::connection::Connection;
use crate::hearsay::{Looked, Named};

/// How long an answer is waited for before peers are asked; again after half as long.
pub(crate) const PATIENCE: Duration = Duration::from_millis(500);
/// The same where the answer may take its time: a pull that waits for messages.
pub(crate) const PATIENCE_PARKED: Duration = Duration::from_secs(2);
/// Longest wait for an answer to a question about a broker group, and shortest time between two of them.
const INTERVAL: Duration = Duration::from_millis(200);
/// Peers that are asked at the same time.
const ASKED_MAX: usize = 4;

impl Connection {
    /// Returns when peers of `address` say that another one leads `group`, who is known to the table then: no answer is to
    /// be expected from `address` any more. Returns not before `patience` is over, and never otherwise.
    pub(crate) async fn overtaken(&self, group: &str, address: &str, patience: Duration) {
        if group.is_empty() {
            // Nobody knows whom to ask about it.
            return std::future::pending().await;
        }
        // Also if others have waited for longer, and left: an answer may be on its way.
        sleep(patience).await;
        let looked = self.hearsay.group(group);
        let leader = tokio::select! {
            biased;
            leader = self.hear(&looked, group, address) => leader,
            never = self.keep_asking(&looked, group, address, patience / 2) => match never {},
        };
        tracing::debug!(
            group,
            address,
            ?leader,
            "does not answer, and another one leads"
        );
        self.brokers.elected(group, &leader.leader, leader.term);
        // If it comes back, then not by what was opened before.
        self.forget(address);
    }

    /// Who leads instead of `address`, once the answers of peers say so.
    async fn hear(&self, looked: &Looked, group: &str, address: &str) -> Named {
        let mut said = looked.said.subscribe();
        loop {
            let last = said.borrow_and_update().clone();
            if let Some((at, named)) = last
                && at.elapsed() <= INTERVAL
            {
                let is_leader = |one: &&Named| {
                    self.brokers.is_of(group, &one.leader)
                        && !self.brokers.is_suspect(group, &one.leader)
                };
                // Whoever is named as still leading counts even if it does not answer.
                let is_heard = |one: &&Named| &*one.leader == address || is_leader(one);
                let heard: Vec<Named> = named.iter().filter(is_heard).cloned().collect();
                let leads_in = self.brokers.leads_in(group, address);
                if let Some(leader) = successor(address, leads_in, &heard) {
                    return leader.clone();
                }
            }
            if said.changed().await.is_err() {
                return std::future::pending().await;
            }
        }
    }

    /// Has peers asked again and again, by whoever comes first of all that wait: one question at a time for all of them.
    async fn keep_asking(
        &self,
        looked: &Looked,
        group: &str,
        address: &str,
        pause: Duration,
    ) -> Infallible {
        loop {
            if let Ok(mut asked) = looked.asked.try_lock()
                && asked.is_none_or(|asked| asked.elapsed() >= INTERVAL.max(pause))
            {
                *asked = Some(Instant::now());
                let named = self.ask_peers(group, address).await;
                looked.said.send_replace(Some((Instant::now(), named)));
            }
            sleep(pause).await;
        }
    }

    /// Whom the peers of `address` name that answer in time.
    async fn ask_peers(&self, group: &str, address: &str) -> Arc<[Named]> {
        let peers = self.brokers.others(group, address, ASKED_MAX);
        let asked = peers.iter().map(|peer| self.ask_peer(group, peer));
        let answers = join_all(asked).await;
        answers.into_iter().flatten().collect()
    }

    /// Who leads, as one broker of the group says.
    async fn ask_peer(&self, group: &str, peer: &str) -> Option<Named> {
        let mut inquiry = self.inquiry(peer).ok()?;
        let question = inquiry.list_replicas(self.request(ListRequest {}, INTERVAL));
        let answer = timeout(INTERVAL, question).await.ok()?.ok()?;
        let hint = leader_hint(answer.metadata()).map(Arc::from);
        let answer = answer.into_inner();
        if !answer.group.is_empty() && answer.group != group {
            // Another broker is there by now.
            return None;
        }
        let leader = match answer.term {
            0 => hint,
            _ => Some(Arc::from(answer.leader)).filter(|leader: &Arc<str>| !leader.is_empty()),
        };
        Some(Named {
            leader: leader?,
            term: answer.term,
        })
    }
}

/// Who leads instead of `address`, which is known to lead in the term `leads_in` (0: in none), as those say that were asked.
/// One who is cut off names a leader of an earlier term. Where terms are not told, none may name `address`, or fewer.
fn successor<'a>(address: &str, leads_in: u64, named: &'a [Named]) -> Option<&'a Named> {
    let (same, others): (Vec<&Named>, Vec<&Named>) =
        named.iter().partition(|one| &*one.leader == address);
    let latest = *others.iter().max_by_key(|one| one.term)?;
    let with_it = others.iter().filter(|one| one.leader == latest.leader);
    let is_later = latest.term > leads_in && same.iter().all(|one| one.term < latest.term);
    let terms_are_told = latest.term > 0 && same.iter().all(|one| one.term > 0);
    let leaves = match terms_are_told {
        true => is_later,
        false => same.is_empty() || with_it.count() > same.len(),
    };
    leaves.then_some(latest)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(said: &[(&str, u64)]) -> Vec<Named> {
        let named = |(leader, term): &(&str, u64)| Named {
            leader: (*leader).into(),
            term: *term,
        };
        said.iter().map(named).collect()
    }

    fn leader(leads_in: u64, said: &[(&str, u64)]) -> Option<String> {
        let named = named(said);
        successor("a:1", leads_in, &named).map(|one| one.leader.to_string())
    }

    /// Catches a slow leader that is left because one peer has not heard of it, whichever answers first.
    #[test]
    fn a_leader_is_left_for_one_of_a_later_term_only() {
        assert_eq!(leader(7, &[]), None);
        assert_eq!(leader(0, &[("b:1", 8)]).as_deref(), Some("b:1"));
        assert_eq!(leader(7, &[("b:1", 8)]).as_deref(), Some("b:1"));
        assert_eq!(leader(7, &[("b:1", 6)]), None, "of long ago");
        assert_eq!(leader(0, &[("b:1", 6), ("a:1", 7)]), None);
        assert_eq!(leader(0, &[("a:1", 7), ("b:1", 6)]), None);
        let later = [("a:1", 7), ("c:1", 6), ("b:1", 8)];
        assert_eq!(leader(7, &later).as_deref(), Some("b:1"));
    }

    /// Catches a client that waits for ever beside brokers that do not tell terms, and one that goes by the first of them.
    #[test]
    fn without_terms_those_that_name_another_one_must_be_more() {
        assert_eq!(leader(0, &[("b:1", 0)]).as_deref(), Some("b:1"));
        assert_eq!(leader(0, &[("b:1", 0), ("a:1", 0)]), None);
        let more = [("b:1", 0), ("a:1", 0), ("b:1", 0)];
        assert_eq!(leader(0, &more).as_deref(), Some("b:1"));
        assert_eq!(leader(0, &[("b:1", 5), ("a:1", 0)]), None, "one tells");
    }
}
