//! Proposals and read barriers: openraft's answers in our words, each with a deadline.

use std::time::Duration;

use bytes::Bytes;
use openraft::ReadPolicy;
use openraft::error::{
    ClientWriteError, ForwardReason, ForwardToLeader, LinearizableReadError, RaftError as CallError,
};

use crate::config::PROPOSAL_BYTES_MAX;
use crate::convert::log_id_to_store;
use crate::error::ProposeError;
use crate::member::Member;
use crate::standing::Phase;
use crate::state::State;
use crate::state_machine::Raft;
use crate::types::{Payload, TypeConfig};

/// A proposal that was committed and applied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Proposed {
    /// Where it stands in the log.
    pub log_id: store::LogId,
    /// What applying it answered.
    pub reply: Bytes,
}

pub(super) async fn propose(
    state: &State,
    body: Bytes,
    timeout: Duration,
) -> Result<Proposed, ProposeError> {
    if body.len() > PROPOSAL_BYTES_MAX {
        let bytes_max = PROPOSAL_BYTES_MAX;
        return Err(ProposeError::TooLarge {
            bytes: body.len(),
            bytes_max,
        });
    }
    let raft = running(state)?;
    match tokio::time::timeout(timeout, raft.client_write(Payload(body))).await {
        Ok(Ok(response)) => Ok(Proposed {
            log_id: log_id_to_store(&response.log_id),
            reply: response.data.0,
        }),
        Ok(Err(error)) => Err(write_error(error)),
        Err(_) => Err(ProposeError::Unknown {
            reason: format!("not applied within {timeout:?}"),
        }),
    }
}

pub(super) async fn read_barrier(state: &State, timeout: Duration) -> Result<(), ProposeError> {
    let raft = running(state)?;
    match tokio::time::timeout(timeout, raft.ensure_linearizable(ReadPolicy::ReadIndex)).await {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(CallError::APIError(LinearizableReadError::ForwardToLeader(forward)))) => {
            Err(forward_error(forward))
        }
        Ok(Err(CallError::APIError(_))) | Err(_) => Err(ProposeError::NoQuorum),
        Ok(Err(CallError::Fatal(_))) => Err(ProposeError::Stopped),
    }
}

/// Raft, if it runs.
pub(super) fn running(state: &State) -> Result<Raft, ProposeError> {
    match (state.phase(), state.raft()) {
        (Phase::Stopped, _) => Err(ProposeError::Stopped),
        (_, Some(raft)) => Ok(raft),
        (_, None) => Err(ProposeError::NotLeader { leader: None }),
    }
}

fn write_error(error: CallError<TypeConfig, ClientWriteError<TypeConfig>>) -> ProposeError {
    match error {
        CallError::APIError(ClientWriteError::ForwardToLeader(forward)) => forward_error(forward),
        // It stood in this replica's log, and may stand in a later leader's.
        CallError::APIError(error @ ClientWriteError::LogEntryDiscarded(_)) => {
            ProposeError::Unknown {
                reason: error.to_string(),
            }
        }
        // Answers to changes of the membership; a proposal of ours is none.
        CallError::APIError(error) => ProposeError::Unknown {
            reason: error.to_string(),
        },
        // The entry may have been appended before the replica stopped.
        CallError::Fatal(error) => ProposeError::Unknown {
            reason: error.to_string(),
        },
    }
}

pub(super) fn forward_error(forward: ForwardToLeader<TypeConfig>) -> ProposeError {
    match forward.reason {
        ForwardReason::LeaseExpired => ProposeError::NoQuorum,
        ForwardReason::NotLeader | ForwardReason::LeadershipTransfer => ProposeError::NotLeader {
            leader: leader_of(&forward),
        },
    }
}

pub(super) fn leader_of(forward: &ForwardToLeader<TypeConfig>) -> Option<Member> {
    let node = forward.leader_node.as_ref()?;
    Some(Member::from_node(forward.leader_id?, node))
}
