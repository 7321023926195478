//! How fast, how small: loads on a broker group of three processes, and the ceiling beside them.
//!
//! Closed loops with a fixed number of requests in flight, except where a latency is asked for: that
//! is measured at a fixed rate from the time at which each message was due, so that a pause counts
//! for all that it delayed. Must never flatter: sync is on, every answer is checked, a refusal is
//! counted and is not a message.

mod consume;
mod failover;
mod goals;
mod large_log;
mod latency;
mod measured;
mod observe;
mod report;
mod scene;
mod sdk_send;
mod send;
mod template;
mod written;

pub use consume::{catch_up, fill, tail};
pub use failover::{failovers, starts};
pub use goals::judge;
pub use large_log::{LargeLog, large_log};
pub use latency::end_to_end;
pub use measured::{Measured, merge, round};
pub use observe::Observation;
pub use report::{Column, Report};
pub use scene::Scene;
pub use sdk_send::{SdkLoad, sdk_send};
pub use send::{SendLoad, send};
pub use written::written;
