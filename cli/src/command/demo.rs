//! `raftmq demo --file F`: every line of a file through a group that loses its leader half way.
//!
//! A group of its own on free ports in a temporary directory. One producer of the SDK sends, two
//! consumers of one consumer group receive, the leader is killed with SIGKILL and started again
//! later. The last line on standard output is the verdict, a JSON object; all else goes to standard
//! error.

mod consumers;
mod envelope;
mod producer;
mod progress;
mod tally;

use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use clap::Args;
use host::shutdown::Shutdown;
use raftmq_client::{Client, TopicSettings};
use tokio::time::Instant;

use crate::failure::Failure;
use crate::files::{self, ScratchDirectory};
use crate::process::{Group, GroupPlan};
use crate::signals;
use crate::terminal::{note, say};
use progress::Progress;
use tally::{Tally, Verdict};

const TOPIC: &str = "demo";
const QUEUES: u32 = 4;
const LEADER_PATIENCE: Duration = Duration::from_secs(30);
/// After the kill: a follower leads by then, and the old leader has something to catch up with.
const RESTART_PAUSE: Duration = Duration::from_secs(2);
/// The consumers may be silent for this long before what is missing is called lost.
const SILENCE_PATIENCE: Duration = Duration::from_secs(30);
const LOOK_INTERVAL: Duration = Duration::from_millis(20);
const LEADER_LOOK_INTERVAL: Duration = Duration::from_millis(100);

/// What all parts of the demo write into.
type SharedTally = Arc<Mutex<Tally>>;

/// Flags of `raftmq demo`.
#[derive(Args, Debug)]
pub(crate) struct DemoArguments {
    /// The file whose lines are sent
    #[arg(long, value_name = "FILE")]
    file: PathBuf,
    /// Keep the group's data and logs in this directory instead of a temporary one
    #[arg(long, value_name = "DIRECTORY")]
    keep: Option<PathBuf>,
}

/// Tells the story; fails if a message was lost or came out of order.
pub(crate) async fn run(arguments: DemoArguments) -> Result<(), Failure> {
    let lines = read_lines(&arguments)?;
    let scratch = ScratchDirectory::create(None, "demo")
        .map_err(|error| Failure::during("creating a temporary directory", error))?;
    let directory = arguments.keep.as_deref().unwrap_or(scratch.path());
    let program =
        std::env::current_exe().map_err(|error| Failure::during("finding this program", error))?;
    let plan = GroupPlan::on_free_ports(&program, directory, "demo")?;
    note(format_args!(
        "{} lines of {}",
        lines.len(),
        arguments.file.display()
    ));
    let mut group = Group::start(plan)?;
    tokio::select! {
        biased;
        reason = signals::stop_requested() => {
            let reason = reason?;
            group.end().await;
            Err(Failure::Operation(format!("{reason} before the end of the demo")))
        }
        outcome = tell(&mut group, lines) => {
            group.end().await;
            outcome
        }
    }
}

fn read_lines(arguments: &DemoArguments) -> Result<Vec<Bytes>, Failure> {
    let path = &arguments.file;
    let content =
        files::read_bytes(path).map_err(|error| Failure::during(path.display(), error))?;
    let content = Bytes::from(content);
    let whole = content.strip_suffix(b"\n").unwrap_or(&content);
    let lines: Vec<Bytes> = whole
        .split(|byte| *byte == b'\n')
        .map(|line| content.slice_ref(line))
        .collect();
    if content.is_empty() {
        return Err(Failure::Operation(format!("{} is empty", path.display())));
    }
    Ok(lines)
}

async fn tell(group: &mut Group, lines: Vec<Bytes>) -> Result<(), Failure> {
    let led = group.wait_for_leader(LEADER_PATIENCE).await?;
    note(format_args!(
        "broker {} leads in term {}",
        led.broker_id, led.term
    ));
    let client = Client::builder()
        .seeds(group.plan().seeds())
        .administration(group.plan().administration()?)
        .build()
        .await?;
    let settings = TopicSettings {
        queue_count: QUEUES,
        ..TopicSettings::default()
    };
    client.admin().create_topic(TOPIC, &settings).await?;

    let tally = Arc::new(Mutex::new(Tally::new(lines.clone())));
    let progress = Progress::new(lines.len());
    let (stop, stopped) = Shutdown::new();
    let consumers = consumers::start(group.plan(), &tally, &stopped).await?;
    let started = Instant::now();
    let producer = tokio::spawn(producer::send_all(
        client,
        lines.clone(),
        Arc::clone(&tally),
    ));
    let gap_ms = direct(group, producer, &tally, &progress, lines.len()).await?;
    wait_for_consumers(&tally, &progress).await;
    let seconds = started.elapsed().as_secs_f64();
    stop.shut_down();
    consumers::finish(consumers).await?;
    progress.finish();
    conclude(&tally, gap_ms, seconds)
}

