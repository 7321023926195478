//! Sends a snapshot to one peer: offer, the files it wants, install.
//!
//! Every step has a deadline, renewed with each piece that moves, so that a large snapshot may take
//! its time and a stuck one may not.

use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use futures::{StreamExt, TryStreamExt, stream};
use proto::raft as wire;
use proto::raft::raft_client::RaftClient;
use store::StoreError;
use tokio::sync::watch;
use tonic::transport::Channel;
use tonic::{Code, Status};

use super::manifest::{CHUNK_BYTES, Content, Source, snapshot_id};
use super::{LocalSnapshot, SnapshotData};
use crate::convert::{stored_membership_to_bytes, vote_to_wire};
use crate::peers::{Addressee, Peers};
use crate::request_stream::RequestStream;
use crate::types::RaftVote;

/// Longest wait for the receiver to look at what it has: it may have to read it.
const OFFER_TIMEOUT: Duration = Duration::from_secs(120);

/// Longest wait for a file's next piece to go out, and for the answer after the last one. What is under way then, a
/// connection's window, may have to pass through a slow link; that a peer is dead is noticed by pings before.
const STALL_TIMEOUT: Duration = Duration::from_secs(120);

/// Longest wait for the receiver to put everything in place.
const INSTALL_TIMEOUT: Duration = Duration::from_secs(120);

/// Sends `snapshot` to a broker, to whoever has the address if `to` names none; a leader's `vote` stands behind it, unless the
/// peer asked for it to repair itself.
pub(crate) fn send_snapshot(
    peers: Peers,
    to: Addressee,
    client: RaftClient<Channel>,
    vote: Option<RaftVote>,
    snapshot: SnapshotData,
) -> BoxFuture<'static, Result<wire::InstallResponse, Status>> {
    // Boxed: openraft's bounds on what is held across an await are too much for the compiler.
    Box::pin(send(peers, to, client, vote, snapshot))
}

async fn send(
    peers: Peers,
    to: Addressee,
    mut client: RaftClient<Channel>,
    vote: Option<RaftVote>,
    snapshot: SnapshotData,
) -> Result<wire::InstallResponse, Status> {
    let SnapshotData::Local(snapshot) = snapshot else {
        return Err(Status::internal(
            "a snapshot that was received is not passed on",
        ));
    };
    let mut sources = snapshot.checkpoint_sources().await.map_err(internal)?;
    let last = snapshot.checkpoint.meta().log_id;
    let segments = snapshot.log.export(last.index).await.map_err(internal)?;
    sources.extend(segments.into_iter().map(Source::segment));
    let mut offer = offer(&peers, vote.as_ref(), &snapshot, &sources)?;
    offer.sender = Some(peers.sender_to(to));
    let id = offer.snapshot_id.clone();
    let wants = within(OFFER_TIMEOUT, client.offer_snapshot(offer)).await?;
    for want in wants.files {
        let source = sources.iter().find(|source| source.file.name == want.name);
        let source = source.ok_or_else(|| {
            Status::invalid_argument(format!("peer wants {:?}, which was not offered", want.name))
        })?;
        let sent = send_file(&mut client, &id, source, want.position).await;
        if let Err(status) = &sent
            && matches!(status.code(), Code::DataLoss | Code::Internal)
        {
            snapshot.was_refused(source);
        }
        sent?;
    }
    // What is sent stays in place until here.
    drop(snapshot);
    let request = wire::InstallRequest {
        snapshot_id: id,
        vote: vote.as_ref().map(vote_to_wire),
        repair: vote.is_none(),
    };
    within(INSTALL_TIMEOUT, client.install_snapshot(request)).await
}

#[allow(clippy::result_large_err, reason = "the transport's own error type")]
fn offer(
    peers: &Peers,
    vote: Option<&RaftVote>,
    snapshot: &LocalSnapshot,
    sources: &[Source],
) -> Result<wire::SnapshotOffer, Status> {
    let meta = snapshot.checkpoint.meta();
    let applied = crate::applied::Applied::decode(&meta.applied)
        .map_err(|error| Status::internal(error.to_string()))?;
    Ok(wire::SnapshotOffer {
        cluster_id: peers.identity().cluster_id.clone(),
        group: peers.identity().group.clone(),
        vote: vote.map(vote_to_wire),
        last: Some(wire::LogId {
            term: meta.log_id.term,
            index: meta.log_id.index,
        }),
        membership: stored_membership_to_bytes(applied.membership()),
        files: sources.iter().map(|source| source.file.clone()).collect(),
        snapshot_id: snapshot_id(meta.log_id, sources),
        repair: vote.is_none(),
        ..wire::SnapshotOffer::default()
    })
}

