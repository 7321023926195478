//! Named kinds of worlds: how they are built, what clients do, what goes wrong.

use crate::chance::Chance;
use crate::failure::Failure;
use crate::schedule::{Kind, Mix, Schedule};
use crate::workload::{HASTY_MS, Lives, Plan, Size};
use crate::world::Shape;

const KIB: u64 = 1 << 10;

/// Of so many worlds, one is gentle in the first way, one in the second.
const GENTLE_IN: u64 = 4;

/// For how long message ids and what was settled are remembered, in milliseconds: longer than it takes until the last copy of
/// a request has arrived. A producer goes on for ten seconds at most, a client or a broker stands still for nine.
const REMEMBERED_MS: &[u64] = &[30_000, 45_000, 120_000];

/// The same where links may hang, which hold a request back for nine seconds more.
const REMEMBERED_OVER_CUTS_MS: &[u64] = &[45_000, 120_000];

/// A kind of world.
pub struct Scenario {
    /// What it is called on the command line.
    pub name: &'static str,
    /// What it is about, in a few words.
    pub about: &'static str,
    /// How much clients do.
    pub size: Size,
    /// What goes wrong, and how often.
    kinds: &'static [(Kind, u64)],
    /// Mean time between two faults, in milliseconds.
    every_ms: u64,
    /// How long the chaos lasts, in milliseconds.
    chaos_ms: u64,
    /// In one world of four each, only these go wrong: few enough to say how long anybody may be held up.
    gentle: &'static [&'static [Kind]],
    /// What is different about its brokers.
    tune: fn(&mut Chance, &mut Shape),
}

impl Scenario {
    /// The world that a seed builds.
    pub fn shape(&self, seed: u64) -> Shape {
        let mut chance = Chance::new(seed, "shape");
        let mut shape = Shape::default();
        let broker = &mut shape.broker;
        // Whoever waits longer than others should not matter; whoever waits as long might.
        let heartbeat_ms = *chance.pick(&[50, 80, 150]);
        broker.heartbeat_interval_ms = heartbeat_ms;
        broker.election_timeout_ms_min = heartbeat_ms * chance.between(3..=5);
        broker.election_timeout_ms_max = broker.election_timeout_ms_min + chance.between(100..=400);
        broker.proposals_inflight_max = *chance.pick(&[1, 4, 16]);
        broker.checkpoint_log_bytes = *chance.pick(&[32, 128, 512]) * KIB;
        (self.tune)(&mut chance, &mut shape);
        // Drawn apart, so that older cases keep the rest of their shapes. As little as does for a client whose messages are
        // remembered one by one: an eighth is his, and holds what he sends until the latest copy of a request has arrived.
        let mut chance = Chance::new(seed, "dedup");
        let broker = &mut shape.broker;
        broker.dedup_bytes_max = *chance.pick(&[2 * KIB, 2 * KIB, 8 * KIB]) * KIB;
        broker.dedup_window_ms = match self.kinds.iter().any(|(kind, _)| kind.cuts_links()) {
            true => *chance.pick(REMEMBERED_OVER_CUTS_MS),
            false => *chance.pick(REMEMBERED_MS),
        };
        shape
    }

    /// What goes wrong in the world of a seed.
    pub fn schedule(&self, seed: u64, shape: &Shape, plan: &Plan) -> Schedule {
        let mut mix = Mix {
            scenario: self.name,
            kinds: self.kinds.to_vec(),
            every_ms: self.every_ms,
            chaos_ms: self.chaos_ms,
            brokers: shape.group_sizes(),
            others: (shape.name_servers, plan.machines),
        };
        match self.gentle.get((seed % GENTLE_IN) as usize) {
            Some(kinds) => {
                mix.kinds.retain(|(kind, _)| kinds.contains(kind));
                mix.draw(seed).with_one_stall_at_a_time()
            }
            None => mix.draw(seed),
        }
    }

