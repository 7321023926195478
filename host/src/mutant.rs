//! Known bugs that can be put back, one at a time: the simulator proves on them that it finds bugs.
//!
//! Only a build with `--cfg raftmq_mutants` holds them; the binary `raftmq` refuses to be built so. In
//! every other build [`is`] is a constant, and each place that asks it vanishes. A place that asks says
//! "mutant" in its comment, and what the bug does.

/// A known bug.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Mutant {
    /// Raft is told that entries are synced when they were only handed to the flusher.
    AcknowledgedBeforeSync,
    /// A send is answered although its followers have not confirmed it, when they take long.
    AcknowledgedBeforeCommit,
    /// Entries are written and never synced.
    SyncSkipped,
    /// A vote is given without noting it.
    VoteNotPersisted,
    /// Records have no checksums, so that half of one passes for a whole one.
    TornTailAccepted,
    /// Records that are read have not been checked.
    CorruptRecordServed,
    /// Entries that are taken back stay on the disk, before those that take their places.
    TruncationLost,
    /// Segments are dropped that tables newer than the checkpoint would need again.
    RetentionAboveCheckpoint,
    /// A snapshot holds the tables, and not the messages that they point at.
    SnapshotWithoutSegments,
    /// Tables count after a restart although they hold entries that the log has lost.
    TablesAheadOfLog,
    /// The leader keeps offsets of consumer groups in its memory.
    OffsetsOutsideLog,
    /// A leader answers reads without asking whether it still leads.
    DeposedLeaderReads,
    /// A snapshot does not say which message ids were stored.
    SnapshotWithoutDedup,
    /// Few messages are remembered, of all senders together.
    DedupForgottenEarly,
    /// A message is taken for another one that has the same id.
    DedupAcrossBodies,
    /// A name server believes whoever registers last.
    OlderEpochAccepted,
    /// Entries are applied when they are appended.
    AppliedBeforeCommit,
    /// A consumer group goes back to an offset that comes late.
    StaleOffsetCommit,
    /// openraft's default: a leader that restarts goes on in its term.
    LeaderRestore,
    /// The leader's clock says how old messages are.
    RetentionByAWrongClock,
    /// Retention drops what waits for another delivery, or is dead.
    RetriesNotKept,
    /// Messages that are sent back are taken for agreed on before they are.
    SentBackBeforeCommit,
    /// What was settled is not remembered.
    SettledForgotten,
    /// The progress of a push consumer passes what is still worked on.
    ProgressPassesWork,
    /// A push consumer is done with a failed message that no server has confirmed to keep.
    FailureForgotten,
    /// The messages of a request are stored one by one, and others come between them.
    BatchTornApart,
    /// A replica with another data directory than the one that is meant answers for it.
    WipedReplicaAnswers,
    /// A consumer that keeps its own progress renames a file that is not on the disk.
    ProgressFileUnsynced,
    /// It says that its progress is kept before the file's new name is on the disk.
    ProgressNameUnsynced,
    /// What a group commits in a topic counts in the next one of its name.
    OtherLifeCommitted,
    /// A group that is restored from a copy does not begin another life of its topics.
    RestoreKeepsTheHistory,
    /// A mark of what was synced that cannot be read says that nothing was.
    UnreadableMarkIsNone,
    /// Nobody remembers on its disk what peers had promised.
    RolledBackReplicaBelieved,
    /// Nothing is applied while a checkpoint is written.
    ApplyingBlockedByACheckpoint,
}

impl Mutant {
    /// All of them.
    pub const ALL: &[Mutant] = &[
        Mutant::AcknowledgedBeforeSync,
        Mutant::AcknowledgedBeforeCommit,
        Mutant::SyncSkipped,
        Mutant::VoteNotPersisted,
        Mutant::TornTailAccepted,
        Mutant::CorruptRecordServed,
        Mutant::TruncationLost,
        Mutant::RetentionAboveCheckpoint,
        Mutant::SnapshotWithoutSegments,
        Mutant::TablesAheadOfLog,
        Mutant::OffsetsOutsideLog,
        Mutant::DeposedLeaderReads,
        Mutant::SnapshotWithoutDedup,
        Mutant::DedupForgottenEarly,
        Mutant::DedupAcrossBodies,
        Mutant::OlderEpochAccepted,
        Mutant::AppliedBeforeCommit,
        Mutant::StaleOffsetCommit,
        Mutant::LeaderRestore,
        Mutant::RetentionByAWrongClock,
        Mutant::RetriesNotKept,
        Mutant::SentBackBeforeCommit,
        Mutant::SettledForgotten,
        Mutant::ProgressPassesWork,
        Mutant::FailureForgotten,
        Mutant::BatchTornApart,
        Mutant::WipedReplicaAnswers,
        Mutant::ProgressFileUnsynced,
        Mutant::ProgressNameUnsynced,
        Mutant::OtherLifeCommitted,
        Mutant::RestoreKeepsTheHistory,
        Mutant::UnreadableMarkIsNone,
        Mutant::RolledBackReplicaBelieved,
        Mutant::ApplyingBlockedByACheckpoint,
    ];

