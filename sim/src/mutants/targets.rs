//! Where each known bug shows, and within how many worlds.

use host::Mutant;

/// What is promised of one known bug.
pub(super) struct Target {
    pub(super) mutant: Mutant,
    /// The scenarios that should catch it.
    pub(super) scenarios: &'static [&'static str],
    /// Worlds in which it must be caught: scenarios in turn, seeds from 1 on.
    pub(super) worlds: u64,
}

impl Target {
    pub(super) fn of(mutant: Mutant) -> Target {
        let (scenarios, worlds): (&[&str], u64) = match mutant {
            Mutant::AcknowledgedBeforeSync => (&["kills", "disks"], 40),
            Mutant::AcknowledgedBeforeCommit => (&["partitions"], 40),
            Mutant::SyncSkipped => (&["kills"], 20),
            Mutant::VoteNotPersisted => (&["kills"], 20),
            Mutant::TornTailAccepted => (&["kills", "disks"], 40),
            Mutant::CorruptRecordServed => (&["disks"], 40),
            Mutant::TruncationLost => (&["chaos", "partitions"], 60),
            Mutant::RetentionAboveCheckpoint => (&["snapshots"], 20),
            Mutant::SnapshotWithoutSegments => (&["snapshots"], 60),
            Mutant::TablesAheadOfLog => (&["disks", "chaos"], 60),
            Mutant::OffsetsOutsideLog => (&["steady", "kills"], 20),
            Mutant::DeposedLeaderReads => (&["partitions"], 100),
            Mutant::SnapshotWithoutDedup => (&["snapshots"], 20),
            Mutant::OlderEpochAccepted => (&["kills", "chaos"], 60),
            Mutant::AppliedBeforeCommit => (&["partitions"], 20),
            Mutant::StaleOffsetCommit => (&["partitions", "chaos"], 40),
            Mutant::LeaderRestore => (&["kills"], 60),
        };
        Target {
            mutant,
            scenarios,
            worlds,
        }
    }
}
