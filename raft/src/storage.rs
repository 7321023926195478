//! Opens what a replica keeps: data directory, log, checkpoints, tables; makes them agree.
//!
//! The log is the truth. Tables that are behind the newest checkpoint, ahead of the log, or not
//! readable are made again from the newest checkpoint that is whole; the entries after it are applied
//! again later. A checkpoint that is ahead of the log belongs to a snapshot whose installation a crash
//! cut short: it goes, and everything is as it was before the installation. If no checkpoint is left
//! that the log continues, the tables are lost, and come back from a peer before Raft runs.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use host::{Host, Mutant, mutant};
use store::{Checkpoint, Checkpoints, CommitLog, DataDir, Kv, KvEngine, StoreError};

use crate::config::RaftConfig;
use crate::convert::{corrupt, vote_from_bytes};
use crate::error::RaftError;
use crate::incarnation::Incarnation;
use crate::promises::{Promise, Promises};
use crate::tables::read_applied;

/// Everything on disk, opened.
pub(crate) struct Storage {
    pub(crate) data_dir: Arc<DataDir>,
    /// What it holds of what it promised before.
    pub(crate) own: Promise,
    pub(crate) promises: Promises,
    pub(crate) log: CommitLog,
    pub(crate) checkpoints: Checkpoints,
    pub(crate) kv: Arc<dyn Kv>,
}

impl Storage {
    /// Opens or makes the data directory.
    pub(crate) async fn open(config: &RaftConfig, host: &Host) -> Result<Storage, RaftError> {
        let data_dir = DataDir::open(host, &config.data_dir, &config.identity, &config.log).await?;
        let data_dir = Arc::new(data_dir);
        // First: on a full disk it makes the room that the others need.
        let (log, _) = CommitLog::open(&data_dir, config.log.clone()).await?;
        let used = data_dir.superblock().is_used();
        let incarnation = Incarnation::start(host, data_dir.path(), used).await?;
        let promises = Promises::load(host, data_dir.path())?;
        let checkpoints =
            Checkpoints::open(data_dir.disk().clone(), data_dir.checkpoints_dir()).await?;
        let log_end = log.promised_end();
        let vote = vote_from_bytes(&data_dir.superblock().vote);
        let vote = vote.map_err(|error| corrupt(&data_dir.path().join("superblock"), &error))?;
        let own = Promise {
            replica_id: incarnation.replica_id,
            incarnation: incarnation.number,
            term: vote.map_or(0, |vote| vote.leader_id.term),
            end: log_end,
        };
        remove_orphans(&data_dir, &checkpoints, log_end).await?;
        let opening = Opening {
            data_dir: &data_dir,
            engine: &config.engine,
            checkpoints: &checkpoints,
            log_end,
        };
        let kv = opening.tables().await?;
        Ok(Storage {
            data_dir,
            own,
            promises,
            log,
            checkpoints,
            kv,
        })
    }
}

async fn remove_orphans(
    data_dir: &DataDir,
    checkpoints: &Checkpoints,
    log_end: u64,
) -> Result<(), RaftError> {
    while let Some(checkpoint) = checkpoints.newest()? {
        if checkpoint.meta().log_id.index < log_end {
            break;
        }
        tracing::warn!(dir = %checkpoint.dir().display(), "removing a checkpoint ahead of the log");
        remove_dir(data_dir, checkpoint.dir().to_path_buf()).await?;
    }
    Ok(())
}

struct Opening<'a> {
    data_dir: &'a Arc<DataDir>,
    engine: &'a Arc<dyn KvEngine>,
    checkpoints: &'a Checkpoints,
    log_end: u64,
}

