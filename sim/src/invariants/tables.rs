//! Replicas whose tables end with the same entry have the same tables. (`design.md` 9.7; openraft's state
//! machine safety.)

use std::collections::BTreeMap;

use store::LogId;

use crate::machine::Machine;
use crate::violation::Violation;

#[derive(Default)]
pub(super) struct EqualTables {
    /// Who was seen first at an index, in which term, and with which tables.
    seen: BTreeMap<u64, (Machine, LogId, u64)>,
}

impl EqualTables {
    /// The last entry up to `index` that was seen to be applied.
    pub(super) fn last_applied(&self, index: u64) -> Option<LogId> {
        let (_, (_, applied, _)) = self.seen.range(..=index).next_back()?;
        Some(*applied)
    }

    pub(super) fn seen(
        &mut self,
        machine: Machine,
        applied: LogId,
        digest: Option<u64>,
    ) -> Result<(), Violation> {
        let digest = digest
            .ok_or_else(|| Violation::new("equal-tables", "the tables' engine keeps no digest"))?;
        let first = *self
            .seen
            .entry(applied.index)
            .or_insert((machine, applied, digest));
        let (other, log_id, tables) = first;
        if log_id != applied {
            return Err(Violation::new(
                "committed-immutable",
                format!("{other} applied {log_id:?}, {machine} {applied:?} at the same index"),
            ));
        }
        if tables != digest {
            return Err(Violation::new(
                "equal-tables",
                format!(
                    "tables of {machine} differ from those that {other} had at {applied:?}: \
                     {digest:016x} and {tables:016x}"
                ),
            ));
        }
        Ok(())
    }
}
