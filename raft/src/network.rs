//! Calls to peers on behalf of openraft.
//!
//! A peer that cannot be reached, or does not answer in time, is reported as unreachable, so that
//! openraft backs off. Every call has a deadline. Nothing here decides anything.

mod append_stream;

use std::fmt::Display;
use std::future::Future;
use std::time::Duration;

use futures::{Stream, StreamExt, stream};
use openraft::OptionalSend;
use openraft::base::{BoxFuture, BoxStream};
use openraft::error::{NetworkError, RPCError, ReplicationClosed, StreamingError, Unreachable};
use openraft::network::{
    Backoff, NetBackoff, NetSnapshot, NetStreamAppend, NetTransferLeader, NetVote, RPCOption,
    RaftNetworkFactory,
};
use openraft::raft::{
    AppendEntriesRequest, SnapshotResponse, StreamAppendError, StreamAppendResult,
    TransferLeaderError, TransferLeaderRequest, TransferLeaderResponse, VoteRequest, VoteResponse,
};
use proto::raft as wire;
use proto::raft::raft_client::RaftClient;
use tonic::transport::Channel;
use tonic::{Code, Status};

use crate::connections::{Class, Connections};
use crate::convert::{
    append_result_from_wire, append_to_wire, transfer_to_wire, vote_from_wire,
    vote_request_to_wire, vote_response_from_wire,
};
use crate::peers::{Addressee, Peers};
use crate::snapshot::{RaftSnapshot, SnapshotData, send_snapshot};
use crate::terms;
use crate::types::{Node, RaftVote, TypeConfig};

type CallError = RPCError<TypeConfig>;
type Results<'s> = BoxStream<'s, Result<StreamAppendResult<TypeConfig>, CallError>>;

/// First pause after a peer could not be reached; doubles up to [`BACKOFF_MAX`].
const BACKOFF_MIN: Duration = Duration::from_millis(50);

/// Longest pause between attempts to reach a peer: bounds how late a healed peer is noticed.
const BACKOFF_MAX: Duration = Duration::from_millis(800);

/// Makes clients for openraft.
pub(crate) struct Network {
    peers: Peers,
    connections: Connections,
}

impl Network {
    pub(crate) fn new(peers: Peers, connections: Connections) -> Network {
        Network { peers, connections }
    }

    fn peer(&self, target: u64, node: &Node, purpose: Purpose) -> Peer {
        Peer {
            to: Addressee {
                broker_id: target,
                replica_id: node.replica_id,
            },
            address: node.peer_address.clone(),
            purpose,
            peers: self.peers.clone(),
            connections: self.connections.clone(),
        }
    }
}

/// What openraft uses a client for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Purpose {
    /// Entries in a pipeline; votes and transfers beside it.
    Replication,
    /// One small request at a time.
    Heartbeat,
}

impl RaftNetworkFactory<TypeConfig> for Network {
    type Network = Peer;

    async fn new_client(&mut self, target: u64, node: &Node) -> Peer {
        self.peer(target, node, Purpose::Replication)
    }

    async fn new_heartbeat_client(&mut self, target: u64, node: &Node) -> Peer {
        self.peer(target, node, Purpose::Heartbeat)
    }
}

/// A client for one peer.
#[derive(Clone)]
pub(crate) struct Peer {
    to: Addressee,
    /// As the log had it when this client was made.
    address: String,
    purpose: Purpose,
    peers: Peers,
    connections: Connections,
}

impl Peer {
    fn client(&self, class: Class) -> Result<RaftClient<Channel>, CallError> {
        let address = self.peers.addresses().of(self.to.broker_id, &self.address);
        self.connections
            .client(&address, class)
            .map_err(unreachable)
    }

    /// Heartbeats: each is a call of its own, over the connection that carries nothing large.
    fn append_one_by_one<S>(&self, requests: S, timeout: Duration) -> Results<'static>
    where
        S: Stream<Item = AppendEntriesRequest<TypeConfig>> + OptionalSend + Unpin + 'static,
    {
        let state = (self.clone(), requests);
        stream::unfold(state, move |(peer, mut requests)| async move {
            let request = requests.next().await?;
            Some((peer.append(request, timeout).await, (peer, requests)))
        })
        .boxed()
    }

    async fn append(
        &self,
        request: AppendEntriesRequest<TypeConfig>,
        timeout: Duration,
    ) -> Result<StreamAppendResult<TypeConfig>, CallError> {
        let mut client = self.client(Class::Control)?;
        let term = request.vote.leader_id.term;
        let mut request = append_to_wire(request);
        self.introduce(&mut request);
        let response = deadline(timeout, client.append(request)).await?;
        let result = append_result_from_wire(response).map_err(network_error)?;
        check_answer(term, &result)?;
        Ok(result)
    }

    fn introduce(&self, request: &mut wire::AppendRequest) {
        request.cluster_id = self.peers.identity().cluster_id.clone();
        request.group = self.peers.identity().group.clone();
        request.sender = Some(self.peers.sender_to(self.to));
    }

    fn vote_request(&self, request: &VoteRequest<TypeConfig>) -> wire::VoteRequest {
        let mut request = vote_request_to_wire(request);
        request.cluster_id = self.peers.identity().cluster_id.clone();
        request.group = self.peers.identity().group.clone();
        request.sender = Some(self.peers.sender_to(self.to));
        request
    }
}

