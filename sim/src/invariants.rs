//! What must hold at every moment inside the brokers and name servers, whatever goes wrong.
//!
//! Watches the running replicas through their public handles: each change of leadership and of the tables,
//! and everything else at intervals. One property each in the files below. Never changes anything.
//!
//! Those that openraft checks of itself, by their numbers in its fuzzer:
//!
//! | | openraft's | here | looked at |
//! |---|---|---|---|
//! | 1 | election safety | `one-leader-per-term` (`leaders`) | each change of leadership |
//! | 2 | log matching | `log-matching` (`log`) | each entry that is appended; at the end all of them |
//! | 3 | leader completeness | `leader-completeness` (`completeness`) | every tick |
//! | 4 | state machine safety | `equal-tables` (`tables`) | each change of the tables |
//! | 5 | committed on a quorum | `committed-on-quorum` (`quorum`) | each change of the tables |
//! | 6 | committed entries stay | `committed-immutable` (`tables`), `log-matching` at the end | each change of the tables |
//! | 7 | order of states | `position-order` (`positions`) | every tick |
//! | 8 | terms grow | `terms-forward` (`leaders`), over crashes too | each change of leadership |
//! | 9 | what is committed grows | `positions-forward` (`positions`) | every tick |
//! | 10 | what is applied grows | `positions-forward` (`positions`) | every tick |
//! | 11 | votes grow | `votes-forward`, `leaders-have-voted` (`votes`), over crashes too | every tick |
//! | 12 | keys of the state machine grow | `queues-forward` (`queues`); the oracle's `offsets-forward` | every tick |
//!
//! And of this system: `newer-route-wins` and `one-leader-per-epoch` (`routes`), each change of a name server's
//! table; `wiped-replicas-stay-out` and `promises-are-kept`, every tick; `applying-goes-on` and
//! `stalled-leaders-leave` (`standstill`), `rot-is-got-rid-of`, every tick; `what-is-kept-is-there` and `damage-is-repaired` (`log`), at the
//! end.

mod completeness;
#[cfg(test)]
mod invariants_test;
mod leaders;
mod log;
mod positions;
mod promises;
mod queues;
mod quorum;
mod routes;
mod standstill;
mod tables;
mod votes;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use raft::{GroupStatus, Phase};
use store::LogId;
use tokio::sync::watch;

use crate::broker_group::BrokerGroup;
use crate::broker_process::{BrokerProcess, Live};
use crate::effect::Effect;
use crate::machine::Machine;
use crate::name_server_process::NameServerProcess;
use crate::trace::now;
use crate::violation::Violation;
use crate::world::World;

pub use log::compare_logs;

/// Time between looks at what changes without an event.
const TICK: Duration = Duration::from_millis(50);

/// Most processes of one machine that may meet the same rot in their tables: whoever meets it makes the tables again, but
/// may be killed before that, and again.
const ROT_IS_MET_BY: usize = 4;

/// Watches a world.
pub struct Invariants {
    world: Arc<World>,
    checks: Mutex<Checks>,
    found: watch::Sender<Option<Violation>>,
}

#[derive(Default)]
struct Checks {
    groups: BTreeMap<BrokerGroup, OfGroup>,
    routes: routes::Routes,
}

/// What the replicas of one broker group have to do with each other: nothing of it holds across groups.
#[derive(Default)]
struct OfGroup {
    /// How many of its histories that lack what was committed before them were taken into account.
    histories: u64,
    /// How many older copies of a replica's disk were taken into account.
    forgiven: BTreeMap<Machine, u64>,
    leaders: leaders::Leaders,
    votes: votes::Votes,
    completeness: completeness::LeaderCompleteness,
    logs: log::LogMatching,
    quorum: quorum::CommittedOnQuorum,
    positions: positions::PositionOrder,
    tables: tables::EqualTables,
    queues: queues::QueuesForward,
    standstill: standstill::Standstill,
}

impl Checks {
    fn of(&mut self, group: BrokerGroup) -> &mut OfGroup {
        self.groups.entry(group).or_default()
    }
}

