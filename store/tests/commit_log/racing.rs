//! Readers, retention and the flusher at the same time, on threads and on the real disk.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use host::Host;
use store::{CommitLog, DataDir, Identity, LogConfig, StoreError};

use crate::world::{append, entry, id, small_config};

const BODY_BYTES: usize = 500;

async fn open(dir: &std::path::Path) -> CommitLog {
    let config = LogConfig {
        segment_bytes: 16 << 10,
        prefill: true,
        ..small_config()
    };
    let identity = Identity {
        cluster_id: "c".into(),
        group: "g".into(),
        broker_id: 1,
    };
    let dir = DataDir::open(&Host::real(), dir, &identity, &config)
        .await
        .unwrap();
    CommitLog::open(&Arc::new(dir), config).await.unwrap().0
}

/// Reads all over the log until told to stop; returns how many entries it saw.
async fn read_everywhere(log: CommitLog, stop: Arc<AtomicBool>, mut place: u64) -> u64 {
    let mut seen = 0;
    while !stop.load(Ordering::SeqCst) {
        let positions = log.positions();
        let end = positions.appended.map_or(0, |last| last.index + 1);
        place = place
            .wrapping_mul(6364136223846793005)
            .wrapping_add(1442695040888963407);
        let span = (end - positions.dropped).max(1);
        // The lowest entries are dropped, and their files used again, under the reader's eyes.
        let start = positions.dropped + (place >> 33) % span.min(1 + (place >> 20) % 60);
        let read = match place % 3 {
            0 => log.entry(start).await.map(|entry| vec![entry]),
            _ => log.read(start, start + 20, 6000).await,
        };
        match read {
            Ok(entries) => {
                for (index, found) in (start..).zip(&entries) {
                    assert_eq!(*found, entry(1, index, BODY_BYTES));
                }
                seen += entries.len() as u64;
            }
            Err(StoreError::OutOfRange { .. }) => {}
            Err(error) => panic!("{error}"),
        }
        tokio::task::yield_now().await;
    }
    seen
}

/// Catches a reader that is handed the new contents of a reused file, or is told that a dropped
/// segment is damaged; and a scrubber that says so.
#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn readers_never_see_a_file_used_again() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(&dir.path().join("data")).await;
    let stop = Arc::new(AtomicBool::new(false));
    let readers: Vec<_> = (0..3)
        .map(|seed| tokio::spawn(read_everywhere(log.clone(), stop.clone(), seed)))
        .collect();
    let mut next = 0;
    for round in 0..150 {
        let batch = (next..next + 40)
            .map(|index| entry(1, index, BODY_BYTES))
            .collect();
        append(&log, batch).await.unwrap();
        next += 40;
        log.purge_to(id(1, next - 1)).await.unwrap();
        log.drop_to(next.saturating_sub(100)).await.unwrap();
        if round % 10 == 0 {
            for segment in log
                .segments()
                .await
                .unwrap()
                .iter()
                .filter(|one| one.sealed)
            {
                log.verify_segment(segment.first_index).await.unwrap();
            }
        }
    }
    stop.store(true, Ordering::SeqCst);
    for reader in readers {
        assert!(reader.await.unwrap() > 0);
    }
    assert!(
        log.counters().segments_recycled > 50,
        "{:?}",
        log.counters()
    );
    log.close().await;
    drop(log);
    let log = open(&dir.path().join("data")).await;
    assert_eq!(log.last(), Some(id(1, next - 1)));
}