async fn send_file(
    client: &mut RaftClient<Channel>,
    snapshot_id: &str,
    source: &Source,
    position: u64,
) -> Result<(), Status> {
    let size_bytes = source.file.size_bytes;
    let failure: Failure = Arc::default();
    let (moves, moved) = watch::channel(());
    let chunks = file_chunks(snapshot_id, source, position, failure.clone(), moves);
    let received = while_moving(moved, client.send_file(chunks)).await;
    if let Some(error) = failure
        .lock()
        .unwrap_or_else(|error| error.into_inner())
        .take()
    {
        return Err(internal(error));
    }
    match received?.size_bytes {
        received if received == size_bytes => Ok(()),
        received => {
            let name = &source.file.name;
            Err(Status::data_loss(format!(
                "peer has {received} of {size_bytes} bytes of {name}"
            )))
        }
    }
}

/// Why a file could not be read to its end.
type Failure = Arc<std::sync::Mutex<Option<StoreError>>>;

/// The pieces of a file; they end early if it cannot be read, and `failure` says why.
fn file_chunks(
    snapshot_id: &str,
    source: &Source,
    position: u64,
    failure: Failure,
    moves: watch::Sender<()>,
) -> RequestStream<wire::FileChunk> {
    let content = source.content.clone();
    let chunks = Chunks {
        content,
        position,
        end: source.file.size_bytes,
        begun: false,
    };
    let (id, name) = (snapshot_id.to_string(), source.file.name.clone());
    let chunks =
        stream::try_unfold(chunks, Chunks::next).map_ok(move |(position, data)| wire::FileChunk {
            snapshot_id: id.clone(),
            name: name.clone(),
            position,
            data,
        });
    let chunks = chunks.scan((), move |(), chunk: Result<wire::FileChunk, StoreError>| {
        moves.send_replace(());
        let chunk = chunk.map_err(|error| {
            *failure.lock().unwrap_or_else(|error| error.into_inner()) = Some(error);
        });
        futures::future::ready(chunk.ok())
    });
    RequestStream::new(chunks)
}

/// What is left to send of one file.
pub(crate) struct Chunks {
    content: Content,
    position: u64,
    end: u64,
    begun: bool,
}

impl Chunks {
    /// A segment from `position` on.
    pub(crate) fn of_segment(export: store::SegmentExport, position: u64) -> Chunks {
        let end = export.info().len;
        let content = Content::Segment(Arc::new(export));
        Chunks {
            content,
            position,
            end,
            begun: false,
        }
    }

    /// Reads the next piece. Where nothing is left from the beginning, one empty piece says which
    /// file it is.
    pub(crate) async fn next(
        mut self,
    ) -> Result<Option<((u64, bytes::Bytes), Chunks)>, StoreError> {
        if self.position >= self.end && self.begun {
            return Ok(None);
        }
        self.begun = true;
        let position = self.position;
        let left = self.end.saturating_sub(position);
        let wanted = usize::try_from(left)
            .unwrap_or(CHUNK_BYTES)
            .min(CHUNK_BYTES);
        let data = self.content.read(position, wanted).await?;
        self.position += data.len() as u64;
        Ok(Some(((position, data), self)))
    }
}

async fn within<T>(
    timeout: Duration,
    call: impl Future<Output = Result<tonic::Response<T>, Status>>,
) -> Result<T, Status> {
    match tokio::time::timeout(timeout, call).await {
        Ok(response) => Ok(response?.into_inner()),
        Err(_) => Err(Status::deadline_exceeded(format!(
            "no answer within {timeout:?}"
        ))),
    }
}

/// Waits for the answer to a stream of pieces as long as they move.
async fn while_moving<T>(
    mut moved: watch::Receiver<()>,
    call: impl Future<Output = Result<tonic::Response<T>, Status>>,
) -> Result<T, Status> {
    let mut call = std::pin::pin!(call);
    loop {
        tokio::select! {
            biased;
            response = &mut call => return Ok(response?.into_inner()),
            // The sender of this goes away with the last piece.
            Ok(()) = moved.changed() => {}
            () = tokio::time::sleep(STALL_TIMEOUT) => {
                let error = format!("no piece moved within {STALL_TIMEOUT:?}");
                return Err(Status::deadline_exceeded(error));
            }
        }
    }
}

fn internal(error: StoreError) -> Status {
    Status::internal(error.to_string())
}
