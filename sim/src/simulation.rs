//! One world from beginning to end: build, chaos, heal, require service, read everything, judge.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use madsim::runtime::Handle;
use madsim::task::NodeId;

use crate::broker_group::BrokerGroup;
use crate::broker_process::BrokerProcess;
use crate::commands::Commands;
use crate::history::{Event, History, Outcome, Record};
use crate::invariants::{Invariants, compare_logs};
use crate::liveness;
use crate::machine::Machine;
use crate::nemesis::{self, Nemesis};
use crate::network::Cut;
use crate::operator::{Operator, READER};
use crate::oracle;
use crate::schedule::{Fault, Schedule, Shape as Isolated, Timed};
use crate::spec::{Course, Spec};
use crate::trace::Trace;
use crate::violation::Violation;
use crate::workload::{Clients, Phase, Plan, Rebirth, ThroughRestore, run_client};
use crate::world::{Shape, World};

/// Longest wait for the first leader and the topics.
const BEGIN: Duration = Duration::from_secs(60);

/// Longest that a send takes whatever one machine does. Whoever waits for an attempt of the SDK's default to end, 3 s, is too
/// late, and so is a group whose votes are split.
const SENDS_WITHIN_MS: u64 = 1_500;

/// Longest that a send takes where the leader's tables stand still: until it knows that others are further, an election, and
/// handing over.
const STALLED_SENDS_WITHIN_MS: u64 = 4_000;

/// Longest that a send takes where nothing but checkpoints takes long.
const UNDISTURBED_SENDS_WITHIN_MS: u64 = 1_000;

/// Time that a machine which was silent takes to be one of the others again.
const RECOVERS_MS: u64 = 2_000;

/// Lives through a world. Returns what was wrong with it.
///
/// Everything that is not a machine of the world runs on the operator's, which never fails.
pub async fn live(spec: Spec, trace: Arc<Trace>, history: Arc<History>) -> Option<Violation> {
    let operator = Handle::current()
        .create_node()
        .name(Machine::Operator.to_string())
        .ip(Machine::Operator.ip())
        .build();
    let living = operator.spawn(live_here(spec, trace, history));
    let violation = living.await.expect("the operator's machine never fails");
    let_go(operator.id()).await;
    violation
}

/// Ends what still runs there, and lets go of what ended: a sweep has many worlds.
async fn let_go(operator: NodeId) {
    Handle::current().kill(operator);
    // Whoever was killed is dropped when its turn comes.
    tokio::time::sleep(Duration::from_millis(1)).await;
}

/// A cluster that nobody uses, for so long; returns what was wrong with it.
pub async fn idle(duration: Duration, trace: Arc<Trace>) -> Option<Violation> {
    let operator = Handle::current()
        .create_node()
        .name(Machine::Operator.to_string())
        .ip(Machine::Operator.ip())
        .build();
    let idling = operator.spawn(async move {
        let mut shape = Shape::default();
        // Nothing else to do must be cheap: as seldom as the product's own defaults allow.
        shape.broker.heartbeat_interval_ms = 3_000;
        shape.broker.election_timeout_ms_min = 9_000;
        shape.broker.election_timeout_ms_max = 12_000;
        shape.broker.retention_interval_ms = 60_000;
        shape.name_server.gossip_interval_ms = 60_000;
        let world = World::build(0, shape, trace);
        tokio::time::sleep(duration).await;
        let leader = world.leader(BrokerGroup::FIRST);
        world.end();
        match leader {
            Some(_) => None,
            None => Some(Violation::new("serves-again", "nobody leads")),
        }
    });
    let violation = idling.await.expect("the operator's machine never fails");
    let_go(operator.id()).await;
    violation
}