    /// The scenario of this name.
    pub fn named(name: &str) -> Option<&'static Scenario> {
        SCENARIOS.iter().find(|scenario| scenario.name == name)
    }

    /// The scenario of this name.
    ///
    /// # Errors
    /// There is none; the error names those that there are.
    pub fn find(name: &str) -> Result<&'static Scenario, Failure> {
        let names = || SCENARIOS.iter().map(|scenario| scenario.name);
        Scenario::named(name).ok_or_else(|| Failure::NoSuchScenario {
            name: name.to_owned(),
            names: names().collect::<Vec<&str>>().join(", "),
        })
    }
}

const SIZE: Size = Size {
    machines: 3,
    topics: 2,
    groups: 2,
    body_bytes_max: 1_500,
    think_ms_max: 120,
    lives: Lives::None,
    attempt_ms: HASTY_MS,
};

fn plain(_: &mut Chance, _: &mut Shape) {}

/// Segments as small as they may be, and little kept.
fn tiny_segments(chance: &mut Chance, shape: &mut Shape) {
    let broker = &mut shape.broker;
    broker.segment_bytes = 144 * KIB;
    broker.checkpoint_log_bytes = *chance.pick(&[16, 64]) * KIB;
    broker.log_retain_bytes = *chance.pick(&[1, 300, 600]) * KIB;
    broker.retention_interval_ms = 300;
    broker.dead_letter_retain_ms = *chance.pick(&[5, 20, 3_600]) * 1_000;
}

/// Segments as small as they may be in half of the worlds, and everything kept: snapshots bring the newcomers up.
fn tiny_segments_kept(chance: &mut Chance, shape: &mut Shape) {
    if chance.one_in(2) {
        let broker = &mut shape.broker;
        broker.segment_bytes = 144 * KIB;
        broker.checkpoint_log_bytes = *chance.pick(&[16, 64]) * KIB;
    }
}

/// Little is kept, and by age alone.
fn kept_by_age(chance: &mut Chance, shape: &mut Shape) {
    tiny_segments(chance, shape);
    let broker = &mut shape.broker;
    broker.log_retain_bytes = 0;
    broker.log_retain_ms = *chance.pick(&[3, 6, 12]) * 1_000;
}

