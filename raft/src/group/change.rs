//! Changes of leader and members.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use openraft::ChangeMembers;
use openraft::error::{ClientWriteError, RaftError as CallError};
use openraft::raft::{ClientWriteResponse, Precondition};
use proto::raft as wire;
use tokio::time::Instant;

use super::propose::{leader_of, running};
use crate::connections::{Class, Connections};
use crate::error::{ChangeError, ProposeError};
use crate::member::Member;
use crate::peers::Peers;
use crate::state::State;
use crate::state_machine::Raft;
use crate::types::{Node, StoredMembership, TypeConfig};

/// Longest wait for a replica to say who it is.
const STATUS_TIMEOUT: Duration = Duration::from_secs(3);

/// Pause between attempts while an earlier change, or a new leader's first entry, is on its way.
const RETRY_PAUSE: Duration = Duration::from_millis(50);

type ChangeResult =
    Result<ClientWriteResponse<TypeConfig>, CallError<TypeConfig, ClientWriteError<TypeConfig>>>;

/// Asks a voter to take over; returns when another replica leads, at most after `timeout`.
pub(crate) async fn transfer_leader(
    state: &State,
    broker_id: u64,
    timeout: Duration,
) -> Result<(), ChangeError> {
    let raft = require_leader(state)?;
    let ours = *raft.node_id();
    if broker_id == ours {
        return Ok(());
    }
    if !state
        .membership()
        .voter_ids()
        .any(|voter| voter == broker_id)
    {
        let reason = format!("broker {broker_id} is no voter");
        return Err(ChangeError::Refused { reason });
    }
    raft.trigger()
        .transfer_leader(broker_id)
        .await
        .map_err(|_| ChangeError::Stopped)?;
    let mut leadership = state.leadership().subscribe();
    let moved = leadership.wait_for(|leadership| {
        leadership
            .leader
            .as_ref()
            .is_some_and(|leader| leader.broker_id != ours)
    });
    match tokio::time::timeout(timeout, moved).await {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(_)) => Err(ChangeError::Stopped),
        Err(_) => Err(ChangeError::Unknown {
            reason: format!("no other leader in {timeout:?}"),
        }),
    }
}

/// Has a voter take over that this replica, if it leads, chooses among those that `may_lead`: the one that has come
/// furthest, and of those the one that was heard last. Returns whom.
pub(crate) async fn hand_over(
    state: &State,
    may_lead: impl Fn(u64) -> bool,
    timeout: Duration,
) -> Result<Option<u64>, ChangeError> {
    if require_leader(state).is_err() {
        return Ok(None);
    }
    let Some(to) = successor(state, may_lead) else {
        return Ok(None);
    };
    transfer_leader(state, to, timeout).await?;
    Ok(Some(to))
}

fn successor(state: &State, may_lead: impl Fn(u64) -> bool) -> Option<u64> {
    let metrics = state.raft_metrics()?;
    let (matched, heard) = (metrics.replication?, metrics.heartbeat?);
    let membership = state.membership();
    let others = membership
        .voter_ids()
        .filter(|voter| *voter != metrics.id && may_lead(*voter));
    others.max_by_key(|voter| {
        let matched = matched.get(voter).and_then(|log_id| log_id.as_ref());
        let heard = heard.get(voter).and_then(|heard| heard.as_ref());
        (
            matched.map(|log_id| log_id.index()),
            heard.map(|heard| **heard),
        )
    })
}

/// Asks a replica which data directory it has, so that the membership can hold it. One that has made a group of its own is
/// refused: its entries would pass for ours wherever the numbers are the same.
pub(super) async fn replica_id_of(
    state: &State,
    peers: &Peers,
    connections: &Connections,
    member: &Member,
) -> Result<u64, ChangeError> {
    let refused = |reason: String| ChangeError::Refused { reason };
    let address = &member.peer_address;
    let mut client = connections
        .client(address, Class::Control)
        .map_err(|error| refused(error.to_string()))?;
    let request = wire::StatusRequest {
        cluster_id: peers.identity().cluster_id.clone(),
        group: peers.identity().group.clone(),
        sender: Some(peers.sender()),
        announcement: None,
    };
    let status = match tokio::time::timeout(STATUS_TIMEOUT, client.status(request)).await {
        Ok(Ok(response)) => response.into_inner(),
        Ok(Err(status)) => return Err(refused(format!("{address}: {}", status.message()))),
        Err(_) => return Err(refused(format!("{address} does not answer"))),
    };
    if status.broker_id != member.broker_id {
        let found = status.broker_id;
        let expected = member.broker_id;
        return Err(refused(format!(
            "{address} is broker {found}, not {expected}"
        )));
    }
    if is_of_another_group(&state.membership(), &status.members) {
        let others: Vec<String> = status
            .members
            .iter()
            .map(|other| other.broker_id.to_string())
            .collect();
        return Err(refused(format!(
            "{address} belongs to another group already, of brokers {}: stop it, empty its data directory, and start it \
             with the members of this group in `members`",
            others.join(", ")
        )));
    }
    Ok(status.replica_id)
}

