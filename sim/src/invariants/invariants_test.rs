//! Each invariant on what replicas might say: once in order, once not. A check that cannot fail proves
//! nothing.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use nameserver::route_table::RouteTable;
use proto::cluster::Registration;
use raft::{ClockStatus, GroupStatus, Leadership, Phase, Vote};
use store::{Entry, EntryKind, LogCounters, LogId};

use super::Checks;
use super::completeness::LeaderCompleteness;
use super::leaders::Leaders;
use super::log::LogMatching;
use super::positions::PositionOrder;
use super::queues::QueuesForward;
use super::quorum::{CommittedOnQuorum, Synced};
use super::routes::Routes;
use super::standstill::{Look, Standstill};
use super::tables::EqualTables;
use super::votes::Votes;
use crate::broker_group::BrokerGroup;
use crate::effect::Effect;
use crate::machine::Machine;
use crate::violation::Violation;

const ONE: Machine = Machine::Broker(1);
const TWO: Machine = Machine::Broker(2);

#[track_caller]
fn breaks(result: Result<(), Violation>, invariant: &str) {
    let violation = result.expect_err("this is wrong");
    assert_eq!(violation.invariant, invariant, "{violation}");
}

#[track_caller]
fn holds(result: Result<(), Violation>) {
    if let Err(violation) = result {
        panic!("{violation}");
    }
}

fn leadership(term: u64, is_leader: bool) -> Leadership {
    Leadership {
        term,
        is_leader,
        ..Leadership::default()
    }
}

fn vote(term: u64, candidate: u64, committed: bool) -> Option<Vote> {
    Some(Vote {
        term,
        candidate,
        committed,
    })
}

fn log_id(term: u64, index: u64) -> LogId {
    LogId { term, index }
}

/// A replica in order, which has dropped up to 10 and come to 50.
fn status() -> GroupStatus {
    GroupStatus {
        phase: Phase::Running,
        leadership: Leadership::default(),
        vote: None,
        dropped: 10,
        purged: Some(20),
        checkpoint: Some(30),
        applied: Some(40),
        committed: Some(40),
        flushed: Some(45),
        appended: Some(50),
        members: Vec::new(),
        promised_by_peers: Default::default(),
        disk_full: false,
        clocks: ClockStatus::default(),
        log: LogCounters::default(),
        segments_repaired: 0,
        entries_repaired: 0,
        damage_found: 0,
        segments_scrubbed: 0,
        snapshots_sent: 0,
        snapshots_installed: 0,
        checkpoints_made: 0,
    }
}

#[test]
fn a_term_has_one_leader() {
    let mut leaders = Leaders::default();
    holds(leaders.seen(ONE, &leadership(3, true)));
    holds(leaders.seen(TWO, &leadership(3, false)));
    holds(leaders.seen(TWO, &leadership(4, true)));
    holds(leaders.seen(ONE, &leadership(3, true)));
    breaks(
        leaders.seen(ONE, &leadership(4, true)),
        "one-leader-per-term",
    );
}

#[test]
fn terms_do_not_go_back() {
    let mut leaders = Leaders::default();
    holds(leaders.seen(ONE, &leadership(3, false)));
    // Before Raft runs nothing is known.
    holds(leaders.seen(ONE, &leadership(0, false)));
    holds(leaders.seen(ONE, &leadership(3, false)));
    breaks(leaders.seen(ONE, &leadership(2, false)), "terms-forward");
}

#[test]
fn a_promise_is_not_taken_back() {
    let voted = |votes: &mut Votes, vote| {
        let status = GroupStatus { vote, ..status() };
        votes.seen(ONE, &status)
    };
    let promised = || {
        let mut votes = Votes::default();
        holds(voted(&mut votes, None));
        holds(voted(&mut votes, vote(3, 1, false)));
        holds(voted(&mut votes, vote(3, 1, true)));
        votes
    };
    holds(voted(&mut promised(), vote(4, 2, false)));
    let mut candidate = promised();
    holds(voted(&mut candidate, vote(4, 1, false)));
    holds(voted(&mut candidate, vote(4, 2, true)));
    let mut candidate = promised();
    holds(voted(&mut candidate, vote(4, 1, false)));
    breaks(voted(&mut candidate, vote(4, 2, false)), "votes-forward");
    breaks(voted(&mut promised(), vote(2, 1, true)), "votes-forward");
    breaks(voted(&mut promised(), vote(3, 2, true)), "votes-forward");
    breaks(voted(&mut promised(), vote(3, 1, false)), "votes-forward");
}

