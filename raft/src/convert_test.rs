//! Every conversion there and back: in the simulator messages are not encoded, so nothing else
//! would find a field that gets lost.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use openraft::EntryPayload;
use openraft::raft::{AppendEntriesRequest, StreamAppendError};
use prost::Message;

use super::*;
use crate::types::Node;

fn membership() -> RaftMembership {
    let node = |number: u64| Node {
        peer_address: format!("broker-{number}:9081"),
        client_address: format!("broker-{number}:8081"),
        replica_id: number << 40,
    };
    let nodes: BTreeMap<u64, Node> = (1..=4).map(|number| (number, node(number))).collect();
    RaftMembership::new(
        vec![BTreeSet::from([1, 2, 3]), BTreeSet::from([2, 3, 4])],
        nodes,
    )
    .unwrap()
}

fn entries() -> Vec<RaftEntry> {
    let payloads = [
        EntryPayload::Blank,
        EntryPayload::Normal(Payload(Bytes::from_static(b"body"))),
        EntryPayload::Membership(membership()),
        EntryPayload::Normal(Payload::ROLL),
    ];
    let entry = |(place, payload)| RaftEntry {
        log_id: log_id_of(4, 10 + place as u64),
        payload,
    };
    payloads.into_iter().enumerate().map(entry).collect()
}

/// Catches an entry that a follower, or a restart, would see differently.
#[test]
fn append_requests_survive_the_wire() {
    let request = AppendEntriesRequest::<TypeConfig> {
        vote: RaftVote::new_committed(4, 2),
        prev_log_id: Some(log_id_of(3, 9)),
        leader_commit: Some(log_id_of(3, 8)),
        entries: entries(),
    };
    let encoded = append_to_wire(request.clone()).encode_to_vec();
    let decoded = wire::AppendRequest::decode(&encoded[..]).unwrap();
    let received = append_from_wire(decoded).unwrap();
    assert_eq!(received.vote, request.vote);
    assert_eq!(received.prev_log_id, request.prev_log_id);
    assert_eq!(received.leader_commit, request.leader_commit);
    assert_eq!(received.entries, request.entries);
}

/// Catches the difference between index 0 and no log id getting lost.
#[test]
fn the_first_index_is_not_nothing() {
    let request = AppendEntriesRequest::<TypeConfig> {
        vote: RaftVote::new(0, 0),
        prev_log_id: Some(log_id_of(0, 0)),
        leader_commit: None,
        entries: Vec::new(),
    };
    let encoded = append_to_wire(request).encode_to_vec();
    let received = append_from_wire(wire::AppendRequest::decode(&encoded[..]).unwrap()).unwrap();
    assert_eq!(received.prev_log_id, Some(log_id_of(0, 0)));
    assert_eq!(received.leader_commit, None);
}

/// Catches an answer that openraft would take for another one.
#[test]
fn append_results_survive_the_wire() {
    for result in [
        Ok(None),
        Ok(Some(log_id_of(1, 0))),
        Err(StreamAppendError::Conflict(log_id_of(2, 7))),
        Err(StreamAppendError::HigherVote(RaftVote::new(9, 3))),
    ] {
        let encoded = append_result_to_wire(result.clone()).encode_to_vec();
        let decoded = wire::AppendResponse::decode(&encoded[..]).unwrap();
        assert_eq!(append_result_from_wire(decoded).unwrap(), result);
    }
}

/// Catches a vote that changes its meaning in the superblock.
#[test]
fn votes_survive_the_superblock() {
    assert_eq!(vote_from_bytes(b"").unwrap(), None);
    for vote in [
        RaftVote::new(0, 0),
        RaftVote::new(7, 2),
        RaftVote::new_committed(u64::MAX, 1),
    ] {
        assert_eq!(vote_from_bytes(&vote_to_bytes(&vote)).unwrap(), Some(vote));
    }
    assert!(vote_from_bytes(b"short").is_err());
}

/// Catches a panic on messages that no peer of ours would send.
#[test]
fn refuses_what_is_incomplete() {
    assert!(append_from_wire(wire::AppendRequest::default()).is_err());
    assert!(vote_request_from_wire(wire::VoteRequest::default()).is_err());
    assert!(transfer_from_wire(wire::TransferLeaderRequest::default()).is_err());
    let strange = wire::Entry {
        term: 1,
        index: 1,
        kind: 256 + EntryKind::Normal as u32,
        body: Bytes::new(),
    };
    assert!(store_entry_from_wire(strange).is_err());
    let broken = store::Entry {
        term: 1,
        index: 1,
        kind: EntryKind::Membership,
        body: Bytes::from_static(b"not json"),
    };
    assert!(entry_from_store(broken).is_err());
}

/// Catches an overflow at the index after the highest one, which any peer could name.
#[test]
fn refuses_an_index_without_a_next_one() {
    let highest = Some(wire::LogId {
        term: 1,
        index: u64::MAX,
    });
    let request = wire::VoteRequest {
        vote: Some(wire::Vote::default()),
        last: highest,
        ..wire::VoteRequest::default()
    };
    assert!(vote_request_from_wire(request).is_err());
    let request = wire::AppendRequest {
        vote: Some(wire::Vote::default()),
        previous: highest,
        ..wire::AppendRequest::default()
    };
    assert!(append_from_wire(request).is_err());
    let entry = wire::Entry {
        index: u64::MAX,
        ..wire::Entry::default()
    };
    assert!(store_entry_from_wire(entry).is_err());
}

/// Catches a membership that openraft would never have made: a voter that cannot be reached, and a
/// configuration in which nobody votes.
#[test]
fn refuses_a_membership_without_its_nodes() {
    for configs in ["[[1]]", "[[]]"] {
        let json = format!(r#"{{"configs":{configs},"nodes":{{}}}}"#);
        let entry = store::Entry {
            term: 1,
            index: 1,
            kind: EntryKind::Membership,
            body: Bytes::from(json.clone()),
        };
        assert!(entry_from_store(entry).is_err(), "{configs}");
        let stored = format!(r#"{{"log_id":null,"membership":{json}}}"#);
        assert!(stored_membership_from_bytes(stored.as_bytes()).is_err());
    }
    let unborn = stored_membership_to_bytes(&StoredMembership::default());
    assert!(stored_membership_from_bytes(&unborn).is_ok());
}
