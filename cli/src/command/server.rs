//! What the two server roles have in common: flags, logs, and how they start and end.

use std::fmt::Display;
use std::future::Future;
use std::io::IsTerminal;
use std::path::PathBuf;

use clap::Args;
use host::Host;
use host::shutdown::Shutdown;
use tracing_subscriber::EnvFilter;

use crate::failure::Failure;
use crate::process::raise_file_limit;
use crate::settings::{self, Documented, SettingFlags};
use crate::{signals, terminal};

/// What is logged unless RUST_LOG says otherwise.
const DEFAULT_LOG_FILTER: &str = "info,openraft=error";

/// Flags of `raftmq broker` and `raftmq nameserver`, whose configuration is `T`.
#[derive(Args, Clone, Debug)]
pub(crate) struct ServerArguments<T: Documented> {
    /// Configuration file (TOML); flags and variables replace its keys
    #[arg(long, value_name = "FILE", env = "RAFTMQ_CONFIG")]
    config: Option<PathBuf>,
    /// Print the configuration that file, variables and flags make together, each key with what it means and
    /// those that have their default commented out, and exit
    #[arg(long)]
    print_config: bool,
    /// Log lines as JSON
    #[arg(long)]
    json_logs: bool,
    /// Shut down when standard input closes: the process that started this one is gone
    #[arg(long, hide = true)]
    until_stdin_closes: bool,
    #[command(flatten)]
    settings: SettingFlags<T>,
}

impl<T: Documented> ServerArguments<T> {
    /// The configuration, checked. None if it was only to be printed, which is done.
    ///
    /// # Errors
    ///
    /// One line that names the source, the key and what is wrong with it.
    pub(crate) fn configuration(&self) -> Result<Option<T>, Failure> {
        let overrides = self.settings.overrides()?;
        let config: T = match &self.config {
            Some(path) => settings::load(path, overrides)?,
            None => settings::from_text("", "the command line", overrides)?,
        };
        config.check().map_err(|rule| {
            let source = self.config.as_ref();
            let source =
                source.map_or("the command line".into(), |path| path.display().to_string());
            Failure::Configuration(format!("{source}: {rule}"))
        })?;
        if self.print_config {
            terminal::say(settings::print(&config)?);
            return Ok(None);
        }
        Ok(Some(config))
    }
}

/// Runs a role until it is asked to stop or fails.
///
/// # Errors
///
/// Whatever ended the role before it was asked to.
pub(crate) fn serve<T, F, E>(
    arguments: &ServerArguments<T>,
    host: Host,
    role: impl FnOnce(Host, Shutdown) -> F,
) -> Result<(), Failure>
where
    T: Documented,
    F: Future<Output = Result<(), E>>,
    E: Display,
{
    start_logs(arguments.json_logs);
    raise_file_limit();
    let serving = async {
        let shutdown = signals::shutdown(arguments.until_stdin_closes);
        role(host, shutdown)
            .await
            .map_err(|error| Failure::Operation(error.to_string()))
    };
    super::block_on(serving)
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
