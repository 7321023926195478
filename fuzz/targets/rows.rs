//! Any rows as tables: read by every codec, written again to the same bytes, loaded by a machine.
#![no_main]

use std::sync::LazyLock;

use broker::Machine;
use raft::Application;
use raftmq_fuzz::{Input, World, tables};
use store::table::{
    applied, clock, consume_queue, consumer_offset, dedup, dump, group, log_floor, next_id,
    queue_bounds, retry, settled, topic,
};
use store::{Batch, Kv, Pair, StoreError};

struct Shared(&'static World);
// The fuzzer has one thread.
unsafe impl Sync for Shared {}
unsafe impl Send for Shared {}
static WORLD: LazyLock<Shared> = LazyLock::new(|| Shared(World::leak()));

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let mut input = Input(data);
    let (kv, mut batch) = (tables(), Batch::new());
    while !input.is_empty() {
        let (key, value) = (input.short(), input.short());
        if !key.is_empty() {
            batch.put(key, value);
        }
    }
    kv.write(batch).expect("tables in memory take writes");
    let _ = (
        applied::get(&*kv),
        clock::get(&*kv),
        next_id::get(&*kv),
        log_floor::get(&*kv),
    );
    let _ = consume_queue::last_at_or_before(&*kv, 1, 0, u64::MAX);
    let _ = consume_queue::scan(&*kv, 1, 0, 0, 10);
    if let Ok(batch) = copy(&*kv) {
        let again = tables();
        again.write(batch).expect("tables in memory take writes");
        assert_eq!(scanned(&*again), scanned(&*kv));
    }
    let (mut machine, _view) = Machine::new();
    let _ = machine.restore(kv, WORLD.0.log.clone());
});

/// The rows of the tables that have more than one.
fn scanned(kv: &dyn Kv) -> Vec<Pair> {
    let mut rows = dump(kv).expect("tables in memory can be read");
    rows.retain(|(key, _)| matches!(key[0], 2..=7 | 11..=12));
    rows
}

/// Reads them all, and writes what was read.
fn copy(kv: &dyn Kv) -> Result<Batch, StoreError> {
    let batch = &mut Batch::new();
    topic::scan(kv, |id, record| Ok(topic::put(batch, id, &record)))?;
    group::scan(kv, |name, record| Ok(group::put(batch, name, &record)))?;
    queue_bounds::scan(kv, |topic, queue, bounds| {
        Ok(queue_bounds::put(batch, topic, queue, bounds))
    })?;
    consumer_offset::scan(kv, |group, topic, queue, offset| {
        Ok(consumer_offset::put(batch, group, topic, queue, offset))
    })?;
    dedup::scan(kv, |key, row| Ok(dedup::put(batch, key, &row)))?;
    retry::scan(kv, |row| Ok(retry::put(batch, &row)))?;
    settled::scan(kv, |row| Ok(settled::put(batch, &row)))?;
    consume_queue::scan_all(kv, |topic, queue, row| {
        Ok(consume_queue::put(batch, topic, queue, &row))
    })?;
    Ok(std::mem::take(batch))
}
