//! How many databases of RocksDB are open in this process.
//!
//! RocksDB's threads outlive what they lock when a process exits while one is open, and abort it: an orderly end looks like
//! a crash then. The last handle may be let go by any task, so nobody but this count knows when all are closed.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

static OPEN: Mutex<usize> = Mutex::new(0);
static CLOSED: Condvar = Condvar::new();

/// One database, from before it is opened until after it is closed.
pub(super) struct OpenDatabase(());

impl OpenDatabase {
    pub(super) fn new() -> OpenDatabase {
        *open() += 1;
        OpenDatabase(())
    }
}

impl Drop for OpenDatabase {
    fn drop(&mut self) {
        *open() -= 1;
        CLOSED.notify_all();
    }
}

/// Blocks until no database is open in this process, at most `timeout`; whether that came about. For whoever is about to end
/// the process, when nothing is left that would open one.
pub fn wait_until_closed(timeout: Duration) -> bool {
    let waited = CLOSED.wait_timeout_while(open(), timeout, |open| *open > 0);
    let (open, _) = waited.unwrap_or_else(PoisonError::into_inner);
    *open == 0
}

fn open() -> MutexGuard<'static, usize> {
    OPEN.lock().unwrap_or_else(PoisonError::into_inner)
}
