//! Real processes: a group of `raftmq` brokers and a name server, hurt in every way that the project
//! promises to withstand. Each test says what it would catch; each one that sends checks that nothing
//! acknowledged was lost.

#![allow(
    clippy::unwrap_used,
    reason = "a test may panic; helpers of tests are not marked as tests"
)]
#![allow(
    clippy::disallowed_methods,
    reason = "a test damages files and sockets on purpose"
)]

#[path = "processes/cluster.rs"]
mod cluster;
#[path = "processes/terminal.rs"]
mod terminal;
#[path = "processes/traffic.rs"]
mod traffic;

#[path = "processes/abuse.rs"]
mod abuse;
#[path = "processes/addresses.rs"]
mod addresses;
#[path = "processes/bounds.rs"]
mod bounds;
#[path = "processes/client_ids.rs"]
mod client_ids;
#[path = "processes/commands.rs"]
mod commands;
#[path = "processes/config.rs"]
mod config;
#[path = "processes/damage.rs"]
mod damage;
#[path = "processes/dev.rs"]
mod dev;
#[path = "processes/disk_trouble.rs"]
mod disk_trouble;
#[path = "processes/examples.rs"]
mod examples;
// Laid over libc with LD_PRELOAD, which brokers are run with on Linux only.
#[cfg(target_os = "linux")]
#[path = "processes/faulty_tables.rs"]
mod faulty_tables;
#[path = "processes/identity.rs"]
mod identity;
#[path = "processes/kill.rs"]
mod kill;
#[path = "processes/lives.rs"]
mod lives;
#[path = "processes/operator.rs"]
mod operator;
#[path = "processes/pause.rs"]
mod pause;
#[path = "processes/pushing.rs"]
mod pushing;
#[path = "processes/reading_and_writing.rs"]
mod reading_and_writing;
#[path = "processes/restored.rs"]
mod restored;
#[path = "processes/snapshot.rs"]
mod snapshot;
#[path = "processes/stalls.rs"]
mod stalls;
#[path = "processes/strangers.rs"]
mod strangers;
