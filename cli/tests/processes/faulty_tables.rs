//! RocksDB itself on a file system that fails or stalls, while the rest of the same disk is well.
//!
//! RocksDB opens its own files, past the disk seam: what lets them fail is laid over libc (`faulty_tables.c`). Must never pass for
//! run where it was not: without a C compiler it says so, and fails where `CI` is set.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use host::shutdown::{Shutdown, ShutdownTrigger};
use raftmq_client::{Filter, PullConsumer};
use tokio::task::JoinHandle;

use super::cluster::{Cluster, LEADER_PATIENCE, PATIENCE, eventually, small};
use super::traffic::{Writer, expect_nothing_lost, number};

/// Messages that a writer gets through in a moment, and the checkpoint that they make due.
const SOME: usize = 300;
/// A checkpoint's worth of log is written every second.
const BODY_BYTES: usize = 4 << 10;
/// Names the file that says what goes wrong; see `faulty_tables.c`.
const PLAN: &str = "FAULTY_TABLES";
const POLL: Duration = Duration::from_millis(500);
/// Longest that [`SOME`] messages may take while syncs of the tables take a second: many times what they take without, and a
/// fraction of what they would take if each waited for one.
const SOME_MAX: Duration = Duration::from_secs(15);
/// Syncs that take long before a test has seen enough: several checkpoints' worth.
const SLOW_SYNCS: u64 = 12;
/// Elections while so many syncs took a second, twice. The one leader that is slow may hand over, as it should once its tables
/// have stood for longer than an election; a busy machine makes some too. A leader that each slow sync deposes would make many more.
const ELECTIONS_MAX: u64 = 8;

/// The library; None where it cannot be made.
fn library() -> Option<&'static Path> {
    static LIBRARY: OnceLock<Option<PathBuf>> = OnceLock::new();
    LIBRARY.get_or_init(compile).as_deref()
}

fn compile() -> Option<PathBuf> {
    let source = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/tests/processes/faulty_tables.c"
    );
    let directory = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let made = directory.join(format!("faulty_tables-{}.so", std::process::id()));
    let mut compiler = Command::new("cc");
    compiler.args(["-shared", "-fPIC", "-O2", "-o"]);
    match compiler.arg(&made).arg(source).output() {
        Ok(output) => {
            let errors = String::from_utf8_lossy(&output.stderr);
            assert!(output.status.success(), "{source}: {errors}");
        }
        Err(error) => {
            let why = format!("no C compiler: {error}");
            assert!(std::env::var_os("CI").is_none(), "{why}");
            eprintln!("not tried: {why}");
            return None;
        }
    }
    // One file, whichever process made it last.
    let library = directory.join("faulty_tables.so");
    std::fs::rename(&made, &library).unwrap();
    Some(library)
}

fn plan(cluster: &Cluster, id: u64) -> PathBuf {
    cluster.directory().join(format!("faulty-tables-{id}"))
}

/// A group with small limits whose tables' files can be made to fail, a writer and a reader; None where that is not possible.
async fn at_work() -> Option<(Cluster, Writer, Reader)> {
    let library = library()?.display().to_string();
    let cluster = Cluster::start_with(|group| {
        let mut group = small(group);
        for id in group.brokers.keys().copied().collect::<Vec<_>>() {
            let path = group.directory.join(format!("faulty-tables-{id}"));
            let variables = [
                ("LD_PRELOAD".to_owned(), library.clone()),
                (PLAN.to_owned(), path.display().to_string()),
            ];
            group.environment.insert(id, variables.into());
        }
        group
    })
    .await;
    cluster.topic("orders").await;
    let writer = Writer::start(&cluster, "orders", BODY_BYTES).await;
    let reader = Reader::start(&cluster, "orders").await;
    writer.wait_for_acks(SOME).await;
    Some((cluster, writer, reader))
}

/// From now on this goes wrong in the tables' files of broker `id`.
fn spoil(cluster: &Cluster, id: u64, what: &str) {
    std::fs::write(plan(cluster, id), what).unwrap();
}

fn heal(cluster: &Cluster, id: u64) {
    std::fs::remove_file(plan(cluster, id)).unwrap();
}

/// How often something went wrong.
fn struck(cluster: &Cluster, id: u64) -> u64 {
    let count = plan(cluster, id).with_extension("struck");
    std::fs::metadata(count).map_or(0, |file| file.len())
}

/// A consumer group of one that reads until it is told to finish.
struct Reader {
    seen: Arc<Mutex<BTreeSet<u64>>>,
    stop: ShutdownTrigger,
    work: JoinHandle<()>,
}

impl Reader {
    async fn start(cluster: &Cluster, topic: &str) -> Reader {
        let client = cluster.client().await;
        let consumer = client.pull_consumer("workers").build().unwrap();
        consumer.subscribe(topic, Filter::All).await.unwrap();
        let seen = Arc::default();
        let (stop, stopped) = Shutdown::new();
        let work = tokio::spawn(read(consumer, Arc::clone(&seen), stopped));
        Reader { seen, stop, work }
    }

    /// Waits until it has got all of these.
    async fn finish(self, expected: &BTreeSet<u64>) {
        let missing = || expected - &*self.seen.lock().unwrap();
        let got_all = eventually(PATIENCE, || async { missing().is_empty().then_some(()) });
        assert!(got_all.await.is_some(), "not delivered: {:?}", missing());
        self.stop.shut_down();
        self.work.await.unwrap();
    }
}

