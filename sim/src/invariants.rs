//! What must hold at every moment inside the brokers and name servers, whatever goes wrong.
//!
//! Watches the running replicas through their public handles: each change of leadership and of the tables,
//! and everything else at intervals. One property each in the files below. Never changes anything.

mod leaders;
mod log;
mod positions;
mod routes;
mod tables;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use raft::Phase;
use tokio::sync::watch;

use crate::broker_process::{BrokerProcess, Live};
use crate::effect::Effect;
use crate::machine::Machine;
use crate::name_server_process::NameServerProcess;
use crate::violation::Violation;
use crate::world::World;

pub use log::compare_logs;

/// Time between looks at what changes without an event.
const TICK: Duration = Duration::from_millis(50);

/// Watches a world.
pub struct Invariants {
    world: Arc<World>,
    checks: Mutex<Checks>,
    found: watch::Sender<Option<Violation>>,
}

#[derive(Default)]
struct Checks {
    leaders: leaders::Leaders,
    positions: positions::PositionOrder,
    tables: tables::EqualTables,
    routes: routes::Routes,
}

impl Invariants {
    /// Begins to watch.
    pub fn watch(world: &Arc<World>) -> Arc<Invariants> {
        let invariants = Arc::new(Invariants {
            world: world.clone(),
            checks: Mutex::default(),
            found: watch::Sender::new(None),
        });
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
        let machine = broker.machine;
        let leadership = async {
            let mut changes = live.group.leadership();
            loop {
                let now = changes.borrow_and_update().clone();
                self.world
                    .trace
                    .event(format_args!("{machine} leadership {now:?}"));
                if now.serving {
                    let term = now.term;
                    let trace = &self.world.trace;
                    trace.tell(format_args!("{machine} leads in term {term}"));
                    trace.happened(Effect::LeaderChanged);
                }
                let result = self.checks().leaders.seen(machine, &now);
                self.note(result);
                if changes.changed().await.is_err() {
                    return;
                }
            }
        };
        let positions = async {
            loop {
                let status = live.group.status();
                let result = self.checks().positions.seen(machine, live.life, &status);
                self.note(result);
                self.note(self.wiped_stay_out(machine, status.phase));
                tokio::time::sleep(TICK).await;
            }
        };
        let tables = async {
            let mut past = None;
            loop {
                let (applied, digest) = live.group.tables_past(past).await;
                past = Some(applied.index);
                self.world
                    .trace
                    .event(format_args!("{machine} applied {applied:?} {digest:?}"));
                let result = self.checks().tables.seen(machine, applied, digest);
                self.note(result);
            }
        };
        tokio::join!(leadership, positions, async {
            let () = tables.await;
        });
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

    /// A member that lost its disk has forgotten its votes: it must not take part again.
    fn wiped_stay_out(&self, machine: Machine, phase: Phase) -> Result<(), Violation> {
        let Machine::Broker(id) = machine else {
            return Ok(());
        };
        let wiped = phase == Phase::Running && self.world.is_wiped(id);
        if !wiped || !self.world.members().contains(&id) {
            return Ok(());
        }
        let detail = format!("{machine} lost its disk and takes part again");
        Err(Violation::new("wiped-replicas-stay-out", detail))
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
