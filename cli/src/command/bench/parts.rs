//! The parts of `raftmq bench`: each runs its loads and writes its rows.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};

use super::{BenchArguments, Part};
use crate::bench::{self, Measured, Observation, Report, Scene, SdkLoad, SendLoad, merge, round};
use crate::ceiling::{Ceiling, Writing, measure_disk};
use crate::failure::Failure;
use crate::files::{self, ScratchDirectory};
use crate::process::Usage;

const MIB: f64 = 1_048_576.0;
const KIB: usize = 1024;
/// Time without load after which memory is looked at.
const IDLE: Duration = Duration::from_secs(3);
/// Blocks of the disk's own figure.
const DISK_BLOCKS: [usize; 3] = [4 * KIB, 64 * KIB, 1024 * KIB];
/// Messages of the backlog, unless `--quick`.
const BACKLOG: u64 = 500_000;
const BACKLOG_QUICK: u64 = 100_000;
/// Messages a second of the latency's load.
const LATENCY_RATE: u32 = 1000;
const LATENCY_SECONDS: u64 = 10;
const LATENCY_SECONDS_QUICK: u64 = 3;
/// Starts that are timed.
const STARTS: u32 = 5;
const STARTS_QUICK: u32 = 2;
const REPLICAS: usize = 3;
/// Starts with a large log.
const LARGE_LOG_STARTS: u32 = 3;
/// What else the disk must have room for when a large log is written.
const LARGE_LOG_ROOM_BYTES: u64 = 2 << 30;

const SEND_COLUMNS: [bench::Column; 15] = [
    ("bytes", "/message_bytes"),
    ("batch", "/batch"),
    ("in flight", "/in_flight"),
    ("msg/s", "/messages_per_second"),
    ("MB/s", "/megabytes_per_second"),
    ("p50 ms", "/p50_ms"),
    ("p99 ms", "/p99_ms"),
    ("p99.9 ms", "/p99_9_ms"),
    ("max ms", "/max_ms"),
    ("ceiling MB/s", "/ceiling/megabytes_per_second"),
    ("share", "/share_of_ceiling"),
    ("leader cores", "/usage/leader/cores"),
    ("leader MiB", "/usage/leader/peak_mib"),
    ("syncs/s", "/usage/leader/syncs_per_second"),
    ("log B/B", "/usage/leader/log_bytes_per_payload_byte"),
];

/// What it was measured on: a same-machine run is not a cluster's figure.
pub(crate) fn environment(report: &mut Report, directory: &Path) {
    let processors = std::thread::available_parallelism().map_or(0, usize::from);
    let model = files::read_text(Path::new("/proc/cpuinfo")).unwrap_or_default();
    let model = model
        .lines()
        .find_map(|line| line.strip_prefix("model name"))
        .unwrap_or("unknown");
    let memory = files::read_text(Path::new("/proc/meminfo")).unwrap_or_default();
    let kernel = files::read_text(Path::new("/proc/sys/kernel/osrelease")).unwrap_or_default();
    report.add(json!({
        "measure": "environment",
        "version": env!("CARGO_PKG_VERSION"),
        "processors": processors,
        "model": model.trim_start_matches([':', ' ', '\t']),
        "memory": memory.lines().next().unwrap_or_default(),
        "kernel": kernel.trim(),
        "directory": directory.display().to_string(),
        "note": "client and all replicas share this machine; every replica syncs before it answers",
    }));
    report.end_part("", &[]);
}

