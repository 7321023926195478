//! How a replica stands in its group: what it is doing, who leads, to whom it gave its vote.
//!
//! Words only: how each comes to be is told where it is found out.

use crate::member::Member;

/// What a replica is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Nothing was ever promised here; waiting for the group to be made, or to be let in.
    Waiting,
    /// A part of the log that was promised is damaged; does not serve until peers gave it back, and votes
    /// only for whoever has at least as much.
    Repairing,
    /// Takes part in the group.
    Running,
    /// Told to stop, or failed.
    Stopped,
}

impl Phase {
    /// One word, for messages and metrics.
    pub fn name(self) -> &'static str {
        match self {
            Phase::Waiting => "waiting",
            Phase::Repairing => "repairing",
            Phase::Running => "running",
            Phase::Stopped => "stopped",
        }
    }
}

/// Leadership as this replica sees it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Leadership {
    /// The current term. Grows with each election.
    pub term: u64,
    /// Who leads, if that is known.
    pub leader: Option<Member>,
    /// Whether this replica leads.
    pub is_leader: bool,
    /// Whether this replica leads, has applied all that its log held when it was elected, and has
    /// heard from a majority within an election timeout.
    pub serving: bool,
    /// Of a replica that was taken out of its group: the members that it knew last, who know more by now. Empty for a
    /// member.
    pub survivors: Vec<Member>,
}

/// What a replica has promised to a candidate, on its disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Vote {
    /// In which term.
    pub term: u64,
    /// To whom.
    pub candidate: u64,
    /// Whether that one is known to lead.
    pub committed: bool,
}
