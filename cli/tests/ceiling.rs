//! The measure that the benchmark holds itself against must itself work: three real processes.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use cli::ceiling::{Ceiling, Writing, measure_disk};

/// Catches a chain that counts blocks which fewer than two processes have synced, or none at all.
#[tokio::test(flavor = "multi_thread")]
async fn three_bare_processes_pass_blocks_on() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let program = Path::new(env!("CARGO_BIN_EXE_raftmq"));
    let ceiling = Arc::new(Ceiling::start(program, directory.path()).expect("started"));
    for (block_bytes, in_flight) in [(1 << 10, 256), (32 << 10, 64), (1 << 20, 8), (1 << 10, 1)] {
        let ceiling = Arc::clone(&ceiling);
        let measure = move || ceiling.measure(block_bytes, in_flight, Duration::from_millis(500));
        let load = host::blocking::run(measure).await.expect("measured");
        eprintln!("{load:?}");
        assert!(load.blocks_per_second > 10.0, "{load:?}");
        assert!(load.p50_us > 0 && load.p50_us <= load.p99_us, "{load:?}");
    }
}

/// Catches a disk figure that does not come from the disk.
#[test]
fn the_disk_alone_is_measured() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    for writing in [Writing::Growing, Writing::Reserved, Writing::Overwriting] {
        let duration = Duration::from_millis(200);
        let figures = measure_disk(directory.path(), 4096, writing, duration).expect("measured");
        eprintln!("{figures:?}");
        assert!(figures.syncs_per_second > 1.0, "{figures:?}");
    }
}
