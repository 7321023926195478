//! The order of a replica's positions, and that what it promised does not shrink.
//!
//! ```text
//! dropped <= purged + 1 <= checkpoint + 1 <= applied + 1
//! purged <= flushed <= appended            applied <= appended
//! ```
//!
//! What Raft says to be committed is compared with neither end: it is told a moment later than what is
//! applied, and on a follower a moment earlier than what is appended. While a snapshot is installed the log
//! is ahead of the tables.
//!
//! (`design.md` section 3; openraft's invariants 7, 9 and 10.)

use std::collections::BTreeMap;
use std::time::Duration;

use raft::{GroupStatus, Phase};

use crate::machine::Machine;
use crate::trace::now;
use crate::violation::Violation;

/// Longest time that the installation of a snapshot may take.
const INSTALLS_WITHIN: Duration = Duration::from_secs(30);

#[derive(Default)]
pub(super) struct PositionOrder {
    /// What each process was last seen to have applied and committed.
    before: BTreeMap<(Machine, u64), (Option<u64>, Option<u64>)>,
    /// Since when each process has a log from a snapshot, and not yet its tables.
    installing: BTreeMap<(Machine, u64), Duration>,
}

impl PositionOrder {
    pub(super) fn seen(
        &mut self,
        machine: Machine,
        life: u64,
        status: &GroupStatus,
    ) -> Result<(), Violation> {
        // A damaged log has holes until it is repaired.
        if status.phase != Phase::Running {
            return Ok(());
        }
        if status.purged > status.applied {
            let since = *self.installing.entry((machine, life)).or_insert_with(now);
            if now() - since < INSTALLS_WITHIN {
                return Ok(());
            }
        } else {
            self.installing.remove(&(machine, life));
        }
        let next = |position: Option<u64>| position.map_or(0, |index| index + 1);
        let pairs = [
            ("dropped", status.dropped, "purged", next(status.purged)),
            (
                "purged",
                next(status.purged),
                "checkpoint",
                next(status.checkpoint),
            ),
            (
                "checkpoint",
                next(status.checkpoint),
                "applied",
                next(status.applied),
            ),
            (
                "purged",
                next(status.purged),
                "flushed",
                next(status.flushed),
            ),
            (
                "flushed",
                next(status.flushed),
                "appended",
                next(status.appended),
            ),
            (
                "applied",
                next(status.applied),
                "appended",
                next(status.appended),
            ),
        ];
        for (lower, lower_end, upper, upper_end) in pairs {
            if lower_end > upper_end {
                return Err(Violation::new(
                    "position-order",
                    format!(
                        "{machine}: {lower} ends at {lower_end}, {upper} at {upper_end}: {status:?}"
                    ),
                ));
            }
        }
        self.forward(machine, life, status)
    }

    fn forward(
        &mut self,
        machine: Machine,
        life: u64,
        status: &GroupStatus,
    ) -> Result<(), Violation> {
        let now = (status.applied, status.committed);
        let before = self.before.insert((machine, life), now).unwrap_or_default();
        if now.0 < before.0 || now.1 < before.1 {
            return Err(Violation::new(
                "positions-forward",
                format!("{machine}: applied and committed were {before:?} and are {now:?}"),
            ));
        }
        Ok(())
    }
}