impl Invariants {
    /// Begins to watch.
    pub fn watch(world: &Arc<World>) -> Arc<Invariants> {
        let invariants = Arc::new(Invariants {
            world: world.clone(),
            checks: Mutex::default(),
            found: watch::Sender::new(None),
        });
        for group in world.groups() {
            let voters = world.members(group).into_iter().map(u64::from).collect();
            invariants.checks().of(group).quorum.vote(voters);
        }
        for broker in world.all_brokers() {
            invariants.watch_broker(broker);
        }
        for server in world.all_name_servers() {
            tokio::spawn(invariants.clone().watch_routes(server.clone()));
        }
        invariants
    }

    /// Watches a broker that came later.
    pub fn watch_broker(self: &Arc<Self>, broker: Arc<BrokerProcess>) {
        tokio::spawn(self.clone().watch_rot(broker.clone()));
        tokio::spawn(self.clone().watch_lives(broker));
    }

    /// Returns when an invariant is broken.
    pub async fn broken(&self) -> Violation {
        let mut found = self.found.subscribe();
        loop {
            if let Some(violation) = found.borrow_and_update().clone() {
                return violation;
            }
            found.changed().await.expect("the sender is in here");
        }
    }

    /// Nobody has to help a replica whose tables rot.
    async fn watch_rot(self: Arc<Self>, broker: Arc<BrokerProcess>) {
        while broker.tables.shown_to() <= ROT_IS_MET_BY {
            tokio::time::sleep(TICK).await;
        }
        let machine = broker.machine;
        let detail = format!(
            "more than {ROT_IS_MET_BY} processes of {machine} met the same rot in their tables"
        );
        self.note(Err(Violation::new("rot-is-got-rid-of", detail)));
    }

    async fn watch_lives(self: Arc<Self>, broker: Arc<BrokerProcess>) {
        let mut lives = broker.lives();
        loop {
            let live = lives.borrow_and_update().clone();
            let Some(live) = live else {
                if lives.changed().await.is_err() {
                    return;
                }
                continue;
            };
            tokio::select! {
                biased;
                _ = lives.changed() => {}
                () = self.watch_life(&broker, &live) => {}
            }
        }
    }

    async fn watch_life(&self, broker: &BrokerProcess, live: &Live) {
        let Machine::Broker(id) = broker.machine else {
            return;
        };
        let group = self.world.group_of(id);
        self.begin_anew(group);
        self.forgive_older_copy(group, id);
        tokio::join!(
            self.watch_leadership(group, broker.machine, live),
            self.watch_status(group, broker, live),
            self.watch_log(group, broker, live),
            self.watch_tables(group, broker.machine, live),
        );
    }

    async fn watch_leadership(&self, group: BrokerGroup, machine: Machine, live: &Live) {
        let mut changes = live.group.leadership();
        let trace = &self.world.trace;
        loop {
            let now = changes.borrow_and_update().clone();
            trace.event(format_args!("{machine} leadership {now:?}"));
            if now.serving {
                let term = now.term;
                trace.tell(format_args!("{machine} leads in term {term}"));
                trace.happened(Effect::LeaderChanged);
            }
            let result = self.checks().of(group).leaders.seen(machine, &now);
            self.note(result);
            if changes.changed().await.is_err() {
                return;
            }
        }
    }

    /// A group that goes on from a backup has other entries at the places of those that came after it. Of those who had them
    /// nobody ever starts again.
    fn begin_anew(&self, group: BrokerGroup) {
        let histories = self.world.histories_behind(group);
        let mut checks = self.checks();
        let checks = checks.of(group);
        if checks.histories < histories {
            *checks = OfGroup {
                histories,
                ..OfGroup::default()
            };
        }
    }

    /// An older copy has forgotten votes and terms by the nature of the fault; what its peers must make of it is
    /// `promises-are-kept` and `one-leader-per-term`. From its first start on it is held to what it promises since.
    fn forgive_older_copy(&self, group: BrokerGroup, id: u8) {
        let machine = Machine::Broker(id);
        let times = self.world.times_rolled_back(id);
        let mut checks = self.checks();
        let checks = checks.of(group);
        if checks.forgiven.insert(machine, times).unwrap_or(0) < times {
            checks.leaders.forget(machine);
            checks.votes.forget(machine);
        }
    }

