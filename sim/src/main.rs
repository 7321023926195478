//! `raftmq-sim`: simulates worlds and says how they went.

use std::process::ExitCode;

/// A world allocates some ten million times; a fifth of its time was glibc's.
#[cfg(madsim)]
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

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
