//! What must not be removed because a snapshot that is being sent reads it.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};

/// Who reads, and from which log index on.
#[derive(Clone, Debug, Default)]
pub(crate) struct Holds {
    inner: Arc<Mutex<Inner>>,
}

#[derive(Debug, Default)]
struct Inner {
    next: u64,
    held: BTreeMap<u64, u64>,
}

/// Keeps checkpoints, and segments from an index on, until it is dropped.
#[derive(Debug)]
pub(crate) struct Hold {
    holds: Holds,
    number: u64,
}

impl Holds {
    /// Keeps every checkpoint, and the segments that hold entries from `first_index` on.
    pub(crate) fn take(&self, first_index: u64) -> Hold {
        let mut inner = self.lock();
        let number = inner.next;
        inner.next += 1;
        inner.held.insert(number, first_index);
        Hold {
            holds: self.clone(),
            number,
        }
    }

    pub(crate) fn count(&self) -> usize {
        self.lock().held.len()
    }

    pub(crate) fn lowest_segment(&self) -> Option<u64> {
        self.lock().held.values().min().copied()
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // Plain numbers: nothing is half done if a holder panicked.
        self.inner.lock().unwrap_or_else(|error| error.into_inner())
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        self.holds.lock().held.remove(&self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Catches segments that are recycled while a snapshot reads them, and ones kept forever.
    #[test]
    fn the_lowest_holder_counts_until_it_is_gone() {
        let holds = Holds::default();
        let high = holds.take(9);
        let low = holds.take(4);
        assert_eq!(holds.lowest_segment(), Some(4));
        drop(low);
        assert_eq!(holds.lowest_segment(), Some(9));
        drop(high);
        assert_eq!(holds.count(), 0);
    }
}