/// The disk alone.
pub(crate) async fn disk(
    arguments: &BenchArguments,
    report: &mut Report,
    directory: &Path,
) -> Result<(), Failure> {
    for writing in [Writing::Growing, Writing::Reserved, Writing::Overwriting] {
        for block_bytes in DISK_BLOCKS {
            let (directory, duration) = (directory.to_owned(), arguments.duration() / 2);
            let measure = move || measure_disk(&directory, block_bytes, writing, duration);
            let figures = host::blocking::run(measure)
                .await
                .map_err(|error| Failure::during("measuring the disk", error))?;
            let mut row = json!({ "measure": "disk" });
            merge(&mut row, serde_json::to_value(figures).unwrap_or_default());
            report.add(row);
        }
    }
    let columns = [
        ("file", "/writing"),
        ("block bytes", "/block_bytes"),
        ("MB/s", "/megabytes_per_second"),
        ("syncs/s", "/syncs_per_second"),
        ("p50 us", "/p50_us"),
        ("p99 us", "/p99_us"),
    ];
    report.end_part("The disk alone: one writer, append and fdatasync", &columns);
    Ok(())
}

/// Memory of brokers that do nothing.
pub(crate) async fn idle(scene: &mut Scene, report: &mut Report) {
    tokio::time::sleep(IDLE).await;
    let mut resident = Vec::new();
    for id in scene.group.ids() {
        let pid = scene.group.broker(id).pid().unwrap_or(0);
        resident.push(round(Usage::of(pid).resident_bytes as f64 / MIB));
    }
    let most = resident.iter().copied().fold(0.0, f64::max);
    report.add(json!({ "measure": "idle", "resident_mib": resident, "resident_mib_max": most }));
    report.end_part(
        "Idle brokers",
        &[("most resident MiB", "/resident_mib_max")],
    );
}

/// Sends, consumption and latency with all replicas.
pub(crate) async fn loads(
    arguments: &BenchArguments,
    scene: &mut Scene,
    report: &mut Report,
    program: &Path,
) -> Result<(), Failure> {
    if arguments.has(Part::Send) {
        let directory = ScratchDirectory::create(Some(&scene.directory), "ceiling")
            .map_err(|error| Failure::during("creating the ceiling's directory", error))?;
        let ceiling = Ceiling::start(program, directory.path())?;
        send(arguments, scene, report, Some(Arc::new(ceiling))).await?;
    }
    if arguments.has(Part::Written) {
        written(scene, report).await?;
    }
    if arguments.has(Part::Sdk) {
        sdk(arguments, scene, report, REPLICAS).await?;
    }
    if arguments.has(Part::Consume) {
        consume(arguments, scene, report, REPLICAS).await?;
    }
    if arguments.has(Part::Latency) {
        latency(arguments, scene, report, REPLICAS).await?;
    }
    Ok(())
}

/// The loads again with one follower dead.
pub(crate) async fn follower_dead(
    arguments: &BenchArguments,
    scene: &mut Scene,
    report: &mut Report,
) -> Result<(), Failure> {
    let follower = scene.a_follower().await?;
    report.progress(format_args!(
        "broker {follower}, a follower, is dead from here on"
    ));
    scene.group.broker(follower).destroy().await;
    send(arguments, scene, report, None).await?;
    sdk(arguments, scene, report, REPLICAS - 1).await?;
    consume(arguments, scene, report, REPLICAS - 1).await?;
    latency(arguments, scene, report, REPLICAS - 1).await?;
    scene.group.start_broker(follower)
}

