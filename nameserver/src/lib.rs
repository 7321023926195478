//! Directions: which broker group serves which topic, and who leads it.
//!
//! Brokers register with any name server; name servers gossip; clients ask any of them, and may use one as their access point for
//! everything. A name server decides nothing and stores nothing on disk: what it says is what leaders said, the newest word of
//! each by (epoch, version). It never touches a message, and never imports the broker.
//!
//! Reading order: [`registration`] and [`registry`] (what is believed), [`route_table`] (what clients are told),
//! [`membership`] and `gossip` (how it spreads), `directory` (how the running process holds it), `service`, `relay`,
//! `messaging` and `telemetry` (how it is served).

// The simulator's tokio and tonic.
#[cfg(madsim)]
extern crate madsim_tokio as tokio;
#[cfg(madsim)]
extern crate madsim_tonic as tonic;

mod config;
mod directory;
mod error;
mod gossip;
pub mod membership;
mod messaging;
pub mod registration;
pub mod registry;
mod relay;
pub mod route_table;
mod server;
mod service;
mod telemetry;

pub use config::{CONFIG_SOURCE, ConfigError, NameServerConfig};
pub use error::NameServerError;
pub use server::{NameServer, run};
pub use service::WATCH_SILENCE_MAX;
pub use telemetry::LEADER_WAIT_MAX;
