//! What goes wrong in a world, and when: data, drawn from the seed before the world begins.
//!
//! Each fault stands for itself and ends by itself, so that any of them can be left out. Who leads is not
//! known beforehand: faults may name the leader, and mean whoever leads then.

mod draw;
mod kind;
mod swarm;

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::disk::{Failing, Room};
use crate::effect::FaultKind;
use crate::machine::Machine;
use crate::network::{Cut, Weather};
use crate::tables::{self, Rotten};

pub use draw::Mix;
pub use kind::Kind;

/// Time that a replica takes to be as far as the others after its tables stood still.
const CATCHES_UP_MS: u64 = 3_000;

/// Which machine a fault strikes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Who {
    /// This one.
    Machine(Machine),
    /// The broker that leads then.
    Leader,
    /// A broker that does not lead then: the first, the second, and so on.
    Follower(u8),
}

/// One of the two ends of links that are cut, where there are several broker groups.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Side {
    /// The leader of the fault's broker group.
    Leader,
    /// All brokers of that group.
    Group,
    /// The brokers of all other groups.
    OtherGroups,
    /// All name servers.
    NameServers,
    /// Everything that has clients.
    Clients,
    /// One machine.
    Machine(Machine),
    /// Whoever is not of the group.
    Everybody,
}

/// Which links a partition cuts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Shape {
    /// One machine from all others.
    Isolate(Who),
    /// These machines of all kinds from all others.
    Split(Vec<Machine>),
    /// The leader from the other brokers of its group; clients and name servers still reach it.
    LeaderWithClients,
    /// From one side to the other, and back or not.
    Between {
        /// Who says something.
        from: Side,
        /// Who does not hear it.
        to: Side,
        /// Whether the others are not heard either.
        both: bool,
    },
    /// The brokers that do not lead, together, from the leader and everybody else: they elect one whom no client reaches.
    Followers,
    /// One direction of one link.
    OneWay(Who, Who),
    /// Everything that one machine says, or everything that it should hear.
    Deaf(Who),
    /// See `Deaf`.
    Mute(Who),
    /// Each broker reaches one of its two neighbours only: every broker sees a majority, each another one.
    Ring,
    /// Two brokers reach each other only through a third.
    Bridge(Who),
    /// Brokers from name servers.
    NameServersFromBrokers,
    /// Some brokers from some name servers: these links, in both directions.
    NameServersInPart(Vec<(Machine, Machine)>),
    /// Name servers from each other.
    NameServersApart,
    /// Clients from these brokers.
    ClientsFrom(Who),
    /// One link after the other is cut, and mended in another order: links by number of machine, all pairs.
    Swizzle(Vec<(Machine, Machine)>),
}

