//! Everything behind the one binary `raftmq`: server roles, administration, demonstration, load.
//!
//! `main` parses and exits; each command has a file below `command`. The library exists so that
//! the tests on real processes use the same `process::Group` as `raftmq dev` and `raftmq demo`.
//! Must never hold rules of its own about messages: it asks the broker and shows the answer.

pub mod bench;
pub mod ceiling;
mod command;
pub mod contexts;
pub mod failure;
pub mod files;
pub mod moments;
mod output;
pub mod process;
pub mod settings;
pub mod signals;
pub mod survey;
pub mod terminal;
pub mod times;

use std::process::ExitCode;

use clap::Parser;
use host::Host;

pub use command::{Arguments, run};
pub use failure::Failure;

/// All of the program: parses the command line and does what it asks for; servers run on `host`.
pub fn main(host: Host) -> ExitCode {
    match run(Arguments::parse(), host) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            terminal::note(format_args!("raftmq: {failure}"));
            ExitCode::from(failure.exit_code().number())
        }
    }
}
