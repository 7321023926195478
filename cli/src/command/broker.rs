//! `raftmq broker --config FILE`.

use broker::BrokerConfig;
use clap::Args;

use super::server::{self, ServerArguments};
use crate::failure::Failure;
use crate::settings;

/// Flags of `raftmq broker`.
#[derive(Args, Clone, Debug)]
pub(crate) struct BrokerArguments {
    #[command(flatten)]
    server: ServerArguments,
    /// Where the data is kept, in place of the file's `data_dir`
    #[arg(long, value_name = "DIRECTORY", env = "RAFTMQ_DATA_DIR")]
    data_dir: Option<String>,
    /// Number of this broker, in place of the file's `broker_id`
    #[arg(long, value_name = "NUMBER", env = "RAFTMQ_BROKER_ID")]
    broker_id: Option<u32>,
}

/// Runs one broker until SIGTERM or SIGINT.
pub(crate) fn run(arguments: BrokerArguments) -> Result<(), Failure> {
    let server = arguments.server;
    let mut overrides = server.overrides();
    overrides.set("data_dir", arguments.data_dir);
    overrides.set("broker_id", arguments.broker_id.map(i64::from));
    let config: BrokerConfig = settings::load(&server.config, overrides)?;
    config.validate().map_err(|rule| server.broken(rule))?;
    if server.print_config {
        return server::print_config(&config);
    }
    server::serve(&server, |host, shutdown| {
        broker::run(config, host, shutdown)
    })
}
