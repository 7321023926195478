//! The replicated state machine: what committed entries make of topics, queues and consumer groups.
//!
//! `apply` is a function of (tables, entry). The leader's entries come through here on every replica,
//! in the same order, and leave the same rows and the same replies everywhere. What is in memory
//! mirrors the rows, so that applying reads no table but to find where retention cuts, and where a message
//! stands that is sent back.
//!
//! Under one write lock: change memory, fill the batch, commit it; readers ([`View`]) see the outcome
//! of a whole call or nothing of it. The cost of an append is that of its batch: message ids come as
//! runs, sizes are only summed.
//!
//! Must never: read a clock, draw a random number, open a file, iterate over a hash map, or let what
//! an entry says make it panic.

mod append;
mod apply;
mod arrival_registry;
mod changes;
pub(crate) mod dead_letter;
mod dead_letters;
pub(crate) mod dedup;
mod delete_topic;
mod drop_log;
pub(crate) mod entry;
mod families;
mod group;
mod history;
mod keep;
pub(crate) mod limits;
mod offset;
mod record;
mod references;
mod restore;
mod retries;
mod send_back;
pub(crate) mod settings;
mod settle;
mod settled;
mod shared;
mod state;
mod topic;

#[cfg(test)]
mod dedup_test;
#[cfg(test)]
mod machine_test;
#[cfg(test)]
mod model_test;
#[cfg(test)]
mod redelivery_test;
#[cfg(test)]
pub(crate) mod testing;

use std::sync::Arc;

use bytes::Bytes;
use raft::{Application, Committed};
use store::{Batch, CommitLog, Kv, StoreError};

use self::changes::Changes;
pub(crate) use self::families::FAMILIES;
pub use self::history::history_begins;
pub(crate) use self::references::Location;
pub(crate) use self::retries::{Due, Retry};
pub(crate) use self::shared::Shared;
pub(crate) use self::state::{State, Storage};
use crate::view::View;

/// The state machine of one replica.
pub struct Machine {
    shared: Arc<Shared>,
    /// A commit failed: memory is ahead of the tables, nothing may build on it.
    failed: bool,
}

impl Machine {
    /// An empty machine, which must be [restored](Application::restore) before anything else, and
    /// the handle for its readers.
    pub fn new() -> (Machine, View) {
        let shared = Arc::new(Shared::new());
        let machine = Machine {
            shared: shared.clone(),
            failed: false,
        };
        (machine, View::new(shared))
    }
}

impl Application for Machine {
    fn apply(
        &mut self,
        entries: &[Committed],
        commit: &mut (dyn FnMut(Batch) -> Result<(), StoreError> + '_),
    ) -> Result<Vec<Bytes>, StoreError> {
        if self.failed {
            return Err(StoreError::Closed);
        }
        // Until the commit is done, any way out of here leaves memory ahead of the tables.
        self.failed = true;
        let mut changes = Changes::default();
        let replies = self.shared.change(|state| {
            let replies = entries
                .iter()
                .map(|committed| apply::entry(state, &mut changes, committed))
                .collect::<Result<Vec<Bytes>, StoreError>>()?;
            changes.settle(state);
            commit(changes.take_batch())?;
            Ok::<_, StoreError>(replies)
        })?;
        self.failed = false;
        self.shared.publish(&changes);
        Ok(replies)
    }

    fn restore(&mut self, kv: Arc<dyn Kv>, log: CommitLog) -> Result<(), StoreError> {
        let state = restore::load(
            &*kv,
            Storage {
                kv: kv.clone(),
                log,
            },
        )?;
        self.shared.replace(state);
        self.failed = false;
        Ok(())
    }

    fn log_floor(&self) -> u64 {
        self.shared.look(|state| state.log_floor)
    }
}
