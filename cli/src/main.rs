//! `raftmq`: parse, run, exit with a code that says how it went.

use std::process::ExitCode;

use host::Host;
use mimalloc::MiMalloc;

/// Batches of a megabyte are allocated and freed a thousand times a second; glibc gives each back to
/// the kernel, whose fresh pages then cost more than what is done with them.
#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

fn main() -> ExitCode {
    cli::main(Host::real())
}
