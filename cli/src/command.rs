//! The command line: what can be asked of `raftmq`, one file for each command.

mod bench;
mod broker;
mod ceiling_node;
mod cluster;
mod completion;
mod consume;
mod consumer_group;
mod context;
mod demo;
mod dev;
mod doctor;
mod group;
mod log;
mod message;
mod nameserver;
mod produce;
mod route;
mod secret;
mod seeds;
mod server;
mod shown_message;
mod topic;

use std::future::Future;
use std::time::Duration;

use clap::{Parser, Subcommand};
use host::Host;

use crate::failure::{ExitCode, Failure};
use crate::terminal;

/// Messaging on replicated brokers that do not lose what they acknowledged.
#[derive(Parser, Debug)]
#[command(
    name = "raftmq",
    version,
    about,
    after_help = exit_codes()
)]
pub struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand, Debug)]
enum Command {
    /// A name server and a group of three brokers on this machine, in the foreground
    Dev(dev::DevArguments),
    /// One broker
    Broker(Box<server::ServerArguments<::broker::BrokerConfig>>),
    /// One name server
    Nameserver(Box<server::ServerArguments<::nameserver::NameServerConfig>>),
    /// Create, list, describe, alter and delete topics
    Topic(topic::TopicArguments),
    /// Consumer groups: who reads what, how far behind; reset, skip, delete
    ConsumerGroup(consumer_group::ConsumerGroupArguments),
    /// Broker groups: leaders and replicas
    Group(group::GroupArguments),
    /// Send messages
    Produce(produce::ProduceArguments),
    /// Read messages, as a member of a consumer group or only looking
    Consume(consume::ConsumeArguments),
    /// Look at stored messages
    Message(message::MessageArguments),
    /// What each name server believes, and where two differ
    Route(route::RouteArguments),
    /// Walk through the table of symptoms: what is wrong, why, what to do
    Doctor(doctor::DoctorArguments),
    /// Look into the data directory of a stopped broker
    Log(log::LogArguments),
    /// Lose a leader half way through a file, and nothing else
    Demo(demo::DemoArguments),
    /// Measure a group of three processes on this machine
    Bench(bench::BenchArguments),
    /// How the brokers are doing
    Cluster(cluster::ClusterArguments),
    /// The secret by which servers and operators of a cluster know each other
    Secret(secret::SecretArguments),
    /// Names for systems, in place of --seeds
    Context(context::ContextArguments),
    /// Print shell completion
    Completion(completion::CompletionArguments),
    /// Write man pages
    Man(completion::ManArguments),
    #[command(hide = true)]
    CeilingNode(ceiling_node::CeilingNodeArguments),
}

/// The end of `raftmq --help`.
fn exit_codes() -> String {
    let lines = ExitCode::ALL
        .iter()
        .map(|code| format!("  {}  {}", code.number(), code.meaning()));
    format!("Exit codes:\n{}", lines.collect::<Vec<_>>().join("\n"))
}

/// Does what the command line asks for; a server that it starts runs on `host`.
///
/// # Errors
///
/// One clear line, and the exit code that belongs to it.
pub fn run(arguments: Arguments, host: Host) -> Result<(), Failure> {
    match arguments.command {
        Command::Dev(arguments) => block_on(dev::run(arguments)),
        Command::Broker(arguments) => broker::run(&arguments, host),
        Command::Nameserver(arguments) => nameserver::run(&arguments, host),
        Command::Topic(arguments) => block_on(topic::run(arguments)),
        Command::Produce(arguments) => block_on(produce::run(arguments)),
        Command::Consume(arguments) => block_on(consume::run(arguments)),
        Command::Demo(arguments) => block_on(demo::run(arguments)),
        Command::Bench(arguments) => block_on(bench::run(arguments)),
        Command::Cluster(arguments) => block_on(cluster::run(arguments)),
        Command::ConsumerGroup(arguments) => block_on(consumer_group::run(arguments)),
        Command::Group(arguments) => block_on(group::run(arguments)),
        Command::Message(arguments) => block_on(message::run(arguments)),
        Command::Route(arguments) => block_on(route::run(arguments)),
        Command::Doctor(arguments) => block_on(doctor::run(arguments)),
        Command::Log(arguments) => block_on(log::run(arguments)),
        Command::Completion(arguments) => completion::complete(&arguments),
        Command::Man(arguments) => completion::man(&arguments),
        Command::Context(arguments) => context::run(arguments),
        Command::Secret(arguments) => secret::run(arguments),
        Command::CeilingNode(arguments) => ceiling_node::run(&arguments),
    }
}

/// Longest wait for a server's tables to be closed.
const TABLES_CLOSE_MAX: Duration = Duration::from_secs(5);

/// Runs `work` on a runtime of its own, and returns when the process may end.
fn block_on(work: impl Future<Output = Result<(), Failure>>) -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::during("starting the runtime", error))?;
    let result = runtime.block_on(work);
    // A task that still reads standard input would keep the process waiting for a line.
    runtime.shutdown_background();
    // What the tasks held is let go by and by. RocksDB aborts a process that exits before.
    if !store::wait_until_closed(TABLES_CLOSE_MAX) {
        terminal::note("the tables are not closed: the process may be aborted, and loses nothing");
    }
    result
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::Arguments;

    fn leaves(command: &clap::Command, above: &str) -> Vec<String> {
        let name = format!("{above}{}", command.get_name());
        let below = command.get_subcommands();
        let below: Vec<&clap::Command> = below
            .filter(|one| !one.is_hide_set() && one.get_name() != "help")
            .collect();
        match below.as_slice() {
            [] => vec![name],
            below => below
                .iter()
                .flat_map(|one| leaves(one, &format!("{name} ")))
                .collect(),
        }
    }

    /// Catches flags that contradict each other, which clap finds only when the command is used.
    #[test]
    fn the_command_line_is_consistent() {
        Arguments::command().debug_assert();
    }

    /// Catches a command that the manual does not show an example of.
    #[test]
    fn the_manual_shows_every_command() {
        let manual = include_str!("../../docs/cli.md");
        for leaf in leaves(&Arguments::command(), "") {
            assert!(
                manual.contains(&format!("| `{leaf}` | `")),
                "docs/cli.md lacks {leaf}"
            );
        }
    }
}
