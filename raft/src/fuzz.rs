//! What peers and disks say, for `fuzz/`: only there with `--cfg fuzzing`. Nothing may panic.

use std::path::Path;
use std::sync::Arc;

use prost::Message;
use proto::raft as wire;
use store::{CommitLog, DataDir};

use crate::applied::Applied;
use crate::convert;
use crate::snapshot::{Holds, Incoming};
use crate::types::StoredMembership;

/// Every message of a peer that is converted, and back to what can be sent on.
pub fn wire(data: &[u8]) {
    if let Ok(request) = wire::AppendRequest::decode(data)
        && let Ok(request) = convert::append_from_wire(request)
    {
        let again = convert::append_from_wire(convert::append_to_wire(request.clone()));
        assert_eq!(
            again.expect("it was converted before").entries,
            request.entries
        );
        for log_id in request.entries.iter().map(|entry| entry.log_id) {
            check_index(log_id.index());
        }
    }
    if let Ok(response) = wire::AppendResponse::decode(data)
        && let Ok(result) = convert::append_result_from_wire(response)
    {
        let _ = convert::append_result_to_wire(result);
    }
    if let Ok(request) = wire::VoteRequest::decode(data)
        && let Ok(request) = convert::vote_request_from_wire(request)
    {
        let _ = convert::vote_request_to_wire(&request);
    }
    if let Ok(response) = wire::VoteResponse::decode(data)
        && let Ok(response) = convert::vote_response_from_wire(response)
    {
        let _ = convert::vote_response_to_wire(&response);
    }
    if let Ok(request) = wire::TransferLeaderRequest::decode(data)
        && let Ok(request) = convert::transfer_from_wire(request)
    {
        let _ = convert::transfer_to_wire(&request);
    }
}

/// The `applied` row, the vote in the superblock, and a membership.
pub fn applied(data: &[u8]) {
    if let Ok(applied) = Applied::decode(data) {
        check_membership(applied.membership());
        let again = Applied::decode(&applied.encode()).expect("it was just encoded");
        assert_eq!(again.log_id(), applied.log_id());
        assert_eq!(again.membership(), applied.membership());
        if let Some(log_id) = applied.log_id() {
            check_index(log_id.index());
        }
    }
    if let Ok(Some(vote)) = convert::vote_from_bytes(data) {
        let bytes = convert::vote_to_bytes(&vote);
        assert_eq!(convert::vote_from_bytes(&bytes).ok().flatten(), Some(vote));
    }
    if let Ok(membership) = convert::stored_membership_from_bytes(data) {
        check_membership(&membership);
    }
}

/// Receives what is offered to one replica.
pub struct Receiver {
    incoming: Incoming,
    data_dir: Arc<DataDir>,
}

impl Receiver {
    /// The receiver of the replica with this directory and log.
    pub fn new(data_dir: Arc<DataDir>, log: CommitLog) -> Receiver {
        let incoming = Incoming::new(data_dir.clone(), log, Holds::default(), 0);
        Receiver { incoming, data_dir }
    }

    /// Offers a snapshot. What is wanted of it must belong below the directory for what is received.
    pub async fn offer(&self, data: &[u8]) {
        let Ok(offer) = wire::SnapshotOffer::decode(data) else {
            return;
        };
        let Ok(wants) = self.incoming.offer(offer.clone()).await else {
            return;
        };
        for want in &wants.files {
            let plain = want
                .name
                .split('/')
                .all(|part| !matches!(part, "" | "." | ".."));
            assert!(
                plain && !want.name.contains('\\'),
                "{:?} escapes",
                want.name
            );
            let inside = ["checkpoint/", "log/"]
                .iter()
                .any(|dir| want.name.starts_with(dir));
            assert!(inside, "{:?} is no place for a snapshot's file", want.name);
            assert!(
                !wants
                    .files
                    .iter()
                    .any(|other| other.name == format!("{}.part", want.name)),
                "{:?} is where another file grows",
                want.name
            );
        }
        let _ = self
            .incoming
            .complete(&offer.snapshot_id, offer.repair)
            .await;
        let found = self
            .data_dir
            .disk()
            .list(Path::new("/"))
            .expect("the top is there");
        assert!(
            found.len() == 1,
            "files outside of the data directory: {found:?}"
        );
    }
}

fn check_membership(membership: &StoredMembership) {
    let voters: Vec<u64> = membership.voter_ids().collect();
    for voter in voters {
        assert!(
            membership.membership().get_node(&voter).is_some(),
            "voter {voter} has no node"
        );
    }
    let _ = membership.membership().get_joint_config();
    let _ = format!("{membership}");
}

/// The index after a log id is computed everywhere.
fn check_index(index: u64) {
    assert!(index < u64::MAX, "an index without a next one");
}
