//! What the two server roles have in common: flags, logs, and how they start and end.

use std::fmt::Display;
use std::future::Future;
use std::io::IsTerminal;
use std::path::PathBuf;

use clap::Args;
use host::Host;
use host::shutdown::Shutdown;
use serde::Serialize;
use tracing_subscriber::EnvFilter;

use crate::failure::Failure;
use crate::process::raise_file_limit;
use crate::settings::Overrides;
use crate::{signals, terminal};

/// What is logged unless RUST_LOG says otherwise.
const DEFAULT_LOG_FILTER: &str = "info,openraft=error";

/// Flags of `raftmq broker` and `raftmq nameserver`.
#[derive(Args, Clone, Debug)]
pub(crate) struct ServerArguments {
    /// Configuration file (TOML)
    #[arg(long, value_name = "FILE", env = "RAFTMQ_CONFIG")]
    pub(crate) config: PathBuf,
    /// Where clients are served, in place of the file's `listen`
    #[arg(long, value_name = "ADDRESS:PORT", env = "RAFTMQ_LISTEN")]
    pub(crate) listen: Option<String>,
    /// What clients are told to connect to, in place of the file's `advertise`
    #[arg(long, value_name = "HOST:PORT", env = "RAFTMQ_ADVERTISE")]
    pub(crate) advertise: Option<String>,
    /// Print the configuration with every default and override, and exit
    #[arg(long)]
    pub(crate) print_config: bool,
    /// Log lines as JSON
    #[arg(long)]
    pub(crate) json_logs: bool,
    /// Shut down when standard input closes: the process that started this one is gone
    #[arg(long, hide = true)]
    pub(crate) until_stdin_closes: bool,
}

impl ServerArguments {
    /// The flags that stand for keys of the configuration.
    pub(crate) fn overrides(&self) -> Overrides {
        let mut overrides = Overrides::default();
        overrides.set("listen", self.listen.clone());
        overrides.set("advertise", self.advertise.clone());
        overrides
    }

    /// A rule of the configuration that does not hold, as one line that names the file.
    pub(crate) fn broken(&self, rule: impl Display) -> Failure {
        Failure::Configuration(format!("{}: {rule}", self.config.display()))
    }
}

/// Prints the configuration as the file would hold it.
///
/// # Errors
///
/// If it has no TOML form.
pub(crate) fn print_config(config: &impl Serialize) -> Result<(), Failure> {
    let text = toml::to_string(config)
        .map_err(|error| Failure::during("printing the configuration", error))?;
    terminal::say(text.trim_end());
    Ok(())
}

/// Runs a role until it is asked to stop or fails.
///
/// # Errors
///
/// Whatever ended the role before it was asked to.
pub(crate) fn serve<F, E>(
    arguments: &ServerArguments,
    role: impl FnOnce(Host, Shutdown) -> F,
) -> Result<(), Failure>
where
    F: Future<Output = Result<(), E>>,
    E: Display,
{
    start_logs(arguments.json_logs);
    raise_file_limit();
    super::block_on(async {
        let shutdown = signals::shutdown(arguments.until_stdin_closes);
        role(Host::real(), shutdown)
            .await
            .map_err(|error| Failure::Operation(error.to_string()))
    })
}

fn start_logs(json: bool) {
    let filter =
        EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(DEFAULT_LOG_FILTER));
    let logs = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal());
    if json {
        logs.json().init();
    } else {
        logs.init();
    }
}
