//! Broker groups that were lost, and go on from a copy of the disk of one of their replicas.
//!
//! Does what the guide says (`docs/operations.md`, Restore): the copy becomes the only replica of its group under a number that
//! was never used. Those who were lost are never started again: they would be a second group of that name.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use host::Host;
use raft::Restored;
use store::{Inspection, LogId};

use super::World;
use crate::broker_group::BrokerGroup;
use crate::broker_process::BrokerProcess;
use crate::disk::DiskCopy;
use crate::machine::{CLIENT_PORT, Machine, PEER_PORT};

/// What became of broker groups.
#[derive(Default)]
pub(super) struct RestoredGroups {
    lost: Mutex<BTreeSet<Machine>>,
    /// Histories that began, of all groups together.
    histories: AtomicU64,
    /// Of each group: how many began without what was committed last.
    behind: Mutex<BTreeMap<BrokerGroup, u64>>,
}

impl World {
    /// Nothing of what the group has now is ever started again. Who runs goes on until it is ended.
    pub fn lose(&self, group: BrokerGroup) -> Vec<Arc<BrokerProcess>> {
        let mut brokers = self.brokers_of(group);
        brokers.retain(|broker| !self.is_lost(broker.machine));
        let lost = self.restored.lost.lock();
        let mut lost = lost.unwrap_or_else(PoisonError::into_inner);
        lost.extend(brokers.iter().map(|broker| broker.machine));
        brokers
    }

    /// Whether a machine is never started again.
    pub fn is_lost(&self, machine: Machine) -> bool {
        let lost = self.restored.lost.lock();
        let lost = lost.unwrap_or_else(PoisonError::into_inner);
        lost.contains(&machine)
    }

    /// How many histories have taken the place of one that was lost.
    pub fn histories(&self) -> u64 {
        self.restored.histories.load(Ordering::Relaxed)
    }

    /// How many of a group's histories began without what had been committed last.
    pub fn histories_behind(&self, group: BrokerGroup) -> u64 {
        let behind = self.restored.behind.lock();
        let behind = behind.unwrap_or_else(PoisonError::into_inner);
        behind.get(&group).copied().unwrap_or(0)
    }

    /// Another history of a group begins, in which only this broker votes. `is_behind` if it may lack what was committed.
    pub fn begin_history(&self, group: BrokerGroup, first: u8, is_behind: bool) {
        self.restored.histories.fetch_add(1, Ordering::Relaxed);
        if is_behind {
            let behind = self.restored.behind.lock();
            let mut behind = behind.unwrap_or_else(PoisonError::into_inner);
            *behind.entry(group).or_default() += 1;
        }
        let members = self.members.lock();
        let mut members = members.unwrap_or_else(PoisonError::into_inner);
        members.insert(group, (None, vec![first]));
    }

    /// The last entry on a broker's disk, as `log inspect` says. Its process has ended.
    pub fn last_entry(&self, broker: &BrokerProcess) -> Result<Option<LogId>, String> {
        let path = broker.config().data_dir.clone();
        let looking = || -> store::Result<Option<LogId>> {
            let inspection = Inspection::open(&host_of(broker), &path)?;
            let segments = inspection.segments(|_, _| {})?;
            Ok(segments.iter().filter_map(|segment| segment.last).max())
        };
        let last = looking().map_err(|error| error.to_string());
        broker.disk.unmount();
        last
    }

    /// Makes a copy of a disk the first replica of its group, as `log restore` does, and starts it.
    pub async fn restore(self: &Arc<Self>, id: u8, copy: &DiskCopy) -> Result<Restored, String> {
        let broker = self.new_broker(id, &[id]);
        broker.disk.put_back(copy);
        let (host, machine) = (host_of(&broker), broker.machine);
        let path = broker.config().data_dir.clone();
        let member = raft::Member {
            broker_id: id.into(),
            peer_address: machine.address(PEER_PORT),
            client_address: machine.address(CLIENT_PORT),
        };
        let begins = |number| broker::history_begins(number, host.clock.now_ms());
        let restored = raft::restore(&host, &path, &member, None, &begins).await;
        broker.disk.unmount();
        let restored = restored.map_err(|error| error.to_string())?;
        self.install(broker);
        Ok(restored)
    }
}

/// What a command that is run on the machine may ask of it, beside its broker.
fn host_of(broker: &BrokerProcess) -> Host {
    Host {
        clock: broker.clock.clone(),
        disk: broker.disk.mount(),
    }
}