/// One thing that goes wrong.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Fault {
    /// Links are cut for a while.
    Partition {
        /// Which.
        shape: Shape,
        /// How.
        how: Cut,
        /// For how long, in milliseconds.
        for_ms: u64,
    },
    /// All links are bad for a while.
    Weather {
        /// How bad.
        weather: Weather,
        /// For how long, in milliseconds.
        for_ms: u64,
    },
    /// Processes end by force, all at the same moment, and start again after a while.
    Crash {
        /// Whose.
        who: Vec<Who>,
        /// Whether the machines lose power: then it decides what is left of unsynced bytes.
        power: Option<u64>,
        /// How long they are down, in milliseconds.
        down_ms: u64,
        /// Whether it is one of many in a row.
        #[serde(default)]
        storm: bool,
    },
    /// All brokers of a group end by force at the same moment, and start again after a while.
    GroupDown {
        /// Whether the machines lose power: then it decides what is left of unsynced bytes.
        power: Option<u64>,
        /// How long they are down, in milliseconds.
        down_ms: u64,
    },
    /// A process is asked to end, and started again after a while.
    Stop {
        /// Whose.
        who: Who,
        /// How long it is down, in milliseconds.
        down_ms: u64,
        /// Whether all brokers are restarted, one after the other.
        #[serde(default)]
        rolling: bool,
    },
    /// A process does nothing for a while.
    Pause {
        /// Whose.
        who: Who,
        /// How long, in milliseconds.
        for_ms: u64,
    },
    /// The next operation of a disk fails.
    DiskFails {
        /// Whose disk.
        who: Who,
        /// Which operation.
        failing: Failing,
    },
    /// A disk has less room for a while.
    DiskRoom {
        /// Whose disk.
        who: Who,
        /// How much.
        room: Room,
        /// How long, in milliseconds.
        for_ms: u64,
    },
    /// A disk syncs slowly for a while.
    SlowSyncs {
        /// Whose disk.
        who: Who,
        /// The longest sync, in milliseconds.
        longest_ms: u64,
        /// How long, in milliseconds.
        for_ms: u64,
    },
    /// What is written to the tables waits for a while.
    TablesStall {
        /// Whose tables.
        who: Who,
        /// How long, in milliseconds.
        for_ms: u64,
    },
    /// The next operation of the tables fails.
    TablesFail {
        /// Whose tables.
        who: Who,
        /// Which operation.
        failing: tables::Failing,
    },
    /// Tables cannot be written or opened for a while.
    TablesRefuse {
        /// Whose tables.
        who: Who,
        /// How long, in milliseconds.
        for_ms: u64,
    },
    /// Checkpoints take long for a while.
    SlowCheckpoints {
        /// Whose.
        who: Who,
        /// The longest, in milliseconds.
        longest_ms: u64,
        /// How long, in milliseconds.
        for_ms: u64,
    },
    /// A part of the tables rots.
    TablesRot {
        /// On which machine: never a role, so that it stays a minority.
        machine: Machine,
        /// Which part.
        seed: u64,
        /// What becomes of it.
        how: Rotten,
    },
    /// A bit flips where it lies.
    Rot {
        /// On which machine: never a role, so that it stays a minority.
        machine: Machine,
        /// Which bit.
        seed: u64,
    },
    /// A block is written over another one.
    Misdirect {
        /// On which machine: never a role, so that it stays a minority.
        machine: Machine,
        /// Which block.
        seed: u64,
    },
    /// A part of a file cannot be read any more, until it is written anew.
    Unreadable {
        /// On which machine: never a role, so that it stays a minority.
        machine: Machine,
        /// Which part.
        seed: u64,
    },
    /// A process ends by force, and the disk loses the note of what was synced, and the end of the log.
    LoseMark {
        /// On which machine: never a role, so that it stays a minority.
        machine: Machine,
        /// Decides how the note is lost, and how much of the log.
        seed: u64,
        /// How long it is down, in milliseconds.
        down_ms: u64,
    },
    /// A machine's disk is replaced by a copy of it that is older than what it has promised. It must be refused, and is
    /// replaced after a while.
    RollBack {
        /// Which: never a role, so that it stays a minority.
        machine: Machine,
        /// The age of the copy, in milliseconds.
        age_ms: u64,
        /// Whether all other brokers are started again too, before it comes back.
        others_restart: bool,
        /// The id of the broker that takes its place.
        by: u8,
        /// How long it is left there, in milliseconds.
        after_ms: u64,
    },
    /// A machine comes back with an empty disk. It must be refused, and is replaced after a while.
    Wipe {
        /// Which: never a role, so that it stays a minority.
        machine: Machine,
        /// The id of the broker that takes its place.
        by: u8,
        /// How long it is left there, in milliseconds.
        after_ms: u64,
    },
    /// All brokers of a group are lost, and it goes on from a copy of the disk of one of them, under new numbers.
    Restore {
        /// How old the copy is, in milliseconds; none if it is made of what the machines left.
        backup_ms: Option<u64>,
        /// The id of the broker that begins with the copy; those of the brokers that join it follow.
        by: u8,
        /// How long nobody is there, in milliseconds.
        down_ms: u64,
    },
    /// A replica reads all that it has sealed, and repairs it.
    Scrub {
        /// Which.
        who: Who,
    },
    /// A clock was never set right.
    ClockOffset {
        /// Whose.
        who: Who,
        /// How far it is ahead, in milliseconds.
        by_ms: i64,
    },
    /// A clock jumps.
    ClockJump {
        /// Whose.
        who: Who,
        /// How far, in milliseconds.
        by_ms: i64,
    },
    /// A clock runs fast or slow from then on.
    ClockDrift {
        /// Whose.
        who: Who,
        /// By how much in a million.
        ppm: i64,
    },
    /// All clocks of the fault's broker group are set to the same wrong time, and set right after a while.
    ClocksWrong {
        /// How far they are ahead, in milliseconds.
        by_ms: i64,
        /// For how long, in milliseconds.
        for_ms: u64,
    },
    /// The operator asks the leader to hand over.
    TransferLeader {
        /// To whom.
        to: Who,
    },
    /// The operator replaces a replica by a new one with an empty disk.
    Replace {
        /// Whom.
        who: Who,
        /// The new broker's id.
        by: u8,
    },
    /// The operator makes a replica take a checkpoint.
    Checkpoint {
        /// Which.
        who: Who,
    },
    /// The operator lets the log be dropped but for so many bytes.
    DropLog {
        /// How many.
        retain_bytes: u64,
    },
    /// The operator sets a group's offsets back.
    ResetOffset {
        /// Decides which group, which queue, and how far.
        seed: u64,
    },
    /// Somebody makes a topic, gives it more queues, and deletes it after a while.
    BriefTopic {
        /// Its number.
        number: u64,
        /// How long it lives, in milliseconds.
        for_ms: u64,
    },
    /// Somebody makes a consumer group, changes it, and deletes it after a while.
    BriefGroup {
        /// Its number.
        number: u64,
        /// How long it lives, in milliseconds.
        for_ms: u64,
    },
    /// Somebody asks what groups have committed.
    AskCommitted,
    /// Somebody looks at everything that servers can be asked.
    AskEverything,
}