    /// What it is called on the command line.
    pub const fn name(self) -> &'static str {
        match self {
            Mutant::AcknowledgedBeforeSync => "acknowledged-before-sync",
            Mutant::AcknowledgedBeforeCommit => "acknowledged-before-commit",
            Mutant::SyncSkipped => "sync-skipped",
            Mutant::VoteNotPersisted => "vote-not-persisted",
            Mutant::TornTailAccepted => "torn-tail-accepted",
            Mutant::CorruptRecordServed => "corrupt-record-served",
            Mutant::TruncationLost => "truncation-lost",
            Mutant::RetentionAboveCheckpoint => "retention-above-checkpoint",
            Mutant::SnapshotWithoutSegments => "snapshot-without-segments",
            Mutant::TablesAheadOfLog => "tables-ahead-of-log",
            Mutant::OffsetsOutsideLog => "offsets-outside-log",
            Mutant::DeposedLeaderReads => "deposed-leader-reads",
            Mutant::SnapshotWithoutDedup => "snapshot-without-dedup",
            Mutant::DedupForgottenEarly => "dedup-forgotten-early",
            Mutant::DedupAcrossBodies => "dedup-across-bodies",
            Mutant::OlderEpochAccepted => "older-epoch-accepted",
            Mutant::AppliedBeforeCommit => "applied-before-commit",
            Mutant::StaleOffsetCommit => "stale-offset-commit",
            Mutant::LeaderRestore => "leader-restore",
            Mutant::RetentionByAWrongClock => "retention-by-a-wrong-clock",
            Mutant::RetriesNotKept => "retries-not-kept",
            Mutant::SentBackBeforeCommit => "sent-back-before-commit",
            Mutant::SettledForgotten => "settled-forgotten",
            Mutant::ProgressPassesWork => "progress-passes-work",
            Mutant::FailureForgotten => "failure-forgotten",
            Mutant::BatchTornApart => "batch-torn-apart",
            Mutant::WipedReplicaAnswers => "wiped-replica-answers",
            Mutant::ProgressFileUnsynced => "progress-file-unsynced",
            Mutant::ProgressNameUnsynced => "progress-name-unsynced",
            Mutant::OtherLifeCommitted => "other-life-committed",
            Mutant::RestoreKeepsTheHistory => "restore-keeps-the-history",
            Mutant::UnreadableMarkIsNone => "unreadable-mark-is-none",
            Mutant::RolledBackReplicaBelieved => "rolled-back-replica-believed",
            Mutant::ApplyingBlockedByACheckpoint => "applying-blocked-by-a-checkpoint",
        }
    }
}

/// Whether this process has this bug.
#[cfg(not(raftmq_mutants))]
#[inline(always)]
pub const fn is(_: Mutant) -> bool {
    false
}

#[cfg(all(raftmq_mutants, not(madsim)))]
compile_error!("known bugs are for the simulator alone");

#[cfg(raftmq_mutants)]
mod selected {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::Mutant;

    const NONE: usize = usize::MAX;

    static SELECTED: AtomicUsize = AtomicUsize::new(NONE);

    /// Whether this process has this bug.
    pub fn is(mutant: Mutant) -> bool {
        SELECTED.load(Ordering::Relaxed) == mutant as usize
    }

    /// From now on this process has this bug and no other.
    pub fn select(mutant: Option<Mutant>) {
        let number = mutant.map_or(NONE, |mutant| mutant as usize);
        SELECTED.store(number, Ordering::Relaxed);
    }
}

#[cfg(raftmq_mutants)]
pub use selected::{is, select};
