//! At most one leader in a term, and terms that a replica has seen never go back, not even across its
//! crashes: it would have forgotten a vote. (Raft's election safety; openraft's invariants 1 and 8.)

use std::collections::BTreeMap;

use raft::Leadership;

use crate::machine::Machine;
use crate::violation::Violation;

#[derive(Default)]
pub(super) struct Leaders {
    by_term: BTreeMap<u64, Machine>,
    terms: BTreeMap<Machine, u64>,
}

impl Leaders {
    /// Which term a replica was in does not count any more: its disk is another one.
    pub(super) fn forget(&mut self, machine: Machine) {
        self.terms.remove(&machine);
    }

    pub(super) fn seen(
        &mut self,
        machine: Machine,
        leadership: &Leadership,
    ) -> Result<(), Violation> {
        let term = leadership.term;
        if leadership.is_leader {
            let leader = *self.by_term.entry(term).or_insert(machine);
            if leader != machine {
                return Err(Violation::new(
                    "one-leader-per-term",
                    format!("{leader} and {machine} both lead in term {term}"),
                ));
            }
        }
        // Before Raft runs the term is not known, and said to be 0.
        if term == 0 {
            return Ok(());
        }
        let before = self.terms.insert(machine, term).unwrap_or(0);
        if term < before {
            return Err(Violation::new(
                "terms-forward",
                format!("{machine} was in term {before} and is in term {term} now"),
            ));
        }
        Ok(())
    }
}