/// A fault and its time.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Timed {
    /// Milliseconds after the beginning of the chaos.
    pub at_ms: u64,
    /// The broker group in which it does, by number: whose leader, followers and brokers are meant. Older cases have one.
    #[serde(default)]
    pub group: u8,
    /// What goes wrong.
    pub fault: Fault,
}

/// All that goes wrong in a world.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Schedule {
    /// How long the chaos lasts, in milliseconds; then everything is healed.
    pub chaos_ms: u64,
    /// The faults, by time.
    pub faults: Vec<Timed>,
}

impl Schedule {
    /// Without the stalls that begin before another one is long over: where two of three stand still, everybody waits.
    pub fn with_one_stall_at_a_time(mut self) -> Schedule {
        let mut calm_from = 0;
        self.faults.retain(|timed| {
            let Fault::TablesStall { for_ms, .. } = timed.fault else {
                return true;
            };
            let alone = timed.at_ms >= calm_from;
            if alone {
                calm_from = timed.at_ms + for_ms + CATCHES_UP_MS;
            }
            alone
        });
        self
    }
}

impl Fault {
    /// What kind of fault it is.
    pub fn kind(&self) -> FaultKind {
        match self {
            Fault::Partition { shape, .. } => partition_kind(shape),
            Fault::Weather { .. } => FaultKind::Weather,
            Fault::Crash { storm: true, .. } => FaultKind::RestartStorm,
            Fault::Crash { who, power, .. } => crash_kind(who, power.is_some()),
            Fault::GroupDown { power: None, .. } => FaultKind::GroupKilled,
            Fault::GroupDown { .. } => FaultKind::GroupLosesPower,
            Fault::Stop { rolling: true, .. } => FaultKind::RollingRestart,
            Fault::Stop { .. } => FaultKind::OrderlyStop,
            Fault::Pause { who, .. } => match who {
                Who::Machine(Machine::Client(_) | Machine::Operator) => FaultKind::ClientPaused,
                Who::Machine(Machine::NameServer(_)) => FaultKind::NameServerPaused,
                _ => FaultKind::BrokerPaused,
            },
            Fault::DiskFails { .. } => FaultKind::DiskError,
            Fault::DiskRoom { .. } => FaultKind::DiskFull,
            Fault::SlowSyncs { .. } => FaultKind::SlowSyncs,
            Fault::TablesStall { .. } => FaultKind::TablesStall,
            Fault::TablesFail { .. } => FaultKind::TablesFail,
            Fault::TablesRefuse { .. } => FaultKind::TablesRefuse,
            Fault::SlowCheckpoints { .. } => FaultKind::SlowCheckpoints,
            Fault::TablesRot { .. } => FaultKind::TablesRot,
            Fault::Rot { .. } => FaultKind::BitRot,
            Fault::Misdirect { .. } => FaultKind::MisdirectedWrite,
            Fault::Unreadable { .. } => FaultKind::UnreadableSectors,
            Fault::LoseMark { .. } => FaultKind::MarkLost,
            Fault::RollBack { .. } => FaultKind::RolledBack,
            Fault::Wipe { .. } => FaultKind::DiskWiped,
            Fault::Restore {
                backup_ms: None, ..
            } => FaultKind::GroupRestored,
            Fault::Restore { .. } => FaultKind::BackupRestored,
            Fault::Scrub { .. } => FaultKind::Scrub,
            Fault::ClockOffset { .. } => FaultKind::ClockOffset,
            Fault::ClockJump { .. } => FaultKind::ClockJump,
            Fault::ClockDrift { .. } => FaultKind::ClockDrift,
            Fault::ClocksWrong { .. } => FaultKind::AllClocksWrong,
            Fault::TransferLeader { .. } => FaultKind::LeadershipTransfer,
            Fault::Replace { .. } => FaultKind::ReplicaReplaced,
            Fault::Checkpoint { .. } => FaultKind::Checkpoint,
            Fault::DropLog { .. } => FaultKind::LogDropped,
            Fault::ResetOffset { .. } => FaultKind::OffsetReset,
            Fault::BriefTopic { .. } => FaultKind::TopicMadeAndDeleted,
            Fault::BriefGroup { .. } => FaultKind::GroupMadeAndDeleted,
            Fault::AskCommitted => FaultKind::CommittedAskedFor,
            Fault::AskEverything => FaultKind::EverythingAskedFor,
        }
    }
}

