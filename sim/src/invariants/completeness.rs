//! Whoever leads has every entry that was committed in an earlier term. (openraft's invariant 3.)
//!
//! That it is the same entry, and not only as many of them, is for `log` and `tables` to say.

use std::collections::BTreeMap;

use raft::{GroupStatus, Phase};
use store::LogId;

use crate::machine::Machine;
use crate::violation::Violation;

#[derive(Default)]
pub(super) struct LeaderCompleteness {
    /// The last entry of each term that was applied anywhere, and where.
    committed: BTreeMap<u64, (u64, Machine)>,
}

impl LeaderCompleteness {
    pub(super) fn applied(&mut self, machine: Machine, applied: LogId) {
        let last = self.committed.entry(applied.term);
        let last = last.or_insert((applied.index, machine));
        if applied.index > last.0 {
            *last = (applied.index, machine);
        }
    }

    pub(super) fn seen(&self, machine: Machine, status: &GroupStatus) -> Result<(), Violation> {
        let leadership = &status.leadership;
        if !leadership.is_leader || status.phase != Phase::Running {
            return Ok(());
        }
        let earlier = self.committed.range(..leadership.term);
        let Some((index, other)) = earlier.map(|(_, last)| *last).max() else {
            return Ok(());
        };
        if status.appended < Some(index) {
            let (term, appended) = (leadership.term, status.appended);
            let detail = format!(
                "{machine} leads in term {term} with a log up to {appended:?}, and {other} has applied {index}"
            );
            return Err(Violation::new("leader-completeness", detail));
        }
        Ok(())
    }
}
