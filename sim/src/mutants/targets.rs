//! The known bugs: where each shows, as what, and within how many worlds. What it does stands in its patch,
//! `sim/mutants/NAME.patch`.

/// A known bug, and what is promised of it.
pub(crate) struct Target {
    /// What its patch and its switch are called.
    pub(crate) name: &'static str,
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

/// All of them.
pub(super) const ALL: &[Target] = &[
    Target {
        name: "acknowledged-before-sync",
        scenarios: &["kills"],
        invariants: &["committed-on-quorum"],
        worlds: 20,
    },
    Target {
        name: "acknowledged-before-commit",
        scenarios: &["partitions"],
        invariants: &[
            "one-message-per-offset",
            "acknowledged-is-durable",
            "stored-once",
            "reads-are-new",
        ],
        worlds: 40,
    },
    Target {
        name: "sync-skipped",
        scenarios: &["kills"],
        invariants: UNSYNCED,
        worlds: 80,
    },
    Target {
        name: "vote-not-persisted",
        scenarios: &["kills"],
        invariants: &["leaders-have-voted", "terms-forward", "one-leader-per-term"],
        worlds: 20,
    },
    Target {
        name: "torn-tail-accepted",
        scenarios: &["disks"],
        invariants: OTHER_BYTES,
        worlds: 40,
    },
    Target {
        name: "corrupt-record-served",
        scenarios: &["disks"],
        invariants: OTHER_BYTES,
        worlds: 60,
    },
    Target {
        name: "truncation-lost",
        scenarios: &["deposed"],
        invariants: LOGS,
        worlds: 20,
    },
    Target {
        name: "retention-above-checkpoint",
        scenarios: &["snapshots"],
        invariants: KEPT,
        worlds: 20,
    },
    Target {
        name: "snapshot-without-segments",
        scenarios: &["snapshots"],
        invariants: KEPT,
        worlds: 60,
    },
    Target {
        name: "tables-ahead-of-log",
        scenarios: &["disks", "chaos"],
        invariants: &["what-is-kept-is-there", "position-order", "equal-tables"],
        worlds: 80,
    },
    Target {
        name: "offsets-outside-log",
        scenarios: &["kills"],
        invariants: OFFSETS,
        worlds: 20,
    },
    Target {
        name: "deposed-leader-reads",
        scenarios: &["partitions"],
        invariants: &["reads-are-new", "offsets-forward"],
        worlds: 100,
    },
    Target {
        name: "snapshot-without-dedup",
        scenarios: &["snapshots"],
        invariants: &["equal-tables", "stored-once"],
        worlds: 20,
    },
    Target {
        name: "dedup-forgotten-early",
        scenarios: &["partitions", "kills"],
        invariants: &["stored-once"],
        worlds: 60,
    },
    Target {
        name: "dedup-across-bodies",
        scenarios: &["steady"],
        invariants: &["one-message-per-offset", "acknowledged-is-durable"],
        worlds: 20,
    },
    Target {
        name: "older-epoch-accepted",
        scenarios: &["chaos", "kills"],
        invariants: &["newer-route-wins"],
        worlds: 40,
    },
    Target {
        name: "applied-before-commit",
        scenarios: &["partitions"],
        invariants: &["committed-on-quorum", "committed-immutable"],
        worlds: 20,
    },
    Target {
        name: "stale-offset-commit",
        scenarios: &["partitions"],
        invariants: OFFSETS,
        worlds: 20,
    },
    Target {
        name: "leader-restore",
        scenarios: &["kills"],
        invariants: LOGS,
        worlds: 60,
    },
    Target {
        name: "retention-by-a-wrong-clock",
        scenarios: &["clocks"],
        invariants: &["kept-for-its-time", "letters-kept-for-their-time"],
        worlds: 20,
    },
    Target {
        name: "retries-not-kept",
        scenarios: &["snapshots"],
        invariants: &["retries-drain", "sent-back-comes-again", "readable"],
        worlds: 40,
    },
    Target {
        name: "sent-back-before-commit",
        scenarios: &["deposed"],
        invariants: &["sent-back-comes-again", "redelivery-is-earned"],
        worlds: 20,
    },
    Target {
        name: "settled-forgotten",
        scenarios: &["kills", "partitions"],
        invariants: &["settled-stays-settled", "dies-once"],
        worlds: 40,
    },
    Target {
        name: "progress-passes-work",
        scenarios: &["kills"],
        invariants: &["progress-waits-for-work", "finished-or-dead", "drains"],
        worlds: 20,
    },
    Target {
        name: "failure-forgotten",
        scenarios: &["partitions"],
        invariants: &["finished-or-dead"],
        worlds: 60,
    },
    Target {
        name: "batch-torn-apart",
        scenarios: &["steady"],
        invariants: &["batches-together"],
        worlds: 20,
    },
    Target {
        name: "wiped-replica-answers",
        scenarios: &["wiped"],
        invariants: &["wiped-replicas-stay-out", "one-leader-per-term"],
        worlds: 20,
    },
    Target {
        name: "progress-file-unsynced",
        scenarios: &["kills"],
        invariants: &["drains"],
        worlds: 60,
    },
    Target {
        name: "progress-name-unsynced",
        scenarios: &["kills"],
        invariants: &["own-progress-is-kept"],
        worlds: 100,
    },
    Target {
        name: "other-life-committed",
        scenarios: &["lives"],
        invariants: &["what-is-owed-is-read"],
        worlds: 20,
    },
    Target {
        name: "restore-keeps-the-history",
        scenarios: &["backups"],
        invariants: &["what-is-owed-is-read"],
        worlds: 20,
    },
    Target {
        name: "unreadable-mark-is-none",
        scenarios: &["disks"],
        invariants: &["promises-are-kept", "leader-completeness"],
        worlds: 40,
    },
    Target {
        name: "rolled-back-replica-believed",
        scenarios: &["membership", "disks"],
        invariants: &[
            "promises-are-kept",
            "leader-completeness",
            "one-leader-per-term",
        ],
        worlds: 40,
    },
    Target {
        name: "applying-blocked-by-a-checkpoint",
        scenarios: &["tables"],
        invariants: &["applying-goes-on", "sends-go-on"],
        worlds: 20,
    },
];