#[test]
fn whoever_leads_has_voted() {
    let leads = |vote| GroupStatus {
        leadership: leadership(3, true),
        vote,
        ..status()
    };
    let seen = |vote| Votes::default().seen(ONE, &leads(vote));
    holds(seen(vote(3, 1, true)));
    breaks(seen(vote(2, 1, true)), "leaders-have-voted");
    breaks(seen(None), "leaders-have-voted");
}

#[test]
fn a_leader_has_what_was_committed_before() {
    let mut completeness = LeaderCompleteness::default();
    completeness.applied(ONE, log_id(2, 40));
    completeness.applied(ONE, log_id(4, 60));
    let leads = |term, appended| GroupStatus {
        leadership: leadership(term, true),
        appended: Some(appended),
        ..status()
    };
    holds(completeness.seen(TWO, &leads(3, 40)));
    breaks(completeness.seen(TWO, &leads(3, 39)), "leader-completeness");
    breaks(completeness.seen(TWO, &leads(5, 59)), "leader-completeness");
    // One who was a leader and does not know better yet.
    holds(completeness.seen(TWO, &leads(2, 10)));
}

#[test]
fn what_is_applied_lies_on_a_majority() {
    let mut quorum = CommittedOnQuorum::default();
    quorum.vote(BTreeSet::from([1, 2, 3]));
    let synced = |two, three| Synced::from([(1, Some(40)), (2, two), (3, three)]);
    let applied = log_id(2, 40);
    holds(quorum.seen(ONE, applied, &synced(Some(40), Some(39))));
    let alone = synced(Some(39), None);
    breaks(quorum.seen(ONE, applied, &alone), "committed-on-quorum");
    // Nobody can ask the third one.
    let unknown = Synced::from([(1, Some(40)), (2, Some(39))]);
    holds(quorum.seen(ONE, applied, &unknown));
    quorum.vote(BTreeSet::from([1, 4, 5]));
    let others = Synced::from([
        (1, None),
        (2, None),
        (3, None),
        (4, Some(40)),
        (5, Some(41)),
    ]);
    holds(quorum.seen(ONE, applied, &others));
}

#[test]
fn positions_stand_in_order() {
    let seen = |status: GroupStatus| PositionOrder::default().seen(ONE, 1, &status);
    holds(seen(status()));
    let wrong = [
        GroupStatus {
            dropped: 22,
            ..status()
        },
        GroupStatus {
            purged: Some(31),
            ..status()
        },
        GroupStatus {
            checkpoint: Some(41),
            ..status()
        },
        GroupStatus {
            applied: Some(51),
            ..status()
        },
        GroupStatus {
            flushed: Some(51),
            ..status()
        },
        GroupStatus {
            flushed: Some(19),
            ..status()
        },
    ];
    for status in wrong {
        // A damaged log has holes until it is repaired.
        let phase = Phase::Repairing;
        let repairing = GroupStatus {
            phase,
            ..status.clone()
        };
        holds(seen(repairing));
        breaks(seen(status), "position-order");
    }
}

#[test]
fn what_was_applied_or_committed_does_not_shrink() {
    let mut positions = PositionOrder::default();
    holds(positions.seen(ONE, 1, &status()));
    let less_applied = GroupStatus {
        applied: Some(39),
        ..status()
    };
    breaks(positions.seen(ONE, 1, &less_applied), "positions-forward");
    // Another process begins with its checkpoint.
    holds(positions.seen(ONE, 2, &less_applied));
    let mut positions = PositionOrder::default();
    holds(positions.seen(ONE, 1, &status()));
    let less_committed = GroupStatus {
        committed: Some(39),
        ..status()
    };
    breaks(positions.seen(ONE, 1, &less_committed), "positions-forward");
}