async fn send(
    arguments: &BenchArguments,
    scene: &mut Scene,
    report: &mut Report,
    ceiling: Option<Arc<Ceiling>>,
) -> Result<(), Failure> {
    let replicas = if ceiling.is_some() {
        REPLICAS
    } else {
        REPLICAS - 1
    };
    let topic = format!("send-{replicas}");
    let queues = scene.topic(&topic).await?;
    for message_bytes in arguments.sizes() {
        for batch in arguments.batches() {
            for in_flight in arguments.in_flight() {
                let duration = arguments.duration();
                let load = SendLoad {
                    message_bytes,
                    batch,
                    in_flight,
                    duration,
                };
                let in_flight_allowed = load.in_flight_allowed();
                let observation = Observation::begin(&mut scene.group).await;
                let measured = bench::send(scene, &topic, queues, load).await?;
                let usage = observation.end(&scene.group, &measured).await;
                let mut row = json!({
                    "measure": "send", "replicas": replicas, "message_bytes": message_bytes,
                    "batch": batch, "in_flight": in_flight, "in_flight_allowed": in_flight_allowed,
                });
                merge(&mut row, measured.as_json());
                merge(&mut row, json!({ "usage": usage }));
                if let Some(ceiling) = &ceiling {
                    merge(
                        &mut row,
                        beside(ceiling, &load, &measured, duration / 2).await?,
                    );
                }
                report.add(row);
            }
        }
    }
    let title = if ceiling.is_some() {
        "SendMessage, three replicas; beside it three bare processes with the same blocks"
    } else {
        "SendMessage, one follower dead"
    };
    report.end_part(title, &SEND_COLUMNS);
    Ok(())
}

/// The same bytes in the same blocks, as many in flight, through three bare processes.
async fn beside(
    ceiling: &Arc<Ceiling>,
    load: &SendLoad,
    measured: &Measured,
    duration: Duration,
) -> Result<Value, Failure> {
    let (ceiling, load) = (Arc::clone(ceiling), *load);
    let block_bytes = load.message_bytes * load.batch;
    let measure = move || ceiling.measure(block_bytes, load.in_flight_allowed(), duration);
    let figures = host::blocking::run(measure).await?;
    let share = measured.megabytes_per_second() / figures.megabytes_per_second.max(f64::EPSILON);
    Ok(json!({ "ceiling": figures, "share_of_ceiling": round(share) }))
}

async fn sdk(
    arguments: &BenchArguments,
    scene: &mut Scene,
    report: &mut Report,
    replicas: usize,
) -> Result<(), Failure> {
    let topic = format!("sdk-{replicas}");
    scene.topic(&topic).await?;
    let in_flights: &[usize] = if arguments.quick {
        &[256]
    } else {
        &[1, 64, 256, 1024]
    };
    for message_bytes in arguments.sizes() {
        for in_flight in in_flights.iter().copied() {
            let load = SdkLoad {
                message_bytes,
                in_flight,
                duration: arguments.duration(),
            };
            let observation = Observation::begin(&mut scene.group).await;
            let measured = bench::sdk_send(scene, &topic, load).await?;
            let usage = observation.end(&scene.group, &measured).await;
            let mut row = json!({
                "measure": "sdk_send", "replicas": replicas, "message_bytes": message_bytes,
                "batch": "sdk", "in_flight": in_flight,
            });
            merge(&mut row, measured.as_json());
            merge(&mut row, json!({ "usage": usage }));
            report.add(row);
        }
    }
    report.end_part(
        &format!("The SDK's producer, {replicas} replicas"),
        &SEND_COLUMNS,
    );
    Ok(())
}

async fn consume(
    arguments: &BenchArguments,
    scene: &mut Scene,
    report: &mut Report,
    replicas: usize,
) -> Result<(), Failure> {
    let message_bytes = KIB;
    let topic = format!("consume-{replicas}");
    scene.topic(&topic).await?;
    let backlog = if arguments.quick {
        BACKLOG_QUICK
    } else {
        BACKLOG
    };
    let stored = bench::fill(scene, &topic, message_bytes, backlog).await?;
    let observation = Observation::begin(&mut scene.group).await;
    let measured = bench::catch_up(scene, &topic, stored, message_bytes).await?;
    let usage = observation.end(&scene.group, &measured).await;
    let row = |measure: &str, measured: &Measured, usage: Value| {
        let mut row = json!({
            "measure": measure, "replicas": replicas, "message_bytes": message_bytes,
        });
        merge(&mut row, measured.as_json());
        merge(&mut row, json!({ "usage": usage }));
        row
    };
    report.add(row("catch_up", &measured, usage));
    let load = SdkLoad {
        message_bytes,
        in_flight: 256,
        duration: arguments.duration(),
    };
    let observation = Observation::begin(&mut scene.group).await;
    let measured = bench::tail(scene, &topic, load).await?;
    let usage = observation.end(&scene.group, &measured).await;
    report.add(row("tail", &measured, usage));
    let columns = [
        ("", "/measure"),
        ("bytes", "/message_bytes"),
        ("msg/s", "/messages_per_second"),
        ("MB/s", "/megabytes_per_second"),
        ("leader cores", "/usage/leader/cores"),
        ("client cores", "/usage/client_cores"),
    ];
    report.end_part(
        &format!("One consumer of the SDK, {replicas} replicas"),
        &columns,
    );
    Ok(())
}

