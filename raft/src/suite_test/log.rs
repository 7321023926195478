//! The log as the suite uses it: it may begin at index 1, where a real one always begins at 0.

use std::fmt::Debug;
use std::io;
use std::ops::RangeBounds;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use openraft::storage::{IOFlushed, LogState, RaftLogReader, RaftLogStorage};
use openraft::{EntryPayload, OptionalSend};

use crate::convert::log_id_of;
use crate::log_storage::{LogReader, LogStorage};
use crate::types::{RaftEntry, RaftLogId, RaftVote, TypeConfig};

/// Our log storage; fills the places before the first entry, and hides them from readers.
pub(super) struct SuiteLog {
    pub(super) inner: LogStorage,
    pub(super) hidden: Arc<AtomicU64>,
}

#[derive(Clone)]
pub(super) struct SuiteReader {
    inner: LogReader,
    hidden: Arc<AtomicU64>,
}

impl SuiteReader {
    fn visible(&self, entries: Vec<RaftEntry>) -> Vec<RaftEntry> {
        let hidden = self.hidden.load(Ordering::Relaxed);
        entries
            .into_iter()
            .filter(|entry| entry.log_id.index() >= hidden)
            .collect()
    }
}

impl RaftLogReader<TypeConfig> for SuiteReader {
    async fn try_get_log_entries<RB: RangeBounds<u64> + Clone + Debug + OptionalSend>(
        &mut self,
        range: RB,
    ) -> Result<Vec<RaftEntry>, io::Error> {
        let entries = self.inner.try_get_log_entries(range).await?;
        Ok(self.visible(entries))
    }

    async fn read_vote(&mut self) -> Result<Option<RaftVote>, io::Error> {
        self.inner.read_vote().await
    }

    async fn limited_get_log_entries(
        &mut self,
        start: u64,
        end: u64,
    ) -> Result<Vec<RaftEntry>, io::Error> {
        let entries = self.inner.limited_get_log_entries(start, end).await?;
        Ok(self.visible(entries))
    }
}

impl RaftLogStorage<TypeConfig> for SuiteLog {
    type LogReader = SuiteReader;

    async fn get_log_state(&mut self) -> Result<LogState<TypeConfig>, io::Error> {
        let mut state = self.inner.get_log_state().await?;
        let hidden = self.hidden.load(Ordering::Relaxed);
        state.last_log_id = state.last_log_id.filter(|last| last.index() >= hidden);
        Ok(state)
    }

    async fn get_log_reader(&mut self) -> SuiteReader {
        let inner = self.inner.get_log_reader().await;
        SuiteReader {
            inner,
            hidden: self.hidden.clone(),
        }
    }

    async fn save_vote(&mut self, vote: &RaftVote) -> Result<(), io::Error> {
        self.inner.save_vote(vote).await
    }

    async fn append<I>(
        &mut self,
        entries: I,
        callback: IOFlushed<TypeConfig>,
    ) -> Result<(), io::Error>
    where
        I: IntoIterator<Item = RaftEntry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let entries: Vec<RaftEntry> = entries.into_iter().collect();
        let state = self.inner.get_log_state().await?;
        let first = entries.first().map_or(0, |entry| entry.log_id.index());
        let mut padded = Vec::new();
        if state.last_log_id.is_none() && first > 0 {
            self.hidden.store(first, Ordering::Relaxed);
            let blank = |index| RaftEntry {
                log_id: log_id_of(0, index),
                payload: EntryPayload::Blank,
            };
            padded.extend((0..first).map(blank));
        }
        padded.extend(entries);
        self.inner.append(padded, callback).await
    }

    async fn truncate_after(&mut self, last: Option<RaftLogId>) -> Result<(), io::Error> {
        self.inner.truncate_after(last).await
    }

    async fn purge(&mut self, log_id: RaftLogId) -> Result<(), io::Error> {
        self.inner.purge(log_id).await
    }
}