impl NetStreamAppend<TypeConfig> for Peer {
    fn stream_append<'s, S>(
        &'s mut self,
        requests: S,
        option: RPCOption,
    ) -> BoxFuture<'s, Result<Results<'s>, CallError>>
    where
        S: Stream<Item = AppendEntriesRequest<TypeConfig>> + OptionalSend + Unpin + 'static,
    {
        let results = match self.purpose {
            Purpose::Heartbeat => self.append_one_by_one(requests, option.soft_ttl()),
            // Nothing connects before the results are polled: openraft's backoff is spent inside
            // the stream of requests, and a transport that fails before it takes the first one
            // would be started again in a tight loop.
            Purpose::Replication => append_stream::open(self.clone(), requests),
        };
        Box::pin(async move { Ok(results) })
    }
}

impl NetVote<TypeConfig> for Peer {
    async fn vote(
        &mut self,
        request: VoteRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<VoteResponse<TypeConfig>, CallError> {
        let mut client = self.client(Class::Control)?;
        let term = request.vote.leader_id.term;
        let request = self.vote_request(&request);
        let response = deadline(option.soft_ttl(), client.vote(request)).await?;
        vote_response(term, response)
    }

    async fn pre_vote(
        &mut self,
        request: VoteRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<VoteResponse<TypeConfig>, CallError> {
        let mut client = self.client(Class::Control)?;
        let term = request.vote.leader_id.term;
        let request = self.vote_request(&request);
        let response = deadline(option.soft_ttl(), client.pre_vote(request)).await?;
        vote_response(term, response)
    }
}

impl NetTransferLeader<TypeConfig> for Peer {
    async fn transfer_leader(
        &mut self,
        request: TransferLeaderRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<TransferLeaderResponse<TypeConfig>, CallError> {
        let mut client = self.client(Class::Control)?;
        let mut wire = transfer_to_wire(&request);
        wire.cluster_id = self.peers.identity().cluster_id.clone();
        wire.group = self.peers.identity().group.clone();
        wire.sender = Some(self.peers.sender_to(self.to));
        let response = deadline(option.soft_ttl(), client.transfer_leader(wire)).await?;
        if response.refusal.is_empty() {
            return Ok(Ok(()));
        }
        tracing::info!(
            target = self.to.broker_id,
            refusal = response.refusal,
            "transfer was refused"
        );
        // openraft only logs which refusal it was.
        Ok(Err(TransferLeaderError::LogNotFlushed {
            expected: request.last_log_id().copied(),
            actual: None,
        }))
    }
}

impl NetSnapshot<TypeConfig> for Peer {
    type SnapshotData = SnapshotData;

    async fn full_snapshot(
        &mut self,
        vote: RaftVote,
        snapshot: RaftSnapshot,
        cancel: impl Future<Output = ReplicationClosed> + OptionalSend + 'static,
        _option: RPCOption,
    ) -> Result<SnapshotResponse<TypeConfig>, StreamingError<TypeConfig>> {
        let client = self.client(Class::Bulk)?;
        let term = vote.leader_id.term;
        let (peers, to) = (self.peers.clone(), self.to);
        let sending = send_snapshot(peers, to, client, Some(vote), snapshot.snapshot);
        let response = tokio::select! {
            biased;
            closed = cancel => return Err(StreamingError::Closed(closed)),
            response = sending => response.map_err(call_error)?,
        };
        let vote = vote_from_wire(response.vote).map_err(network_error)?;
        terms::check(term, vote.leader_id.term).map_err(network_error)?;
        Ok(SnapshotResponse::new(vote))
    }
}

impl NetBackoff<TypeConfig> for Peer {
    fn backoff(&self) -> Option<Backoff> {
        let pauses = std::iter::successors(Some(BACKOFF_MIN), |pause| {
            Some((*pause * 2).min(BACKOFF_MAX))
        });
        Some(Backoff::new(pauses))
    }
}

/// Refuses an answer that would take this replica to a term that no elections can have reached.
fn check_answer(term: u64, result: &StreamAppendResult<TypeConfig>) -> Result<(), CallError> {
    match result {
        Err(StreamAppendError::HigherVote(vote)) => check_vote(term, vote),
        _ => Ok(()),
    }
}

fn vote_response(
    term: u64,
    response: wire::VoteResponse,
) -> Result<VoteResponse<TypeConfig>, CallError> {
    let response = vote_response_from_wire(response).map_err(network_error)?;
    check_vote(term, &response.vote)?;
    Ok(response)
}

fn check_vote(term: u64, vote: &RaftVote) -> Result<(), CallError> {
    terms::check(term, vote.leader_id.term).map_err(network_error)
}

/// Waits for an answer at most so long.
async fn deadline<T>(
    timeout: Duration,
    call: impl Future<Output = Result<tonic::Response<T>, Status>>,
) -> Result<T, CallError> {
    match tokio::time::timeout(timeout, call).await {
        Ok(Ok(response)) => Ok(response.into_inner()),
        Ok(Err(status)) => Err(call_error(status)),
        Err(_) => Err(unreachable(format!("no answer within {timeout:?}"))),
    }
}

fn call_error(status: Status) -> CallError {
    match status.code() {
        // The peer answered, or was about to: no reason to leave it alone for long.
        Code::Cancelled | Code::InvalidArgument => network_error(status),
        _ => unreachable(status),
    }
}

fn unreachable(error: impl Display) -> CallError {
    RPCError::Unreachable(Unreachable::from_string(error))
}

fn network_error(error: impl Display) -> CallError {
    RPCError::Network(NetworkError::from_string(error))
}
