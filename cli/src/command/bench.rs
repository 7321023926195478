//! `raftmq bench`: which loads run in which order; what each of them measures is `crate::bench`'s.

mod parts;

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum};

use crate::bench::{Report, Scene, judge};
use crate::failure::Failure;
use crate::files::ScratchDirectory;
use crate::output::Output;
use crate::signals;

/// Flags of `raftmq bench`.
#[derive(Args, Clone, Debug)]
pub(crate) struct BenchArguments {
    /// A part of the matrix, short loads, few kills
    #[arg(long)]
    quick: bool,
    /// Only these parts
    #[arg(long, value_enum, value_delimiter = ',')]
    only: Vec<Part>,
    /// Body sizes of the matrix, bytes
    #[arg(long, value_delimiter = ',')]
    sizes: Vec<usize>,
    /// Messages in each request of the matrix
    #[arg(long, value_delimiter = ',')]
    batches: Vec<usize>,
    /// Requests in flight of the matrix
    #[arg(long, value_delimiter = ',')]
    in_flight: Vec<usize>,
    /// How long each load is measured, seconds
    #[arg(long)]
    seconds: Option<f32>,
    /// Size of the log whose starts are timed, GiB
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=1024))]
    log_gib: u64,
    /// How often the leader is killed
    #[arg(long)]
    kills: Option<u32>,
    /// Where everything is written: a directory on the disk that is to be measured
    #[arg(long, value_name = "DIRECTORY", env = "RAFTMQ_BENCH_DIRECTORY")]
    directory: Option<PathBuf>,
    /// A key of every broker's configuration, to measure what it gives; can be repeated
    #[arg(long = "set", value_name = "KEY=VALUE", value_parser = parse_setting)]
    settings: Vec<Setting>,
    #[command(flatten)]
    output: Output,
}

/// A key of the brokers' configuration and its value.
type Setting = (String, toml::Value);

/// `KEY=VALUE`, the value as in a configuration file; the brokers check what it means.
fn parse_setting(text: &str) -> Result<Setting, String> {
    let table: toml::Table = text
        .parse()
        .map_err(|error| format!("not KEY=VALUE as in TOML: {error}"))?;
    table
        .into_iter()
        .next()
        .ok_or_else(|| "not KEY=VALUE".to_owned())
}

/// A part of the benchmark, in the order in which they run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Part {
    /// The disk alone: append and sync
    Disk,
    /// Memory of a broker that does nothing
    Idle,
    /// Raw calls, each cell of the matrix, with the ceiling of the same blocks beside it
    Send,
    /// What a replica writes for a byte of payload, tables included
    Written,
    /// The SDK's producer, messages handed over one by one
    Sdk,
    /// Catching up, and at the tail
    Consume,
    /// From a producer to a consumer at a fixed rate
    Latency,
    /// Kills of the leader under a producer
    Failover,
    /// From a start to a leader
    Start,
    /// Sends, the SDK, consumption and latency again with one follower dead
    FollowerDead,
    /// Starts of a broker with a log of ten gibibytes, which this part writes; not with --quick
    LargeLog,
}

impl BenchArguments {
    fn has(&self, part: Part) -> bool {
        self.only.is_empty() || self.only.contains(&part)
    }

    fn duration(&self) -> Duration {
        let default = if self.quick { 1.5 } else { 4.0 };
        Duration::from_secs_f32(self.seconds.unwrap_or(default).clamp(0.1, 3600.0))
    }

    fn kills(&self) -> u32 {
        self.kills.unwrap_or(if self.quick { 3 } else { 20 })
    }

    fn sizes(&self) -> Vec<usize> {
        chosen(&self.sizes, self.quick, &[1024], &[128, 1024, 16 * 1024])
    }

    fn batches(&self) -> Vec<usize> {
        chosen(&self.batches, self.quick, &[1, 32], &[1, 32, 256])
    }

    fn in_flight(&self) -> Vec<usize> {
        chosen(&self.in_flight, self.quick, &[64], &[1, 64, 1024])
    }
}

fn chosen(asked: &[usize], quick: bool, few: &[usize], all: &[usize]) -> Vec<usize> {
    let default = if quick { few } else { all };
    let chosen = if asked.is_empty() { default } else { asked };
    chosen.iter().map(|number| (*number).max(1)).collect()
}

/// Runs every part that was asked for.
pub(crate) async fn run(arguments: BenchArguments) -> Result<(), Failure> {
    let parent = arguments.directory.as_deref();
    let scratch = ScratchDirectory::create(parent, "bench")
        .map_err(|error| Failure::during("creating a directory for the benchmark", error))?;
    refuse_memory(scratch.path())?;
    tokio::select! {
        biased;
        reason = signals::stop_requested() => {
            Err(Failure::Operation(format!("{} before the end of the benchmark", reason?)))
        }
        outcome = run_parts(&arguments, scratch.path()) => outcome,
    }
}

async fn run_parts(arguments: &BenchArguments, directory: &std::path::Path) -> Result<(), Failure> {
    let program =
        std::env::current_exe().map_err(|error| Failure::during("finding this program", error))?;
    let mut report = Report::new(arguments.output.json);
    parts::environment(&mut report, directory);
    if arguments.has(Part::Disk) {
        parts::disk(arguments, &mut report, directory).await?;
    }
    let (mut scene, first_start) = Scene::start(&program, directory, &arguments.settings).await?;
    if arguments.has(Part::Idle) {
        parts::idle(&mut scene, &mut report).await;
    }
    parts::loads(arguments, &mut scene, &mut report, &program).await?;
    if arguments.has(Part::Failover) {
        parts::failover(arguments, &mut scene, &mut report).await?;
    }
    if arguments.has(Part::Start) {
        parts::start(arguments, &mut scene, &mut report, first_start).await?;
    }
    if arguments.has(Part::FollowerDead) {
        parts::follower_dead(arguments, &mut scene, &mut report).await?;
    }
    scene.group.end().await;
    if arguments.has(Part::LargeLog) && (!arguments.quick || !arguments.only.is_empty()) {
        parts::large_log(arguments, &mut report, &program, directory).await?;
    }
    for verdict in judge(report.all()) {
        report.add(verdict);
    }
    let columns = [
        ("goal", "/goal"),
        ("found", "/found"),
        ("wanted", "/wanted"),
        ("verdict", "/verdict"),
    ];
    report.end_part("Goals", &columns);
    Ok(())
}

/// A file system in memory makes every sync free and the benchmark worthless.
fn refuse_memory(directory: &std::path::Path) -> Result<(), Failure> {
    const TMPFS: u64 = 0x0102_1994;
    let statistics = rustix::fs::statfs(directory)
        .map_err(|error| Failure::during(directory.display(), error))?;
    if statistics.f_type as u64 == TMPFS {
        let directory = directory.display();
        let hint = "choose a directory on a disk with --directory";
        return Err(Failure::Configuration(format!(
            "{directory} is in memory: {hint}"
        )));
    }
    Ok(())
}
