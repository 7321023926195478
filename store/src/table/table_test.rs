//! Every row comes back as it was written, and no damaged row makes a reader panic.

use std::path::Path;
use std::sync::Arc;

use host::testing::CrashDisk;
use proptest::prelude::*;

use super::queue_bounds::QueueBounds;
use super::*;
use crate::kv::{Batch, Kv, KvEngine, MemEngine};

fn tables() -> Arc<dyn Kv> {
    let engine = MemEngine::new(Arc::new(CrashDisk::new()));
    futures::executor::block_on(engine.open(Path::new("/tables").into())).unwrap()
}

fn written(fill: impl FnOnce(&mut Batch)) -> Arc<dyn Kv> {
    let kv = tables();
    let mut batch = Batch::new();
    fill(&mut batch);
    kv.write(batch).unwrap();
    kv
}

fn consume_row() -> impl Strategy<Value = consume_queue::Row> {
    let numbers = (
        any::<u32>(),
        any::<u64>(),
        any::<u32>(),
        any::<u32>(),
        1_u32..,
        any::<u64>(),
    );
    numbers.prop_map(
        |(first_offset, log_index, command, first, count, time_ms)| {
            let first_offset = u64::from(first_offset);
            consume_queue::Row {
                first_offset,
                log_index,
                command,
                first,
                count,
                time_ms,
                passed_ms: time_ms / 7,
            }
        },
    )
}

fn dedup_row() -> impl Strategy<Value = (dedup::RowKey, dedup::Row)> {
    let run = (any::<u64>(), 1_u32..9, any::<u32>()).prop_map(|(first, count, first_offset)| {
        dedup::Run {
            first: u128::from(first) << 60,
            count,
            first_offset: u64::from(first_offset),
        }
    });
    let runs = proptest::collection::vec(run, 1..5);
    let owner = prop_oneof![
        any::<u64>().prop_map(dedup::Owner::Client),
        any::<u64>().prop_map(dedup::Owner::Sequenced)
    ];
    let key = (any::<u64>(), owner, any::<u64>(), any::<u32>());
    let key = key.prop_map(|(topic_id, owner, log_index, command)| dedup::RowKey {
        topic_id,
        owner,
        log_index,
        command,
    });
    (key, any::<u64>(), any::<u32>(), runs).prop_map(|(key, passed_ms, queue, runs)| {
        let ids: u32 = runs.iter().map(|run| run.count).sum();
        let digests = (passed_ms / 2..).take(ids as usize).collect();
        let row = dedup::Row {
            passed_ms,
            queue,
            runs,
            digests,
        };
        (key, row)
    })
}

/// Reads everything, whatever it is.
fn read_all(kv: &dyn Kv) -> Vec<Result<(), StoreError>> {
    vec![
        topic::scan(kv, |_, _| Ok(())),
        group::scan(kv, |_, _| Ok(())),
        consume_queue::scan_all(kv, |_, _, _| Ok(())),
        consume_queue::last_at_or_before(kv, 1, 1, u64::MAX).map(drop),
        queue_bounds::scan(kv, |_, _, _| Ok(())),
        consumer_offset::scan(kv, |_, _, _, _| Ok(())),
        dedup::scan(kv, |_, _| Ok(())),
        clock::get(kv).map(drop),
        next_id::get(kv).map(drop),
        log_floor::get(kv).map(drop),
        retry::scan(kv, |_| Ok(())),
        settled::scan(kv, |_| Ok(())),
    ]
}

