//! The rules: what a send, a pull, an offset and a topic mean, agreed on by Raft.
//!
//! A broker is one replica of a broker group. The leader answers; every other broker passes calls on to
//! it. Changes go `grpc` → `proposer` → `raft` → `machine`; reads come from the `view` of what was
//! applied. Nothing here opens a file, reads the wall clock by itself, or keeps state of a client that a
//! later request would need.

// The simulator's tokio and tonic.
#[cfg(madsim)]
extern crate madsim_tokio as tokio;
#[cfg(madsim)]
extern crate madsim_tonic as tonic;

mod config;
mod error;

mod broker;
mod service;

mod admin;
mod call;
mod grpc;
mod leadership;
mod log_time;
mod proposer;
mod redelivery;

mod machine;
pub mod view;

mod admin_pool;
mod clients;
mod disk_space;
mod pullers;
mod registration;
mod retention;
mod ticker;

pub use broker::{Broker, run};
pub use config::{BrokerConfig, CONFIG_SOURCE, ConfigError, MemberConfig};
pub use error::BrokerError;
pub use machine::{Machine, history_begins};
pub use view::View;
