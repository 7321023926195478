//! What is applied anywhere lies synced in the logs of a majority of voters. (openraft's invariant 5.)
//!
//! A replica that was killed has what it had then. One that ended by itself, starts or is being repaired cannot
//! be asked: it counts as having everything. And while members change, a majority of the old ones will do.

use std::collections::{BTreeMap, BTreeSet};

use store::LogId;

use crate::machine::Machine;
use crate::violation::Violation;

/// How far the log of each voter that can be asked is synced, by broker id.
pub(super) type Synced = BTreeMap<u64, Option<u64>>;

#[derive(Default)]
pub(super) struct CommittedOnQuorum {
    /// Voters of all times.
    voters: BTreeSet<BTreeSet<u64>>,
}

impl CommittedOnQuorum {
    /// These vote from now on, or from a while ago.
    pub(super) fn vote(&mut self, voters: BTreeSet<u64>) {
        if !voters.is_empty() {
            self.voters.insert(voters);
        }
    }

    pub(super) fn seen(
        &self,
        machine: Machine,
        applied: LogId,
        synced: &Synced,
    ) -> Result<(), Violation> {
        let has = |voter: &&u64| match synced.get(voter) {
            Some(synced) => *synced >= Some(applied.index),
            None => true,
        };
        let agreed = |voters: &BTreeSet<u64>| voters.iter().filter(has).count() > voters.len() / 2;
        if self.voters.is_empty() || self.voters.iter().any(agreed) {
            return Ok(());
        }
        let detail = format!("{machine} applied {applied:?}, and logs are synced up to {synced:?}");
        Err(Violation::new("committed-on-quorum", detail))
    }
}
