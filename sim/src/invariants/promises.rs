//! What a replica had synced and applied is in its log when it takes part again: the same entry, not only as many of them.
//!
//! How far its log reaches is looked at elsewhere ([`super`]); here what stands in it. Reads one entry for each process, and
//! never anything that the process itself would not read soon.

use raft::{GroupStatus, Phase};
use store::{CommitLog, LogId};

use crate::machine::Machine;
use crate::violation::Violation;

/// The last entry that a process must find in its log, until somebody has looked.
pub(super) struct MustHave(Option<LogId>);

impl MustHave {
    pub(super) fn new(entry: Option<LogId>) -> MustHave {
        MustHave(entry)
    }

    /// Looks once, as soon as the replica takes part.
    pub(super) async fn look(
        &mut self,
        machine: Machine,
        status: &GroupStatus,
        log: &CommitLog,
    ) -> Result<(), Violation> {
        if status.phase != Phase::Running {
            return Ok(());
        }
        let Some(must_have) = self.0.take() else {
            return Ok(());
        };
        // What is not there is damaged, which is repaired, or was dropped; or it is missing, which is seen elsewhere.
        let Ok(entry) = log.entry(must_have.index).await else {
            return Ok(());
        };
        compare(machine, must_have, entry.log_id())
    }
}

fn compare(machine: Machine, must_have: LogId, found: LogId) -> Result<(), Violation> {
    if found == must_have {
        return Ok(());
    }
    let detail =
        format!("{machine} takes part with {found:?}, and had synced and applied {must_have:?}");
    Err(Violation::new("promises-are-kept", detail))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Catches a replica that starts with an entry which it had taken back, in the place of the one that it had confirmed.
    #[test]
    fn an_entry_of_another_term_is_not_the_one_that_was_promised() {
        let machine = Machine::Broker(1);
        let entry = |term| LogId { term, index: 9 };
        assert!(compare(machine, entry(2), entry(2)).is_ok());
        let violation = compare(machine, entry(2), entry(1)).unwrap_err();
        assert_eq!(violation.invariant, "promises-are-kept");
    }
}