/// Whether none of those whom a replica takes for members of its group votes here, with the same data directory. One that
/// knows of no group has no entries.
fn is_of_another_group(ours: &StoredMembership, theirs: &[wire::MemberStatus]) -> bool {
    let is_voter = |other: &wire::MemberStatus| {
        let node = ours.get_node(&other.broker_id);
        let same = node.is_some_and(|node| node.replica_id == other.replica_id);
        same && ours.voter_ids().any(|id| id == other.broker_id)
    };
    !theirs.is_empty() && !theirs.iter().any(is_voter)
}

pub(super) async fn add_learner(
    state: &State,
    member: Member,
    replica_id: u64,
    timeout: Duration,
) -> Result<(), ChangeError> {
    let decide = |membership: &StoredMembership| {
        if let Some(node) = membership.get_node(&member.broker_id) {
            if *node == member.to_node(replica_id) {
                return Ok(None);
            }
            let reason = format!(
                "broker id {} was given to another replica; ids are not used again",
                member.broker_id
            );
            return Err(ChangeError::Refused { reason });
        }
        let nodes = BTreeMap::from([(member.broker_id, member.to_node(replica_id))]);
        Ok(Some(ChangeMembers::AddNodes(nodes)))
    };
    change(state, decide, timeout).await
}

pub(super) async fn remove_learner(
    state: &State,
    broker_id: u64,
    timeout: Duration,
) -> Result<(), ChangeError> {
    let decide = |membership: &StoredMembership| {
        let refused = |reason: String| Err(ChangeError::Refused { reason });
        if membership.voter_ids().any(|voter| voter == broker_id) {
            return refused(format!("broker {broker_id} votes"));
        }
        if membership.get_node(&broker_id).is_none() {
            return refused(format!("broker {broker_id} is not in the group"));
        }
        let nodes = BTreeSet::from([broker_id]);
        Ok(Some(ChangeMembers::RemoveNodes(nodes)))
    };
    change(state, decide, timeout).await
}

pub(super) async fn change_voters(
    state: &State,
    voters: BTreeSet<u64>,
    timeout: Duration,
) -> Result<(), ChangeError> {
    if voters.is_empty() {
        return Err(ChangeError::Refused {
            reason: "a group needs a voter".to_string(),
        });
    }
    let decide = |_: &StoredMembership| Ok(Some(ChangeMembers::ReplaceAllVoters(voters.clone())));
    change(state, decide, timeout).await
}

/// Where one member is reached by now.
#[derive(Clone, Debug)]
pub(crate) struct Move {
    /// What the log said of it when that was found out.
    pub(crate) from: Node,
    /// The same replica elsewhere.
    pub(crate) to: Node,
}

/// Puts into the log where members are reached by now. Changes nothing else of them, takes nobody in, and waits for nobody:
/// while members change, or have changed meanwhile, nothing is done, and the caller looks again later. A change that was
/// left half done is for an operator to finish.
pub(crate) async fn relocate(
    state: &State,
    moves: BTreeMap<u64, Move>,
    timeout: Duration,
) -> Result<(), ChangeError> {
    let Ok(_changing) = state.changing.try_lock() else {
        return Ok(());
    };
    let raft = require_leader(state)?;
    let membership = state.membership();
    if membership.membership().get_joint_config().len() > 1 {
        return Ok(());
    }
    let nodes: BTreeMap<u64, Node> = moves
        .into_iter()
        .filter(|(broker_id, moved)| membership.get_node(broker_id) == Some(&moved.from))
        .inspect(|(broker_id, moved)| {
            tracing::info!(broker_id, ?moved, "a member is reached elsewhere");
        })
        .map(|(broker_id, moved)| (broker_id, moved.to))
        .collect();
    if nodes.is_empty() {
        return Ok(());
    }
    match propose(&raft, ChangeMembers::SetNodes(nodes), &membership, timeout).await {
        Ok(()) => Ok(()),
        Err(Retry::Yes(error)) => {
            tracing::debug!(%error, "members change; looking again later where they are");
            Ok(())
        }
        Err(Retry::No(error)) => Err(error),
    }
}