proptest! {
    /// Would catch fields that are written and read in different places.
    #[test]
    fn rows_come_back(
        (topic_id, queue) in (any::<u64>(), any::<u32>()),
        name in "\\PC{0,40}",
        row in consume_row(),
        ids in dedup_row(),
        (time_ms, log_index, offset) in (any::<u64>(), any::<u64>(), any::<u64>()),
    ) {
        let bounds = QueueBounds { min_offset: offset / 2, next_offset: offset };
        let clock = clock::Clock { time_ms, log_index, passed_ms: offset };
        let group_id = time_ms / 3;
        let (command, position, attempt) = (row.command, row.first, row.count);
        let key = DeliveryKey { queue: GroupQueue { group_id, topic_id, queue }, offset };
        let waiting = retry::Row { key, log_index, command, position, attempt, due_ms: offset / 3, time_ms };
        let done = settled::Row { key, attempt, passed_ms: time_ms };
        let kv = written(|batch| {
            applied::put(batch, name.as_bytes());
            topic::put(batch, topic_id, name.as_bytes());
            group::put(batch, &name, b"record");
            consume_queue::put(batch, topic_id, queue, &row);
            queue_bounds::put(batch, topic_id, queue, bounds);
            consumer_offset::put(batch, &name, topic_id, queue, offset);
            dedup::put(batch, ids.0, &ids.1);
            clock::put(batch, clock);
            next_id::put(batch, topic_id);
            log_floor::put(batch, log_index);
            retry::put(batch, &waiting);
            settled::put(batch, &done);
        });
        let mut seen = 0;
        prop_assert_eq!(applied::get(&*kv).unwrap().unwrap(), name.as_bytes());
        topic::scan(&*kv, |id, record| {
            assert_eq!((id, &record[..]), (topic_id, name.as_bytes()));
            seen += 1;
            Ok(())
        }).unwrap();
        group::scan(&*kv, |group, record| {
            assert_eq!((group, &record[..]), (name.as_str(), &b"record"[..]));
            seen += 1;
            Ok(())
        }).unwrap();
        let found = consume_queue::last_at_or_before(&*kv, topic_id, queue, row.end_offset());
        prop_assert_eq!(found.unwrap(), Some(row));
        let found = consume_queue::scan(&*kv, topic_id, queue, 0, 10).unwrap();
        prop_assert_eq!(found, vec![row]);
        queue_bounds::scan(&*kv, |topic, number, found| {
            assert_eq!((topic, number, found), (topic_id, queue, bounds));
            seen += 1;
            Ok(())
        }).unwrap();
        consumer_offset::scan(&*kv, |group, topic, number, found| {
            assert_eq!((group, topic, number, found), (name.as_str(), topic_id, queue, offset));
            seen += 1;
            Ok(())
        }).unwrap();
        dedup::scan(&*kv, |key, found| {
            assert_eq!((key, found), ids);
            seen += 1;
            Ok(())
        }).unwrap();
        retry::scan(&*kv, |found| {
            assert_eq!(found, waiting);
            seen += 1;
            Ok(())
        }).unwrap();
        settled::scan(&*kv, |found| {
            assert_eq!(found, done);
            seen += 1;
            Ok(())
        }).unwrap();
        prop_assert_eq!(seen, 7);
        prop_assert_eq!(clock::get(&*kv).unwrap(), clock);
        prop_assert_eq!(next_id::get(&*kv).unwrap(), topic_id);
        prop_assert_eq!(log_floor::get(&*kv).unwrap(), log_index);
        prop_assert_eq!(dump(&*kv).unwrap().len(), 11);
    }

    /// Would catch a reader that panics on, or silently takes, a row of another shape.
    #[test]
    fn damaged_rows_are_errors(
        kind in 1_u8..=12,
        key in proptest::collection::vec(any::<u8>(), 0..40),
        value in proptest::collection::vec(any::<u8>(), 0..80),
    ) {
        let kv = written(|batch| batch.put([&[kind], &key[..]].concat(), value));
        for error in read_all(&*kv).into_iter().filter_map(Result::err) {
            prop_assert!(error.is_corruption(), "{}", error);
        }
    }
}

/// Would catch a removal that reaches a neighbour: another queue, topic or group.
#[test]
fn removals_stay_within_their_owner() {
    let row = |first_offset| consume_queue::Row {
        first_offset,
        log_index: 1,
        command: 0,
        first: 0,
        count: 1,
        time_ms: 1,
        passed_ms: 1,
    };
    let kv = written(|batch| {
        for (topic_id, queue) in [(1, 0), (1, u32::MAX), (2, 0), (2, 1), (3, 0)] {
            for offset in [0, 5, 9] {
                consume_queue::put(batch, topic_id, queue, &row(offset));
            }
            queue_bounds::put(batch, topic_id, queue, QueueBounds::default());
            consumer_offset::put(batch, "a", topic_id, queue, 1);
            consumer_offset::put(batch, "ab", topic_id, queue, 1);
        }
        consume_queue::delete_before(batch, 2, 0, 9);
        consume_queue::delete_topic(batch, 1);
        queue_bounds::delete_topic(batch, 2);
        consumer_offset::delete_group(batch, "a");
        consumer_offset::delete(batch, "ab", 3, 0);
    });
    let mut rows = Vec::new();
    consume_queue::scan_all(&*kv, |topic_id, queue, row| {
        rows.push((topic_id, queue, row.first_offset));
        Ok(())
    })
    .unwrap();
    let kept = [
        (2, 0, 9),
        (2, 1, 0),
        (2, 1, 5),
        (2, 1, 9),
        (3, 0, 0),
        (3, 0, 5),
        (3, 0, 9),
    ];
    assert_eq!(rows, kept);
    let mut bounds = Vec::new();
    queue_bounds::scan(&*kv, |topic_id, queue, _| {
        bounds.push((topic_id, queue));
        Ok(())
    })
    .unwrap();
    assert_eq!(bounds, [(1, 0), (1, u32::MAX), (3, 0)]);
    let mut offsets = Vec::new();
    consumer_offset::scan(&*kv, |group, topic_id, queue, _| {
        offsets.push((group.to_owned(), topic_id, queue));
        Ok(())
    })
    .unwrap();
    let kept =
        [(1, 0), (1, u32::MAX), (2, 0), (2, 1)].map(|(topic, queue)| ("ab".into(), topic, queue));
    assert_eq!(offsets, kept);
}

/// Would catch a walk over a large table that skips or repeats rows between its pages.
#[test]
fn walks_cross_pages() {
    let rows = SCAN_ROWS as u64 * 2 + 1;
    let kv = written(|batch| (0..rows).for_each(|id| topic::put(batch, id, b"record")));
    let mut seen = Vec::new();
    topic::scan(&*kv, |id, _| {
        seen.push(id);
        Ok(())
    })
    .unwrap();
    assert_eq!(seen, (0..rows).collect::<Vec<_>>());
}
