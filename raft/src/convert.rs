//! openraft's types to and from what goes over the wire and onto the disk; one function per pair.
//!
//! Nothing here panics on what a peer or a disk says: a missing field is an error.

use std::collections::BTreeMap;

use openraft::EntryPayload;
use openraft::raft::{AppendEntriesRequest, StreamAppendError, StreamAppendResult};
use openraft::raft::{TransferLeaderRequest, VoteRequest, VoteResponse};
use proto::raft as wire;
use store::{EntryKind, StoreError};
use thiserror::Error;

use crate::types::{
    Node, Payload, RaftEntry, RaftLogId, RaftMembership, RaftVote, StoredMembership, TypeConfig,
};

/// A message of a peer, or a record of the log, that cannot be what was sent or written.
#[derive(Debug, Error)]
pub(crate) enum ConvertError {
    #[error("field {0} is missing")]
    Missing(&'static str),
    #[error("entry {index} is of unknown kind {kind}")]
    Kind { index: u64, kind: u32 },
    #[error("membership is not readable: {0}")]
    Membership(#[from] serde_json::Error),
    #[error("membership makes no sense: {0}")]
    Members(String),
    #[error("no entry can follow index {0}")]
    Index(u64),
    #[error("vote of {0} bytes, expected 17")]
    Vote(usize),
}

impl From<ConvertError> for tonic::Status {
    fn from(error: ConvertError) -> tonic::Status {
        tonic::Status::invalid_argument(error.to_string())
    }
}

pub(crate) fn log_id_to_wire(log_id: &RaftLogId) -> wire::LogId {
    wire::LogId {
        term: *log_id.leader_id,
        index: log_id.index(),
    }
}

fn log_id_from_wire(log_id: Option<wire::LogId>) -> Result<Option<RaftLogId>, ConvertError> {
    let Some(log_id) = log_id else {
        return Ok(None);
    };
    check_index(log_id.index)?;
    Ok(Some(log_id_of(log_id.term, log_id.index)))
}

/// The index after an entry's is computed in many places: there must be one.
pub(crate) fn check_index(index: u64) -> Result<(), ConvertError> {
    match index {
        u64::MAX => Err(ConvertError::Index(index)),
        _ => Ok(()),
    }
}

pub(crate) fn log_id_of(term: u64, index: u64) -> RaftLogId {
    RaftLogId::new(term.into(), index)
}

pub(crate) fn log_id_to_store(log_id: &RaftLogId) -> store::LogId {
    store::LogId {
        term: *log_id.leader_id,
        index: log_id.index(),
    }
}

pub(crate) fn log_id_from_store(log_id: store::LogId) -> RaftLogId {
    log_id_of(log_id.term, log_id.index)
}

pub(crate) fn vote_to_wire(vote: &RaftVote) -> wire::Vote {
    wire::Vote {
        term: vote.leader_id.term,
        candidate: vote.leader_id.voted_for,
        committed: vote.committed,
    }
}

pub(crate) fn vote_from_wire(vote: Option<wire::Vote>) -> Result<RaftVote, ConvertError> {
    let vote = vote.ok_or(ConvertError::Missing("vote"))?;
    Ok(vote_of(vote.term, vote.candidate, vote.committed))
}

fn vote_of(term: u64, candidate: u64, committed: bool) -> RaftVote {
    if committed {
        RaftVote::new_committed(term, candidate)
    } else {
        RaftVote::new(term, candidate)
    }
}

/// The vote as the superblock keeps it: term and candidate little-endian, then 1 if committed.
pub(crate) fn vote_to_bytes(vote: &RaftVote) -> bytes::Bytes {
    let mut bytes = Vec::with_capacity(VOTE_BYTES);
    bytes.extend_from_slice(&vote.leader_id.term.to_le_bytes());
    bytes.extend_from_slice(&vote.leader_id.voted_for.to_le_bytes());
    bytes.push(u8::from(vote.committed));
    bytes.into()
}

const VOTE_BYTES: usize = 17;

/// `None` if no vote was ever saved.
pub(crate) fn vote_from_bytes(bytes: &[u8]) -> Result<Option<RaftVote>, ConvertError> {
    if bytes.is_empty() {
        return Ok(None);
    }
    let Ok(bytes) = <&[u8; VOTE_BYTES]>::try_from(bytes) else {
        return Err(ConvertError::Vote(bytes.len()));
    };
    let (term, rest) = bytes.split_at(8);
    let (candidate, committed) = rest.split_at(8);
    let number =
        |part: &[u8]| u64::from_le_bytes(part.try_into().expect("eight bytes were split off"));
    Ok(Some(vote_of(
        number(term),
        number(candidate),
        committed[0] != 0,
    )))
}

pub(crate) fn membership_to_bytes(membership: &RaftMembership) -> bytes::Bytes {
    serde_json::to_vec(membership)
        .expect("a membership holds nothing that JSON refuses")
        .into()
}

pub(crate) fn stored_membership_to_bytes(membership: &StoredMembership) -> bytes::Bytes {
    serde_json::to_vec(membership)
        .expect("a membership holds nothing that JSON refuses")
        .into()
}

pub(crate) fn stored_membership_from_bytes(bytes: &[u8]) -> Result<StoredMembership, ConvertError> {
    let stored: StoredMembership = serde_json::from_slice(bytes)?;
    check_membership(stored.membership())?;
    Ok(stored)
}

/// Reading JSON checks no more than its form; openraft relies on what its constructor checks.
fn check_membership(membership: &RaftMembership) -> Result<(), ConvertError> {
    let nodes = membership.nodes();
    let nodes: BTreeMap<u64, Node> = nodes.map(|(id, node)| (*id, node.clone())).collect();
    RaftMembership::new(membership.get_joint_config().clone(), nodes)
        .map(drop)
        .map_err(|error| ConvertError::Members(error.to_string()))
}

/// An entry as the commit log takes it.
pub(crate) fn entry_to_store(entry: RaftEntry) -> store::Entry {
    let (kind, body) = match entry.payload {
        EntryPayload::Blank => (EntryKind::Blank, bytes::Bytes::new()),
        EntryPayload::Normal(payload) if payload.is_roll() => (EntryKind::Roll, payload.0),
        EntryPayload::Normal(payload) => (EntryKind::Normal, payload.0),
        EntryPayload::Membership(membership) => {
            (EntryKind::Membership, membership_to_bytes(&membership))
        }
    };
    let term = *entry.log_id.leader_id;
    store::Entry {
        term,
        index: entry.log_id.index(),
        kind,
        body,
    }
}

pub(crate) fn entry_from_store(entry: store::Entry) -> Result<RaftEntry, ConvertError> {
    let payload = match entry.kind {
        EntryKind::Blank => EntryPayload::Blank,
        EntryKind::Normal => EntryPayload::Normal(Payload(entry.body)),
        EntryKind::Roll => EntryPayload::Normal(Payload::ROLL),
        EntryKind::Membership => {
            let membership: RaftMembership = serde_json::from_slice(&entry.body)?;
            check_membership(&membership)?;
            EntryPayload::Membership(membership)
        }
    };
    Ok(RaftEntry {
        log_id: log_id_of(entry.term, entry.index),
        payload,
    })
}

pub(crate) fn store_entry_to_wire(entry: store::Entry) -> wire::Entry {
    wire::Entry {
        term: entry.term,
        index: entry.index,
        kind: entry.kind as u32,
        body: entry.body,
    }
}

pub(crate) fn store_entry_from_wire(entry: wire::Entry) -> Result<store::Entry, ConvertError> {
    check_index(entry.index)?;
    let kind = u8::try_from(entry.kind)
        .ok()
        .and_then(EntryKind::from_number)
        .ok_or(ConvertError::Kind {
            index: entry.index,
            kind: entry.kind,
        })?;
    Ok(store::Entry {
        term: entry.term,
        index: entry.index,
        kind,
        body: entry.body,
    })
}

/// The request without identity: the caller adds who sends it.
pub(crate) fn append_to_wire(request: AppendEntriesRequest<TypeConfig>) -> wire::AppendRequest {
    let entries = request
        .entries
        .into_iter()
        .map(entry_to_store)
        .map(store_entry_to_wire);
    wire::AppendRequest {
        vote: Some(vote_to_wire(&request.vote)),
        previous: request.prev_log_id.as_ref().map(log_id_to_wire),
        committed: request.leader_commit.as_ref().map(log_id_to_wire),
        entries: entries.collect(),
        ..wire::AppendRequest::default()
    }
}

pub(crate) fn append_from_wire(
    request: wire::AppendRequest,
) -> Result<AppendEntriesRequest<TypeConfig>, ConvertError> {
    let entries = request.entries.into_iter();
    let entries = entries.map(|entry| entry_from_store(store_entry_from_wire(entry)?));
    Ok(AppendEntriesRequest {
        vote: vote_from_wire(request.vote)?,
        prev_log_id: log_id_from_wire(request.previous)?,
        leader_commit: log_id_from_wire(request.committed)?,
        entries: entries.collect::<Result<_, _>>()?,
    })
}

pub(crate) fn append_result_to_wire(
    result: StreamAppendResult<TypeConfig>,
) -> wire::AppendResponse {
    use wire::append_response::Outcome;
    let (outcome, log_id, vote) = match result {
        Ok(log_id) => (Outcome::Success, log_id, None),
        Err(StreamAppendError::Conflict(log_id)) => (Outcome::Conflict, Some(log_id), None),
        Err(StreamAppendError::HigherVote(vote)) => (Outcome::HigherVote, None, Some(vote)),
    };
    wire::AppendResponse {
        outcome: outcome.into(),
        log_id: log_id.as_ref().map(log_id_to_wire),
        vote: vote.as_ref().map(vote_to_wire),
    }
}

pub(crate) fn append_result_from_wire(
    response: wire::AppendResponse,
) -> Result<StreamAppendResult<TypeConfig>, ConvertError> {
    use wire::append_response::Outcome;
    let log_id = log_id_from_wire(response.log_id)?;
    match Outcome::try_from(response.outcome) {
        Ok(Outcome::Success) => Ok(Ok(log_id)),
        Ok(Outcome::Conflict) => {
            let log_id = log_id.ok_or(ConvertError::Missing("log_id"))?;
            Ok(Err(StreamAppendError::Conflict(log_id)))
        }
        Ok(Outcome::HigherVote) => Ok(Err(StreamAppendError::HigherVote(vote_from_wire(
            response.vote,
        )?))),
        Err(_) => Err(ConvertError::Missing("outcome")),
    }
}

/// The request without identity: the caller adds who sends it, and to whom.
pub(crate) fn vote_request_to_wire(request: &VoteRequest<TypeConfig>) -> wire::VoteRequest {
    wire::VoteRequest {
        vote: Some(vote_to_wire(&request.vote)),
        last: request.last_log_id.as_ref().map(log_id_to_wire),
        leader_transfer: request.leadership_transfer,
        ..wire::VoteRequest::default()
    }
}

pub(crate) fn vote_request_from_wire(
    request: wire::VoteRequest,
) -> Result<VoteRequest<TypeConfig>, ConvertError> {
    Ok(VoteRequest {
        vote: vote_from_wire(request.vote)?,
        last_log_id: log_id_from_wire(request.last)?,
        leadership_transfer: request.leader_transfer,
    })
}

pub(crate) fn vote_response_to_wire(response: &VoteResponse<TypeConfig>) -> wire::VoteResponse {
    wire::VoteResponse {
        vote: Some(vote_to_wire(&response.vote)),
        granted: response.vote_granted,
        last: response.last_log_id.as_ref().map(log_id_to_wire),
    }
}

pub(crate) fn vote_response_from_wire(
    response: wire::VoteResponse,
) -> Result<VoteResponse<TypeConfig>, ConvertError> {
    Ok(VoteResponse {
        vote: vote_from_wire(response.vote)?,
        vote_granted: response.granted,
        last_log_id: log_id_from_wire(response.last)?,
    })
}

/// The request without identity: the caller adds who sends it.
pub(crate) fn transfer_to_wire(
    request: &TransferLeaderRequest<TypeConfig>,
) -> wire::TransferLeaderRequest {
    wire::TransferLeaderRequest {
        from: Some(vote_to_wire(request.from_leader())),
        to: *request.to_node_id(),
        last: request.last_log_id().map(log_id_to_wire),
        ..wire::TransferLeaderRequest::default()
    }
}

pub(crate) fn transfer_from_wire(
    request: wire::TransferLeaderRequest,
) -> Result<TransferLeaderRequest<TypeConfig>, ConvertError> {
    let from = vote_from_wire(request.from)?;
    Ok(TransferLeaderRequest::new(
        from,
        request.to,
        log_id_from_wire(request.last)?,
    ))
}

/// An unreadable record of our own log is damage of the file that it came from.
pub(crate) fn corrupt(path: &std::path::Path, error: &ConvertError) -> StoreError {
    StoreError::corrupt(path, error.to_string())
}

#[cfg(test)]
#[path = "convert_test.rs"]
mod tests;