async fn read(consumer: PullConsumer, seen: Arc<Mutex<BTreeSet<u64>>>, stop: Shutdown) {
    while !stop.is_shut_down() {
        // Errors while nobody leads; what is missing in the end is what counts.
        let deliveries = consumer.poll(1024, POLL).await.unwrap_or_default();
        let numbers = deliveries.iter().map(|one| number(one.message.body()));
        seen.lock().unwrap().extend(numbers);
    }
    consumer.close().await.unwrap();
}

/// The leader's tables fail until somebody mends its disk; `error` is the system's word for it.
async fn tables_that_fail_end_the_leader_alone(fault: &str, error: &str) {
    let Some((mut cluster, writer, reader)) = at_work().await else {
        return;
    };
    let led = cluster.led().await;
    let id = led.broker_id;
    spoil(&cluster, id, fault);
    ends_for(&mut cluster, id, error).await;
    let next = cluster
        .wait_for_leader_after(led.term, LEADER_PATIENCE)
        .await
        .unwrap();
    assert_ne!(next.broker_id, id);
    writer.wait_for_acks(SOME).await;
    // As who supervises it does, before anybody has mended anything.
    cluster.start_broker(id).unwrap();
    ends_for(&mut cluster, id, error).await;
    writer.wait_for_acks(SOME).await;
    assert!(struck(&cluster, id) > 0, "nothing went wrong");

    heal(&cluster, id);
    cluster.start_broker(id).unwrap();
    cluster.wait_until_caught_up(id).await;
    // It can do all that it could: with another one away, nothing is agreed on without it.
    let other = cluster.followers().await.into_iter().find(|one| *one != id);
    cluster.kill(other.unwrap()).await;
    writer.wait_for_acks(SOME).await;
    let acked = writer.finish().await;
    reader.finish(&acked).await;
    expect_nothing_lost(&cluster, "orders", &acked).await;
}

/// Waits until the broker has ended and said what the disk did.
async fn ends_for(cluster: &mut Cluster, id: u64, error: &str) {
    let code = cluster.wait_for_end(id).await;
    let words = cluster.broker(id).last_words(1);
    assert_eq!(code, Some(1), "{words}");
    assert!(words.starts_with("raftmq: "), "{words}");
    assert!(words.contains(error), "{words}");
}

/// Catches a leader that goes on with tables which nothing is written to any more, and one that keeps the lead; a broker that
/// throws its tables away for a disk that does not take anything, and then has none.
#[tokio::test(flavor = "multi_thread")]
async fn a_leader_whose_tables_cannot_be_written_ends_and_comes_back() {
    tables_that_fail_end_the_leader_alone("write eio\n", "Input/output error").await;
}

/// Catches a checkpoint that is taken for one although its tables were never synced.
#[tokio::test(flavor = "multi_thread")]
async fn a_leader_whose_tables_cannot_be_synced_ends_and_comes_back() {
    tables_that_fail_end_the_leader_alone("sync eio\n", "Input/output error").await;
}

/// Catches a leader that waits for room in its tables' files for ever, while its log has some.
#[tokio::test(flavor = "multi_thread")]
async fn a_leader_without_room_for_its_tables_ends_and_comes_back() {
    tables_that_fail_end_the_leader_alone("write enospc\n", "No space left on device").await;
}

/// Waits until the tables' files of these brokers have been waited for often enough; sends must go on all the while.
async fn sends_go_on(cluster: &Cluster, writer: &Writer, slow: &[u64]) {
    let before: Vec<u64> = slow.iter().map(|id| struck(cluster, *id)).collect();
    let enough = || {
        let mut counts = slow.iter().zip(&before);
        counts.all(|(id, before)| struck(cluster, *id) - before >= SLOW_SYNCS)
    };
    let sending = async {
        while !enough() {
            let some = tokio::time::timeout(SOME_MAX, writer.wait_for_acks(SOME)).await;
            assert!(some.is_ok(), "sends wait\n{}", cluster.last_words());
        }
    };
    let seen = tokio::time::timeout(2 * PATIENCE, sending).await;
    assert!(seen.is_ok(), "too few syncs\n{}", cluster.last_words());
}

/// Catches whoever waits for RocksDB's files with a lock that applying, or a heartbeat, needs: sends would take as long as
/// syncs, and one leader after the other would be deposed.
#[tokio::test(flavor = "multi_thread")]
async fn sends_go_on_while_tables_wait_for_the_disk() {
    let Some((cluster, writer, reader)) = at_work().await else {
        return;
    };
    let led = cluster.led().await;
    spoil(&cluster, led.broker_id, "sync delay_ms 1000\n");
    sends_go_on(&cluster, &writer, &[led.broker_id]).await;
    let all = cluster.ids();
    for id in &all {
        spoil(&cluster, *id, "sync delay_ms 1000\n");
    }
    sends_go_on(&cluster, &writer, &all).await;
    let now = cluster.led().await;
    let elections = now.term - led.term;
    assert!(elections <= ELECTIONS_MAX, "{led:?}, and then {now:?}");
    for id in all {
        heal(&cluster, id);
    }
    let acked = writer.finish().await;
    reader.finish(&acked).await;
    expect_nothing_lost(&cluster, "orders", &acked).await;
}
