//! Calls from peers.
//!
//! Checks who calls, converts, and hands on. Answers `Status` before Raft runs, and votes while the log is
//! repaired ([`Ballot`]); everything else that needs Raft is refused until then. Must never let a caller of another
//! group, or a second process under a known broker id, reach Raft. Strangers do not come so far: whoever connects to the
//! peer port proves first that it holds the cluster's secret.

mod append;
mod ballot;
mod fetch;

use std::sync::Arc;

use futures::stream::BoxStream;
use openraft::raft::TransferLeaderError;
use proto::raft as wire;
use proto::raft::raft_server::Raft as RaftService;
use store::CommitLog;
use tonic::{Request, Response, Status, Streaming};

use crate::addresses::Word;
use crate::convert::{
    append_from_wire, append_result_to_wire, transfer_from_wire, vote_from_wire,
    vote_request_from_wire, vote_response_to_wire,
};
use crate::error::RaftError;
use crate::peers::{Addressee, Peers};
use crate::snapshot::{Incoming, Snapshots};
use crate::state::State;
use crate::state_machine::Raft;
use crate::terms;
use crate::types::{RaftLogId, RaftVote};

pub(crate) use ballot::Ballot;

/// The peer port of one replica.
#[derive(Clone)]
pub(crate) struct Service {
    pub(crate) peers: Peers,
    pub(crate) state: Arc<State>,
    pub(crate) log: CommitLog,
    pub(crate) snapshots: Arc<Snapshots>,
    pub(crate) incoming: Arc<Incoming>,
    pub(crate) ballot: Arc<Ballot>,
}

#[allow(clippy::result_large_err, reason = "the transport's own error type")]
impl Service {
    fn raft(&self) -> Result<Raft, Status> {
        self.state
            .raft()
            .ok_or_else(|| Status::unavailable(format!("replica is {}", self.state.phase().name())))
    }

    /// Refuses whom [`Peers::admit`] refuses. Whoever means the data directory that this broker had before, or one that
    /// promised more, may know what this replica does not: that it was wiped or set back, and must not go on. A replica
    /// whose own membership names its directory knows better than who says that it was wiped: then the caller errs, and
    /// one confused peer must not have an operator give up a good replica.
    fn admit(
        &self,
        cluster_id: &str,
        group: &str,
        sender: Option<&wire::Sender>,
    ) -> Result<(), Status> {
        let admitted = self.peers.admit(cluster_id, group, sender);
        let means_another = self
            .peers
            .is_for_another_directory(cluster_id, group, sender);
        if admitted.is_err() && means_another && self.state.is_own_member() {
            tracing::warn!(
                ?sender,
                "a peer takes this replica for one that it is not; it is refused"
            );
        } else if admitted.is_err() && means_another {
            let identity = self.peers.identity();
            let wiped = RaftError::WipedReplica {
                broker_id: identity.broker_id,
                group: identity.group.clone(),
            };
            self.state.refuse(&wiped);
        }
        admitted?;
        let identity = self.peers.identity();
        let Some(detail) = self.peers.forgotten(cluster_id, group, sender) else {
            return Ok(());
        };
        self.state.refuse(&RaftError::RolledBack {
            broker_id: identity.broker_id,
            group: identity.group.clone(),
            detail,
        });
        Err(Status::aborted(
            "this replica is an older copy of what it was",
        ))
    }

    /// Where this replica reaches another one, which says that it is at `said`: what one configuration says may be wrong, or
    /// true on its own machine only. A member that is not reached yet asks again.
    fn reached_at(&self, other: Addressee, said: String) -> Result<String, Status> {
        let addresses = self.peers.addresses();
        if !self.state.has_member(other.broker_id, other.replica_id) {
            // Nobody looks for it.
            return Ok(addresses.of(other.broker_id, &said));
        }
        let reached = addresses.reached_at(other.broker_id);
        reached.ok_or_else(|| {
            let error = format!("broker {} is not reached from here yet", other.broker_id);
            Status::unavailable(error)
        })
    }