/// Carries a change out, after those that were begun before from here, trying again while another one is under way. Each
/// time `decide` says what to propose, from the members as they are, or that nothing is to be done: it is proposed only
/// if they are still the same.
async fn change(
    state: &State,
    decide: impl Fn(&StoredMembership) -> Result<Option<ChangeMembers<u64, Node>>, ChangeError>,
    timeout: Duration,
) -> Result<(), ChangeError> {
    let deadline = Instant::now() + timeout;
    let Ok(_changing) = tokio::time::timeout(timeout, state.changing.lock()).await else {
        return Err(ChangeError::Refused {
            reason: format!("another change is under way for {timeout:?}"),
        });
    };
    loop {
        let membership = state.membership();
        let Some(members) = decide(&membership)? else {
            return Ok(());
        };
        let raft = require_leader(state)?;
        let left = deadline.saturating_duration_since(Instant::now());
        match propose(&raft, members, &membership, left).await {
            Ok(()) => return Ok(()),
            Err(Retry::Yes(error)) if Instant::now() + RETRY_PAUSE >= deadline => {
                return Err(error);
            }
            Err(Retry::Yes(_)) => tokio::time::sleep(RETRY_PAUSE).await,
            Err(Retry::No(error)) => return Err(error),
        }
    }
}

/// Proposes a change of the members, if they are those of `basis`.
pub(super) async fn propose(
    raft: &Raft,
    members: ChangeMembers<u64, Node>,
    basis: &StoredMembership,
    timeout: Duration,
) -> Result<(), Retry> {
    let unchanged = Precondition::LastMembershipLogId {
        last_membership_log_id: *basis.log_id(),
    };
    let call = raft.change_membership_if(members, false, [unchanged]);
    match tokio::time::timeout(timeout, call).await {
        Ok(result) => outcome(result),
        Err(_) => Err(Retry::No(ChangeError::Unknown {
            reason: format!("not done within {timeout:?}"),
        })),
    }
}

/// Whether it may be tried again: nothing came of it.
#[derive(Debug)]
pub(super) enum Retry {
    Yes(ChangeError),
    No(ChangeError),
}

fn outcome(result: ChangeResult) -> Result<(), Retry> {
    use openraft::error::ChangeMembershipError::{InProgress, UncommittedLeaderLog};
    match result {
        Ok(_) => Ok(()),
        Err(CallError::APIError(ClientWriteError::ForwardToLeader(forward))) => {
            Err(Retry::No(ChangeError::NotLeader {
                leader: leader_of(&forward),
            }))
        }
        Err(CallError::APIError(ClientWriteError::ChangeMembershipError(error))) => {
            let refused = ChangeError::Refused {
                reason: error.to_string(),
            };
            match error {
                InProgress(_) | UncommittedLeaderLog(_) => Err(Retry::Yes(refused)),
                _ => Err(Retry::No(refused)),
            }
        }
        Err(CallError::APIError(ClientWriteError::PreconditionFailed(error))) => {
            Err(Retry::Yes(ChangeError::Refused {
                reason: format!("the members have changed meanwhile: {error}"),
            }))
        }
        Err(CallError::APIError(error)) => Err(Retry::No(ChangeError::Unknown {
            reason: error.to_string(),
        })),
        Err(CallError::Fatal(_)) => Err(Retry::No(ChangeError::Stopped)),
    }
}

fn require_leader(state: &State) -> Result<Raft, ChangeError> {
    let raft = match running(state) {
        Ok(raft) => raft,
        Err(ProposeError::Stopped) => return Err(ChangeError::Stopped),
        Err(_) => return Err(ChangeError::NotLeader { leader: None }),
    };
    let leadership = state.leadership().borrow().clone();
    if leadership.is_leader {
        Ok(raft)
    } else {
        Err(ChangeError::NotLeader {
            leader: leadership.leader,
        })
    }
}