    async fn watch_status(&self, group: BrokerGroup, broker: &BrokerProcess, live: &Live) {
        let machine = broker.machine;
        loop {
            let status = live.group.status();
            let result = {
                let mut checks = self.checks();
                let checks = checks.of(group);
                let positions = checks.positions.seen(machine, live.life, &status);
                positions
                    .and_then(|()| checks.votes.seen(machine, &status))
                    .and_then(|()| checks.completeness.seen(machine, &status))
                    .and_then(|()| checks.queues.look(machine, live.life, &live.view))
            };
            self.note(result);
            self.note(self.stands_still(group, broker, &status));
            self.note(self.wiped_stay_out(machine, &status));
            self.note(self.promises_kept(machine, broker.must_have(), &status));
            tokio::time::sleep(TICK).await;
        }
    }

    async fn watch_log(&self, group: BrokerGroup, broker: &BrokerProcess, live: &Live) {
        let machine = broker.machine;
        let mut must_have = promises::MustHave::new(self.must_have(group, broker));
        let mut follower = log::Follower::new(live.group.log());
        loop {
            let status = live.group.status();
            let looked = must_have.look(machine, &status, &live.group.log()).await;
            self.note(looked);
            let committed = live.group.status().committed;
            let (mut before, entries) = follower.look(committed).await;
            for entry in &entries {
                let result = self.checks().of(group).logs.seen(machine, before, entry);
                self.note(result);
                let (term, index) = (entry.term, entry.index);
                before = Some(LogId { term, index });
            }
            tokio::time::sleep(TICK).await;
        }
    }

    /// The last entry that a process must find in its log, as far as it is known which one it is. A disk that is another one
    /// has promised nothing.
    fn must_have(&self, group: BrokerGroup, broker: &BrokerProcess) -> Option<LogId> {
        let Machine::Broker(id) = broker.machine else {
            return None;
        };
        let promised = broker.must_have();
        let promised = promised.filter(|_| !self.world.must_be_replaced(id))?;
        self.checks().of(group).tables.last_applied(promised)
    }

    async fn watch_tables(&self, group: BrokerGroup, machine: Machine, live: &Live) {
        let mut past = None;
        loop {
            let (applied, digest) = live.group.tables_past(past).await;
            past = Some(applied.index);
            let trace = &self.world.trace;
            trace.event(format_args!("{machine} applied {applied:?} {digest:?}"));
            let synced = self.synced(group);
            let result = {
                let mut checks = self.checks();
                let checks = checks.of(group);
                checks.completeness.applied(machine, applied);
                let quorum = checks.quorum.seen(machine, applied, &synced);
                quorum.and_then(|()| checks.tables.seen(machine, applied, digest))
            };
            self.note(result);
        }
    }

    /// How far the logs of those that can be asked are synced, and were of those that were killed. Learns of new voters.
    fn synced(&self, group: BrokerGroup) -> quorum::Synced {
        let mut synced = quorum::Synced::new();
        for broker in self.world.brokers_of(group) {
            let Machine::Broker(id) = broker.machine else {
                continue;
            };
            // Whatever it says, it says less than it promised.
            if self.world.is_rolled_back(id) {
                continue;
            }
            let Some(live) = broker.live() else {
                if let Some(flushed) = broker.synced_when_killed() {
                    synced.insert(id.into(), flushed);
                }
                continue;
            };
            let status = live.group.status();
            if status.phase != Phase::Running {
                continue;
            }
            synced.insert(id.into(), status.flushed);
            let voters = status.members.iter().filter(|member| member.voter);
            let voters = voters.map(|member| member.member.broker_id).collect();
            self.checks().of(group).quorum.vote(voters);
        }
        synced
    }

    async fn watch_routes(self: Arc<Self>, server: Arc<NameServerProcess>) {
        let mut lives = server.lives();
        loop {
            let tables = lives.borrow_and_update().clone();
            let Some(mut tables) = tables else {
                if lives.changed().await.is_err() {
                    return;
                }
                continue;
            };
            self.checks().routes.restarted(server.machine);
            let watching = async {
                loop {
                    let table = tables.borrow_and_update().clone();
                    let result = self.checks().routes.seen(server.machine, &table);
                    self.note(result);
                    if tables.changed().await.is_err() {
                        std::future::pending::<()>().await;
                    }
                }
            };
            tokio::select! {
                biased;
                _ = lives.changed() => {}
                () = watching => {}
            }
        }
    }