#[test]
fn tables_at_one_entry_are_equal() {
    let mut tables = EqualTables::default();
    holds(tables.seen(ONE, log_id(2, 40), Some(7)));
    holds(tables.seen(TWO, log_id(2, 40), Some(7)));
    holds(tables.seen(TWO, log_id(2, 41), Some(8)));
    breaks(tables.seen(ONE, log_id(2, 41), Some(9)), "equal-tables");
    breaks(tables.seen(ONE, log_id(2, 42), None), "equal-tables");
}

#[test]
fn a_committed_entry_stays() {
    let mut tables = EqualTables::default();
    holds(tables.seen(ONE, log_id(2, 40), Some(7)));
    breaks(
        tables.seen(TWO, log_id(3, 40), Some(7)),
        "committed-immutable",
    );
}

#[test]
fn queues_grow_at_their_end() {
    let key = |life| (ONE, life, 5, 0);
    let seen = |now| {
        let mut queues = QueuesForward::default();
        holds(queues.seen(key(1), (3, 10)));
        queues.seen(key(1), now)
    };
    holds(seen((3, 10)));
    holds(seen((10, 10)));
    holds(seen((4, 12)));
    breaks(seen((2, 12)), "queues-forward");
    breaks(seen((3, 9)), "queues-forward");
    breaks(seen((11, 10)), "queues-forward");
}

fn entry(term: u64, index: u64, body: &'static str) -> Entry {
    Entry {
        term,
        index,
        kind: EntryKind::Normal,
        body: Bytes::from(body),
    }
}

#[test]
fn entries_of_one_term_and_index_are_the_same() {
    let mut logs = LogMatching::default();
    holds(logs.seen(ONE, None, &entry(2, 40, "a")));
    holds(logs.seen(TWO, None, &entry(2, 40, "a")));
    // Not committed, and replaced.
    holds(logs.seen(TWO, None, &entry(3, 40, "b")));
    breaks(logs.seen(TWO, None, &entry(2, 40, "b")), "log-matching");
    let blank = Entry {
        kind: EntryKind::Blank,
        ..entry(2, 40, "a")
    };
    breaks(logs.seen(TWO, None, &blank), "log-matching");
}

#[test]
fn logs_that_share_an_entry_share_those_before() {
    let mut logs = LogMatching::default();
    holds(logs.seen(ONE, None, &entry(3, 41, "a")));
    holds(logs.seen(TWO, Some(log_id(2, 40)), &entry(3, 41, "a")));
    holds(logs.seen(ONE, Some(log_id(2, 40)), &entry(3, 41, "a")));
    let other = Some(log_id(1, 40));
    breaks(logs.seen(ONE, other, &entry(3, 41, "a")), "log-matching");
}

/// Would catch leaders, tables, logs and majorities of one broker group that are held against another's.
#[test]
fn broker_groups_have_nothing_to_do_with_each_other() {
    let (a, b) = (BrokerGroup::FIRST, BrokerGroup::numbered(1));
    let other = Machine::Broker(b.base() + 1);
    let mut checks = Checks::default();
    for (group, machine, body, digest) in [(a, ONE, "a", 7), (b, other, "b", 8)] {
        let of = checks.of(group);
        let leads = GroupStatus {
            leadership: leadership(3, true),
            appended: Some(digest),
            ..status()
        };
        holds(of.leaders.seen(machine, &leads.leadership));
        holds(of.completeness.seen(machine, &leads));
        holds(of.logs.seen(machine, None, &entry(2, 40, body)));
        holds(of.tables.seen(machine, log_id(2, 40), Some(digest)));
        of.completeness.applied(machine, log_id(2, 30 * digest));
    }
    let of = checks.of(b);
    breaks(
        of.leaders.seen(TWO, &leadership(3, true)),
        "one-leader-per-term",
    );
    breaks(of.tables.seen(TWO, log_id(2, 40), Some(7)), "equal-tables");
    breaks(of.logs.seen(TWO, None, &entry(2, 40, "a")), "log-matching");
    let voters = BTreeSet::from([21, 22, 23]);
    of.quorum.vote(voters);
    checks.of(a).quorum.vote(BTreeSet::from([1, 2, 3]));
    let synced = Synced::from([
        (1, Some(40)),
        (2, Some(40)),
        (21, Some(40)),
        (22, None),
        (23, None),
    ]);
    let applied = log_id(2, 40);
    holds(checks.of(a).quorum.seen(ONE, applied, &synced));
    breaks(
        checks.of(b).quorum.seen(other, applied, &synced),
        "committed-on-quorum",
    );
}

