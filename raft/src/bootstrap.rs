//! When a replica that never promised anything may start Raft, and who makes the group.
//!
//! A pure decision over what the peers say. The group is made once, by the configured member with
//! the lowest id, when every configured member is there and has never promised anything: then each
//! one's data directory stands in the first membership, and one that is wiped later is known as such.

use std::collections::BTreeMap;

use crate::error::RaftError;
use crate::introductions::Acquaintances;
use crate::member::Member;
use crate::types::Node;

/// What a pristine replica does next.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// Not everybody has been heard yet, or somebody else makes the group.
    Wait,
    /// Start Raft: the group exists, with or without us.
    Join,
    /// Start Raft and make the group of these members.
    Initialize(BTreeMap<u64, Node>),
}

/// Who asks.
pub(crate) struct Candidate<'a> {
    pub(crate) broker_id: u64,
    pub(crate) replica_id: u64,
    /// The configured members.
    pub(crate) members: &'a [Member],
}

impl Candidate<'_> {
    /// Decides from the peers' latest answers. Those that contradict our membership were turned
    /// into errors before.
    pub(crate) fn decide(&self, known: &Acquaintances) -> Result<Step, RaftError> {
        if known.values().any(|peer| !peer.status.members.is_empty()) {
            return Ok(Step::Join);
        }
        let lowest = self.members.iter().map(|member| member.broker_id).min();
        if lowest != Some(self.broker_id) {
            return Ok(Step::Wait);
        }
        let mut nodes = BTreeMap::new();
        for member in self.members {
            let Some(replica_id) = self.pristine_replica(member, known)? else {
                return Ok(Step::Wait);
            };
            nodes.insert(member.broker_id, member.to_node(replica_id));
        }
        Ok(Step::Initialize(nodes))
    }

    /// The member's data directory; `None` if it has not been heard, or has a past.
    fn pristine_replica(
        &self,
        member: &Member,
        known: &Acquaintances,
    ) -> Result<Option<u64>, RaftError> {
        if member.broker_id == self.broker_id {
            return Ok(Some(self.replica_id));
        }
        let Some(peer) = known.get(&member.broker_id) else {
            return Ok(None);
        };
        let mut ours: Vec<u64> = self.members.iter().map(|member| member.broker_id).collect();
        ours.sort_unstable();
        if peer.status.configured != ours {
            return Err(RaftError::MembersDiffer {
                peer: peer.address.clone(),
                theirs: peer.status.configured.clone(),
                ours,
            });
        }
        Ok(peer.status.pristine.then_some(peer.status.replica_id))
    }
}

#[cfg(test)]
mod tests {
    use proto::raft as wire;

    use super::*;
    use crate::introductions::Acquaintance;

    fn member(broker_id: u64) -> Member {
        Member {
            broker_id,
            peer_address: format!("peer-{broker_id}:1"),
            client_address: format!("client-{broker_id}:1"),
        }
    }

    fn pristine(broker_id: u64) -> wire::StatusResponse {
        wire::StatusResponse {
            broker_id,
            replica_id: broker_id * 10,
            pristine: true,
            configured: vec![1, 2, 3],
            ..wire::StatusResponse::default()
        }
    }

    fn known(statuses: Vec<wire::StatusResponse>) -> Acquaintances {
        let known = |status: wire::StatusResponse| {
            let address = format!("peer-{}:1", status.broker_id);
            let acquaintance = Acquaintance {
                address,
                status,
                silent_rounds: 0,
            };
            (acquaintance.status.broker_id, acquaintance)
        };
        statuses.into_iter().map(known).collect()
    }

    fn decide(broker_id: u64, statuses: Vec<wire::StatusResponse>) -> Result<Step, RaftError> {
        let members: Vec<Member> = (1..=3).map(member).collect();
        let candidate = Candidate {
            broker_id,
            replica_id: broker_id * 10,
            members: &members,
        };
        candidate.decide(&known(statuses))
    }

    /// Catches a group made before everybody's data directory is known, or by two members.
    #[test]
    fn the_lowest_makes_the_group_when_all_are_there() {
        assert_eq!(decide(1, vec![pristine(2)]).unwrap(), Step::Wait);
        assert_eq!(
            decide(2, vec![pristine(1), pristine(3)]).unwrap(),
            Step::Wait
        );
        let Step::Initialize(nodes) = decide(1, vec![pristine(2), pristine(3)]).unwrap() else {
            panic!("the lowest must make the group");
        };
        let replicas: Vec<u64> = nodes.values().map(|node| node.replica_id).collect();
        assert_eq!(replicas, [10, 20, 30]);
    }

    /// Catches a second group beside one that exists.
    #[test]
    fn a_group_that_exists_is_joined() {
        let mut busy = pristine(3);
        busy.pristine = false;
        assert_eq!(
            decide(1, vec![pristine(2), busy.clone()]).unwrap(),
            Step::Wait
        );
        busy.members = vec![wire::MemberStatus {
            broker_id: 3,
            ..Default::default()
        }];
        assert_eq!(decide(1, vec![pristine(2), busy]).unwrap(), Step::Join);
    }

    /// Catches members that would each make a group of their own.
    #[test]
    fn different_member_lists_are_an_error() {
        let mut other = pristine(2);
        other.configured = vec![2, 3, 4];
        let error = decide(1, vec![other, pristine(3)]).unwrap_err();
        assert!(matches!(error, RaftError::MembersDiffer { .. }), "{error}");
    }
}
