//! Agreement: one broker group's replicas keep one commit log.
//!
//! openraft fitted to the commit log of `store`. The log is the truth, the tables follow it through
//! an [`Application`], and nothing here looks into what is proposed. Only this crate names openraft.

// The simulator's tokio and tonic.
#[cfg(madsim)]
extern crate madsim_tokio as tokio;
#[cfg(madsim)]
extern crate madsim_tonic as tonic;

mod abdication;
mod address_file;
mod addresses;
mod application;
mod applied;
mod bootstrap;
mod clocks;
mod config;
mod connections;
mod convert;
mod counters;
mod error;
#[cfg(fuzzing)]
pub mod fuzz;
mod group;
mod incarnation;
mod introductions;
mod leadership;
mod log_storage;
mod maintenance;
mod member;
mod network;
mod peers;
mod promises;
mod relocation;
mod repair;
mod request_stream;
mod restore;
mod runtime;
mod service;
mod small_file;
mod snapshot;
mod stall_watch;
mod standing;
mod startup;
mod state;
mod state_machine;
mod status;
mod storage;
mod tables;
mod terms;
mod timekeeper;
mod types;

pub use application::{Application, Commit, Committed};
pub use clocks::ClockStatus;
pub use config::RaftConfig;
pub use error::{ChangeError, ProposeError, RaftError};
pub use group::{Proposed, RaftGroup};
pub use member::Member;
pub use restore::{Restored, restore};
pub use standing::{Leadership, Phase, Vote};
pub use status::{GroupStatus, MemberStatus};

#[cfg(test)]
mod suite_test;
