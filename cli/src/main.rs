//! `raftmq`: parse, run, exit with a code that says how it went.

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    match cli::run(cli::Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            cli::terminal::note(format_args!("raftmq: {failure}"));
            ExitCode::from(failure.exit_code())
        }
    }
}
