//! What a synced append costs, and what the file beneath it has to do with it.
//!
//! `file/*`: one write of 64 KiB and one sync, on a file that grows, on one whose blocks are reserved,
//! and on one whose blocks were written before. `log/*`: the whole commit log on top, with segment
//! files that are reserved when they are needed, or dropped ones that are used again. Set `RAFTMQ_BENCH_DIR` to a directory on the disk
//! that is to be measured; the default is the working directory.
#![allow(
    clippy::unwrap_used,
    missing_docs,
    reason = "a panic is a failed benchmark"
)]

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use host::{Disk, File, Host};
use store::{CommitLog, DataDir, Entry, EntryKind, Identity, LogConfig};
use tokio::runtime::Runtime;

const BLOCK_BYTES: usize = 64 << 10;
const FILE_BYTES: u64 = 256 << 20;

fn bench_dir() -> tempfile::TempDir {
    let dir = std::env::var_os("RAFTMQ_BENCH_DIR").map_or(PathBuf::from("."), PathBuf::from);
    tempfile::tempdir_in(dir).unwrap()
}

fn runtime() -> Runtime {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .unwrap()
}

async fn fill(file: &Arc<dyn File>) {
    let zeros = Bytes::from(vec![0; 4 << 20]);
    for position in (0..FILE_BYTES).step_by(zeros.len()) {
        file.write_at(position, std::slice::from_ref(&zeros))
            .unwrap();
    }
    file.clone().sync().await.unwrap();
}

/// Times `count` writes on files made by `prepare`, which is not timed.
async fn write_blocks(disk: &dyn Disk, dir: &Path, count: u64, prepared: &str) -> Duration {
    let path = dir.join("file");
    let block = Bytes::from(vec![7; BLOCK_BYTES]);
    let mut file = None;
    let (mut position, mut elapsed) = (FILE_BYTES, Duration::ZERO);
    for _ in 0..count {
        if position + BLOCK_BYTES as u64 > FILE_BYTES {
            let fresh = disk.create(&path).unwrap();
            match prepared {
                "reserved" => fresh.preallocate(FILE_BYTES).unwrap(),
                "written before" => fill(&fresh).await,
                _ => {}
            }
            fresh.clone().sync().await.unwrap();
            (file, position) = (Some(fresh), 0);
        }
        let file = file.clone().unwrap();
        let begun = Instant::now();
        file.write_and_sync(position, vec![block.clone()])
            .await
            .unwrap();
        elapsed += begun.elapsed();
        position += BLOCK_BYTES as u64;
    }
    elapsed
}

fn files(criterion: &mut Criterion) {
    let runtime = runtime();
    let mut group = criterion.benchmark_group("file");
    group.throughput(Throughput::Bytes(BLOCK_BYTES as u64));
    for prepared in ["growing", "reserved", "written before"] {
        let dir = bench_dir();
        group.bench_function(prepared, |bencher| {
            let disk = Host::real().disk;
            bencher.iter_custom(|count| {
                runtime.block_on(write_blocks(&*disk, dir.path(), count, prepared))
            });
        });
    }
    group.finish();
}

/// More than one sample writes, so that a sample never runs out of files to use again.
const RECYCLED_SEGMENTS: usize = 96;
const SEGMENT_BYTES: u64 = 16 << 20;

async fn open(dir: &Path, recycle: bool) -> CommitLog {
    let config = LogConfig {
        segment_bytes: SEGMENT_BYTES,
        reserve_bytes: 0,
        recycled_segments_max: if recycle { RECYCLED_SEGMENTS } else { 0 },
        prefill: false,
        ..LogConfig::default()
    };
    let identity = Identity {
        cluster_id: "bench".into(),
        group: "g".into(),
        broker_id: 1,
    };
    let dir = DataDir::open(&Host::real(), dir, &identity, &config)
        .await
        .unwrap();
    let log = CommitLog::open(&Arc::new(dir), config).await.unwrap().0;
    if recycle {
        let body = Bytes::from(vec![7; 1 << 20]);
        append(
            &log,
            (RECYCLED_SEGMENTS as u64 * SEGMENT_BYTES) >> 20,
            8,
            &body,
        )
        .await;
        drop_old(&log).await;
    }
    log
}

/// Appends `count` entries, `in_flight` of them waiting for the disk at a time.
async fn append(log: &CommitLog, count: u64, in_flight: usize, body: &Bytes) {
    let permits = Arc::new(tokio::sync::Semaphore::new(in_flight));
    for _ in 0..count {
        let permit = permits.clone().acquire_owned().await.unwrap();
        let index = log.last().map_or(0, |last| last.index + 1);
        let entry = Entry {
            term: 1,
            index,
            kind: EntryKind::Normal,
            body: body.clone(),
        };
        let done = Box::new(move |result: store::Result<()>| {
            result.unwrap();
            drop(permit);
        });
        log.append(vec![entry], done).unwrap();
    }
    let _all = permits.acquire_many(in_flight as u32).await.unwrap();
}

/// Keeps the benchmark's disk from filling: segments are dropped, and their files reused.
async fn drop_old(log: &CommitLog) {
    let last = log.last().unwrap();
    log.purge_to(last).await.unwrap();
    log.drop_to(last.index).await.unwrap();
}

fn logs(criterion: &mut Criterion) {
    let runtime = runtime();
    let mut group = criterion.benchmark_group("log");
    for (recycle, name) in [(false, "reserved"), (true, "recycled")] {
        for (in_flight, body_bytes) in [(1, BLOCK_BYTES), (16, BLOCK_BYTES), (64, 1 << 10)] {
            let dir = bench_dir();
            let log = runtime.block_on(open(&dir.path().join("data"), recycle));
            let body = Bytes::from(vec![7; body_bytes]);
            group.throughput(Throughput::Bytes(body_bytes as u64));
            group.bench_function(
                format!("{name}/{body_bytes} bytes x {in_flight}"),
                |bencher| {
                    bencher.iter_custom(|count| {
                        runtime.block_on(async {
                            let begun = Instant::now();
                            append(&log, count, in_flight, &body).await;
                            let elapsed = begun.elapsed();
                            drop_old(&log).await;
                            elapsed
                        })
                    });
                },
            );
            runtime.block_on(log.close());
        }
    }
    group.finish();
}

criterion_group! {
    name = benches;
    config = Criterion::default()
        .sample_size(10)
        .warm_up_time(Duration::from_secs(1))
        .measurement_time(Duration::from_secs(4));
    targets = files, logs
}
criterion_main!(benches);
