//! Where a command finds the system: `--seeds`, RAFTMQ_SEEDS, or what `raftmq dev` uses.

use clap::Args;
use raftmq_client::Client;

use crate::failure::Failure;

/// Flag of every command that talks to brokers.
#[derive(Args, Clone, Debug)]
pub(crate) struct Seeds {
    /// Name servers or brokers (host:port), separated by commas; any one that answers will do
    #[arg(
        long,
        global = true,
        env = "RAFTMQ_SEEDS",
        value_delimiter = ',',
        default_value = "127.0.0.1:9876,127.0.0.1:8081,127.0.0.1:8082,127.0.0.1:8083"
    )]
    seeds: Vec<String>,
}

impl Seeds {
    /// A client that knows the system.
    ///
    /// # Errors
    ///
    /// If no seed answers, or one is no address.
    pub(crate) async fn client(&self) -> Result<Client, Failure> {
        let client = Client::builder()
            .seeds(self.seeds.iter().cloned())
            .build()
            .await;
        client.map_err(Failure::from)
    }
}
