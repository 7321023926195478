//! Fetches committed entries, or a whole segment of them, from one peer.

use std::ops::RangeInclusive;
use std::time::Duration;

use proto::raft as wire;
use store::{CommitLog, Entry, SegmentInfo, Staging, StoreError};
use thiserror::Error;
use tonic::Status;

use crate::connections::{Class, Connections};
use crate::convert::{ConvertError, store_entry_from_wire};
use crate::peers::Peers;
use crate::snapshot::{segment_from_wire, segment_to_wire};

/// Longest wait for the next piece.
const PIECE_TIMEOUT: Duration = Duration::from_secs(10);

/// Name of the store's place for segments that repair others.
const TRANSFER: &str = "repair";

/// Why a peer's entries are of no use.
#[derive(Debug, Error)]
pub(crate) enum FetchError {
    #[error(transparent)]
    Network(#[from] host::network::NetworkError),
    #[error("{}", .0.message())]
    Refused(#[from] Status),
    #[error("no answer within {PIECE_TIMEOUT:?}")]
    Timeout,
    #[error(transparent)]
    Convert(#[from] ConvertError),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("expected entry {expected}, got {found:?}")]
    Gap { expected: u64, found: Option<u64> },
}

/// Fetches entries. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Fetcher {
    peers: Peers,
    connections: Connections,
}

impl Fetcher {
    pub(crate) fn new(peers: Peers, connections: Connections) -> Fetcher {
        Fetcher { peers, connections }
    }

    /// Exactly the entries of `range`, in order: what the peer has applied, or, of one that leads in `leader_term`, what
    /// it has.
    pub(crate) async fn fetch(
        &self,
        address: &str,
        range: RangeInclusive<u64>,
        leader_term: Option<u64>,
    ) -> Result<Vec<Entry>, FetchError> {
        let mut client = self.connections.client(address, Class::Bulk)?;
        let request = wire::FetchEntriesRequest {
            cluster_id: self.peers.identity().cluster_id.clone(),
            group: self.peers.identity().group.clone(),
            first_index: *range.start(),
            last_index: *range.end(),
            leader_term: leader_term.unwrap_or(0),
        };
        let timeout = |_| FetchError::Timeout;
        let call = client.fetch_entries(request);
        let mut pieces = tokio::time::timeout(PIECE_TIMEOUT, call)
            .await
            .map_err(timeout)??
            .into_inner();
        let mut entries = Vec::new();
        let mut expected = *range.start();
        loop {
            let next = tokio::time::timeout(PIECE_TIMEOUT, pieces.message()).await;
            let Some(piece) = next.map_err(timeout)?? else {
                break;
            };
            for entry in piece.entries {
                if entry.index != expected || entry.index > *range.end() {
                    return Err(FetchError::Gap {
                        expected,
                        found: Some(entry.index),
                    });
                }
                entries.push(store_entry_from_wire(entry)?);
                expected += 1;
            }
        }
        if expected != *range.end() + 1 {
            return Err(FetchError::Gap {
                expected,
                found: None,
            });
        }
        Ok(entries)
    }

    /// The peer's full segment that holds `index`, received beside the log and checked. What arrived before an earlier
    /// attempt broke off is not sent again.
    pub(crate) async fn fetch_segment(
        &self,
        log: &CommitLog,
        address: &str,
        index: u64,
    ) -> Result<(Staging, SegmentInfo), FetchError> {
        let mut client = self.connections.client(address, Class::Bulk)?;
        let staging = log.stage(TRANSFER)?;
        let part = staging.part_with(index)?;
        let position = match &part {
            Some(info) => staging.received(info)?,
            None => 0,
        };
        let request = wire::FetchSegmentRequest {
            cluster_id: self.peers.identity().cluster_id.clone(),
            group: self.peers.identity().group.clone(),
            index,
            part: part.as_ref().map(segment_to_wire),
            position,
        };
        let timeout = |_| FetchError::Timeout;
        let call = client.fetch_segment(request);
        let mut pieces = tokio::time::timeout(PIECE_TIMEOUT, call)
            .await
            .map_err(timeout)??
            .into_inner();
        let mut receiving = None;
        loop {
            let next = tokio::time::timeout(PIECE_TIMEOUT, pieces.message()).await;
            let Some(piece) = next.map_err(timeout)?? else {
                break;
            };
            if receiving.is_none() {
                let file = piece.file.ok_or(ConvertError::Missing("file"))?;
                let info = segment_from_wire(&file);
                receiving = Some((staging.receive(info, piece.position)?, info));
            }
            if let Some((writer, _)) = &mut receiving {
                writer.write(piece.data).await?;
            }
        }
        let (writer, info) = receiving.ok_or(ConvertError::Missing("file"))?;
        writer.finish().await?;
        Ok((staging, info))
    }
}
