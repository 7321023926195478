//! Of one queue: the retries that its owner took from the servers and has not settled. Pure.
//!
//! Progress has passed them; the servers keep each until it is settled or handed back again. So what is dropped here is
//! not lost: the servers hand it out again.

use std::collections::{BTreeMap, VecDeque};

use crate::consumer::delivery::{Delivery, size};

/// Retries of one queue that are held at once.
pub(super) const RETRIES_HELD_MAX: usize = 32;

/// See the module's text.
#[derive(Debug, Default)]
pub(super) struct Retries {
    ready: VecDeque<Delivery>,
    /// Offsets of those that are ready and those in somebody's hands, and the bytes of each.
    held: BTreeMap<u64, usize>,
    bytes: usize,
    running: usize,
}

impl Retries {
    /// How many more may be taken.
    pub(super) fn room(&self) -> usize {
        RETRIES_HELD_MAX.saturating_sub(self.held.len())
    }

    pub(super) fn held(&self) -> impl Iterator<Item = u64> {
        self.held.keys().copied()
    }

    pub(super) fn len(&self) -> usize {
        self.held.len()
    }

    /// Of all that are held.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Deliveries in somebody's hands.
    pub(super) fn running(&self) -> usize {
        self.running
    }

    pub(super) fn is_ready(&self) -> bool {
        !self.ready.is_empty()
    }

    /// Servers bring some. Those that are held already are left out.
    pub(super) fn came(&mut self, deliveries: Vec<Delivery>) {
        for delivery in deliveries {
            if self.room() > 0 && !self.held.contains_key(&delivery.offset) {
                let bytes = size(&delivery);
                self.held.insert(delivery.offset, bytes);
                self.bytes += bytes;
                self.ready.push_back(delivery);
            }
        }
    }

    /// The next one, into somebody's hands.
    pub(super) fn begin(&mut self) -> Option<Delivery> {
        let delivery = self.ready.pop_front()?;
        self.running += 1;
        Some(delivery)
    }

    /// One is in nobody's hands any more, finished or not.
    pub(super) fn end(&mut self, offset: u64) {
        if let Some(bytes) = self.held.remove(&offset) {
            self.bytes -= bytes;
            self.running -= 1;
        }
    }
}
