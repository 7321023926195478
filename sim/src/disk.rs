//! A machine's disk: it outlives the machine's processes, and it lies.
//!
//! Models, on demand: power cuts after which unsynced bytes and names are kept, lost or torn; slow syncs;
//! errors of single reads, writes and syncs (after a failed sync the page cache lies); a file system that
//! is full or nearly so; bits that flip, blocks written to the wrong place and sectors that cannot be read any more, at rest.
//! Synced bytes are never lost otherwise.
//!
//! Lies on `host`'s crashing disk, which keeps what a power cut would leave.

mod live;
mod rot;

use std::collections::BTreeSet;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures::FutureExt;
use host::Disk;
use host::testing::CrashDisk;
use madsim::rand::Rng;
use serde::{Deserialize, Serialize};

use crate::effect::Effect;
use crate::machine::Machine;
use crate::trace::Trace;
use live::LiveDisk;

/// How long a sync takes while nothing is wrong.
const SYNC: Range<Duration> = Duration::from_micros(200)..Duration::from_millis(4);

/// What can fail once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Failing {
    /// A read of a file.
    Read,
    /// A write, of which half is done.
    Write,
    /// A sync.
    Sync,
}

/// How much room there is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Room {
    /// More than anybody needs.
    #[default]
    Plenty,
    /// So many bytes are said to be free; everything still works.
    Free(u64),
    /// Nothing grows any more.
    Full,
}

/// A disk. Cheap to clone; clones are the same disk.
#[derive(Clone)]
pub struct SimDisk {
    inner: CrashDisk,
    state: Arc<Mutex<State>>,
    trace: Arc<Trace>,
    machine: Machine,
}

/// What a disk held once.
pub struct DiskCopy(Vec<(PathBuf, Bytes)>);

struct State {
    /// Counts the processes that used the disk; only the last one's handles work.
    life: u64,
    locks: BTreeSet<PathBuf>,
    failing: Vec<Failing>,
    room: Room,
    sync: Range<Duration>,
    /// Whether only the log's syncs take longer than usual.
    slow_log: bool,
}

impl SimDisk {
    /// The empty disk of a machine.
    pub fn new(machine: Machine, trace: Arc<Trace>) -> SimDisk {
        let state = State {
            life: 0,
            locks: BTreeSet::new(),
            failing: Vec::new(),
            room: Room::Plenty,
            sync: SYNC,
            slow_log: false,
        };
        SimDisk {
            inner: CrashDisk::new(),
            state: Arc::new(Mutex::new(state)),
            trace,
            machine,
        }
    }

    /// The disk as a new process sees it. Handles of earlier processes are dead.
    pub fn mount(&self) -> Arc<dyn Disk> {
        let mut state = self.state();
        state.life += 1;
        state.locks.clear();
        Arc::new(LiveDisk::new(self.clone(), state.life))
    }

    /// The process dies: nothing is lost, and nothing more comes from it.
    pub fn unmount(&self) {
        let mut state = self.state();
        state.life += 1;
        state.locks.clear();
    }

    /// The power fails. What was not synced fares as `seed` says.
    pub fn lose_power(&self, seed: u64) {
        self.unmount();
        let lost = self.inner.crash(seed);
        if matches!(self.machine, Machine::Client(_)) {
            let forgotten = lost.writes + lost.torn + lost.creates + lost.renames;
            self.trace.happened_times(Effect::ClientForgot, forgotten);
        }
        for (effect, times) in [
            (Effect::WriteKept, lost.kept),
            (Effect::WriteForgotten, lost.writes),
            (Effect::WriteTorn, lost.torn),
            (Effect::CreateForgotten, lost.creates),
            (Effect::RemoveForgotten, lost.removes),
            (Effect::RenameForgotten, lost.renames),
        ] {
            self.trace.happened_times(effect, times);
        }
    }

    /// Everything on it is gone, for good.
    pub fn wipe(&self) {
        self.unmount();
        let root = Path::new("/");
        for path in self.inner.list(root).unwrap_or_default() {
            // What is no directory has no place there.
            let _ = self.inner.remove_dir_all(&path);
        }
        let synced = self.inner.sync_dir(root).now_or_never();
        assert!(
            matches!(synced, Some(Ok(()))),
            "a disk in memory syncs at once"
        );
    }

    /// All that is on it now, whether it was synced or not: what somebody copies who does not stop the process.
    pub fn copy(&self) -> DiskCopy {
        let mut files = Vec::new();
        self.files_below(Path::new("/"), &mut files);
        let content = |(path, _): (PathBuf, u64)| {
            let bytes = self.content(&path)?;
            Some((path, bytes))
        };
        DiskCopy(files.into_iter().filter_map(content).collect())
    }

    /// Whether there is such a file or directory.
    pub fn has(&self, path: &Path) -> bool {
        self.inner.exists(path)
    }

    /// What is in a file now, if there is one, whether or not a process could read it.
    pub fn content(&self, path: &Path) -> Option<Bytes> {
        self.inner.content(path).ok()
    }

    /// Writes a file for good, as no process does.
    pub fn put(&self, path: &Path, bytes: &Bytes) {
        let synced = |synced: Option<std::io::Result<()>>| {
            assert!(
                matches!(synced, Some(Ok(()))),
                "a disk in memory syncs at once"
            );
        };
        let put = || -> std::io::Result<()> {
            for above in path.ancestors().skip(1) {
                self.inner.create_dir_all(above)?;
            }
            let file = self.inner.create(path)?;
            file.write_at(0, std::slice::from_ref(bytes))?;
            synced(file.sync().now_or_never());
            for above in path.ancestors().skip(1) {
                synced(self.inner.sync_dir(above).now_or_never());
            }
            Ok(())
        };
        put().expect("a disk in memory takes what it is given");
    }

    /// Everything on it is gone, and a copy of what was there earlier is in its place, for good.
    pub fn put_back(&self, copy: &DiskCopy) {
        self.wipe();
        for (path, bytes) in &copy.0 {
            self.put(path, bytes);
        }
    }

    /// Nobody will ever want it again.
    pub fn discard(&self) {
        self.unmount();
        self.inner.discard();
    }

    /// The next operation of this kind fails.
    pub fn fail_next(&self, failing: Failing) {
        self.state().failing.push(failing);
    }

    /// Sets how much room there is.
    pub fn set_room(&self, room: Room) {
        self.state().room = room;
    }

    /// Lets syncs take up to so long: all of them, or those of the log, which then falls behind what is
    /// made of it.
    pub fn slow_syncs(&self, longest: Duration) {
        let mut state = self.state();
        state.sync = SYNC.start..longest.max(SYNC.end);
        let has_log = matches!(self.machine, Machine::Broker(_));
        state.slow_log = has_log && madsim::rand::thread_rng().gen_bool(0.5);
    }

    /// Everything works from now on. What rotted stays rotten, and what cannot be read stays so.
    pub fn heal(&self) {
        let mut state = self.state();
        state.failing.clear();
        state.room = Room::Plenty;
        state.sync = SYNC;
    }

    fn takes_failure(&self, failing: Failing) -> bool {
        let mut state = self.state();
        let place = state.failing.iter().position(|armed| *armed == failing);
        place.is_some_and(|place| {
            state.failing.remove(place);
            true
        })
    }

    /// Drawn for each sync.
    fn sync_time(&self, path: &Path) -> Duration {
        let is_log = path.extension().is_some_and(|suffix| suffix == "seg");
        let state = self.state();
        let range = match state.slow_log && !is_log {
            true => SYNC,
            false => state.sync.clone(),
        };
        drop(state);
        madsim::rand::thread_rng().gen_range(range)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
