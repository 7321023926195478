//! The registry as the running process holds it: under a lock, with a clock, and published whenever it visibly changes.
//!
//! The lock is held for moments and never across an await. Whoever reads takes the published table, not the lock.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use host::{Clock, Shutdown};
use proto::cluster::{Digest, GossipEntry, Registration};
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, timeout};
use tracing::{debug, info, warn};

use crate::registration::RegistrationError;
use crate::registry::{MonotonicMs, Registered, Registry, RegistryLimits};
use crate::route_table::RouteTable;

/// What this process knows of the cluster. Shared by its services and tasks.
pub(crate) struct Directory {
    registry: Mutex<Registry>,
    published: watch::Sender<Arc<RouteTable>>,
    /// False until the table was filled from a peer, or the wait for one is over.
    filled: watch::Sender<bool>,
    fill_wait: Duration,
    /// Names this run of the process: table versions of different runs do not compare.
    instance: u64,
    clock: Arc<dyn Clock>,
    start: Instant,
    expiry_moved: Notify,
    news: Notify,
}

impl Directory {
    pub(crate) fn new(limits: RegistryLimits, fill_wait: Duration, clock: Arc<dyn Clock>) -> Self {
        Directory {
            registry: Mutex::new(Registry::new(limits)),
            published: watch::Sender::new(Arc::new(RouteTable::default())),
            filled: watch::Sender::new(false),
            fill_wait,
            // Never 0, which stands for a client that knows nothing.
            instance: rand::random::<u64>() | 1,
            clock,
            start: Instant::now(),
            expiry_moved: Notify::new(),
            news: Notify::new(),
        }
    }

    /// Names this run of the process.
    pub(crate) fn instance(&self) -> u64 {
        self.instance
    }

    /// This process's monotonic clock.
    pub(crate) fn now(&self) -> MonotonicMs {
        u64::try_from(self.start.elapsed().as_millis()).unwrap_or(MonotonicMs::MAX)
    }

    /// The newest table.
    pub(crate) fn table(&self) -> Arc<RouteTable> {
        self.published.borrow().clone()
    }

    /// The newest table, and each later one. A slow reader skips states and sees the newest.
    pub(crate) fn watch(&self) -> watch::Receiver<Arc<RouteTable>> {
        self.published.subscribe()
    }

    /// A leader registers or renews. News is gossiped at once.
    pub(crate) fn register(
        &self,
        registration: Registration,
        lease_ms: u64,
    ) -> Result<Registered, RegistrationError> {
        let wall_ms = self.clock.now_ms();
        let (group, leader) = (registration.group.clone(), registration.leader);
        let (epoch, version) = (registration.epoch, registration.version);
        let (outcome, news) =
            self.change(|registry, now| registry.register(registration, lease_ms, wall_ms, now));
        if news {
            info!(group, epoch, version, leader, "a broker group registered");
            self.news.notify_one();
        }
        outcome
    }

    /// Takes what a peer sent. What makes no sense is left out.
    pub(crate) fn merge(&self, peer: &str, entries: Vec<GossipEntry>) {
        if entries.is_empty() {
            return;
        }
        self.change(|registry, now| {
            for entry in entries {
                if let Err(error) = registry.merge(entry, now) {
                    warn!(peer, %error, "peer sent a registration that is refused");
                }
            }
        });
    }

    /// What has expired and is still remembered.
    pub(crate) fn expired(&self) -> Vec<Registration> {
        self.locked(|registry| {
            let expired = registry.expired();
            expired.map(|held| Registration::clone(held)).collect()
        })
    }

    pub(crate) fn digests(&self) -> Vec<Digest> {
        self.locked(Registry::digests)
    }

    pub(crate) fn newer_than(&self, digests: &[Digest], bytes_max: usize) -> Vec<GossipEntry> {
        self.locked(|registry| registry.newer_than(digests, bytes_max))
    }

    pub(crate) fn wanted(&self, digests: &[Digest]) -> Vec<String> {
        self.locked(|registry| registry.wanted(digests))
    }

    pub(crate) fn entries(&self, groups: &[String], bytes_max: usize) -> (Vec<GossipEntry>, usize) {
        self.locked(|registry| registry.entries(groups, bytes_max))
    }

    /// Returns when a registration here changed the table, once per change since the last call.
    pub(crate) async fn news(&self) {
        self.news.notified().await;
    }

    /// From now on clients are answered.
    pub(crate) fn set_filled(&self) {
        if !self.filled.send_replace(true) {
            info!(
                groups = self.table().registrations().len(),
                "the table is filled"
            );
        }
    }

    /// Returns when clients may be answered: the table was filled, or the wait for a peer is over.
    pub(crate) async fn filled(&self) {
        let mut filled = self.filled.subscribe();
        let wait = filled.wait_for(|filled| *filled);
        if timeout(self.fill_wait, wait).await.is_err() {
            debug!("answering although no peer has filled the table");
        }
    }

    /// Hides registrations when their leases end, until `shutdown`.
    pub(crate) async fn expire_until(&self, shutdown: &Shutdown) {
        loop {
            let next = self.locked(Registry::next_expiry);
            let due = async {
                match next {
                    Some(at) => {
                        tokio::time::sleep_until(self.start + Duration::from_millis(at)).await
                    }
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                () = shutdown.wait() => return,
                () = due => {
                    if let ((), true) = self.change(|registry, now| registry.expire(now)) {
                        info!("a broker group was not renewed in time and is hidden");
                    }
                }
                () = self.expiry_moved.notified() => {}
            }
        }
    }

    fn locked<R>(&self, read: impl FnOnce(&Registry) -> R) -> R {
        read(
            &self
                .registry
                .lock()
                .expect("nothing panics while the registry is locked"),
        )
    }

    /// Changes the registry; publishes the table and returns true if it visibly changed. All under the lock, so that
    /// tables come in order.
    fn change<R>(&self, change: impl FnOnce(&mut Registry, MonotonicMs) -> R) -> (R, bool) {
        let mut registry = self
            .registry
            .lock()
            .expect("nothing panics while the registry is locked");
        let (version, expiry) = (registry.version(), registry.next_expiry());
        let result = change(&mut registry, self.now());
        let changed = registry.version() != version;
        if changed {
            let registrations = registry.visible().cloned().collect();
            let table = RouteTable::new(registry.version(), registrations);
            self.published.send_replace(Arc::new(table));
        }
        if registry.next_expiry() != expiry {
            self.expiry_moved.notify_one();
        }
        (result, changed)
    }
}
