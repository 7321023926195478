//! The tables and the application over them: what changes when entries are applied.
//!
//! One owner at a time, behind a lock: whoever applies, or whoever takes a checkpoint. Must never
//! let a batch into the tables without the `applied` row that belongs to it.

mod watched;

use std::sync::Arc;

use bytes::Bytes;
use openraft::EntryPayload;
use store::{Batch, CommitLog, Kv, StoreError, table};
use tokio::sync::watch;

use crate::application::{Application, Committed};
use crate::applied::Applied;
use crate::types::{RaftEntry, RaftLogId, StoredMembership};
use watched::{TableDamage, WatchedKv};

/// The live tables, how far they have come, and the application that reads and writes them.
pub(crate) struct Tables {
    kv: Arc<dyn Kv>,
    applied: Applied,
    application: Box<dyn Application>,
    /// Bytes of bodies that were applied since the replica started.
    applied_bytes: u64,
    damage: Arc<TableDamage>,
}

/// Tables that cannot be used, and whoever would use them.
pub(crate) struct Unusable {
    pub(crate) error: StoreError,
    pub(crate) application: Box<dyn Application>,
}

impl Tables {
    /// Takes over tables that were just opened.
    pub(crate) fn open(
        kv: Arc<dyn Kv>,
        log: CommitLog,
        mut application: Box<dyn Application>,
    ) -> Result<Tables, Unusable> {
        let damage = Arc::new(watch::channel(None).0);
        let kv: Arc<dyn Kv> = Arc::new(WatchedKv::new(kv, damage.clone()));
        let restored = read_applied(&*kv).and_then(|applied| {
            application.restore(kv.clone(), log)?;
            Ok(applied)
        });
        match restored {
            Ok(applied) => Ok(Tables {
                kv,
                applied,
                application,
                applied_bytes: 0,
                damage,
            }),
            Err(error) => Err(Unusable { error, application }),
        }
    }

    /// Tells when the tables turn out to be damaged.
    pub(crate) fn damage(&self) -> watch::Receiver<Option<String>> {
        self.damage.subscribe()
    }

    pub(crate) fn are_damaged(&self) -> bool {
        self.damage.borrow().is_some()
    }

    /// Notes what a copy of the tables' files says of them.
    pub(crate) fn note<T>(&self, result: &Result<T, StoreError>) {
        watched::note(&self.damage, result);
    }

    /// Puts other tables in the place of the current ones.
    pub(crate) fn replace(&mut self, kv: Arc<dyn Kv>, log: CommitLog) -> Result<(), StoreError> {
        let kv: Arc<dyn Kv> = Arc::new(WatchedKv::new(kv, self.damage.clone()));
        let applied = read_applied(&*kv)?;
        self.application.restore(kv.clone(), log)?;
        self.kv = kv;
        self.applied = applied;
        self.damage.send_replace(None);
        Ok(())
    }

    pub(crate) fn kv(&self) -> &Arc<dyn Kv> {
        &self.kv
    }

    pub(crate) fn applied(&self) -> &Applied {
        &self.applied
    }

    /// Bytes of bodies that were applied since the replica started: what a restart would apply again,
    /// counted from the last checkpoint on.
    pub(crate) fn applied_bytes(&self) -> u64 {
        self.applied_bytes
    }

    /// The first log index that the tables still point at.
    pub(crate) fn log_floor(&self) -> u64 {
        self.application.log_floor()
    }

    /// Applies entries that follow what was applied, all in one batch; one reply per entry.
    pub(crate) fn apply(&mut self, entries: Vec<RaftEntry>) -> Result<Vec<Bytes>, StoreError> {
        let mut applied = self.applied.clone();
        let mut normal = Vec::with_capacity(entries.len());
        let mut is_normal = Vec::with_capacity(entries.len());
        for entry in entries {
            let log_id = entry.log_id;
            let count = normal.len();
            match entry.payload {
                EntryPayload::Blank => applied.advance(log_id),
                EntryPayload::Normal(payload) if payload.is_roll() => applied.advance(log_id),
                EntryPayload::Normal(payload) => {
                    applied.advance(log_id);
                    normal.push(committed(log_id, payload.0));
                }
                EntryPayload::Membership(membership) => {
                    let stored = StoredMembership::new(Some(log_id), membership);
                    applied.advance_membership(log_id, stored);
                }
            }
            is_normal.push(normal.len() > count);
        }
        let mut replies = self.commit(&normal, &applied)?.into_iter();
        self.applied = applied;
        let bytes: usize = normal.iter().map(|entry| entry.body.len()).sum();
        self.applied_bytes += bytes as u64;
        let reply = |normal| {
            if normal {
                replies.next().unwrap_or_default()
            } else {
                Bytes::new()
            }
        };
        Ok(is_normal.into_iter().map(reply).collect())
    }

    /// Lets the application change the tables; `applied` goes into its batch, or into one of its own.
    fn commit(
        &mut self,
        entries: &[Committed],
        applied: &Applied,
    ) -> Result<Vec<Bytes>, StoreError> {
        let mut writing = Writing {
            kv: self.kv.clone(),
            row: applied.encode(),
            written: false,
        };
        let mut replies = Vec::new();
        if !entries.is_empty() {
            replies = self
                .application
                .apply(entries, &mut |batch| writing.commit(batch))?;
            if replies.len() != entries.len() {
                let detail = format!("{} replies for {} entries", replies.len(), entries.len());
                return Err(refused(&detail));
            }
        }
        if !writing.written {
            writing.commit(Batch::default())?;
        }
        Ok(replies)
    }
}

/// One batch on its way into the tables.
struct Writing {
    kv: Arc<dyn Kv>,
    /// The `applied` row.
    row: Bytes,
    written: bool,
}

impl Writing {
    fn commit(&mut self, mut batch: Batch) -> Result<(), StoreError> {
        if self.written {
            return Err(refused(
                "the application committed twice for the same entries",
            ));
        }
        self.written = true;
        table::applied::put(&mut batch, &self.row);
        self.kv.write(batch)
    }
}

fn committed(log_id: RaftLogId, body: Bytes) -> Committed {
    Committed {
        index: log_id.index(),
        term: *log_id.leader_id,
        body,
    }
}

fn refused(detail: &str) -> StoreError {
    StoreError::Refused {
        detail: detail.to_string(),
    }
}

/// What the tables say of themselves.
pub(crate) fn read_applied(kv: &dyn Kv) -> Result<Applied, StoreError> {
    let Some(row) = table::applied::get(kv)? else {
        return Ok(Applied::default());
    };
    let path = std::path::Path::new("the tables' applied row");
    Applied::decode(&row).map_err(|error| StoreError::corrupt(path, error.to_string()))
}