async fn live_here(spec: Spec, trace: Arc<Trace>, history: Arc<History>) -> Option<Violation> {
    let shape = spec.scenario.shape(spec.seed);
    let Course { plan, schedule } = spec.course();
    tell_promises(&spec, &shape, &schedule, &plan, &history);
    let world = World::build(spec.seed, shape, trace.clone());
    let invariants = Invariants::watch(&world);
    // Each group has a log of its own.
    let commands: BTreeMap<&str, Arc<Commands>> = world
        .groups()
        .map(|group| (group.name(), Commands::new(trace.clone())))
        .collect();
    let logs = commands.values().cloned().collect();
    let count = move |broker: Arc<BrokerProcess>| {
        let commands = commands.get(&*broker.config().group).cloned();
        if let Some(commands) = commands {
            tokio::spawn(commands.follow(broker));
        }
    };
    world.all_brokers().into_iter().for_each(&count);
    world.watch_new_brokers({
        let invariants = invariants.clone();
        move |broker| {
            count(broker.clone());
            invariants.watch_broker(broker);
        }
    });
    let clients = Arc::new(Clients::new(world.clone(), history.clone(), plan));
    let story = Story {
        world: world.clone(),
        clients,
        history: history.clone(),
        logs,
    };
    let told = tokio::select! {
        biased;
        broken = invariants.broken() => Err(broken),
        told = story.tell(&schedule) => told,
    };
    world.end();
    let judged = told.and_then(|()| history.look(oracle::judge));
    // What was made by hand may leave out what it likes.
    let judged = judged.and_then(|()| match spec.course {
        None => history.look(|records| something_happened(records, &trace)),
        Some(_) => Ok(()),
    });
    judged.err()
}

/// Writes down what is promised in this world and not in each.
fn tell_promises(spec: &Spec, shape: &Shape, schedule: &Schedule, plan: &Plan, history: &History) {
    if keeps_all(shape, schedule) {
        history.record(Machine::Operator, Event::KeepsAll);
    }
    if let Some(ms) = keeps_for(shape, schedule) {
        history.record(Machine::Operator, Event::KeepsFor { ms });
    }
    if shape.broker.dead_letter_retain_ms > 0 {
        let ms = shape.broker.dead_letter_retain_ms;
        history.record(Machine::Operator, Event::LettersKeptFor { ms });
    }
    let ms = shape.broker.dedup_window_ms;
    history.record(Machine::Operator, Event::RemembersFor { ms });
    if one_falls_silent_at_a_time(schedule) && spec.scenario.name == "silence" {
        let ms = SENDS_WITHIN_MS;
        history.record(Machine::Operator, Event::SendsWithin { ms });
    }
    if spec.scenario.name == "group-away" {
        history.record(Machine::Operator, Event::OthersGoOn);
    }
    if let Some(ms) = dawdling_tables_hold_up(schedule)
        && spec.scenario.name == "tables"
    {
        history.record(Machine::Operator, Event::SendsWithin { ms });
    }
    for topic in plan.topics.iter().filter(|topic| !topic.shares.is_empty()) {
        let shared = Event::Shared {
            topic: topic.name.clone(),
            groups: topic.shares.len() as u8,
            queues: topic.numbers(),
        };
        history.record(Machine::Operator, shared);
    }
}

/// Whether neither retention nor an operator drops anything.
fn keeps_all(shape: &Shape, schedule: &Schedule) -> bool {
    only_age_drops(shape, schedule) && shape.broker.log_retain_ms == 0
}

/// Whether nothing happens but that one machine after the other falls silent.
fn one_falls_silent_at_a_time(schedule: &Schedule) -> bool {
    let mut calm_from = 0;
    schedule.faults.iter().all(|timed| {
        let Fault::Partition {
            shape: Isolated::Isolate(_),
            how: Cut::Hangs,
            for_ms,
        } = &timed.fault
        else {
            return false;
        };
        let alone = timed.at_ms >= calm_from;
        calm_from = timed.at_ms + for_ms + RECOVERS_MS;
        alone
    })
}

/// How long a send may take, in milliseconds, where nothing happens but that checkpoints take long, and one replica's tables
/// at a time stand still.
fn dawdling_tables_hold_up(schedule: &Schedule) -> Option<u64> {
    let faults = || schedule.faults.iter().map(|timed| &timed.fault);
    let stalls = |fault: &Fault| matches!(fault, Fault::TablesStall { .. });
    let slow = |fault: &Fault| {
        matches!(
            fault,
            Fault::SlowCheckpoints { .. } | Fault::Checkpoint { .. }
        )
    };
    let dawdles = faults().all(|fault| stalls(fault) || slow(fault));
    let alone = schedule.clone().with_one_stall_at_a_time() == *schedule;
    match (dawdles && alone, faults().any(stalls)) {
        (false, _) => None,
        (true, true) => Some(STALLED_SENDS_WITHIN_MS),
        (true, false) => Some(UNDISTURBED_SENDS_WITHIN_MS),
    }
}

/// How long brokers keep every message, in milliseconds, where they let go of what is old and of nothing else.
fn keeps_for(shape: &Shape, schedule: &Schedule) -> Option<u64> {
    let ms = Some(shape.broker.log_retain_ms).filter(|ms| *ms > 0);
    ms.filter(|_| only_age_drops(shape, schedule))
}

