//! The machine a replica runs on, reduced to what it may ask of it: the time, the disk, the
//! network, and when to stop.
//!
//! Every other crate reaches the operating system through here, so that the simulator can stand in
//! for it. Nothing in this crate knows about messages, logs or Raft.

// The simulator's tokio and tonic.
#[cfg(madsim)]
extern crate madsim_tokio as tokio;
#[cfg(madsim)]
extern crate madsim_tonic as tonic;

pub mod blocking;
mod clock;
mod disk;
pub mod network;
mod os_disk;
pub mod shutdown;
pub mod task;
pub mod testing;

use std::sync::Arc;

pub use clock::{Clock, SystemClock};
pub use disk::{Disk, File, is_media_error};
pub use os_disk::OsDisk;
pub use shutdown::{Shutdown, ShutdownTrigger};

/// What a replica may ask of its machine. Cheap to clone.
#[derive(Clone)]
pub struct Host {
    /// Wall time.
    pub clock: Arc<dyn Clock>,
    /// Files.
    pub disk: Arc<dyn Disk>,
}

impl Host {
    /// The machine this process really runs on.
    pub fn real() -> Host {
        Host {
            clock: Arc::new(SystemClock),
            disk: Arc::new(OsDisk::new()),
        }
    }
}
