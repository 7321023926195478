//! Mutant: entries are applied as soon as they are appended, committed or not.

use std::collections::BTreeMap;

use bytes::Bytes;
use host::{Mutant, mutant};
use store::StoreError;

use super::Tables;
use crate::types::RaftEntry;

/// What was answered before anybody asked, by index.
pub(super) type Replies = BTreeMap<u64, Bytes>;

impl Tables {
    /// Applies entries that were appended, if they follow what was applied.
    pub(crate) fn apply_appended(&mut self, entries: Vec<RaftEntry>) -> Result<(), StoreError> {
        let next = self.next_index();
        let first = entries.first().map(|entry| entry.log_id.index());
        if !mutant::is(Mutant::AppliedBeforeCommit) || first.is_none_or(|first| first > next) {
            return Ok(());
        }
        let new: Vec<RaftEntry> = entries
            .into_iter()
            .filter(|entry| entry.log_id.index() >= next)
            .collect();
        if new.is_empty() {
            return Ok(());
        }
        let replies = self.apply(new)?;
        self.early.extend((next..).zip(replies));
        Ok(())
    }

    /// Applies entries that are committed, but for those that were applied before.
    pub(crate) fn apply_committed(
        &mut self,
        entries: Vec<RaftEntry>,
    ) -> Result<Vec<Bytes>, StoreError> {
        let next = self.next_index();
        let (before, new): (Vec<RaftEntry>, Vec<RaftEntry>) = entries
            .into_iter()
            .partition(|entry| entry.log_id.index() < next);
        let mut replies = Vec::new();
        for entry in before {
            let reply = self.early.remove(&entry.log_id.index());
            replies.push(reply.unwrap_or_default());
        }
        if !new.is_empty() {
            replies.extend(self.apply(new)?);
        }
        Ok(replies)
    }

    fn next_index(&self) -> u64 {
        let applied = self.applied.log_id();
        applied.map_or(0, |log_id| log_id.index() + 1)
    }
}
