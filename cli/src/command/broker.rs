//! `raftmq broker --config FILE`.

use broker::BrokerConfig;

use super::server::{self, ServerArguments};
use crate::failure::Failure;
use crate::settings;

/// Runs one broker until SIGTERM or SIGINT.
pub(crate) fn run(arguments: ServerArguments) -> Result<(), Failure> {
    let config: BrokerConfig = settings::load(&arguments.config, arguments.overrides())?;
    config.validate().map_err(|rule| arguments.broken(rule))?;
    if arguments.print_config {
        return server::print_config(&config);
    }
    server::serve(&arguments, |host, shutdown| {
        broker::run(config, host, shutdown)
    })
}