/// Kills the leader half way, starts it again, watches who leads; the longest gap between receipts.
async fn direct(
    group: &mut Group,
    mut producer: tokio::task::JoinHandle<Result<u64, Failure>>,
    tally: &SharedTally,
    progress: &Progress,
    total: usize,
) -> Result<u64, Failure> {
    let mut killed: Option<(u64, Instant)> = None;
    let mut again = false;
    let mut looked = Instant::now();
    let mut gap_ms = None;
    while gap_ms.is_none() || !again {
        tokio::select! {
            biased;
            gap = &mut producer, if gap_ms.is_none() => {
                gap_ms = Some(gap.map_err(|error| Failure::during("the producer", error))??);
            }
            () = tokio::time::sleep(LOOK_INTERVAL) => {}
        }
        let counts = lock(tally).counts();
        progress.show(counts);
        if looked.elapsed() >= LEADER_LOOK_INTERVAL || killed.is_none() {
            looked = Instant::now();
            if let Some(led) = group.leader().await {
                lock(tally).led(led.term, led.broker_id);
            }
        }
        match killed {
            None if counts.1 * 2 >= total => {
                let led = group.wait_for_leader(LEADER_PATIENCE).await?;
                lock(tally).led(led.term, led.broker_id);
                group.broker(led.broker_id).destroy().await;
                killed = Some((led.broker_id, Instant::now()));
                progress.say(format!(
                    "kill -9 broker {}, the leader, after {} acks",
                    led.broker_id, counts.1
                ));
            }
            Some((id, at)) if !again && at.elapsed() >= RESTART_PAUSE => {
                group.start_broker(id)?;
                again = true;
                progress.say(format!("broker {id} is started again"));
            }
            _ => {}
        }
    }
    Ok(gap_ms.unwrap_or(0))
}

/// Until everything acknowledged was received, or the consumers have been silent for too long.
async fn wait_for_consumers(tally: &SharedTally, progress: &Progress) {
    let mut last = (Instant::now(), 0);
    loop {
        let (counts, missing) = {
            let tally = lock(tally);
            (tally.counts(), tally.missing())
        };
        progress.show(counts);
        if missing == 0 {
            return;
        }
        if counts.2 != last.1 {
            last = (Instant::now(), counts.2);
        } else if last.0.elapsed() > SILENCE_PATIENCE {
            return;
        }
        tokio::time::sleep(LOOK_INTERVAL).await;
    }
}

fn conclude(tally: &SharedTally, gap_ms: u64, seconds: f64) -> Result<(), Failure> {
    let (verdict, strange) = {
        let tally = lock(tally);
        (
            tally.verdict(gap_ms, (seconds * 1000.0).round() / 1000.0),
            tally.strange(),
        )
    };
    let line = serde_json::to_string(&verdict)
        .map_err(|error| Failure::during("writing the verdict", error))?;
    if strange > 0 {
        note(format_args!(
            "{strange} messages arrived that nobody sent like that"
        ));
    }
    if verdict.acked < verdict.sent {
        note(format_args!(
            "{} messages were never acknowledged",
            verdict.sent - verdict.acked
        ));
    }
    explain_duplicates(&verdict);
    say(line);
    if verdict.lost > 0 || verdict.out_of_order > 0 || strange > 0 {
        let Verdict {
            lost, out_of_order, ..
        } = verdict;
        return Err(Failure::Operation(format!(
            "{lost} lost, {out_of_order} out of order"
        )));
    }
    Ok(())
}

/// At least once is the promise; how often it was more than once, and why, belongs beside it.
fn explain_duplicates(verdict: &Verdict) {
    let (all, moved) = (verdict.duplicated, verdict.duplicated_by_hand_over);
    if all == 0 {
        return;
    }
    note(format_args!(
        "{all} deliveries were repetitions: every message is delivered at least once, and none of these is stored twice"
    ));
    if moved > 0 {
        note(format_args!(
            "  {moved} when a queue went from one consumer to the other: its new one begins at what is committed, and again gets \
             what the former one had in its hands and had not committed when it was to give the queue up"
        ));
    }
    if all > moved {
        note(format_args!(
            "  {} to the same consumer: it lost a queue and got it back, and began at what was committed",
            all - moved
        ));
    }
}

fn lock(tally: &SharedTally) -> std::sync::MutexGuard<'_, Tally> {
    tally
        .lock()
        .expect("no part of the demo panics while it holds the tally")
}
