//! What the log holds.

use bytes::Bytes;

/// Where an entry stands in the log. Ordered by term, then index.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LogId {
    /// Raft term in which a leader made the entry.
    pub term: u64,
    /// Place in the log, without gaps.
    pub index: u64,
}

/// What kind of body an entry has. The numbers stand on disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum EntryKind {
    /// No body: a new leader's first entry.
    Blank = 0,
    /// A command of the state machine.
    Normal = 1,
    /// A change of the group's members.
    Membership = 2,
    /// No body: a segment begins with it, however much room the one before has left.
    Roll = 3,
}

impl EntryKind {
    /// The kind with this number, if there is one.
    pub fn from_number(number: u8) -> Option<EntryKind> {
        match number {
            0 => Some(EntryKind::Blank),
            1 => Some(EntryKind::Normal),
            2 => Some(EntryKind::Membership),
            3 => Some(EntryKind::Roll),
            _ => None,
        }
    }
}

/// One entry of the log. Cheap to clone: the body is shared.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Raft term in which a leader made the entry.
    pub term: u64,
    /// Place in the log, without gaps.
    pub index: u64,
    /// What kind of body.
    pub kind: EntryKind,
    /// Opaque to the store.
    pub body: Bytes,
}

impl Entry {
    /// The entry's place.
    pub fn log_id(&self) -> LogId {
        LogId {
            term: self.term,
            index: self.index,
        }
    }
}
