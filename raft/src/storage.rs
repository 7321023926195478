//! Opens what a replica keeps: data directory, log, checkpoints, tables; makes them agree.
//!
//! The log is the truth. Tables that are behind the newest checkpoint, ahead of the log, or not
//! readable are made again from the newest checkpoint that is whole; the entries after it are applied
//! again later. A checkpoint that is ahead of the log belongs to a snapshot whose installation a crash
//! cut short: it goes, and everything is as it was before the installation. If no checkpoint is left
//! that the log continues, the tables are lost, and come back from a peer before Raft runs.
//!
//! Rot in the tables is rot in the checkpoint, whose files are theirs. So nothing is removed before something whole
//! stands in its place: who has no peer any more is better off with tables of which one block cannot be read.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use host::Host;
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
    /// Whether the tables were given up for rot, and nothing but a peer can give others.
    pub(crate) tables_given_up: bool,
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
        let promises = Promises::load(host, data_dir.path());
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
            log_begin: first_entry(&log),
        };
        let (kv, tables_given_up) = opening.tables().await?;
        Ok(Storage {
            data_dir,
            own,
            promises,
            log,
            checkpoints,
            kv,
            tables_given_up,
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

/// The lowest index that Raft may ask for: tables that end below the entry before it are not continued by the log.
pub(crate) fn first_entry(log: &CommitLog) -> u64 {
    let purged = log.purged().map_or(0, |purged| purged.index + 1);
    purged.max(log.positions().dropped)
}

struct Opening<'a> {
    data_dir: &'a Arc<DataDir>,
    engine: &'a Arc<dyn KvEngine>,
    checkpoints: &'a Checkpoints,
    log_end: u64,
    /// The lowest index that Raft may ask for.
    log_begin: u64,
}

impl Opening<'_> {
    /// The live tables if they are usable, else new ones from the newest checkpoint. Whether they are tables that were
    /// given up.
    async fn tables(&self) -> Result<(Arc<dyn Kv>, bool), RaftError> {
        let current = self.data_dir.tables_dir();
        if !self.data_dir.disk().exists(&current)
            && let Some(former) = former_tables(self.data_dir)?
        {
            return self.instead_of(former).await;
        }
        let newest = self.checkpoints.newest()?;
        let checkpoint_end = newest.map_or(0, |newest| newest.meta().log_id.index + 1);
        let error = match self.open(current.clone()).await {
            Ok((kv, applied_end)) => {
                if (checkpoint_end..=self.log_end).contains(&applied_end) {
                    if applied_end >= self.log_begin {
                        remove_other_tables(self.data_dir, &current).await?;
                    }
                    return Ok((kv, false));
                }
                tracing::warn!(
                    applied_end,
                    checkpoint_end,
                    log_end = self.log_end,
                    "tables do not fit the log; making them again"
                );
                None
            }
            Err(error) => {
                tracing::error!(%error, "tables cannot be opened or read; making them again");
                Some(error)
            }
        };
        let (data_dir, log_begin) = (self.data_dir, self.log_begin);
        let kv = make_again(data_dir, self.engine, self.checkpoints, log_begin, error).await?;
        Ok((kv, false))
    }

    /// Tables, and the index after the last entry in them.
    async fn open(&self, dir: PathBuf) -> Result<(Arc<dyn Kv>, u64), StoreError> {
        let kv = self.engine.open(dir).await?;
        let applied = read_applied(&*kv)?;
        let applied_end = applied.log_id().map_or(0, |log_id| log_id.index() + 1);
        Ok((kv, applied_end))
    }

    /// Tables in the place of those that were given up. If there is nothing here to make them of, those themselves, until
    /// a peer gives others.
    async fn instead_of(&self, former: PathBuf) -> Result<(Arc<dyn Kv>, bool), RaftError> {
        let mut newest = self.checkpoints.newest()?;
        while let Some(checkpoint) = &newest {
            let index = checkpoint.meta().log_id.index;
            if is_whole(self.engine, self.checkpoints, checkpoint).await? {
                break;
            }
            newest = self.checkpoints.newest_below(index)?;
        }
        let end = newest.map_or(0, |whole| whole.meta().log_id.index + 1);
        let mut error = None;
        if end < self.log_begin {
            match self.open(former).await {
                Ok((kv, applied_end)) if (self.log_begin..=self.log_end).contains(&applied_end) => {
                    return Ok((kv, true));
                }
                Ok(_) => {}
                Err(why) => error = Some(why),
            }
        }
        let (data_dir, log_begin) = (self.data_dir, self.log_begin);
        let kv = make_again(data_dir, self.engine, self.checkpoints, log_begin, error).await?;
        Ok((kv, false))
    }
}

