//! A name server: the shipped one, started on a machine of the world, and watched.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use host::{Host, Shutdown, ShutdownTrigger};
use nameserver::route_table::RouteTable;
use nameserver::{NameServer, NameServerConfig};
use tokio::sync::watch;

use crate::clock::SimClock;
use crate::disk::SimDisk;
use crate::machine::Machine;
use crate::trace::Trace;

/// A name server's machine. It keeps nothing on its disk.
pub struct NameServerProcess {
    /// Which machine.
    pub machine: Machine,
    /// Its clock.
    pub clock: Arc<SimClock>,
    config: NameServerConfig,
    disk: SimDisk,
    tables: watch::Sender<Option<Tables>>,
    stop: Mutex<Option<ShutdownTrigger>>,
    trace: Arc<Trace>,
}

/// The route tables of a process that runs.
pub type Tables = watch::Receiver<Arc<RouteTable>>;

impl NameServerProcess {
    /// A machine whose name server is not started yet.
    pub fn new(machine: Machine, config: NameServerConfig, trace: Arc<Trace>) -> NameServerProcess {
        NameServerProcess {
            machine,
            clock: Arc::default(),
            config,
            disk: SimDisk::new(machine, trace.clone()),
            tables: watch::Sender::new(None),
            stop: Mutex::default(),
            trace,
        }
    }

    /// The tables of the process that runs now, and of each later one.
    pub fn lives(&self) -> watch::Receiver<Option<Tables>> {
        self.tables.subscribe()
    }

    /// The table that it has now, if it runs.
    pub fn table(&self) -> Option<Arc<RouteTable>> {
        let tables = self.tables.borrow();
        let table = tables.as_ref()?.borrow().clone();
        Some(table)
    }

    /// Asks the process to end in order.
    pub fn ask_to_stop(&self) {
        if let Some(stop) = self.stop().take() {
            stop.shut_down();
        }
    }

    /// The process is gone, by force.
    pub fn forget(&self) {
        self.tables.send_replace(None);
        self.stop().take();
    }

    /// One process, from start to end. Runs on the machine's node.
    pub async fn run(self: Arc<Self>) {
        let host = Host {
            clock: self.clock.clone(),
            disk: self.disk.mount(),
        };
        let (trigger, shutdown) = Shutdown::new();
        *self.stop() = Some(trigger);
        let ended = match NameServer::start(self.config.clone(), host, shutdown).await {
            Ok(server) => {
                self.tables.send_replace(Some(server.tables()));
                server.stopped().await
            }
            Err(error) => Err(error),
        };
        self.forget();
        match ended {
            Ok(()) => self
                .trace
                .tell(format_args!("{} ended: in order", self.machine)),
            Err(error) => self
                .trace
                .tell(format_args!("{} ended: {error}", self.machine)),
        }
    }

    fn stop(&self) -> MutexGuard<'_, Option<ShutdownTrigger>> {
        self.stop.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