impl Opening<'_> {
    /// The live tables if they are usable, else new ones from the newest checkpoint.
    async fn tables(&self) -> Result<Arc<dyn Kv>, RaftError> {
        let current = self.data_dir.tables_dir();
        remove_other_tables(self.data_dir, &current).await?;
        let newest = self.checkpoints.newest()?;
        let checkpoint_end = newest.map_or(0, |newest| newest.meta().log_id.index + 1);
        match self.engine.open(current.clone()).await {
            Ok(kv) => match read_applied(&*kv) {
                Ok(applied) => {
                    let applied_end = applied.log_id().map_or(0, |log_id| log_id.index() + 1);
                    // Mutant: tables that know more are better tables.
                    let ahead = mutant::is(Mutant::TablesAheadOfLog) && applied_end > self.log_end;
                    if ahead || (checkpoint_end..=self.log_end).contains(&applied_end) {
                        return Ok(kv);
                    }
                    tracing::warn!(
                        applied_end,
                        checkpoint_end,
                        log_end = self.log_end,
                        "tables do not fit the log; making them again"
                    );
                }
                Err(error) => {
                    tracing::error!(%error, "tables cannot be read; making them again");
                }
            },
            Err(error) => {
                tracing::error!(%error, "tables cannot be opened; making them again");
            }
        }
        make_again(self.data_dir, self.engine, self.checkpoints).await
    }
}

/// New tables in the place of the live ones, from the newest checkpoint that is whole. Those that rotted go.
pub(crate) async fn make_again(
    data_dir: &DataDir,
    engine: &Arc<dyn KvEngine>,
    checkpoints: &Checkpoints,
) -> Result<Arc<dyn Kv>, RaftError> {
    let former = data_dir.tables_dir();
    let whole = newest_whole(engine, checkpoints).await?;
    let kv = fresh_tables(data_dir, engine, whole.as_ref()).await?;
    remove_dir(data_dir, former).await?;
    Ok(kv)
}

async fn newest_whole(
    engine: &Arc<dyn KvEngine>,
    checkpoints: &Checkpoints,
) -> Result<Option<Checkpoint>, RaftError> {
    while let Some(newest) = checkpoints.newest()? {
        let mut whole = checkpoints.verify(&newest).await;
        if whole.is_ok() {
            // A checksum that was taken of rotten files is right, and the tables would be rotten again.
            whole = engine.check(newest.tables_dir()).await;
        }
        match whole {
            Ok(()) => return Ok(Some(newest)),
            Err(error) if error.is_corruption() => {
                tracing::error!(%error, "the newest checkpoint is damaged");
                checkpoints.discard(&newest).await?;
            }
            Err(error) => return Err(error.into()),
        }
    }
    Ok(None)
}

/// Has the next start make the tables again: it finds none of the generation that counts. Durable when this returns.
pub(crate) async fn give_up_tables(data_dir: &DataDir) -> Result<(), StoreError> {
    let generation = data_dir.superblock().tables_generation + 1;
    data_dir.save_tables_generation(generation).await
}

/// Tables of a new generation, equal to the checkpoint, or empty without one. The superblock names
/// them on return; the directory of the former generation is left to the caller.
pub(crate) async fn fresh_tables(
    data_dir: &DataDir,
    engine: &Arc<dyn KvEngine>,
    checkpoint: Option<&Checkpoint>,
) -> Result<Arc<dyn Kv>, StoreError> {
    let generation = data_dir.superblock().tables_generation + 1;
    let dir = tables_dir_of(data_dir, generation);
    remove_dir(data_dir, dir.clone()).await?;
    if let Some(checkpoint) = checkpoint {
        engine.restore(checkpoint.tables_dir(), dir.clone()).await?;
    }
    let kv = engine.open(dir).await?;
    data_dir.save_tables_generation(generation).await?;
    Ok(kv)
}

fn tables_dir_of(data_dir: &DataDir, generation: u64) -> PathBuf {
    data_dir.path().join(format!("tables-{generation}"))
}

async fn remove_other_tables(data_dir: &DataDir, current: &Path) -> Result<(), StoreError> {
    let dir = data_dir.path();
    for path in data_dir
        .disk()
        .list(dir)
        .map_err(StoreError::io("list", dir))?
    {
        let name = path
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        if name.starts_with("tables-") && path != current {
            remove_dir(data_dir, path).await?;
        }
    }
    Ok(())
}

/// Removes a directory that may not be there.
pub(crate) async fn remove_dir(data_dir: &DataDir, dir: PathBuf) -> Result<(), StoreError> {
    let disk = data_dir.disk().clone();
    host::blocking::run(move || match disk.remove_dir_all(&dir) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        result => result.map_err(StoreError::io("remove", &dir)),
    })
    .await
}
