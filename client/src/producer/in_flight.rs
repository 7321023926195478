//! How much may be handed over and not yet settled: the producer's back-pressure.
//!
//! First come, first served, so that the order in which senders wait is the order in which they go on.

use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::time::Instant;

/// Bytes are counted in units of this size.
const UNIT_BYTES: usize = 1024;

/// See the module's text.
#[derive(Debug)]
pub(super) struct InFlight {
    messages: Semaphore,
    messages_max: u32,
    units: Semaphore,
    units_max: u32,
}

/// There was no room until the deadline.
#[derive(Debug)]
pub(super) struct Full;

impl InFlight {
    pub(super) fn new(messages_max: usize, bytes_max: usize) -> InFlight {
        let messages_max = bounded(messages_max);
        let units_max = bounded(bytes_max / UNIT_BYTES);
        InFlight {
            messages: Semaphore::new(messages_max as usize),
            messages_max,
            units: Semaphore::new(units_max as usize),
            units_max,
        }
    }

    /// Takes room for one message if there is some now.
    pub(super) fn try_enter(&self, bytes: usize) -> bool {
        let Ok(message) = self.messages.try_acquire() else {
            return false;
        };
        let Ok(room) = self.units.try_acquire_many(self.units(bytes)) else {
            return false;
        };
        message.forget();
        room.forget();
        true
    }

    /// Takes room for one message; waits for it until the deadline.
    pub(super) async fn enter(&self, bytes: usize, deadline: Instant) -> Result<(), Full> {
        let wait = deadline.saturating_duration_since(Instant::now());
        let taken = async {
            let message = self.messages.acquire().await.expect("is never closed");
            let room = self
                .units
                .acquire_many(self.units(bytes))
                .await
                .expect("is never closed");
            message.forget();
            room.forget();
        };
        tokio::time::timeout(wait, taken).await.map_err(|_| Full)
    }

    /// Gives back the room of messages that are settled: of each, its bytes.
    pub(super) fn leave(&self, bytes: impl IntoIterator<Item = usize>) {
        let (mut messages, mut units) = (0, 0);
        for bytes in bytes {
            messages += 1;
            units += self.units(bytes) as usize;
        }
        self.units.add_permits(units);
        self.messages.add_permits(messages);
    }

    /// Returns when everything that entered before has left. Who enters later waits for that too.
    pub(super) async fn drained(&self, timeout: Duration) -> Result<(), Full> {
        match tokio::time::timeout(timeout, self.messages.acquire_many(self.messages_max)).await {
            Ok(_all) => Ok(()),
            Err(_) => Err(Full),
        }
    }

    /// A single message larger than everything may still go alone.
    fn units(&self, bytes: usize) -> u32 {
        bounded(bytes.div_ceil(UNIT_BYTES)).min(self.units_max)
    }
}

fn bounded(number: usize) -> u32 {
    const LARGEST: usize = u32::MAX as usize >> 3;
    number.clamp(1, LARGEST) as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOON: Duration = Duration::from_millis(10);

    /// Catches a bound that is not one, room that is not given back, and a message too large to ever go.
    #[tokio::test]
    async fn room_is_taken_and_given_back() {
        let in_flight = InFlight::new(2, 4 * UNIT_BYTES);
        let soon = || Instant::now() + SOON;
        assert!(in_flight.enter(1, soon()).await.is_ok());
        assert!(in_flight.enter(3 * UNIT_BYTES, soon()).await.is_ok());
        assert!(
            in_flight.enter(1, soon()).await.is_err(),
            "two messages are in flight"
        );
        in_flight.leave([1]);
        assert!(
            in_flight.enter(2 * UNIT_BYTES, soon()).await.is_err(),
            "the bytes are"
        );
        assert!(in_flight.drained(SOON).await.is_err());
        in_flight.leave([3 * UNIT_BYTES]);
        assert!(in_flight.drained(SOON).await.is_ok());
        assert!(
            in_flight.enter(100 * UNIT_BYTES, soon()).await.is_ok(),
            "alone"
        );
        in_flight.leave([100 * UNIT_BYTES]);
        assert!(in_flight.drained(SOON).await.is_ok());
    }
}
