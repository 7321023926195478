//! Reading the log: for replication to followers, and for applying.
//!
//! A record that turns out to be damaged is not an error of Raft's: the reader asks for its repair
//! from a peer, waits a bounded time, and reads again.

use std::fmt::Debug;
use std::io;
use std::ops::{Bound, RangeBounds};
use std::sync::Arc;

use futures::{Stream, StreamExt, TryStreamExt, stream};
use openraft::OptionalSend;
use openraft::storage::RaftLogReader;
use store::{CommitLog, DataDir, Entry, StoreError};

use crate::config::APPEND_BYTES_MAX;
use crate::convert::{ConvertError, entry_from_store, vote_from_bytes};
use crate::error::to_io;
use crate::repair::Repairer;
use crate::types::{RaftEntry, RaftVote, TypeConfig};

/// Most that applying reads ahead of itself, in bytes.
const APPLY_READ_BYTES: usize = 8 << 20;

/// A cheap handle on the log, one for each task that reads it.
#[derive(Clone)]
pub(crate) struct LogReader {
    log: CommitLog,
    data_dir: Arc<DataDir>,
    repairer: Repairer,
}

impl LogReader {
    pub(crate) fn new(log: CommitLog, data_dir: Arc<DataDir>, repairer: Repairer) -> LogReader {
        LogReader {
            log,
            data_dir,
            repairer,
        }
    }

    /// The first index that Raft may ask for.
    fn first_index(&self) -> u64 {
        self.log.purged().map_or(0, |purged| purged.index + 1)
    }

    /// The index after the last one.
    fn end_index(&self) -> u64 {
        self.log.last().map_or(0, |last| last.index + 1)
    }

    /// What of `range` is above Raft's floor and in the log.
    fn clip(&self, range: &impl RangeBounds<u64>) -> (u64, u64) {
        let start = match range.start_bound() {
            Bound::Included(index) => *index,
            Bound::Excluded(index) => index.saturating_add(1),
            Bound::Unbounded => 0,
        };
        let end = match range.end_bound() {
            Bound::Included(index) => index.saturating_add(1),
            Bound::Excluded(index) => *index,
            Bound::Unbounded => u64::MAX,
        };
        (start.max(self.first_index()), end.min(self.end_index()))
    }

    /// Reads at least one entry, and more up to `bytes_max`; repairs what is damaged.
    async fn read(
        &self,
        start: u64,
        end: u64,
        bytes_max: usize,
    ) -> Result<Vec<RaftEntry>, StoreError> {
        let entries = match self.log.read(start, end, bytes_max).await {
            Err(error) if error.is_corruption() => {
                self.read_repaired(&error, start, end, bytes_max).await?
            }
            result => result?,
        };
        self.converted(start, entries)
    }

    fn converted(&self, start: u64, entries: Vec<Entry>) -> Result<Vec<RaftEntry>, StoreError> {
        let convert = |entry: Entry| -> Result<RaftEntry, ConvertError> { entry_from_store(entry) };
        let entries: Result<Vec<RaftEntry>, ConvertError> =
            entries.into_iter().map(convert).collect();
        // The checksum was right, so this is what was appended: a fault of the writer.
        entries
            .map_err(|error| StoreError::corrupt_at(self.data_dir.path(), start, error.to_string()))
    }

    /// Has what is damaged repaired, and reads again.
    async fn read_repaired(
        &self,
        error: &StoreError,
        start: u64,
        end: u64,
        bytes_max: usize,
    ) -> Result<Vec<Entry>, StoreError> {
        self.repairer.repair(error, start).await?;
        self.log.read(start, end, bytes_max).await
    }

    /// Reads what a follower needs, as [`LogReader::read`] does. While that cannot be read, others may have to lead.
    async fn read_to_send(&self, start: u64, end: u64) -> Result<Vec<RaftEntry>, StoreError> {
        let entries = match self.log.read(start, end, APPEND_BYTES_MAX).await {
            Err(error) if error.is_corruption() => {
                let unreadable = self.repairer.unreadable();
                unreadable.send_replace(Some(start));
                let repaired = self.read_repaired(&error, start, end, APPEND_BYTES_MAX);
                let repaired = repaired.await?;
                unreadable
                    .send_if_modified(|index| index.take_if(|index| *index == start).is_some());
                repaired
            }
            result => result?,
        };
        self.converted(start, entries)
    }

    /// Everything in `start..end`, piece by piece.
    fn pieces(
        self,
        start: u64,
        end: u64,
        bytes_max: usize,
    ) -> impl Stream<Item = Result<Vec<RaftEntry>, StoreError>> + Send + 'static {
        stream::try_unfold((self, start), move |(reader, next)| async move {
            if next >= end {
                return Ok(None);
            }
            let entries = reader.read(next, end, bytes_max).await?;
            let Some(last) = entries.last() else {
                return Err(StoreError::OutOfRange {
                    index: next,
                    first: start,
                    last: end - 1,
                });
            };
            let next = last.log_id.index() + 1;
            Ok(Some((entries, (reader, next))))
        })
    }
}

impl RaftLogReader<TypeConfig> for LogReader {
    async fn try_get_log_entries<RB: RangeBounds<u64> + Clone + Debug + OptionalSend>(
        &mut self,
        range: RB,
    ) -> Result<Vec<RaftEntry>, io::Error> {
        let (start, end) = self.clip(&range);
        let pieces = self.clone().pieces(start, end, APPLY_READ_BYTES);
        let mut entries = Vec::new();
        let mut pieces = std::pin::pin!(pieces);
        while let Some(piece) = pieces.try_next().await.map_err(to_io)? {
            entries.extend(piece);
        }
        Ok(entries)
    }

    async fn read_vote(&mut self) -> Result<Option<RaftVote>, io::Error> {
        vote_from_bytes(&self.data_dir.superblock().vote).map_err(io::Error::other)
    }

    /// Bounded by bytes. Answers nothing if the entries are damaged and could not be repaired in
    /// time: openraft takes that for a heartbeat and asks again, where an error would be fatal.
    async fn limited_get_log_entries(
        &mut self,
        start: u64,
        end: u64,
    ) -> Result<Vec<RaftEntry>, io::Error> {
        match self.read_to_send(start, end).await {
            Err(error) if error.is_corruption() => {
                tracing::warn!(%error, "cannot replicate entries that are damaged here");
                Ok(Vec::new())
            }
            result => result.map_err(to_io),
        }
    }

    async fn entries_stream<RB>(
        &mut self,
        range: RB,
    ) -> impl Stream<Item = Result<RaftEntry, io::Error>> + OptionalSend
    where
        RB: RangeBounds<u64> + Clone + Debug + OptionalSend,
    {
        let (start, end) = self.clip(&range);
        let pieces = self.clone().pieces(start, end, APPLY_READ_BYTES);
        let entries = pieces.map_ok(|piece| stream::iter(piece.into_iter().map(Ok)));
        entries
            .try_flatten()
            .map(|entry| entry.map_err(to_io))
            .boxed()
    }
}
