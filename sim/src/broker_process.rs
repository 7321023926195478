//! A broker: the shipped one, started on a machine of the world, and watched.
//!
//! Does what `broker::run` does, and publishes the replica's handle for the invariants. Never changes what
//! the broker does.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use broker::{Broker, BrokerConfig, View};
use host::{Host, Shutdown, ShutdownTrigger};
use raft::{Phase, RaftGroup};
use tokio::sync::watch;

use crate::clock::SimClock;
use crate::disk::SimDisk;
use crate::effect::Effect;
use crate::machine::Machine;
use crate::tables::SimTables;
use crate::trace::Trace;

/// A broker's machine: what survives its processes.
pub struct BrokerProcess {
    /// Which machine.
    pub machine: Machine,
    /// Its disk.
    pub disk: SimDisk,
    /// What holds its tables.
    pub tables: SimTables,
    /// Its clock.
    pub clock: Arc<SimClock>,
    config: Mutex<BrokerConfig>,
    live: watch::Sender<Option<Live>>,
    stop: Mutex<Option<ShutdownTrigger>>,
    killed: Mutex<Option<Option<u64>>>,
    /// The last entry that any process had both synced and applied when it was ended by force.
    promised: Mutex<Option<u64>>,
    ended: watch::Sender<Ended>,
    /// Processes that came to serve.
    served: AtomicU64,
    trace: Arc<Trace>,
}

/// A process that runs.
#[derive(Clone)]
pub struct Live {
    /// Counts the processes of this machine.
    pub life: u64,
    /// Its replica.
    pub group: RaftGroup,
    /// What it has applied.
    pub view: View,
}

/// How processes of this machine ended.
#[derive(Clone, Debug, Default)]
pub struct Ended {
    /// How many ended by themselves.
    pub count: u64,
    /// Of those, how many in a row could not even start.
    pub failed_starts: u64,
    /// What the last of them said; empty after an orderly end.
    pub reason: String,
}

impl BrokerProcess {
    /// A machine with an empty disk.
    pub fn new(machine: Machine, config: BrokerConfig, trace: Arc<Trace>) -> BrokerProcess {
        let disk = SimDisk::new(machine, trace.clone());
        BrokerProcess {
            machine,
            tables: SimTables::new(machine, disk.clone(), trace.clone()),
            disk,
            clock: Arc::default(),
            config: Mutex::new(config),
            live: watch::Sender::new(None),
            stop: Mutex::default(),
            killed: Mutex::default(),
            promised: Mutex::default(),
            ended: watch::Sender::default(),
            served: AtomicU64::new(0),
            trace,
        }
    }

    /// The process that runs now, and each later one.
    pub fn lives(&self) -> watch::Receiver<Option<Live>> {
        self.live.subscribe()
    }

    /// The process that runs now.
    pub fn live(&self) -> Option<Live> {
        self.live.borrow().clone()
    }

    /// Tells when a process ends by itself.
    pub fn ends(&self) -> watch::Receiver<Ended> {
        self.ended.subscribe()
    }

    /// How processes of this machine ended so far.
    pub fn ended(&self) -> Ended {
        self.ended.borrow().clone()
    }

    /// What the next process will be configured with.
    pub fn config(&self) -> MutexGuard<'_, BrokerConfig> {
        self.config.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Asks the process to end in order.
    pub fn ask_to_stop(&self) {
        if let Some(stop) = self.stop().take() {
            stop.shut_down();
        }
    }

    /// How far the log of the process that was ended by force was synced, until the next one starts.
    pub fn synced_when_killed(&self) -> Option<Option<u64>> {
        *self.killed()
    }

    /// The last entry that must be in the log of whoever takes part from now on.
    pub fn must_have(&self) -> Option<u64> {
        *self.promised()
    }

    /// The disk is another one: whoever has it has promised nothing.
    pub fn forget_promises(&self) {
        self.promised().take();
    }

    /// The process is gone, by force: nothing holds its replica any more.
    pub fn forget(&self) {
        if let Some(live) = self.live.send_replace(None) {
            let status = live.group.status();
            *self.killed() = (status.phase == Phase::Running).then_some(status.flushed);
            if status.phase == Phase::Running {
                let mut promised = self.promised();
                *promised = promised.max(status.flushed.min(status.applied));
            }
        }
        self.stop().take();
    }

    /// One process, from start to end. Runs on the machine's node.
    pub async fn run(self: Arc<Self>) {
        let result = self.serve().await;
        self.forget();
        self.disk.unmount();
        let reason = result.err().unwrap_or_default();
        self.trace.tell(format_args!(
            "{} ended: {}",
            self.machine,
            if reason.is_empty() {
                "in order"
            } else {
                &reason
            }
        ));
        self.trace.happened(match reason.is_empty() {
            true => Effect::EndedInOrder,
            false => Effect::EndedWithFailure,
        });
        self.ended.send_modify(|ended| {
            ended.count += 1;
            ended.reason = reason;
        });
    }

    async fn serve(&self) -> Result<(), String> {
        let host = Host {
            clock: self.clock.clone(),
            disk: self.disk.mount(),
        };
        let (trigger, shutdown) = Shutdown::new();
        *self.stop() = Some(trigger);
        self.killed().take();
        let config = self.config().clone();
        self.ended.send_modify(|ended| ended.failed_starts += 1);
        let engine = self.tables.engine(host.disk.clone());
        let starting = Broker::start_with_engine(config, host, engine);
        let started = tokio::select! {
            biased;
            () = shutdown.wait() => return Ok(()),
            started = starting => started,
        };
        let mut broker = started.map_err(|error| format!("did not start: {error}"))?;
        self.ended.send_modify(|ended| ended.failed_starts = 0);
        self.live.send_replace(Some(Live {
            life: self.served.fetch_add(1, Ordering::Relaxed) + 1,
            group: broker.group().clone(),
            view: broker.view().clone(),
        }));
        let failure = broker.run_until(&shutdown).await;
        self.live.send_replace(None);
        broker.stop().await;
        failure.map_or(Ok(()), |failure| Err(failure.to_string()))
    }

    fn promised(&self) -> MutexGuard<'_, Option<u64>> {
        self.promised.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn killed(&self) -> MutexGuard<'_, Option<Option<u64>>> {
        self.killed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn stop(&self) -> MutexGuard<'_, Option<ShutdownTrigger>> {
        self.stop.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