fn partition_kind(shape: &Shape) -> FaultKind {
    match shape {
        Shape::Isolate(Who::Leader) => FaultKind::LeaderIsolated,
        Shape::Isolate(_) => FaultKind::MachineIsolated,
        Shape::Split(_) => FaultKind::Split,
        Shape::LeaderWithClients => FaultKind::LeaderIsolatedWithClients,
        Shape::Between { both: false, .. } => FaultKind::GroupHalfCutOff,
        Shape::Between { to, .. } => match to {
            Side::OtherGroups => FaultKind::GroupsApart,
            Side::NameServers | Side::Machine(Machine::NameServer(_)) => FaultKind::GroupUnseen,
            _ => FaultKind::GroupCutOff,
        },
        Shape::Followers => FaultKind::FollowersIsolated,
        Shape::OneWay(..) => FaultKind::OneWayCut,
        Shape::Deaf(_) => FaultKind::DeafMachine,
        Shape::Mute(_) => FaultKind::MuteMachine,
        Shape::Ring => FaultKind::Ring,
        Shape::Bridge(_) => FaultKind::Bridge,
        Shape::NameServersFromBrokers => FaultKind::NameServersCutOff,
        Shape::NameServersInPart(_) => FaultKind::NameServersCutOffInPart,
        Shape::NameServersApart => FaultKind::NameServersApart,
        Shape::ClientsFrom(_) => FaultKind::ClientsCutOff,
        Shape::Swizzle(_) => FaultKind::Swizzle,
    }
}

/// More than two brokers are all of them.
pub(crate) fn crash_kind(who: &[Who], power: bool) -> FaultKind {
    match who {
        [Who::Machine(Machine::Client(_) | Machine::Operator)] if power => {
            FaultKind::ClientLosesPower
        }
        [Who::Machine(Machine::Client(_) | Machine::Operator)] => FaultKind::ClientKilled,
        [Who::Machine(Machine::NameServer(_))] => FaultKind::NameServerKilled,
        [_, _, _, ..] if power => FaultKind::PowerLossOfAll,
        [_, _, ..] if !power => FaultKind::SeveralKilled,
        _ if power => FaultKind::PowerLoss,
        _ => FaultKind::Kill,
    }
}

impl fmt::Display for Who {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Who::Machine(machine) => machine.fmt(formatter),
            Who::Leader => formatter.write_str("the leader"),
            Who::Follower(number) => write!(formatter, "follower {number}"),
        }
    }
}
