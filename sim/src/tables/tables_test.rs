//! What the product's engine promises holds, and fails, as it does with RocksDB.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use store::table::Kind;
use store::{Batch, Kv, KvEngine};

use super::{Failing, Rotten, SimTables};
use crate::disk::SimDisk;
use crate::effect::Effect;
use crate::machine::Machine;
use crate::runner::simulate;
use crate::trace::{Trace, now};

const LIVE: &str = "/data/tables-1";
const COPY: &str = "/data/copy";

/// Runs `test` on the tables of a machine, in simulated time.
fn on_tables<F: Future<Output = ()>>(
    test: impl FnOnce(SimTables, Arc<dyn KvEngine>) -> F + Send + 'static,
) {
    let simulated = simulate(1, move || async move {
        let trace = Arc::new(Trace::new(false));
        let machine = Machine::Broker(1);
        let disk = SimDisk::new(machine, trace.clone());
        let tables = SimTables::new(machine, disk.clone(), trace);
        let engine = tables.engine(disk.mount());
        test(tables, engine).await;
        None
    });
    if let Some(violation) = simulated.violation {
        panic!("{violation}");
    }
}

fn key() -> Vec<u8> {
    vec![Kind::Topic.tag(), 1]
}

fn put(kv: &dyn Kv) -> bool {
    let mut batch = Batch::new();
    batch.put(key(), [1]);
    kv.write(batch).is_ok()
}

async fn open(engine: &Arc<dyn KvEngine>) -> Arc<dyn Kv> {
    engine.open(PathBuf::from(LIVE)).await.expect("it opens")
}

/// Would catch a stall that holds nobody up, holds readers up, or never ends.
#[test]
fn writes_wait_for_a_stall_and_reads_do_not() {
    on_tables(|tables, engine| async move {
        let kv = open(&engine).await;
        kv.clone().ready().await;
        let begin = now();
        tables.stall(Duration::from_secs(3));
        assert!(tables.stalls() && kv.get(&key()).is_ok());
        kv.clone().ready().await;
        assert!(now() - begin >= Duration::from_secs(3) && put(&*kv));
        tables.stall(Duration::from_secs(300));
        let begin = now();
        kv.clone().ready().await;
        let waited = (now() - begin).as_secs();
        assert_eq!(waited, 30, "half a minute, as it is promised");
    });
}

/// Would catch tables that are written on after a failure, and a failure that outlives the process.
#[test]
fn after_a_failure_nothing_is_written_until_it_is_opened_again() {
    on_tables(|tables, engine| async move {
        for failing in [Failing::Write, Failing::Flush, Failing::Checkpoint] {
            let kv = open(&engine).await;
            assert!(put(&*kv));
            tables.fail_next(failing);
            let copy = PathBuf::from(COPY);
            let failed = match failing {
                Failing::Write => !put(&*kv),
                Failing::Flush => kv.clone().flush().await.is_err(),
                Failing::Checkpoint => kv
                    .clone()
                    .checkpoint(copy, Bytes::from(key()))
                    .await
                    .is_err(),
            };
            assert!(failed && !put(&*kv), "{failing:?}");
            assert!(kv.get(&key()).is_ok(), "{failing:?}");
            assert!(kv.flush().await.is_err(), "{failing:?}");
        }
        tables.refuse(Duration::from_secs(1));
        assert!(engine.open(PathBuf::from(LIVE)).await.is_err());
        tables.heal();
        assert!(put(&*open(&engine).await));
    });
}

/// Would catch rot that is not met, that a copy does not have, or that goes away when it is opened again.
#[test]
fn rot_goes_where_the_files_go() {
    on_tables(|tables, engine| async move {
        let kv = open(&engine).await;
        assert!(put(&*kv));
        tables.rot(7, Rotten::Block).expect("there are tables");
        assert!(kv.get(&key()).is_err());
        let copied = kv.clone().checkpoint(COPY.into(), Bytes::from(key()));
        copied.await.expect("files are linked as they are");
        engine
            .restore(COPY.into(), LIVE.into())
            .await
            .expect("files are copied as they are");
        let again = open(&engine).await;
        assert!(again.get(&key()).is_err());
        assert_eq!(tables.shown_to(), 1);
        tables.rot(8, Rotten::File).expect("there are tables");
        assert!(engine.open(PathBuf::from(LIVE)).await.is_err());
        tables.heal();
        assert!(engine.open(PathBuf::from(LIVE)).await.is_err());
    });
}

/// Would catch ids and settled messages that go before their time and count as old, ones that go and are not seen, and rows of
/// other kinds that are taken for them.
#[test]
fn what_is_forgotten_is_old_or_crowded_out() {
    on_tables(|tables, engine| async move {
        tables.remember_for(30_000);
        let kv = open(&engine).await;
        let stamped = |kind: Kind, number: u8, before: usize, passed_ms: u64| {
            let mut value = vec![0; before];
            value.extend(passed_ms.to_be_bytes());
            (vec![kind.tag(), number], value)
        };
        let rows = [
            stamped(Kind::Dedup, 1, 0, 1_000),
            stamped(Kind::Dedup, 2, 0, 1_001),
            stamped(Kind::Settled, 1, 4, 1_000),
            stamped(Kind::Settled, 2, 4, 1_001),
            stamped(Kind::Topic, 1, 0, 1_000),
        ];
        let mut batch = Batch::new();
        rows.iter().for_each(|(key, value)| batch.put(key, value));
        assert!(kv.write(batch).is_ok());
        let mut batch = Batch::new();
        rows.iter().for_each(|(key, _)| batch.delete(key));
        store::table::clock::put(
            &mut batch,
            store::table::clock::Clock {
                passed_ms: 31_000,
                ..Default::default()
            },
        );
        assert!(kv.write(batch).is_ok());
        for effect in [
            Effect::MessageIdsExpired,
            Effect::MessageIdsCrowdedOut,
            Effect::SettledExpired,
        ] {
            let counted = tables.trace.counted(&format!("effect {}", effect.name()));
            assert_eq!(counted, 1, "{}", effect.name());
        }
    });
}
