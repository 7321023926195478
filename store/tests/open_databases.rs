//! The count of open databases, which is one for the whole process: nothing else may run beside this test.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::time::Duration;

use host::Host;
use store::{default_engine, wait_until_closed};

/// Catches a process that exits while a task still holds its tables, and is aborted for it.
#[tokio::test(flavor = "multi_thread")]
async fn a_process_can_wait_until_its_tables_are_closed() {
    let directory = tempfile::tempdir().unwrap();
    assert!(wait_until_closed(Duration::ZERO));
    let engine = default_engine(&Host::real(), &[]);
    let tables = engine.open(directory.path().join("tables")).await.unwrap();
    let held = tables.clone();
    drop(tables);
    assert!(!wait_until_closed(Duration::ZERO));
    let holder = tokio::spawn(async move { drop(held) });
    assert!(wait_until_closed(Duration::from_secs(60)));
    holder.await.unwrap();
}
