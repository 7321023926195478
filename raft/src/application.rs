//! The seam between agreement and rules: what the replicated state machine must offer.
//!
//! `raft` calls it, `broker` implements it. `raft` never looks into an entry's body or a reply.

use std::sync::Arc;

use bytes::Bytes;
use store::{Batch, CommitLog, Kv, StoreError};

/// An entry that a majority has made durable: it will never change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Committed {
    /// Place in the log.
    pub index: u64,
    /// Term of the leader that proposed it.
    pub term: u64,
    /// What was proposed.
    pub body: Bytes,
}

/// Writes one batch, together with the `applied` row, in one atomic write.
pub type Commit<'a> = dyn FnMut(Batch) -> Result<(), StoreError> + 'a;

/// A deterministic state machine: the same entries in the same order make the same tables and the
/// same replies on every replica. No clock, no randomness, no files, no iteration over hash maps.
pub trait Application: Send + Sync + 'static {
    /// Applies entries in order and returns one reply per entry.
    ///
    /// ### To ensure correctness:
    ///
    /// - `commit` is called at most once, with every change that the entries make.
    /// - Nothing is shown to readers before `commit` returned `Ok`.
    /// - An entry that cannot be understood or carried out is answered by a reply that says so. An
    ///   error means that the tables can no longer be trusted: the replica stops.
    fn apply(
        &mut self,
        entries: &[Committed],
        commit: &mut Commit<'_>,
    ) -> Result<Vec<Bytes>, StoreError>;

    /// Loads everything from the tables: at start, and after a snapshot took their place. Nothing
    /// that was held from former tables may stay.
    fn restore(&mut self, kv: Arc<dyn Kv>, log: CommitLog) -> Result<(), StoreError>;

    /// The first log index that the tables still point at. Segments wholly below it may be dropped.
    fn log_floor(&self) -> u64;
}
