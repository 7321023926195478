//! `raftmq broker`: one broker, configured by a file, variables and flags.

use broker::BrokerConfig;

use host::Host;

use super::server::{self, ServerArguments};
use crate::failure::Failure;

/// Runs one broker until SIGTERM or SIGINT.
pub(crate) fn run(arguments: &ServerArguments<BrokerConfig>, host: Host) -> Result<(), Failure> {
    let Some(config) = arguments.configuration()? else {
        return Ok(());
    };
    server::serve(arguments, host, |host, shutdown| {
        broker::run(config, host, shutdown)
    })
}
