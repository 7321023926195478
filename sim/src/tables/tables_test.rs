//! What the product's engine promises holds, and fails, as it does with RocksDB.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use store::table::Kind;
use store::{Batch, Kv, KvEngine};

use super::{Failing, Rotten, SimTables};
use crate::disk::SimDisk;
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
