//! What a replica has promised to a candidate, on its disk, is never taken back, whatever crashes; and who
//! leads has voted for itself there. (openraft's invariant 11; what election safety rests on.)
//!
//! A candidate that learns who was elected in its own term follows that one: a vote that is known to lead
//! takes the place of one that is not.

use std::collections::BTreeMap;

use raft::{GroupStatus, Vote};

use crate::machine::Machine;
use crate::violation::Violation;

#[derive(Default)]
pub(super) struct Votes {
    last: BTreeMap<Machine, Vote>,
}

impl Votes {
    /// What a replica promised does not count any more: its disk is another one.
    pub(super) fn forget(&mut self, machine: Machine) {
        self.last.remove(&machine);
    }

    pub(super) fn seen(&mut self, machine: Machine, status: &GroupStatus) -> Result<(), Violation> {
        let term = status.leadership.term;
        let has_voted = status.vote.is_some_and(|vote| vote.term >= term);
        if status.leadership.is_leader && !has_voted {
            let vote = status.vote;
            let detail = format!("{machine} leads in term {term}, and on its disk is {vote:?}");
            return Err(Violation::new("leaders-have-voted", detail));
        }
        let Some(now) = status.vote else {
            return Ok(());
        };
        let before = *self.last.entry(machine).or_insert(now);
        let same = now.candidate == before.candidate;
        let changed_its_mind = match (before.committed, now.committed) {
            (false, true) => false,
            (true, false) => true,
            _ => !same,
        };
        if now.term < before.term || (now.term == before.term && changed_its_mind) {
            let detail = format!("{machine} had promised {before:?}, and has promised {now:?}");
            return Err(Violation::new("votes-forward", detail));
        }
        self.last.insert(machine, now);
        Ok(())
    }
}