/// All of them.
pub static SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "steady",
        about: "nothing goes wrong but a killed leader",
        size: SIZE,
        kinds: &[
            (Kind::Kill, 1),
            (Kind::AskCommitted, 2),
            (Kind::AskEverything, 1),
        ],
        every_ms: 6_000,
        chaos_ms: 20_000,
        gentle: &[],
        tune: plain,
    },
    Scenario {
        name: "kills",
        about: "processes and machines die, one or all, again and again",
        size: SIZE,
        kinds: &[
            (Kind::Kill, 4),
            (Kind::PowerLoss, 4),
            (Kind::PowerLossOfAll, 2),
            (Kind::RestartStorm, 1),
            (Kind::Stop, 1),
            (Kind::Pause, 2),
            (Kind::Clients, 3),
            (Kind::AskCommitted, 1),
        ],
        every_ms: 2_000,
        chaos_ms: 40_000,
        gentle: &[],
        tune: plain,
    },
    Scenario {
        name: "partitions",
        about: "links are cut in every shape, hang, are slow and repeat themselves",
        size: SIZE,
        kinds: &[
            (Kind::Partition, 8),
            (Kind::Weather, 3),
            (Kind::Pause, 1),
            (Kind::Kill, 1),
            (Kind::AskCommitted, 4),
        ],
        every_ms: 2_500,
        chaos_ms: 40_000,
        gentle: &[],
        tune: five_brokers_sometimes,
    },
    Scenario {
        name: "deposed",
        about: "leaders go on with their clients while others are elected, and start again when they have learned of it",
        size: SIZE,
        kinds: &[
            (Kind::Depose, 6),
            (Kind::Kill, 1),
            (Kind::PowerLoss, 1),
            (Kind::Transfer, 1),
            (Kind::Weather, 1),
            (Kind::SlowSyncs, 1),
            (Kind::AskCommitted, 2),
        ],
        every_ms: 3_000,
        chaos_ms: 40_000,
        gentle: &[],
        tune: much_under_way,
    },
    Scenario {
        name: "silence",
        about: "one machine at a time vanishes without a word, always the one that leads: nobody is held up for long",
        // As long as the SDK waits unless told otherwise.
        size: Size {
            attempt_ms: 3_000,
            ..SIZE
        },
        kinds: &[(Kind::Silence, 1)],
        // Nothing else happens: two machines that vanish leave no majority.
        every_ms: u64::MAX / 4,
        chaos_ms: 60_000,
        gentle: &[],
        tune: elections_as_shipped,
    },
    Scenario {
        name: "disks",
        about: "disks fail, fill up, dawdle, rot, and lose what was not synced",
        size: SIZE,
        kinds: &[
            (Kind::DiskError, 3),
            (Kind::DiskRoom, 3),
            (Kind::SlowSyncs, 2),
            (Kind::Rot, 4),
            (Kind::Unreadable, 3),
            (Kind::LoseMark, 2),
            (Kind::RollBack, 2),
            (Kind::Wipe, 2),
            (Kind::PowerLoss, 3),
            (Kind::PowerLossOfAll, 1),
            (Kind::Checkpoint, 2),
        ],
        every_ms: 2_500,
        chaos_ms: 40_000,
        gentle: &[],
        tune: plain,
    },
    Scenario {
        name: "tables",
        about: "tables stall, fail and rot, and checkpoints take long",
        size: SIZE,
        kinds: &[
            (Kind::SlowCheckpoints, 4),
            (Kind::TablesStall, 4),
            (Kind::TablesFail, 3),
            (Kind::TablesRot, 4),
            (Kind::Kill, 2),
            (Kind::PowerLoss, 1),
            (Kind::Transfer, 2),
            (Kind::DropLog, 1),
            (Kind::SlowSyncs, 1),
        ],
        every_ms: 2_000,
        chaos_ms: 40_000,
        gentle: &[
            &[Kind::SlowCheckpoints],
            &[Kind::SlowCheckpoints, Kind::TablesStall],
        ],
        tune: tiny_segments_often,
    },
    Scenario {
        name: "membership",
        about: "leadership moves and replicas are replaced while others fail",
        size: SIZE,
        kinds: &[
            (Kind::Replace, 2),
            (Kind::Wipe, 3),
            (Kind::RollBack, 3),
            (Kind::Transfer, 4),
            (Kind::Partition, 2),
            (Kind::Kill, 2),
            (Kind::PowerLoss, 1),
            (Kind::DiskError, 1),
            (Kind::Stop, 1),
        ],
        every_ms: 3_000,
        chaos_ms: 45_000,
        gentle: &[],
        tune: plain,
    },
    Scenario {
        name: "wiped",
        about: "a machine loses its disk while another one is away that does not learn who takes whose place",
        size: SIZE,
        kinds: &[
            (Kind::Wipe, 1),
            (Kind::Transfer, 2),
            (Kind::Weather, 1),
            (Kind::Clients, 1),
            (Kind::AskCommitted, 2),
        ],
        // Little else happens: each step needs a group that goes on.
        every_ms: 8_000,
        chaos_ms: 45_000,
        gentle: &[],
        tune: plain,
    },
    Scenario {
        name: "snapshots",
        about: "tiny segments, little kept: replicas that were away need snapshots",
        size: Size {
            body_bytes_max: 3_000,
            think_ms_max: 25,
            ..SIZE
        },
        kinds: &[
            (Kind::Kill, 3),
            (Kind::PowerLoss, 3),
            (Kind::Partition, 3),
            (Kind::Pause, 1),
            (Kind::Checkpoint, 2),
            (Kind::DropLog, 3),
            (Kind::Rot, 3),
            (Kind::Unreadable, 2),
            (Kind::DiskError, 1),
        ],
        every_ms: 2_500,
        chaos_ms: 40_000,
        gentle: &[],
        tune: tiny_segments,
    },
    Scenario {
        name: "name-servers",
        about: "name servers die, are cut off and disagree",
        size: SIZE,
        kinds: &[
            (Kind::NameServers, 8),
            (Kind::Transfer, 2),
            (Kind::Kill, 2),
            (Kind::Topic, 3),
            (Kind::ResetOffset, 1),
            (Kind::AskEverything, 1),
            (Kind::Clock, 1),
        ],
        every_ms: 2_000,
        chaos_ms: 40_000,
        gentle: &[],
        tune: three_name_servers,
    },
    Scenario {
        name: "lives",
        about: "topics are deleted and made again, and get queues, under consumers that come and go",
        size: Size {
            topics: 1,
            groups: 1,
            lives: Lives::Reborn,
            ..SIZE
        },
        kinds: &[
            (Kind::Kill, 3),
            (Kind::Transfer, 3),
            (Kind::Clients, 3),
            (Kind::Weather, 2),
            (Kind::PowerLoss, 1),
        ],
        every_ms: 3_000,
        chaos_ms: 40_000,
        gentle: &[],
        tune: plain,
    },
    Scenario {
        name: "restored",
        about: "all brokers of the group are lost, and it goes on from the longest log that they left: under clients that stay",
        size: Size {
            lives: Lives::Restored,
            ..SIZE
        },
        kinds: &[
            (Kind::Restore, 3),
            (Kind::Kill, 3),
            (Kind::Clients, 3),
            (Kind::Transfer, 2),
            (Kind::Weather, 2),
            (Kind::PowerLoss, 2),
            (Kind::NameServers, 1),
            (Kind::AskCommitted, 2),
        ],
        every_ms: 3_000,
        chaos_ms: 40_000,
        gentle: &[],
        tune: plain,
    },
    Scenario {
        name: "backups",
        about: "the same from a backup, which lacks what was stored after it: under clients that are ahead of it",
        // Who judges by places would take those of the lost history for those of the one that takes its place.
        size: Size {
            topics: 0,
            lives: Lives::Restored,
            ..SIZE
        },
        kinds: &[
            (Kind::RestoreBackup, 3),
            (Kind::Kill, 3),
            (Kind::Clients, 3),
            (Kind::Transfer, 2),
            (Kind::Weather, 2),
            (Kind::PowerLoss, 2),
            (Kind::NameServers, 1),
        ],
        every_ms: 3_000,
        chaos_ms: 40_000,
        gentle: &[],
        tune: tiny_segments_kept,
    },
    Scenario {
        name: "clocks",
        about: "clocks are set forward and back by seconds to years, messages are kept for seconds",
        size: Size {
            body_bytes_max: 3_000,
            think_ms_max: 25,
            ..SIZE
        },
        kinds: &[
            (Kind::Clock, 8),
            (Kind::Kill, 2),
            (Kind::PowerLoss, 1),
            (Kind::Transfer, 2),
            (Kind::Partition, 2),
            (Kind::Pause, 1),
            (Kind::Checkpoint, 1),
        ],
        every_ms: 1_500,
        chaos_ms: 40_000,
        gentle: &[],
        tune: kept_by_age,
    },
    Scenario {
        name: "groups",
        about: "two or three broker groups share topics: they are cut off, in one direction or both, go down whole, and disagree",
        size: SIZE,
        kinds: &[
            (Kind::GroupLinks, 8),
            (Kind::GroupDown, 4),
            (Kind::NameServers, 4),
            (Kind::Partition, 3),
            (Kind::Kill, 2),
            (Kind::PowerLoss, 2),
            (Kind::Pause, 1),
            (Kind::Transfer, 2),
            (Kind::Replace, 1),
            (Kind::Topic, 2),
            (Kind::Clients, 1),
            (Kind::ResetOffset, 1),
            (Kind::AskCommitted, 3),
            (Kind::AskEverything, 1),
        ],
        every_ms: 1_800,
        chaos_ms: 45_000,
        gentle: &[],
        tune: several_groups,
    },
    Scenario {
        name: "group-away",
        about: "one broker group at a time is gone for long: the queues of the others go on",
        size: SIZE,
        kinds: &[(Kind::GroupAway, 1)],
        // Nothing else happens.
        every_ms: u64::MAX / 4,
        chaos_ms: 64_000,
        gentle: &[],
        tune: several_groups,
    },
    Scenario {
        name: "chaos",
        about: "everything at once",
        size: SIZE,
        kinds: &[
            (Kind::Partition, 5),
            (Kind::Depose, 1),
            (Kind::NameServers, 2),
            (Kind::Weather, 3),
            (Kind::Kill, 3),
            (Kind::PowerLoss, 3),
            (Kind::PowerLossOfAll, 1),
            (Kind::RestartStorm, 1),
            (Kind::Stop, 1),
            (Kind::Pause, 2),
            (Kind::DiskError, 2),
            (Kind::DiskRoom, 1),
            (Kind::SlowSyncs, 2),
            (Kind::TablesStall, 1),
            (Kind::TablesFail, 1),
            (Kind::TablesRot, 1),
            (Kind::SlowCheckpoints, 1),
            (Kind::Rot, 2),
            (Kind::Unreadable, 1),
            (Kind::LoseMark, 1),
            (Kind::RollBack, 1),
            (Kind::Wipe, 1),
            (Kind::Clock, 2),
            (Kind::Transfer, 2),
            (Kind::Replace, 1),
            (Kind::Checkpoint, 1),
            (Kind::DropLog, 1),
            (Kind::ResetOffset, 2),
            (Kind::Topic, 1),
            (Kind::Clients, 2),
            (Kind::AskCommitted, 2),
            (Kind::AskEverything, 1),
        ],
        every_ms: 1_200,
        chaos_ms: 60_000,
        gentle: &[],
        tune: tiny_segments_sometimes,
    },
];

