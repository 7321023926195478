//! Where each known bug shows, and within how many seeds.

use host::Mutant;

/// What is promised of one known bug.
pub(super) struct Target {
    pub(super) mutant: Mutant,
    /// The scenarios that should catch it.
    pub(super) scenarios: &'static [&'static str],
    /// Worlds in which it must be caught: scenarios in turn, seeds from 1 on.
    pub(super) worlds: u64,
}

/// Of each known bug.
pub(super) const TARGETS: &[Target] = &[
    target(Mutant::AcknowledgedBeforeSync, &["kills", "disks"], 100),
    target(Mutant::AcknowledgedBeforeCommit, &["partitions"], 20),
    target(Mutant::SyncSkipped, &["kills"], 20),
    target(Mutant::VoteNotPersisted, &["kills"], 20),
    target(Mutant::TornTailAccepted, &["kills", "disks"], 200),
    target(Mutant::CorruptRecordServed, &["disks"], 60),
    target(Mutant::TruncationLost, &["chaos", "partitions"], 60),
    target(Mutant::RetentionAboveCheckpoint, &["snapshots"], 20),
    target(Mutant::SnapshotWithoutSegments, &["snapshots"], 60),
    target(Mutant::TablesAheadOfLog, &["disks", "chaos"], 100),
    target(Mutant::OffsetsOutsideLog, &["steady", "kills"], 20),
    target(Mutant::DeposedLeaderReads, &["partitions"], 100),
    target(Mutant::SnapshotWithoutDedup, &["snapshots"], 20),
    target(Mutant::OlderEpochAccepted, &["kills", "chaos"], 60),
    target(Mutant::AppliedBeforeCommit, &["partitions"], 20),
    target(Mutant::StaleOffsetCommit, &["partitions", "chaos"], 100),
    target(Mutant::LeaderRestore, &["kills"], 200),
];

const fn target(mutant: Mutant, scenarios: &'static [&'static str], worlds: u64) -> Target {
    Target {
        mutant,
        scenarios,
        worlds,
    }
}
