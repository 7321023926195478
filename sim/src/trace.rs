//! What happened in a world, in order, as a hash; and how often each kind of thing did.
//!
//! Every message, disk operation and change of state is told here with its simulated time. Two runs of
//! one seed must tell the same. Never influences what it is told of.

use std::collections::BTreeMap;
use std::fmt::{self, Write as _};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use madsim::time::TimeHandle;

use crate::effect::{Effect, FaultKind};

/// Time since the world began.
pub fn now() -> Duration {
    TimeHandle::try_current().map_or(Duration::ZERO, |time| time.elapsed())
}

/// A world's trace.
#[derive(Debug, Default)]
pub struct Trace {
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    hash: Fnv,
    events: u64,
    /// Kept only when two runs are to be compared line by line.
    lines: Option<Vec<String>>,
    story: Vec<String>,
    counts: BTreeMap<String, u64>,
}

/// What is left of a trace when its world has ended.
#[derive(Clone, Debug, Default)]
pub struct Traced {
    /// Of everything that was told.
    pub hash: u64,
    /// How much that was.
    pub events: u64,
    /// All of it, if it was kept.
    pub lines: Vec<String>,
    /// What a person wants to read.
    pub story: Vec<String>,
    /// How often each thing happened, by name.
    pub counts: BTreeMap<String, u64>,
}

impl Trace {
    /// A trace that keeps its lines too, or only their hash.
    pub fn new(keep_lines: bool) -> Trace {
        let inner = Inner {
            lines: keep_lines.then(Vec::new),
            ..Inner::default()
        };
        Trace {
            inner: Mutex::new(inner),
        }
    }

    /// Something happened.
    pub fn event(&self, what: fmt::Arguments<'_>) {
        let time = now().as_nanos();
        let mut inner = self.inner();
        inner.events += 1;
        // Hashing never fails.
        let _ = writeln!(inner.hash, "{time} {what}");
        if let Some(lines) = &mut inner.lines {
            lines.push(format!("{time} {what}"));
        }
    }

    /// Something happened that belongs into the story of the world.
    pub fn tell(&self, what: fmt::Arguments<'_>) {
        self.event(what);
        let seconds = now().as_secs_f64();
        self.inner().story.push(format!("{seconds:10.3} s  {what}"));
    }

    /// Counts one more of `name`.
    pub fn count(&self, name: &str) {
        self.count_many(name, 1);
    }

    /// A fault struck.
    pub fn struck(&self, kind: FaultKind) {
        self.count(&format!("fault {}", kind.name()));
    }

    /// How many faults struck so far.
    pub fn faults(&self) -> u64 {
        let inner = self.inner();
        let counts = inner.counts.iter();
        let faults = counts.filter(|(name, _)| name.starts_with("fault "));
        faults.map(|(_, count)| count).sum()
    }

    /// Something came of the faults.
    pub fn happened(&self, effect: Effect) {
        self.happened_times(effect, 1);
    }

    /// The same, several times, or not at all.
    pub fn happened_times(&self, effect: Effect, times: u64) {
        if times > 0 {
            self.count_many(&format!("effect {}", effect.name()), times);
        }
    }

    /// Counts several more of `name`.
    pub fn count_many(&self, name: &str, many: u64) {
        let mut inner = self.inner();
        match inner.counts.get_mut(name) {
            Some(count) => *count += many,
            None => drop(inner.counts.insert(name.to_owned(), many)),
        }
    }

    /// How often `name` was counted so far.
    pub fn counted(&self, name: &str) -> u64 {
        self.inner().counts.get(name).copied().unwrap_or(0)
    }

    /// What there is to keep of it.
    pub fn finish(&self) -> Traced {
        let mut inner = self.inner();
        Traced {
            hash: inner.hash.0,
            events: inner.events,
            lines: inner.lines.take().unwrap_or_default(),
            story: std::mem::take(&mut inner.story),
            counts: std::mem::take(&mut inner.counts),
        }
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// FNV-1a over whatever is written to it.
#[derive(Debug)]
struct Fnv(u64);

impl Default for Fnv {
    fn default() -> Fnv {
        Fnv(0xcbf2_9ce4_8422_2325)
    }
}

impl fmt::Write for Fnv {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for byte in text.bytes() {
            self.0 = (self.0 ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
        Ok(())
    }
}
