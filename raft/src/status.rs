//! What operators and metrics see of a replica.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;

use store::{CommitLog, LogCounters, Room};

use crate::clocks::ClockStatus;
use crate::member::Member;
use crate::standing::{Leadership, Phase, Vote};
use crate::state::State;

/// One member and its part in the group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemberStatus {
    /// Who it is.
    pub member: Member,
    /// Whether it votes; learners do not.
    pub voter: bool,
    /// The last index that the leader knows it has; only the leader knows.
    pub matched: Option<u64>,
}

/// A replica's positions, members and counters at one moment.
#[derive(Clone, Debug)]
pub struct GroupStatus {
    /// What the replica is doing.
    pub phase: Phase,
    /// Who leads.
    pub leadership: Leadership,
    /// The last vote that is on this replica's disk.
    pub vote: Option<Vote>,
    /// The first index that is still on the disk.
    pub dropped: u64,
    /// Raft's floor: it asks for nothing at or below it.
    pub purged: Option<u64>,
    /// The index that the newest checkpoint reaches.
    pub checkpoint: Option<u64>,
    /// The last index that is in the tables.
    pub applied: Option<u64>,
    /// The last index that this replica knows to be committed.
    pub committed: Option<u64>,
    /// The last index that this replica has synced.
    pub flushed: Option<u64>,
    /// The last index in this replica's log.
    pub appended: Option<u64>,
    /// Voters and learners, by broker id.
    pub members: Vec<MemberStatus>,
    /// What each peer, by broker id, is known to have promised, a while ago: the index after it.
    pub promised_by_peers: BTreeMap<u64, u64>,
    /// Whether proposals are refused for want of disk space.
    pub disk_full: bool,
    /// What the replicas' clocks say.
    pub clocks: ClockStatus,
    /// What the log has done.
    pub log: LogCounters,
    /// Sealed segments that were damaged and replaced from a peer.
    pub segments_repaired: u64,
    /// Entries at the damaged end of the log that were replaced from a peer, at start.
    pub entries_repaired: u64,
    /// Damaged places that were found.
    pub damage_found: u64,
    /// Sealed segments that the scrubber has read.
    pub segments_scrubbed: u64,
    /// Snapshots that were sent to a peer.
    pub snapshots_sent: u64,
    /// Snapshots that were installed here.
    pub snapshots_installed: u64,
    /// Checkpoints that were made here.
    pub checkpoints_made: u64,
}

impl GroupStatus {
    pub(crate) fn of(state: &State, log: &CommitLog) -> GroupStatus {
        let positions = log.positions();
        let metrics = state.raft_metrics();
        let counters = &state.counters;
        let count = |counter: &std::sync::atomic::AtomicU64| counter.load(Ordering::Relaxed);
        let membership = state.membership();
        let voters: Vec<u64> = membership.voter_ids().collect();
        let matched = |broker_id: u64| {
            let replication = metrics.as_ref()?.replication.as_ref()?;
            replication
                .get(&broker_id)?
                .as_ref()
                .map(|log_id| log_id.index())
        };
        let member = |(broker_id, node): (&u64, &crate::types::Node)| MemberStatus {
            member: Member::from_node(*broker_id, node),
            voter: voters.contains(broker_id),
            matched: matched(*broker_id),
        };
        GroupStatus {
            phase: state.phase(),
            leadership: state.leadership().borrow().clone(),
            vote: state.vote(),
            dropped: positions.dropped,
            purged: log.purged().map(|purged| purged.index),
            checkpoint: state.checkpoint_index(),
            applied: state.applied_index(),
            committed: metrics.as_ref().and_then(|metrics| {
                metrics
                    .local_committed
                    .as_ref()
                    .map(|log_id| log_id.index())
            }),
            flushed: positions.flushed.map(|flushed| flushed.index),
            appended: log.last().map(|last| last.index),
            members: membership.nodes().map(member).collect(),
            promised_by_peers: state.promised_by_peers(),
            disk_full: state.room() > Room::Everything,
            clocks: state.clocks.status(),
            log: log.counters(),
            segments_repaired: count(&counters.segments_repaired),
            entries_repaired: count(&counters.entries_repaired),
            damage_found: count(&counters.damage_found),
            segments_scrubbed: count(&counters.segments_scrubbed),
            snapshots_sent: count(&counters.snapshots_sent),
            snapshots_installed: count(&counters.snapshots_installed),
            checkpoints_made: count(&counters.checkpoints_made),
        }
    }
}