fn only_age_drops(shape: &Shape, schedule: &Schedule) -> bool {
    let drops = |timed: &Timed| matches!(timed.fault, Fault::DropLog { .. });
    shape.broker.log_retain_bytes == 0 && !schedule.faults.iter().any(drops)
}

/// A world in which nothing was stored, read, or went wrong proves nothing.
fn something_happened(records: &[Record], trace: &Trace) -> Result<(), Violation> {
    let is_stored = |record: &Record| {
        let outcome = match &record.event {
            Event::Sent { outcome, .. } => outcome,
            Event::Owed { .. } => return true,
            _ => return false,
        };
        matches!(outcome, Outcome::Done(_))
    };
    let is_delivered = |record: &Record| match &record.event {
        Event::Delivery { member, .. } => &*member.group != READER,
        Event::Got { .. } => true,
        _ => false,
    };
    let missing = if !records.iter().any(is_stored) {
        "no send was acknowledged"
    } else if !records.iter().any(is_delivered) {
        "no message was delivered"
    } else if trace.faults() == 0 {
        "no fault struck"
    } else {
        return Ok(());
    };
    Err(Violation::new("something-happens", missing))
}

struct Story {
    world: Arc<World>,
    clients: Arc<Clients>,
    history: Arc<History>,
    /// What is written in the log of each broker group.
    logs: Vec<Arc<Commands>>,
}

impl Story {
    async fn tell(&self, schedule: &Schedule) -> Result<(), Violation> {
        let beginning = tokio::time::timeout(BEGIN, self.begin()).await;
        let operator = beginning
            .map_err(|_| Violation::new("begins", format!("no topic was made in {BEGIN:?}")))?;
        let asking = tokio::spawn(self.operator().await.ask_bounds());
        self.begin_lives(&operator).await?;
        let nemesis = |group| Nemesis {
            world: self.world.clone(),
            clients: self.clients.clone(),
            operator: operator.of_group(group),
            group,
        };
        let nemeses = self.world.groups().map(nemesis).map(Arc::new);
        let to_be_finished = nemesis::run(nemeses.collect(), schedule).await;
        self.world.heal();
        self.world.trace.tell(format_args!("everything is healed"));
        let finishing = tokio::time::timeout(liveness::SERVES_WITHIN, join_all(to_be_finished));
        let finished = finishing.await;
        finished.map_err(|_| Violation::new("serves-again", "a lost group is not restored"))?;
        self.history.record(Machine::Operator, Event::Healed);
        let operator = self.operator().await;
        let replacing = operator.replace_wiped(&self.world);
        let replaced = tokio::time::timeout(liveness::SERVES_WITHIN, replacing).await;
        replaced.map_err(|_| Violation::new("serves-again", "a wiped replica is not replaced"))?;
        liveness::serves_again(&self.world, &self.clients).await?;
        self.clients.enter(Phase::Drain);
        liveness::everything_is_read(&self.world, &self.clients, &operator).await?;
        self.clients.enter(Phase::Stop);
        asking.abort();
        liveness::time_is_led_back(&self.logs).await?;
        compare_logs(&self.world).await?;
        self.history.record(Machine::Operator, Event::End);
        Ok(())
    }

    /// Those who send what is judged by value alone.
    async fn begin_lives(&self, operator: &Operator) -> Result<(), Violation> {
        if self.clients.plan.outlives_brokers() {
            let sender = ThroughRestore::new(&self.clients, operator);
            let preparing = tokio::time::timeout(BEGIN, sender.prepare()).await;
            preparing.map_err(|_| Violation::new("begins", "a topic was not made"))?;
            tokio::spawn(sender.run());
        } else if !self.clients.plan.lives.is_empty() {
            tokio::spawn(Rebirth::new(&self.clients, operator).run());
        }
        Ok(())
    }

    /// Until there are topics; clients start then.
    async fn begin(&self) -> Operator {
        let operator = self.operator().await;
        operator.make_topics(&self.clients.plan).await;
        operator.make_groups(&self.clients.plan).await;
        for number in 1..=self.clients.plan.machines {
            let clients = self.clients.clone();
            let init = move || run_client(clients.clone(), number);
            self.world.add_machine(Machine::Client(number), init);
        }
        operator
    }

    /// Another operator.
    async fn operator(&self) -> Operator {
        let host = self.world.client_host(Machine::Operator, Arc::default());
        Operator::connect(&self.clients, &host)
            .await
            .expect("clients were not told to stop")
    }
}
