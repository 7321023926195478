//! The leader takes over into the group's log where members are reached.
//!
//! A member announces its address; the log has another one. Once it is reached there by most of those who can say, the leader
//! proposes the membership with the same replicas, the same votes and the new address. Clients' addresses are looked at on
//! their own: each is taken over once somebody accepts a connection there. Never proposes an address that nobody
//! reached: a wrong word in one configuration must not become the group's.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use host::Shutdown;
use host::network::accepts;
use proto::raft as wire;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::group::{Move, relocate};
use crate::introductions::Acquaintances;
use crate::peers::Peers;
use crate::state::State;
use crate::types::{Node, StoredMembership};

/// Time between looks: introductions come as often.
const INTERVAL: Duration = Duration::from_secs(1);

/// Longest wait for the change to be committed.
const TIMEOUT: Duration = Duration::from_secs(5);

/// Longest wait for a connection to an address for clients.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);

/// Time between two words about addresses that are not taken over.
const TOLD_AFTER: Duration = Duration::from_secs(60);

/// Compares what members announce with what the log says.
pub(crate) struct Relocation {
    pub(crate) state: Arc<State>,
    pub(crate) peers: Peers,
    /// What peers say of the group.
    pub(crate) known: watch::Receiver<Acquaintances>,
}

impl Relocation {
    /// Looks until shutdown.
    pub(crate) async fn run(&self, shutdown: Shutdown) {
        let mut told = None;
        loop {
            tokio::select! {
                biased;
                () = shutdown.wait() => return,
                () = tokio::time::sleep(INTERVAL) => {}
            }
            if !self.state.leadership().borrow().serving {
                continue;
            }
            let relocating = async {
                let moves = self.moves(&mut told).await;
                relocate(&self.state, moves, TIMEOUT).await
            };
            let relocated = tokio::select! {
                biased;
                () = shutdown.wait() => return,
                relocated = relocating => relocated,
            };
            if let Err(error) = relocated {
                tracing::warn!(%error, "a member's new address is not in the log yet; this is tried again");
            }
        }
    }

    /// The members that are reached elsewhere than the log says.
    async fn moves(&self, told: &mut Option<Instant>) -> BTreeMap<u64, Move> {
        let membership = self.state.membership();
        let mut moves = BTreeMap::new();
        let mut unreached = Vec::new();
        let nodes = membership.nodes();
        let nodes: Vec<(u64, Node)> = nodes.map(|(id, node)| (*id, node.clone())).collect();
        for (broker_id, from) in nodes {
            let announced = self.peers.addresses().verified(broker_id);
            let announced = announced.filter(|one| one.replica_id == from.replica_id);
            let Some(announced) = announced else {
                continue;
            };
            let mut to = from.clone();
            if announced.peer_address != from.peer_address {
                match self.is_reached_by_most(&membership, &announced) {
                    true => to.peer_address = announced.peer_address.clone(),
                    false => unreached.push((broker_id, announced.peer_address.clone())),
                }
            }
            if announced.client_address != from.client_address {
                match accepts(&announced.client_address, CONNECT_TIMEOUT).await {
                    true => to.client_address = announced.client_address.clone(),
                    false => unreached.push((broker_id, announced.client_address.clone())),
                }
            }
            if to != from {
                moves.insert(broker_id, Move { from, to });
            }
        }
        tell(&unreached, told);
        moves
    }

    /// Whether most voters beside the member itself reach it where it says that it is, of those that say whom they reach:
    /// of one that is away nothing is known. This replica, which asks, is one of them, if it is not the member itself.
    fn is_reached_by_most(
        &self,
        membership: &StoredMembership,
        announced: &wire::Announcement,
    ) -> bool {
        let own_id = self.peers.identity().broker_id;
        let known = self.known.borrow();
        let others = membership
            .voter_ids()
            .filter(|voter| *voter != announced.broker_id);
        let reach = others.filter_map(|voter| {
            if voter == own_id {
                // Else it would not have been verified.
                return Some(true);
            }
            let peer = known.get(&voter).filter(|peer| peer.silent_rounds == 0)?;
            // One of before this says nothing of addresses.
            peer.status.announcement.as_ref()?;
            Some(peer.status.reached.contains(announced))
        });
        are_most(reach)
    }
}

/// Whether more say yes than no.
fn are_most(said: impl Iterator<Item = bool>) -> bool {
    let (yes, no): (Vec<bool>, Vec<bool>) = said.partition(|yes| *yes);
    yes.len() > no.len()
}

/// Says that announced addresses are not taken over, once a minute.
fn tell(unreached: &[(u64, String)], told: &mut Option<Instant>) {
    let now = Instant::now();
    if unreached.is_empty() {
        // Not at the first look: the others have not looked yet.
        *told = None;
        return;
    }
    let due = *told.get_or_insert(now) + TOLD_AFTER;
    if now < due {
        return;
    }
    *told = Some(now);
    tracing::warn!(
        ?unreached,
        "brokers say that they are at these addresses, which are not reached: the group keeps the ones that it has; mind their \
         own entries in `members`"
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Catches an address that becomes the group's although most do not reach it, and one that never does because of one
    /// voter that is away.
    #[test]
    fn most_of_those_who_say_must_reach_it() {
        assert!(are_most([true].into_iter()), "the other one is away");
        assert!(are_most([true, true].into_iter()));
        assert!(!are_most([true, false].into_iter()), "this one alone");
        assert!(!are_most([].into_iter()), "nobody");
    }
}
