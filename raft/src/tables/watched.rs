//! Tables that tell when they turn out to be damaged.
//!
//! Whoever reads them gets the error; this notes it, so that somebody makes the tables again. A corrupt row would
//! otherwise fail the same pull for ever, on a leader that is well in every other way.

use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use futures::FutureExt;
use futures::future::BoxFuture;
use store::{Batch, Kv, KvCounters, Pair, StoreError};
use tokio::sync::watch;

/// What is wrong with the tables; nothing while they are whole.
pub(crate) type TableDamage = watch::Sender<Option<String>>;

/// Tables, and where it is noted that they are damaged.
pub(super) struct WatchedKv {
    inner: Arc<dyn Kv>,
    damage: Arc<TableDamage>,
}

impl WatchedKv {
    pub(super) fn new(inner: Arc<dyn Kv>, damage: Arc<TableDamage>) -> WatchedKv {
        WatchedKv { inner, damage }
    }

    fn note<T>(&self, result: Result<T, StoreError>) -> Result<T, StoreError> {
        note(&self.damage, &result);
        result
    }
}

/// Notes what `result` says of the tables. The first damage stays.
pub(super) fn note<T>(damage: &TableDamage, result: &Result<T, StoreError>) {
    let Err(error) = result else {
        return;
    };
    // Rot, and what the disk does not give back. An error of a write, or of a read for any other reason, says nothing of
    // what stands there.
    if !error.is_corruption() {
        return;
    }
    damage.send_if_modified(|noted| {
        let first = noted.is_none();
        if first {
            tracing::error!(%error, "the tables are damaged");
            *noted = Some(error.to_string());
        }
        first
    });
}

impl Kv for WatchedKv {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
        self.note(self.inner.get(key))
    }

    fn scan(&self, from: &[u8], to: &[u8], limit: usize) -> Result<Vec<Pair>, StoreError> {
        self.note(self.inner.scan(from, to, limit))
    }

    fn last_at_or_before(
        &self,
        key: &[u8],
        lower_bound: &[u8],
    ) -> Result<Option<Pair>, StoreError> {
        self.note(self.inner.last_at_or_before(key, lower_bound))
    }

    fn ready(self: Arc<Self>) -> BoxFuture<'static, ()> {
        self.inner.clone().ready()
    }

    fn write(&self, batch: Batch) -> Result<(), StoreError> {
        self.note(self.inner.write(batch))
    }

    fn flush(self: Arc<Self>) -> BoxFuture<'static, Result<(), StoreError>> {
        let flushing = self.inner.clone().flush();
        async move { self.note(flushing.await) }.boxed()
    }

    fn checkpoint(
        self: Arc<Self>,
        dir: PathBuf,
        key: Bytes,
    ) -> BoxFuture<'static, Result<Option<Bytes>, StoreError>> {
        let making = self.inner.clone().checkpoint(dir, key);
        async move { self.note(making.await) }.boxed()
    }

    fn counters(&self) -> KvCounters {
        self.inner.counters()
    }

    fn digest(&self) -> Option<u64> {
        self.inner.digest()
    }
}
