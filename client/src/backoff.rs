//! How long to wait before the next attempt: short at first, twice as long each time, never in step with others.

use std::time::Duration;

use rand::RngExt;

/// Wait before the second attempt, at most.
const FIRST: Duration = Duration::from_millis(10);
/// Longest wait: an election takes about this long, and longer waits only add to it.
const LONGEST: Duration = Duration::from_millis(400);

/// Waits of one call or one loop.
#[derive(Clone, Debug)]
pub(crate) struct Backoff {
    next: Duration,
}

impl Default for Backoff {
    fn default() -> Self {
        Backoff { next: FIRST }
    }
}

impl Backoff {
    /// The next wait: between half and all of the present step.
    pub(crate) fn next_wait(&mut self) -> Duration {
        let step = self.next;
        self.next = (step * 2).min(LONGEST);
        step.mul_f64(rand::rng().random_range(0.5..1.0))
    }

    /// It went well: start over.
    pub(crate) fn reset(&mut self) {
        self.next = FIRST;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Catches a storm (no wait), a stall (ever longer waits) and a herd (equal waits).
    #[test]
    fn waits_grow_to_a_bound_and_differ() {
        let mut backoff = Backoff::default();
        let waits: Vec<Duration> = (0..50).map(|_| backoff.next_wait()).collect();
        assert!(waits[0] >= FIRST / 2 && waits[0] <= FIRST);
        assert!(
            waits[40..]
                .iter()
                .all(|wait| *wait >= LONGEST / 2 && *wait <= LONGEST)
        );
        assert!(waits[40..].windows(2).any(|pair| pair[0] != pair[1]));
        backoff.reset();
        assert!(backoff.next_wait() <= FIRST);
    }
}
