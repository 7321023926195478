//! Where each known bug shows, as what, and within how many worlds.

use host::Mutant;

/// What is promised of one known bug.
pub(super) struct Target {
    pub(super) mutant: Mutant,
    /// The scenarios that should catch it.
    pub(super) scenarios: &'static [&'static str],
    /// What it breaks. A world that only does not recover, or that breaks something else, is no catch.
    pub(super) invariants: &'static [&'static str],
    /// Worlds in which it must be caught: scenarios in turn, seeds from the first on. At least three times
    /// as many as it ever took, from whatever seed on.
    pub(super) worlds: u64,
}

/// What is wrong with logs that differ, sooner or later.
const LOGS: &[&str] = &[
    "log-matching",
    "committed-immutable",
    "equal-tables",
    "committed-on-quorum",
    "leader-completeness",
    "acknowledged-is-durable",
    "one-message-per-offset",
    "promises-are-kept",
];

/// What is wrong when entries vanish that were acknowledged.
const UNSYNCED: &[&str] = &[
    "acknowledged-is-durable",
    "seen-is-durable",
    "committed-on-quorum",
    "leader-completeness",
    "committed-immutable",
];

/// What is wrong when bytes are taken for what they are not.
const OTHER_BYTES: &[&str] = &["log-matching", "equal-tables", "no-phantom"];

/// What is wrong with offsets that get lost or go back.
const OFFSETS: &[&str] = &["offsets-forward", "no-delivery-after-acknowledgement"];

/// What is wrong with queues whose messages are gone.
const KEPT: &[&str] = &[
    "what-is-kept-is-there",
    "position-order",
    "readable",
    "acknowledged-is-durable",
];

/// Scenarios, invariants, worlds.
type Row = (&'static [&'static str], &'static [&'static str], u64);

/// Who votes.
fn of_votes(mutant: Mutant) -> Row {
    match mutant {
        Mutant::WipedReplicaAnswers => (
            &["wiped"],
            &["wiped-replicas-stay-out", "one-leader-per-term"],
            20,
        ),
        _ => (
            &["kills"],
            &["leaders-have-voted", "terms-forward", "one-leader-per-term"],
            20,
        ),
    }
}

/// What a replica promised and forgets.
fn of_promises(mutant: Mutant) -> Row {
    match mutant {
        Mutant::RolledBackReplicaBelieved => (
            &["membership", "disks"],
            &[
                "promises-are-kept",
                "leader-completeness",
                "one-leader-per-term",
            ],
            40,
        ),
        _ => (
            &["disks"],
            &["promises-are-kept", "leader-completeness"],
            40,
        ),
    }
}

/// What becomes of messages that are sent back.
fn of_redelivery(mutant: Mutant) -> Row {
    match mutant {
        Mutant::RetriesNotKept => (
            &["snapshots"],
            &["retries-drain", "sent-back-comes-again", "readable"],
            40,
        ),
        Mutant::SentBackBeforeCommit => (
            &["deposed"],
            &["sent-back-comes-again", "redelivery-is-earned"],
            20,
        ),
        _ => (
            &["kills", "partitions"],
            &["settled-stays-settled", "dies-once"],
            40,
        ),
    }
}

/// Which message is taken for which.
fn of_dedup(mutant: Mutant) -> Row {
    match mutant {
        Mutant::SnapshotWithoutDedup => (&["snapshots"], &["equal-tables", "stored-once"], 20),
        Mutant::DedupForgottenEarly => (&["partitions", "kills"], &["stored-once"], 60),
        _ => (
            &["steady"],
            &["one-message-per-offset", "acknowledged-is-durable"],
            20,
        ),
    }
}

/// What becomes of messages that push consumers work on.
fn of_push_consumers(mutant: Mutant) -> Row {
    match mutant {
        Mutant::ProgressPassesWork => (
            &["kills"],
            &["progress-waits-for-work", "finished-or-dead", "drains"],
            20,
        ),
        Mutant::ProgressFileUnsynced => (&["kills"], &["drains"], 60),
        Mutant::ProgressNameUnsynced => (&["kills"], &["own-progress-is-kept"], 100),
        _ => (&["partitions"], &["finished-or-dead"], 60),
    }
}

impl Target {
    pub(super) fn of(mutant: Mutant) -> Target {
        let (scenarios, invariants, worlds): Row = match mutant {
            Mutant::AcknowledgedBeforeSync => (&["kills"], &["committed-on-quorum"], 20),
            Mutant::AcknowledgedBeforeCommit => (
                &["partitions"],
                &[
                    "one-message-per-offset",
                    "acknowledged-is-durable",
                    "stored-once",
                    "reads-are-new",
                ],
                40,
            ),
            Mutant::SyncSkipped => (&["kills"], UNSYNCED, 80),
            Mutant::VoteNotPersisted | Mutant::WipedReplicaAnswers => of_votes(mutant),
            Mutant::TornTailAccepted => (&["disks"], OTHER_BYTES, 40),
            Mutant::CorruptRecordServed => (&["disks"], OTHER_BYTES, 60),
            Mutant::TruncationLost => (&["deposed"], LOGS, 20),
            Mutant::RetentionAboveCheckpoint => (&["snapshots"], KEPT, 20),
            Mutant::SnapshotWithoutSegments => (&["snapshots"], KEPT, 60),
            Mutant::TablesAheadOfLog => (
                &["disks", "chaos"],
                &["what-is-kept-is-there", "position-order", "equal-tables"],
                60,
            ),
            Mutant::OffsetsOutsideLog => (&["kills"], OFFSETS, 20),
            Mutant::DeposedLeaderReads => {
                (&["partitions"], &["reads-are-new", "offsets-forward"], 100)
            }
            Mutant::SnapshotWithoutDedup
            | Mutant::DedupForgottenEarly
            | Mutant::DedupAcrossBodies => of_dedup(mutant),
            Mutant::OlderEpochAccepted => (&["chaos", "kills"], &["newer-route-wins"], 40),
            Mutant::AppliedBeforeCommit => (
                &["partitions"],
                &["committed-on-quorum", "committed-immutable"],
                20,
            ),
            Mutant::StaleOffsetCommit => (&["partitions"], OFFSETS, 20),
            Mutant::LeaderRestore => (&["kills"], LOGS, 60),
            Mutant::RetentionByAWrongClock => (
                &["clocks"],
                &["kept-for-its-time", "letters-kept-for-their-time"],
                20,
            ),
            Mutant::BatchTornApart => (&["steady"], &["batches-together"], 20),
            Mutant::RetriesNotKept | Mutant::SentBackBeforeCommit | Mutant::SettledForgotten => {
                of_redelivery(mutant)
            }
            Mutant::OtherLifeCommitted => (&["lives"], &["what-is-owed-is-read"], 20),
            Mutant::RestoreKeepsTheHistory => (&["backups"], &["what-is-owed-is-read"], 20),
            Mutant::ProgressPassesWork
            | Mutant::FailureForgotten
            | Mutant::ProgressFileUnsynced
            | Mutant::ProgressNameUnsynced => of_push_consumers(mutant),
            Mutant::UnreadableMarkIsNone | Mutant::RolledBackReplicaBelieved => of_promises(mutant),
            Mutant::ApplyingBlockedByACheckpoint => {
                (&["tables"], &["applying-goes-on", "sends-go-on"], 20)
            }
        };
        Target {
            mutant,
            scenarios,
            invariants,
            worlds,
        }
    }
}
