//! Votes of a replica whose log is damaged: Raft does not run there until the log is whole.
//!
//! A damaged replica knows what it had promised, though not what that was: its mark and what can still be read behind
//! the damage name the last entry. It votes for a candidate whose log reaches at least that far, as it would have done
//! before, so that one dead machine and one flipped bit on another are no outage. The new leader then gives it back what
//! it lacks (`startup/tail.rs`). Must never vote while nobody knows what was promised, nor once Raft is about to read the
//! vote. Why that is safe: `docs/adr/0017-a-damaged-replica-votes.md`.

use std::cmp::Ordering;
use std::sync::Arc;
use std::time::Duration;

use proto::raft as wire;
use store::{CommitLog, DataDir};
use tokio::sync::Mutex;
use tokio::time::Instant;
use tonic::Status;

use crate::convert::{
    log_id_from_store, log_id_to_store, log_id_to_wire, vote_from_bytes, vote_to_bytes,
    vote_to_wire,
};
use crate::standing::Phase;
use crate::state::State;
use crate::types::{RaftVote, TypeConfig};

type Request = openraft::raft::VoteRequest<TypeConfig>;

/// Gives votes while the log is repaired.
pub(crate) struct Ballot {
    state: Arc<State>,
    log: CommitLog,
    data_dir: Arc<DataDir>,
    /// No leader that this replica confirmed anything to before it started counts on it any more.
    opens: Instant,
    /// One vote at a time; whether Raft gives them from now on.
    closed: Mutex<bool>,
}

impl Ballot {
    /// `lease`: how long a leader counts on a follower that has confirmed something.
    pub(crate) fn new(
        state: Arc<State>,
        log: CommitLog,
        data_dir: Arc<DataDir>,
        lease: Duration,
    ) -> Ballot {
        Ballot {
            state,
            log,
            data_dir,
            opens: Instant::now() + lease,
            closed: Mutex::new(false),
        }
    }

    /// No vote is given here after this returned.
    pub(crate) async fn close(&self) {
        *self.closed.lock().await = true;
    }

    /// Votes, if the candidate has at least what was promised here. The vote is durable when this returns.
    pub(crate) async fn vote(&self, request: &Request) -> Result<wire::VoteResponse, Status> {
        let closed = self.closed.lock().await;
        let before = self.check_open(*closed)?;
        if !self.grants(request, before.as_ref()) {
            return Ok(self.answer(before.unwrap_or_else(|| RaftVote::new(0, 0)), false));
        }
        let saved = self.data_dir.save_vote(vote_to_bytes(&request.vote)).await;
        saved.map_err(|error| {
            self.state.fail(error.to_string());
            Status::unavailable(error.to_string())
        })?;
        tracing::info!(vote = %request.vote, "voted although the log is damaged");
        drop(closed);
        Ok(self.answer(request.vote, true))
    }

    /// Says whether it would vote.
    pub(crate) async fn pre_vote(&self, request: &Request) -> Result<wire::VoteResponse, Status> {
        let closed = self.closed.lock().await;
        let before = self.check_open(*closed)?;
        let granted = self.grants(request, before.as_ref());
        drop(closed);
        Ok(self.answer(before.unwrap_or_else(|| RaftVote::new(0, 0)), granted))
    }

    /// The last vote, if votes are given here.
    #[allow(clippy::result_large_err, reason = "the transport's own error type")]
    fn check_open(&self, closed: bool) -> Result<Option<RaftVote>, Status> {
        let phase = self.state.phase();
        if closed || phase != Phase::Repairing {
            return Err(Status::unavailable(format!("replica is {}", phase.name())));
        }
        vote_from_bytes(&self.data_dir.superblock().vote)
            .map_err(|error| Status::internal(error.to_string()))
    }

    fn grants(&self, request: &Request, before: Option<&RaftVote>) -> bool {
        let last = request.last_log_id.as_ref().map(log_id_to_store);
        let newer = before.is_none_or(|before| {
            let order = request.vote.partial_cmp(before);
            matches!(order, Some(Ordering::Greater | Ordering::Equal))
        });
        let free = request.leadership_transfer || Instant::now() >= self.opens;
        free && newer && self.log.is_covered_by(last)
    }

    fn answer(&self, vote: RaftVote, granted: bool) -> wire::VoteResponse {
        let last = self.log.last().map(log_id_from_store);
        wire::VoteResponse {
            vote: Some(vote_to_wire(&vote)),
            granted,
            last: last.as_ref().map(log_id_to_wire),
        }
    }
}