async fn latency(
    arguments: &BenchArguments,
    scene: &mut Scene,
    report: &mut Report,
    replicas: usize,
) -> Result<(), Failure> {
    let topic = format!("latency-{replicas}");
    scene.topic(&topic).await?;
    let seconds = if arguments.quick {
        LATENCY_SECONDS_QUICK
    } else {
        LATENCY_SECONDS
    };
    let duration = Duration::from_secs(seconds);
    let measured = bench::end_to_end(scene, &topic, KIB, LATENCY_RATE, duration).await?;
    let mut row = json!({
        "measure": "end_to_end", "replicas": replicas, "message_bytes": KIB,
        "messages_per_second": LATENCY_RATE,
    });
    merge(&mut row, measured.times_as_json());
    report.add(row);
    let columns = [
        ("bytes", "/message_bytes"),
        ("msg/s", "/messages_per_second"),
        ("p50 ms", "/p50_ms"),
        ("p99 ms", "/p99_ms"),
        ("p99.9 ms", "/p99_9_ms"),
        ("max ms", "/max_ms"),
    ];
    report.end_part(
        &format!("From due to received, {replicas} replicas"),
        &columns,
    );
    Ok(())
}

/// Kills of the leader.
pub(crate) async fn failover(
    arguments: &BenchArguments,
    scene: &mut Scene,
    report: &mut Report,
) -> Result<(), Failure> {
    let topic = "failover";
    scene.topic(topic).await?;
    let measured = bench::failovers(scene, topic, arguments.kills()).await?;
    let mut row = json!({ "measure": "failover", "kills": measured.messages });
    merge(&mut row, measured.times_as_json());
    report.add(row);
    let columns = [
        ("kills", "/kills"),
        ("p50 ms", "/p50_ms"),
        ("p99 ms", "/p99_ms"),
        ("max ms", "/max_ms"),
    ];
    report.end_part(
        "Longest time without a receipt when the leader is killed",
        &columns,
    );
    Ok(())
}

/// From a start to a leader.
pub(crate) async fn start(
    arguments: &BenchArguments,
    scene: &mut Scene,
    report: &mut Report,
    first_start: Duration,
) -> Result<(), Failure> {
    let times = if arguments.quick {
        STARTS_QUICK
    } else {
        STARTS
    };
    let mut measured = bench::starts(scene, times).await?;
    measured.took(first_start);
    let mut row = json!({ "measure": "start", "starts": times + 1 });
    merge(&mut row, measured.times_as_json());
    report.add(row);
    let columns = [
        ("starts", "/starts"),
        ("p50 ms", "/p50_ms"),
        ("max ms", "/max_ms"),
    ];
    report.end_part(
        "From starting the processes to a leader that serves",
        &columns,
    );
    Ok(())
}