    fn stands_still(
        &self,
        group: BrokerGroup,
        broker: &BrokerProcess,
        status: &GroupStatus,
    ) -> Result<(), Violation> {
        let machine = broker.machine;
        let stalls = broker.tables.stalls();
        let look = standstill::Look {
            machine,
            at: now(),
            status,
            runs: self.world.is_running(machine),
            slow_checkpoint: broker.tables.is_at_a_slow_checkpoint(),
            stalls,
            can_be_left: stalls
                && status.leadership.is_leader
                && self.can_be_left(group, machine, status),
        };
        let (result, effect) = self.checks().of(group).standstill.seen(&look);
        if let Some(effect) = effect {
            self.world.trace.happened(effect);
        }
        result
    }

    /// Whether all is well with the other members and between them, and one of them is further than this one.
    fn can_be_left(&self, group: BrokerGroup, machine: Machine, status: &GroupStatus) -> bool {
        let members = self.world.members(group).into_iter();
        let others = members.filter(|id| Machine::Broker(*id) != machine);
        let applied = others.map(|id| {
            let broker = self.world.broker(id)?;
            let well = self.world.is_running(broker.machine) && !broker.tables.stalls();
            let status = broker.live()?.group.status();
            (well && status.phase == Phase::Running).then_some(status.applied)
        });
        let applied: Option<Vec<Option<u64>>> = applied.collect();
        let furthest = applied.and_then(|applied| applied.into_iter().max());
        self.world.network.is_whole() && furthest > Some(status.applied)
    }

    /// Who lost its disk has forgotten its votes: it must not take part again, nor vote for anybody, whether it is
    /// a member still or was replaced.
    fn wiped_stay_out(&self, machine: Machine, status: &GroupStatus) -> Result<(), Violation> {
        let Machine::Broker(id) = machine else {
            return Ok(());
        };
        if !self.world.is_wiped(id) {
            return Ok(());
        }
        let members = self.world.members(self.world.group_of(id));
        let takes_part = status.phase == Phase::Running && members.contains(&id);
        let detail = match status.vote {
            Some(vote) => format!("{machine} lost its disk and votes again: {vote:?}"),
            None if takes_part => format!("{machine} lost its disk and takes part again"),
            None => return Ok(()),
        };
        Err(Violation::new("wiped-replicas-stay-out", detail))
    }

    /// What a replica had synced, and knew to be committed, when it was ended by force, is in its log whenever it takes
    /// part again: its peers count on it. One whose disk was replaced by an older copy cannot know that by itself: it
    /// must not follow, or lead, anybody who knows.
    fn promises_kept(
        &self,
        machine: Machine,
        must_have: Option<u64>,
        status: &GroupStatus,
    ) -> Result<(), Violation> {
        let Machine::Broker(id) = machine else {
            return Ok(());
        };
        if status.phase != Phase::Running || status.appended >= must_have {
            return Ok(());
        }
        if self.world.is_rolled_back(id) && !self.believes_knowingly(id, status) {
            return Ok(());
        }
        let detail = format!(
            "{machine} takes part with a log up to {:?}, and had synced and applied {must_have:?}",
            status.appended
        );
        Err(Violation::new("promises-are-kept", detail))
    }

    /// Whether the leader of a replica that was rolled back, or everybody whom it leads, knows that it promised more.
    fn believes_knowingly(&self, id: u8, status: &GroupStatus) -> bool {
        let Some(leader) = &status.leadership.leader else {
            return false;
        };
        let end = status.appended.map_or(0, |appended| appended + 1);
        let knows = |broker: &Arc<BrokerProcess>| {
            let status = broker.live().map(|live| live.group.status());
            let running = status.filter(|status| status.phase == Phase::Running);
            running.is_some_and(|status| status.promised_by_peers.get(&id.into()) > Some(&end))
        };
        let brokers = self.world.all_brokers();
        let members = self.world.members(self.world.group_of(id));
        let others = brokers.iter().filter(|broker| match broker.machine {
            Machine::Broker(other) if leader.broker_id == u64::from(id) => {
                other != id && members.contains(&other)
            }
            Machine::Broker(other) => leader.broker_id == u64::from(other),
            _ => false,
        });
        let others: Vec<&Arc<BrokerProcess>> = others.collect();
        !others.is_empty() && others.into_iter().all(knows)
    }

    fn note(&self, result: Result<(), Violation>) {
        if let Err(violation) = result {
            self.found.send_if_modified(|found| {
                let first = found.is_none();
                found.get_or_insert(violation);
                first
            });
        }
    }

    fn checks(&self) -> MutexGuard<'_, Checks> {
        self.checks.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
