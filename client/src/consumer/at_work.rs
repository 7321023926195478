//! Of one queue: the deliveries that were handed out one by one and are not finished. Pure.
//!
//! Progress never passes the lowest of them. A delivery that failed and is to be handed out again waits here too, until
//! its time has come: it is not finished.

use std::collections::BTreeMap;

use tokio::time::Instant;

use crate::consumer::delivery::{Delivery, size};

/// See the module's text.
#[derive(Debug, Default)]
pub(super) struct AtWork {
    unfinished: BTreeMap<u64, Unfinished>,
    /// Those that are handed out again, by the time from which on.
    waiting: BTreeMap<(Instant, u64), Delivery>,
    bytes: usize,
    running: usize,
}

#[derive(Debug)]
struct Unfinished {
    bytes: usize,
    /// The servers may have taken it back although they did not say so.
    maybe_handed_back: bool,
}

impl AtWork {
    /// The lowest offset that is not finished.
    pub(super) fn lowest(&self) -> Option<u64> {
        self.unfinished.keys().next().copied()
    }

    pub(super) fn len(&self) -> usize {
        self.unfinished.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.unfinished.is_empty()
    }

    /// Of all that is not finished.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Deliveries in somebody's hands.
    pub(super) fn running(&self) -> usize {
        self.running
    }

    /// A delivery is handed out for the first time.
    pub(super) fn begin(&mut self, delivery: &Delivery) {
        let bytes = size(delivery);
        let unfinished = Unfinished {
            bytes,
            maybe_handed_back: false,
        };
        let before = self.unfinished.insert(delivery.offset, unfinished);
        assert!(before.is_none(), "an offset is handed out once at a time");
        self.bytes += bytes;
        self.running += 1;
    }

    /// A delivery in somebody's hands is finished with.
    pub(super) fn finish(&mut self, offset: u64) {
        if let Some(unfinished) = self.unfinished.remove(&offset) {
            self.bytes -= unfinished.bytes;
            self.running -= 1;
        }
    }

    /// A delivery comes back unfinished, to be handed out again from `due` on.
    pub(super) fn again(&mut self, delivery: Delivery, due: Instant, maybe_handed_back: bool) {
        if let Some(unfinished) = self.unfinished.get_mut(&delivery.offset) {
            unfinished.maybe_handed_back |= maybe_handed_back;
            self.waiting.insert((due, delivery.offset), delivery);
            self.running -= 1;
        }
    }

    /// Whether the servers may have a retry of a delivery.
    pub(super) fn maybe_handed_back(&self, offset: u64) -> bool {
        let unfinished = self.unfinished.get(&offset);
        unfinished.is_some_and(|unfinished| unfinished.maybe_handed_back)
    }

    /// The offsets of which the servers may have retries.
    pub(super) fn perhaps_handed_back(&self) -> impl Iterator<Item = u64> {
        let suspects = self.unfinished.iter();
        suspects
            .filter(|(_, unfinished)| unfinished.maybe_handed_back)
            .map(|(offset, _)| *offset)
    }

    /// When the next one is to be handed out again.
    pub(super) fn next_due(&self) -> Option<Instant> {
        self.waiting.keys().next().map(|(due, _)| *due)
    }

    /// The next one to hand out again, if its time has come.
    pub(super) fn take_due(&mut self, now: Instant) -> Option<Delivery> {
        if self.next_due()? > now {
            return None;
        }
        self.running += 1;
        self.waiting.pop_first().map(|(_, delivery)| delivery)
    }
}