/// What a replica writes for a byte of payload.
async fn written(scene: &mut Scene, report: &mut Report) -> Result<(), Failure> {
    let (message_bytes, batch) = (KIB, 32);
    let (measured, usage) = bench::written(scene, "written", message_bytes, batch).await?;
    let most = most_written(&usage)?;
    let mut row = json!({
        "measure": "written", "message_bytes": message_bytes, "batch": batch,
        "disk_bytes_per_payload_byte_max": most,
    });
    merge(&mut row, measured.as_json());
    merge(&mut row, json!({ "usage": usage }));
    report.add(row);
    let columns = [
        ("bytes", "/message_bytes"),
        ("batch", "/batch"),
        ("messages", "/messages"),
        (
            "leader's log B/B",
            "/usage/leader/log_bytes_per_payload_byte",
        ),
        ("most disk B/B", "/disk_bytes_per_payload_byte_max"),
    ];
    let title = "Bytes written by a replica for each byte of payload, tables flushed";
    report.end_part(title, &columns);
    Ok(())
}

/// The most that a broker wrote for a byte of payload. One that wrote nothing was not measured: a figure of 0 would meet any goal.
fn most_written(usage: &Value) -> Result<f64, Failure> {
    let brokers = usage["brokers"].as_array().into_iter().flatten();
    let figures: Vec<f64> = brokers
        .map(|broker| {
            let figure = broker["disk_bytes_per_payload_byte"].as_f64();
            figure.unwrap_or_default()
        })
        .collect();
    let least = figures.iter().copied().reduce(f64::min);
    match least {
        Some(least) if least > 0.0 => Ok(figures.into_iter().fold(least, f64::max)),
        _ => Err(Failure::Operation(format!(
            "what the brokers write cannot be measured here, {figures:?} bytes for a byte: /proc/PID/io is not \
             readable, or the directory is on no disk"
        ))),
    }
}

/// Starts of a broker that has a large log.
pub(crate) async fn large_log(
    arguments: &BenchArguments,
    report: &mut Report,
    program: &Path,
    directory: &Path,
) -> Result<(), Failure> {
    let log_bytes = arguments.log_gib << 30;
    let free_bytes = host::Host::real()
        .disk
        .free_bytes(directory)
        .map_err(|error| Failure::during(directory.display(), error))?;
    if free_bytes < log_bytes + LARGE_LOG_ROOM_BYTES {
        report.add(json!({
            "measure": "large_log", "skipped": true, "free_bytes": free_bytes,
            "log_bytes": log_bytes,
        }));
        report.progress("too little space for a large log: its starts are not measured");
        report.end_part("", &[]);
        return Ok(());
    }
    report.progress(format_args!("a log of {} GiB is filled", arguments.log_gib));
    let found = bench::large_log(program, directory, log_bytes, LARGE_LOG_STARTS).await?;
    report.add(json!({
        "measure": "large_log", "starts": LARGE_LOG_STARTS,
        "log_gib": round(found.log_bytes as f64 / f64::from(1 << 30)),
        "to_vote": found.to_vote.times_as_json(), "to_serve": found.to_serve.times_as_json(),
    }));
    let columns = [
        ("log GiB", "/log_gib"),
        ("starts", "/starts"),
        ("to vote, max ms", "/to_vote/max_ms"),
        ("to serve, max ms", "/to_serve/max_ms"),
    ];
    let title = "A broker with a large log: killed, nothing of it cached, started";
    report.end_part(title, &columns);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn usage(figures: &[f64]) -> Value {
        let broker = |figure: &f64| json!({ "disk_bytes_per_payload_byte": figure });
        json!({ "brokers": figures.iter().map(broker).collect::<Vec<_>>() })
    }

    /// Catches a goal that is met because nothing was measured.
    #[test]
    fn what_was_not_measured_is_no_figure() {
        assert_eq!(most_written(&usage(&[1.1, 1.25, 1.2])).unwrap(), 1.25);
        let unmeasured: [&[f64]; 3] = [&[], &[1.1, 0.0, 1.2], &[0.0, 0.0, 0.0]];
        for unmeasured in unmeasured {
            assert!(most_written(&usage(unmeasured)).is_err(), "{unmeasured:?}");
        }
        assert!(most_written(&json!({})).is_err());
    }
}
