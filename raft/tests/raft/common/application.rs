//! An application that counts what it is given and keeps a row for each entry.
//!
//! Commands: `floor <index>` gives up the entries below an index; anything else becomes a row.

use std::sync::{Arc, Mutex};

use bytes::Bytes;
use raftmq_raft::{Application, Commit, Committed};
use store::table::{self, Kind};
use store::{Batch, CommitLog, Kv, StoreError};

/// The tables of a replica, for looking into.
#[derive(Clone, Default)]
pub struct Rows {
    kv: Arc<Mutex<Option<Arc<dyn Kv>>>>,
}

impl Rows {
    fn kv(&self) -> Arc<dyn Kv> {
        self.kv
            .lock()
            .unwrap()
            .clone()
            .expect("the application was restored")
    }

    /// Everything in every table but `applied`, whose encoding is raft's.
    pub fn dump(&self) -> Vec<(Bytes, Bytes)> {
        let kv = self.kv();
        let kinds = Kind::ALL.into_iter().filter(|kind| *kind != Kind::Applied);
        let rows = |kind: Kind| {
            let (from, to) = ([kind.tag()], [kind.tag() + 1]);
            kv.scan(&from, &to, usize::MAX).unwrap()
        };
        kinds.flat_map(rows).collect()
    }

    /// Reads the row of an entry.
    pub fn read(&self, index: u64) -> Result<Option<Bytes>, StoreError> {
        self.kv().get(&key(index))
    }

    /// The body's length and checksum that an entry's row holds.
    pub fn of(&self, index: u64) -> Option<Bytes> {
        self.kv().get(&key(index)).unwrap()
    }
}

pub struct TestApplication {
    rows: Rows,
    count: u64,
    floor: u64,
}

impl TestApplication {
    pub fn new(rows: Rows) -> TestApplication {
        TestApplication {
            rows,
            count: 0,
            floor: 0,
        }
    }

    fn apply_one(&mut self, entry: &Committed, batch: &mut Batch) -> Bytes {
        self.count += 1;
        if let Some(floor) = floor_of(&entry.body) {
            batch.delete_range(key(self.floor), key(floor));
            self.floor = floor;
            table::log_floor::put(batch, floor);
        } else {
            batch.put(key(entry.index), row(&entry.body));
        }
        table::next_id::put(batch, self.count);
        Bytes::from(self.count.to_string())
    }
}

impl Application for TestApplication {
    fn apply(
        &mut self,
        entries: &[Committed],
        commit: &mut Commit<'_>,
    ) -> Result<Vec<Bytes>, StoreError> {
        let mut batch = Batch::new();
        let replies = entries
            .iter()
            .map(|entry| self.apply_one(entry, &mut batch))
            .collect();
        commit(batch)?;
        Ok(replies)
    }

    fn restore(&mut self, kv: Arc<dyn Kv>, _log: CommitLog) -> Result<(), StoreError> {
        self.count = table::next_id::get(&*kv)?;
        self.floor = table::log_floor::get(&*kv)?;
        *self.rows.kv.lock().unwrap() = Some(kv);
        Ok(())
    }

    fn log_floor(&self) -> u64 {
        self.floor
    }
}

fn key(index: u64) -> Vec<u8> {
    let mut key = vec![Kind::Topic.tag()];
    key.extend_from_slice(&index.to_be_bytes());
    key
}

/// What a row says of a body.
pub fn row(body: &[u8]) -> Vec<u8> {
    let mut row = body.len().to_le_bytes().to_vec();
    row.extend_from_slice(&crc32c::crc32c(body).to_le_bytes());
    row
}

fn floor_of(body: &[u8]) -> Option<u64> {
    std::str::from_utf8(body)
        .ok()?
        .strip_prefix("floor ")?
        .parse()
        .ok()
}