    /// Refuses a leader or a candidate whose term no elections can have reached, and entries that its term cannot have.
    fn check_terms(
        &self,
        vote: &RaftVote,
        logs: impl IntoIterator<Item = RaftLogId>,
    ) -> Result<(), Status> {
        let term = vote.leader_id.term;
        terms::check(self.state.term(), term)?;
        let mut logs = logs.into_iter();
        match logs.find(|log_id| *log_id.leader_id > term) {
            None => Ok(()),
            Some(log_id) => Err(Status::invalid_argument(format!(
                "entry {} is of term {}, after its sender's term {term}",
                log_id.index(),
                *log_id.leader_id
            ))),
        }
    }

    fn check_append(
        &self,
        request: &openraft::raft::AppendEntriesRequest<crate::types::TypeConfig>,
    ) -> Result<(), Status> {
        let around = [request.prev_log_id, request.leader_commit];
        let entries = request.entries.iter().map(|entry| entry.log_id);
        self.check_terms(&request.vote, around.into_iter().flatten().chain(entries))
    }

    fn vote_request(
        &self,
        request: wire::VoteRequest,
    ) -> Result<openraft::raft::VoteRequest<crate::types::TypeConfig>, Status> {
        self.admit(&request.cluster_id, &request.group, request.sender.as_ref())?;
        let request = vote_request_from_wire(request)?;
        self.check_terms(&request.vote, request.last_log_id)?;
        Ok(request)
    }
}

fn stopped(error: impl std::fmt::Display) -> Status {
    Status::unavailable(error.to_string())
}

#[tonic::async_trait]
impl RaftService for Service {
    type AppendStreamStream = BoxStream<'static, Result<wire::AppendResponse, Status>>;
    type FetchSegmentStream = BoxStream<'static, Result<wire::SegmentPiece, Status>>;
    type FetchEntriesStream = BoxStream<'static, Result<wire::FetchEntriesResponse, Status>>;

    async fn append_stream(
        &self,
        request: Request<Streaming<wire::AppendRequest>>,
    ) -> Result<Response<Self::AppendStreamStream>, Status> {
        append::stream(self, request.into_inner())
            .await
            .map(Response::new)
    }

    async fn append(
        &self,
        request: Request<wire::AppendRequest>,
    ) -> Result<Response<wire::AppendResponse>, Status> {
        let request = request.into_inner();
        self.admit(&request.cluster_id, &request.group, request.sender.as_ref())?;
        let request = append_from_wire(request)?;
        self.check_append(&request)?;
        let previous = request.prev_log_id;
        let last = request
            .entries
            .last()
            .map(|entry| entry.log_id)
            .or(previous);
        let response = self
            .raft()?
            .append_entries(request)
            .await
            .map_err(stopped)?;
        let result = response.into_stream_result(previous, last);
        Ok(Response::new(append_result_to_wire(result)))
    }

    async fn vote(
        &self,
        request: Request<wire::VoteRequest>,
    ) -> Result<Response<wire::VoteResponse>, Status> {
        let request = self.vote_request(request.into_inner())?;
        let Some(raft) = self.state.raft() else {
            // In a task of its own: a caller that hangs up must not leave a vote half saved.
            let ballot = self.ballot.clone();
            let voting = tokio::spawn(async move { ballot.vote(&request).await });
            return voting.await.map_err(stopped)?.map(Response::new);
        };
        let response = raft.vote(request).await.map_err(stopped)?;
        Ok(Response::new(vote_response_to_wire(&response)))
    }

    async fn pre_vote(
        &self,
        request: Request<wire::VoteRequest>,
    ) -> Result<Response<wire::VoteResponse>, Status> {
        let request = self.vote_request(request.into_inner())?;
        let Some(raft) = self.state.raft() else {
            return self.ballot.pre_vote(&request).await.map(Response::new);
        };
        let response = raft.pre_vote(request).await.map_err(stopped)?;
        Ok(Response::new(vote_response_to_wire(&response)))
    }

    async fn transfer_leader(
        &self,
        request: Request<wire::TransferLeaderRequest>,
    ) -> Result<Response<wire::TransferLeaderResponse>, Status> {
        let request = request.into_inner();
        self.admit(&request.cluster_id, &request.group, request.sender.as_ref())?;
        let request = transfer_from_wire(request)?;
        self.check_terms(request.from_leader(), request.last_log_id().copied())?;
        let response = self
            .raft()?
            .handle_transfer_leader(request)
            .await
            .map_err(stopped)?;
        let refusal = response
            .err()
            .map(|error: TransferLeaderError<_>| error.to_string());
        let refusal = refusal.unwrap_or_default();
        Ok(Response::new(wire::TransferLeaderResponse { refusal }))
    }