fn table(version: u64, epoch: u64, leader: u64) -> RouteTable {
    let registration = Registration {
        group: "broker-a".to_owned(),
        epoch,
        leader,
        ..Registration::default()
    };
    RouteTable::new(version, vec![Arc::new(registration)])
}

#[test]
fn routes_only_get_newer() {
    let server = Machine::NameServer(1);
    let known = || {
        let mut routes = Routes::default();
        holds(routes.seen(server, &table(5, 7, 1)));
        routes
    };
    holds(known().seen(server, &table(6, 8, 2)));
    breaks(known().seen(server, &table(4, 7, 1)), "newer-route-wins");
    breaks(known().seen(server, &table(6, 6, 1)), "newer-route-wins");
    let mut restarted = known();
    restarted.restarted(server);
    holds(restarted.seen(server, &table(1, 6, 3)));
}

#[test]
fn an_epoch_has_one_leader() {
    let (one, other) = (Machine::NameServer(1), Machine::NameServer(2));
    let mut routes = Routes::default();
    holds(routes.seen(one, &table(1, 7, 1)));
    breaks(routes.seen(other, &table(1, 7, 2)), "one-leader-per-epoch");
}

/// A look at a replica that has more to apply, so many seconds after the world began.
fn look(status: &GroupStatus, seconds: u64) -> Look<'_> {
    Look {
        machine: ONE,
        at: Duration::from_secs(seconds),
        status,
        runs: true,
        slow_checkpoint: false,
        stalls: false,
        can_be_left: true,
    }
}

fn slow(status: &GroupStatus, seconds: u64) -> Look<'_> {
    Look {
        slow_checkpoint: true,
        ..look(status, seconds)
    }
}

fn stalls(status: &GroupStatus, seconds: u64) -> Look<'_> {
    Look {
        stalls: true,
        ..look(status, seconds)
    }
}

#[test]
fn a_checkpoint_does_not_keep_entries_from_being_applied() {
    let mut status = status();
    status.committed = Some(60);
    let mut standstill = Standstill::default();
    for second in 0..10 {
        status.applied = Some(40 + second);
        let (result, _) = standstill.seen(&slow(&status, second));
        holds(result);
    }
    // Nobody says that a replica may not stand still for other reasons.
    for second in 10..20 {
        holds(standstill.seen(&look(&status, second)).0);
        let paused = Look {
            runs: false,
            ..slow(&status, second)
        };
        holds(standstill.seen(&paused).0);
    }
    holds(standstill.seen(&slow(&status, 20)).0);
    breaks(standstill.seen(&slow(&status, 23)).0, "applying-goes-on");
}

#[test]
fn a_leader_whose_tables_stall_leaves() {
    let mut status = status();
    status.leadership.is_leader = true;
    let mut standstill = Standstill::default();
    holds(standstill.seen(&look(&status, 0)).0);
    holds(standstill.seen(&stalls(&status, 1)).0);
    let alone = Look {
        can_be_left: false,
        ..stalls(&status, 4)
    };
    holds(standstill.seen(&alone).0);
    holds(standstill.seen(&stalls(&status, 6)).0);
    breaks(
        standstill.seen(&stalls(&status, 11)).0,
        "stalled-leaders-leave",
    );
    status.leadership.is_leader = false;
    let (result, effect) = standstill.seen(&stalls(&status, 12));
    holds(result);
    assert_eq!(effect, Some(Effect::StalledLeaderLeft));
}