/// How long it takes to replace a leader is part of what is promised.
fn elections_as_shipped(_: &mut Chance, shape: &mut Shape) {
    let shipped = broker::BrokerConfig::default();
    let broker = &mut shape.broker;
    broker.heartbeat_interval_ms = shipped.heartbeat_interval_ms;
    broker.election_timeout_ms_min = shipped.election_timeout_ms_min;
    broker.election_timeout_ms_max = shipped.election_timeout_ms_max;
}

/// Of three brokers, or of one.
fn several_groups(chance: &mut Chance, shape: &mut Shape) {
    shape.brokers = *chance.pick(&[3, 3, 3, 1]);
    for _ in 0..chance.between(1..=2) {
        shape.more_groups.push(*chance.pick(&[3, 3, 3, 1]));
    }
}

/// A leader takes what it can before it knows that nobody confirms it.
fn much_under_way(chance: &mut Chance, shape: &mut Shape) {
    shape.broker.proposals_inflight_max = 16;
    five_brokers_sometimes(chance, shape);
}

fn three_name_servers(_: &mut Chance, shape: &mut Shape) {
    shape.name_servers = 3;
}

fn tiny_segments_often(chance: &mut Chance, shape: &mut Shape) {
    if chance.one_in(2) {
        tiny_segments(chance, shape);
    }
}

fn tiny_segments_sometimes(chance: &mut Chance, shape: &mut Shape) {
    if chance.one_in(2) {
        tiny_segments(chance, shape);
    }
    if chance.one_in(5) {
        shape.brokers = 5;
    }
}

/// With three, a ring of majorities is a chain.
fn five_brokers_sometimes(chance: &mut Chance, shape: &mut Shape) {
    if chance.one_in(3) {
        shape.brokers = 5;
    }
}
