//! Deadlines from durations that users chose, however large.

use std::time::Duration;

use tokio::time::Instant;

/// Nobody waits longer; adding a longer time to a clock may overflow it.
pub(crate) const LONGEST: Duration = Duration::from_secs(365 * 24 * 60 * 60);

/// The moment `wait` from now, or a year from now if that is sooner.
pub(crate) fn after(wait: Duration) -> Instant {
    Instant::now() + wait.min(LONGEST)
}
