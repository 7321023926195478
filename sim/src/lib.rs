//! The simulated world: the whole system, the shipped code, in simulated time, from one seed.
//!
//! Brokers, name servers and clients run as they are; machines, network, disks and clocks are simulated and
//! go wrong as a schedule says. Built with `--cfg madsim --cfg tokio_unstable` (`make sim`); without, this
//! crate is empty.
//!
//! Reading order: [`simulation`] (one world from beginning to end), [`world`] and what it is made of
//! ([`machine`], [`network`], [`disk`], [`tables`], [`clock`]), [`schedule`] and [`nemesis`] (what goes wrong),
//! [`workload`] and [`history`] (what clients do and see), [`invariants`], [`liveness`] and [`oracle`] (what
//! must hold), [`effect`], [`commands`] and [`coverage`] (what must have happened), [`scenario`], [`spec`], [`runner`],
//! [`verdict`], [`worker`], [`sweep`], [`case`] and [`minimize`], [`mutants`].
#![cfg(madsim)]

#[cfg(not(tokio_unstable))]
compile_error!("the simulator needs --cfg tokio_unstable too: without it no run is like another");

extern crate madsim_tokio as tokio;
extern crate madsim_tonic as tonic;

pub mod arguments;
pub mod body;
pub mod broker_group;
pub mod broker_process;
pub mod case;
pub mod chance;
pub mod clock;
pub mod commands;
pub mod coverage;
pub mod disk;
pub mod effect;
pub mod failure;
pub mod history;
pub mod invariants;
pub mod liveness;
pub mod log_time;
pub mod machine;
pub mod minimize;
pub mod mutants;
pub mod name_server_process;
pub mod nemesis;
pub mod network;
pub mod onlooker;
pub mod operator;
pub mod oracle;
pub mod panics;
pub mod report;
pub mod runner;
pub mod scenario;
pub mod schedule;
pub mod simulation;
pub mod spec;
pub mod sweep;
pub mod tables;
pub mod trace;
pub mod verdict;
pub mod violation;
pub mod worker;
pub mod workload;
pub mod world;
