//! `raftmq-sim`: simulates worlds and says how they went.

use std::process::ExitCode;

#[cfg(madsim)]
fn main() -> ExitCode {
    use clap::Parser;
    sim::arguments::Arguments::parse().run()
}

/// Without the simulator's flags there is nothing to run.
#[cfg(not(madsim))]
fn main() -> ExitCode {
    ExitCode::FAILURE
}
