//! `raftmq nameserver`: one name server, configured by a file, variables and flags.

use nameserver::NameServerConfig;

use host::Host;

use super::server::{self, ServerArguments};
use crate::failure::Failure;

/// Runs one name server until SIGTERM or SIGINT.
pub(crate) fn run(
    arguments: &ServerArguments<NameServerConfig>,
    host: Host,
) -> Result<(), Failure> {
    let Some(config) = arguments.configuration()? else {
        return Ok(());
    };
    server::serve(arguments, host, |host, shutdown| {
        nameserver::run(config, host, shutdown)
    })
}
