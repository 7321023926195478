//! What tests of every crate need of a machine: the contract that each disk must keep, a disk that
//! fails on demand, a disk that forgets what was not synced, a clock set by hand.
//!
//! Nothing in the product may name it. It stands behind no feature, so that tests and product share
//! one build.
#![allow(
    clippy::unwrap_used,
    clippy::missing_panics_doc,
    reason = "test support: a panic is a failed test"
)]

mod crash_disk;
mod faulty_disk;
mod manual_clock;
mod secret;
mod suite;

pub use crash_disk::{CrashDisk, Lost};
pub use faulty_disk::{Counts, Fault, FaultyDisk, Operation};
pub use manual_clock::ManualClock;
pub use secret::{cluster_secret, secret_file};
pub use suite::disk_contract;

/// The machine that this process really runs on, with a disk that fails as the file says that the variable
/// `RAFTMQ_TEST_DISK_FAULTS` names.
pub fn host_with_disk_faults() -> crate::Host {
    crate::Host {
        disk: std::sync::Arc::new(crate::OsDisk::with_faults_of_the_environment()),
        ..crate::Host::real()
    }
}
