//! Known bugs, put back one at a time: each must be caught within a stated number of seeds.
//!
//! Needs a build with `--cfg raftmq_mutants` (`make sim-mutants`), which holds all of them.

mod command;
mod hunt;
mod targets;

pub use command::Command;
pub(crate) use hunt::select;
