//! What holds a machine's tables: it outlives the machine's processes, and it fails as RocksDB does.
//!
//! Models, on demand: writes that have to wait (a write stall, in which reads go on); writes, flushes and checkpoints that
//! fail, once or for a while; checkpoints that take long; blocks that rot, and files that cannot be opened. What the tables
//! hold is kept by the product's own engine in memory, which the simulated disk may spoil as well.
//!
//! ```text
//! RocksDB                                                    here
//! too many full buffers, or files that nothing merged yet    `ready` waits, half a minute at most; so do flushes
//! a flush fails                                              every later write, flush and checkpoint fails; reads go on
//! a compaction meets rot                                     the same, and says that it is rot
//! a block's checksum is wrong                                who reads a row of it is told; checkpoints link the file
//! the disk does not give a block back                        the same, but the checkpoint says so too
//! a manifest rots                                            the next start cannot open it
//! ```

mod engine;
mod forgetting;
mod rot;
#[cfg(test)]
mod tables_test;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use host::Disk;
use serde::{Deserialize, Serialize};
use store::KvEngine;

use crate::disk::SimDisk;
use crate::machine::Machine;
use crate::trace::{Trace, now};

use engine::{FaultyEngine, FaultyKv};
pub use rot::Rotten;
use rot::{ROT, Rot};

/// What of the tables can fail once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Failing {
    /// A write, and all after it.
    Write,
    /// A flush, and all writes after it.
    Flush,
    /// A checkpoint.
    Checkpoint,
}

/// What holds a machine's tables. Cheap to clone; clones are the same.
#[derive(Clone)]
pub struct SimTables {
    machine: Machine,
    disk: SimDisk,
    state: Arc<Mutex<State>>,
    trace: Arc<Trace>,
}

#[derive(Default)]
struct State {
    /// Counts the processes that used it.
    life: u64,
    /// Until when, in the world's time, writes wait.
    stalled_until: Duration,
    /// Until when writes fail, and nothing can be opened.
    refuses_until: Duration,
    /// The longest that a checkpoint takes beyond what the disk needs.
    checkpoint_longest: Duration,
    failing: Vec<Failing>,
    /// Checkpoints under way that take long.
    slow_checkpoints: u64,
    /// The tables that were opened last.
    open: Weak<FaultyKv>,
    dir: PathBuf,
    /// How old what brokers remember is at the least when it goes because it is old.
    remembered_ms: u64,
    /// The processes that each rot was shown to.
    shown: BTreeMap<u64, BTreeSet<u64>>,
}

impl SimTables {
    /// The tables of a machine.
    pub fn new(machine: Machine, disk: SimDisk, trace: Arc<Trace>) -> SimTables {
        SimTables {
            machine,
            disk,
            state: Arc::default(),
            trace,
        }
    }

    /// What is remembered for a while only is kept for so long, at the least.
    pub fn remember_for(&self, ms: u64) {
        self.state().remembered_ms = ms;
    }

    /// The engine of a new process, which sees `disk`.
    pub fn engine(&self, disk: Arc<dyn Disk>) -> Arc<dyn KvEngine> {
        let mut state = self.state();
        state.life += 1;
        Arc::new(FaultyEngine::new(self.clone(), disk, state.life))
    }

    /// Writes have to wait for so long.
    pub fn stall(&self, duration: Duration) {
        self.state().stalled_until = now() + duration;
    }

    /// Whether writes have to wait.
    pub fn stalls(&self) -> bool {
        now() < self.state().stalled_until
    }

    /// For so long writes fail, and nothing can be opened.
    pub fn refuse(&self, duration: Duration) {
        self.state().refuses_until = now() + duration;
    }

    fn refuses(&self) -> bool {
        now() < self.state().refuses_until
    }

    /// Checkpoints take up to so long.
    pub fn slow_checkpoints(&self, longest: Duration) {
        self.state().checkpoint_longest = longest;
    }

    /// Whether a checkpoint is being made that takes long.
    pub fn is_at_a_slow_checkpoint(&self) -> bool {
        self.state().slow_checkpoints > 0
    }

    /// The next operation of this kind fails.
    pub fn fail_next(&self, failing: Failing) {
        self.state().failing.push(failing);
    }

    /// A part of the tables rots that is chosen by `seed`. Tells which, if there are tables.
    pub fn rot(&self, seed: u64, how: Rotten) -> Option<String> {
        let (open, dir) = {
            let state = self.state();
            (state.open.upgrade(), state.dir.clone())
        };
        let path = dir.join(ROT);
        if !self.disk.has(&dir) {
            return None;
        }
        let rot = match &open {
            Some(open) if how != Rotten::File => Rot::of_block(open.inner(), seed, how)?,
            _ => Rot::of_file(seed),
        };
        let mut all = Rot::read(self.disk.content(&path));
        all.push(rot.clone());
        self.disk.put(&path, &Rot::write(&all));
        if let Some(open) = open {
            open.rots(rot.clone());
        }
        Some(format!("{rot} in {}", dir.display()))
    }

    /// Of all that rotted here, the most processes of this machine that the same rot was shown to.
    pub fn shown_to(&self) -> usize {
        let state = self.state();
        let shown = state.shown.values().map(BTreeSet::len);
        shown.max().unwrap_or(0)
    }

    /// Everything works from now on. What rotted stays rotten.
    pub fn heal(&self) {
        let mut state = self.state();
        state.stalled_until = Duration::ZERO;
        state.refuses_until = Duration::ZERO;
        state.checkpoint_longest = Duration::ZERO;
        state.failing.clear();
    }

    fn takes_failure(&self, failing: Failing) -> bool {
        let mut state = self.state();
        let place = state.failing.iter().position(|armed| *armed == failing);
        place.is_some_and(|place| {
            state.failing.remove(place);
            true
        })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