/// New tables in the place of the live ones, from the newest checkpoint that is whole. Those that rotted are set aside, and
/// the former tables stay, until [`remove_former`]. `error` says why the tables are not used: if it is not that they are
/// damaged, and nothing whole is there, it is returned.
pub(crate) async fn make_again(
    data_dir: &DataDir,
    engine: &Arc<dyn KvEngine>,
    checkpoints: &Checkpoints,
    log_begin: u64,
    error: Option<StoreError>,
) -> Result<Arc<dyn Kv>, RaftError> {
    let mut newest = checkpoints.newest()?;
    let mut rotten = Vec::new();
    while let Some(checkpoint) = newest.take() {
        if is_whole(engine, checkpoints, &checkpoint).await? {
            newest = Some(checkpoint);
            break;
        }
        newest = checkpoints.newest_below(checkpoint.meta().log_id.index)?;
        rotten.push(checkpoint);
    }
    let end = newest
        .as_ref()
        .map_or(0, |whole| whole.meta().log_id.index + 1);
    if let Some(error) = error.filter(|error| end < log_begin && says_nothing(error)) {
        return Err(error.into());
    }
    for checkpoint in &rotten {
        checkpoints.set_aside(checkpoint).await?;
    }
    Ok(fresh_tables(data_dir, engine, newest.as_ref()).await?)
}

/// Whether an error does not say that what stands in the tables is wrong: the system failed, and may not the next time.
fn says_nothing(error: &StoreError) -> bool {
    matches!(error, StoreError::Io { .. } | StoreError::Engine { .. })
}

/// Reads a checkpoint: what its list says, and then the tables in it. A checksum that was taken of rotten files is right.
pub(crate) async fn verify(
    engine: &Arc<dyn KvEngine>,
    checkpoints: &Checkpoints,
    checkpoint: &Checkpoint,
) -> Result<(), StoreError> {
    checkpoints.verify(checkpoint).await?;
    engine.check(checkpoint.tables_dir()).await
}

async fn is_whole(
    engine: &Arc<dyn KvEngine>,
    checkpoints: &Checkpoints,
    checkpoint: &Checkpoint,
) -> Result<bool, RaftError> {
    match verify(engine, checkpoints, checkpoint).await {
        Ok(()) => Ok(true),
        Err(error) if error.is_corruption() => {
            tracing::error!(%error, "a checkpoint is damaged");
            Ok(false)
        }
        Err(error) => Err(error.into()),
    }
}

/// The tables of the generation before the one that counts and is not there: they were given up.
fn former_tables(data_dir: &DataDir) -> Result<Option<PathBuf>, StoreError> {
    let generation = data_dir.superblock().tables_generation;
    let dir = data_dir.path();
    let found = data_dir.disk().list(dir);
    let found = found.map_err(StoreError::io("list", dir))?;
    let generations = found.iter().filter_map(|path| {
        let name = path.file_name()?.to_str()?;
        name.strip_prefix("tables-")?.parse::<u64>().ok()
    });
    let former = generations.filter(|found| *found < generation).max();
    Ok(former.map(|former| tables_dir_of(data_dir, former)))
}

/// Removes the tables and checkpoints that were kept until others stand in their place.
pub(crate) async fn remove_former(
    data_dir: &DataDir,
    checkpoints: &Checkpoints,
) -> Result<(), StoreError> {
    remove_other_tables(data_dir, &data_dir.tables_dir()).await?;
    checkpoints.remove_set_aside().await
}

/// Has the next start make the tables again: it finds none of the generation that counts. Only where something else than
/// these tables can be had. Durable when this returns.
pub(crate) async fn give_up_tables(data_dir: &DataDir) -> Result<(), StoreError> {
    if !data_dir.disk().exists(&data_dir.tables_dir()) {
        // They were given up.
        return Ok(());
    }
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