    async fn offer_snapshot(
        &self,
        request: Request<wire::SnapshotOffer>,
    ) -> Result<Response<wire::SnapshotWants>, Status> {
        let offer = request.into_inner();
        self.admit(&offer.cluster_id, &offer.group, offer.sender.as_ref())?;
        // One that was asked for is for a replica whose log is damaged, any other one is for Raft.
        match offer.repair {
            true => self.state.check_repairing()?,
            false => drop(self.raft()?),
        }
        self.incoming.offer(offer).await.map(Response::new)
    }

    async fn send_file(
        &self,
        request: Request<Streaming<wire::FileChunk>>,
    ) -> Result<Response<wire::FileReceived>, Status> {
        self.incoming
            .receive(request.into_inner())
            .await
            .map(Response::new)
    }

    async fn install_snapshot(
        &self,
        request: Request<wire::InstallRequest>,
    ) -> Result<Response<wire::InstallResponse>, Status> {
        let request = request.into_inner();
        let snapshot = self
            .incoming
            .complete(&request.snapshot_id, request.repair)
            .await?;
        if request.repair {
            self.state.repair_with(snapshot)?;
            return Ok(Response::new(wire::InstallResponse { vote: None }));
        }
        let vote = vote_from_wire(request.vote)?;
        let raft = self.raft()?;
        let meta = snapshot.received_meta();
        let meta = meta.ok_or_else(|| Status::internal("snapshot was not received"))?;
        self.check_terms(&vote, meta.last_log_id)?;
        let snapshot = openraft::Snapshot { meta, snapshot };
        let response = raft
            .install_full_snapshot(vote, snapshot)
            .await
            .map_err(stopped)?;
        let vote = Some(crate::convert::vote_to_wire(&response.vote));
        Ok(Response::new(wire::InstallResponse { vote }))
    }

    async fn fetch_entries(
        &self,
        request: Request<wire::FetchEntriesRequest>,
    ) -> Result<Response<Self::FetchEntriesStream>, Status> {
        let request = request.into_inner();
        self.peers
            .check_group(&request.cluster_id, &request.group)?;
        fetch::entries(self, &request).map(Response::new)
    }

    async fn fetch_segment(
        &self,
        request: Request<wire::FetchSegmentRequest>,
    ) -> Result<Response<Self::FetchSegmentStream>, Status> {
        let request = request.into_inner();
        self.peers
            .check_group(&request.cluster_id, &request.group)?;
        fetch::segment(self, request).await.map(Response::new)
    }

    async fn request_snapshot(
        &self,
        request: Request<wire::SnapshotRequest>,
    ) -> Result<Response<wire::SnapshotRequestTaken>, Status> {
        let request = request.into_inner();
        self.admit(&request.cluster_id, &request.group, request.sender.as_ref())?;
        let sender = request.sender.unwrap_or_default();
        let to = Addressee {
            broker_id: sender.broker_id,
            replica_id: sender.replica_id,
        };
        let address = self.reached_at(to, request.peer_address)?;
        let raft = self.raft()?;
        let reaches = *self.snapshots.made().borrow();
        if reaches.is_none_or(|reaches| reaches < request.index) {
            raft.trigger().snapshot().await.map_err(stopped)?;
            let error = "a snapshot that reaches far enough is being made";
            return Err(Status::unavailable(error));
        }
        self.snapshots
            .push(
                self.peers.clone(),
                (to, sender.incarnation),
                address,
                request.index,
            )
            .await?;
        Ok(Response::new(wire::SnapshotRequestTaken {}))
    }

    async fn status(
        &self,
        request: Request<wire::StatusRequest>,
    ) -> Result<Response<wire::StatusResponse>, Status> {
        let request = request.into_inner();
        self.admit(&request.cluster_id, &request.group, request.sender.as_ref())?;
        if let (Some(announced), Some(sender)) = (&request.announcement, &request.sender)
            && (announced.broker_id, announced.replica_id) == (sender.broker_id, sender.replica_id)
            && self
                .state
                .has_member(announced.broker_id, announced.replica_id)
        {
            self.peers.addresses().heard(announced, Word::Own);
        }
        Ok(Response::new(self.state.to_wire()))
    }
}
