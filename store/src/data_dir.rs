//! A replica's data directory: who may use it, what lies where, and the superblock.
//!
//! ```text
//! <data>/lock                          held while a process uses the directory
//! <data>/superblock                    replaced whole: written beside, synced, renamed
//! <data>/log-<generation>/             segments; only the superblock's generation counts
//! <data>/tables-<generation>/          derived tables
//! <data>/checkpoints/<index>/          copies of the tables
//! <data>/incoming/<snapshot id>/       files being received; emptied at every start
//! ```
//!
//! Must never touch a directory whose identity differs from the configured one.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use host::{Disk, Host};

use crate::config::LogConfig;
use crate::entry::LogId;
use crate::error::{Result, StoreError};
use crate::superblock::{self, DecodeError, Identity, Superblock};

/// Largest superblock: all fields at their bounds, with room to spare.
const SUPERBLOCK_BYTES_MAX: u64 = 64 << 10;

/// A locked data directory.
pub struct DataDir {
    shared: Arc<Shared>,
    /// Held while the file is replaced: one at a time. Holds what went wrong for good: after a
    /// failed write nobody knows which superblock is on the disk.
    replacing: Arc<tokio::sync::Mutex<Option<StoreError>>>,
}

/// What whoever replaces the superblock keeps until that is done: the directory stays locked meanwhile.
struct Shared {
    host: Host,
    path: PathBuf,
    current: Mutex<Superblock>,
    _lock: Box<dyn Send + Sync>,
}

impl Shared {
    fn current(&self) -> std::sync::MutexGuard<'_, Superblock> {
        self.current
            .lock()
            .expect("nobody panics while holding the superblock")
    }
}

impl DataDir {
    /// Locks the directory, makes it if needed, and checks that it belongs to `identity`.
    ///
    /// Fails with [`StoreError::Locked`] if another process has it and with
    /// [`StoreError::Identity`] if it is somebody else's.
    pub async fn open(
        host: &Host,
        path: &Path,
        identity: &Identity,
        log: &LogConfig,
    ) -> Result<DataDir> {
        log.validate()?;
        let disk = &host.disk;
        create_durably(&**disk, path).await?;
        let lock = lock(&**disk, path)?;
        let current = match read(&**disk, path)? {
            Some(current) => {
                check_identity(path, &current.identity, identity)?;
                current
            }
            None => {
                refuse_leftovers(&**disk, path)?;
                let current = fresh(identity, log)?;
                replace(&**disk, path, &current).await?;
                current
            }
        };
        if current.segment_bytes != log.segment_bytes {
            tracing::warn!(
                configured = log.segment_bytes,
                used = current.segment_bytes,
                "segment size is fixed when a data directory is made; the configured one is not used"
            );
        }
        let dir = DataDir {
            shared: Arc::new(Shared {
                host: host.clone(),
                path: path.to_path_buf(),
                current: Mutex::new(current),
                _lock: lock,
            }),
            replacing: Arc::default(),
        };
        remove_if_there(&**dir.disk(), &dir.path().join("incoming"))?;
        Ok(dir)
    }

    /// The superblock as it is on the disk.
    pub fn superblock(&self) -> Superblock {
        self.current().clone()
    }

    /// Replaces the vote; durable when this returns.
    pub async fn save_vote(&self, vote: Bytes) -> Result<()> {
        if !superblock::field_fits(&vote) {
            return Err(StoreError::Refused {
                detail: format!("a vote of {} bytes", vote.len()),
            });
        }
        self.update(|superblock| superblock.vote = vote).await
    }

    /// Gives the directory to somebody else; durable when this returns. The log and the tables stay as they are: what
    /// they say about who promised what is the caller's to put right first.
    pub async fn save_identity(&self, identity: Identity) -> Result<()> {
        check_names(&identity)?;
        self.update(|superblock| superblock.identity = identity)
            .await
    }

    /// Makes another generation of the tables the one that counts; durable when this returns.
    pub async fn save_tables_generation(&self, generation: u64) -> Result<()> {
        self.update(|superblock| superblock.tables_generation = generation)
            .await
    }

    /// Raises the floor; durable when this returns.
    pub(crate) async fn save_purged(&self, purged: LogId) -> Result<()> {
        self.update(|superblock| superblock.purged = Some(purged))
            .await
    }

    /// Makes another generation of the log the one that counts, with its floor; durable when this
    /// returns.
    pub(crate) async fn save_log_generation(
        &self,
        generation: u64,
        purged: Option<LogId>,
    ) -> Result<()> {
        let change = |superblock: &mut Superblock| {
            superblock.log_generation = generation;
            superblock.purged = purged;
        };
        self.update(change).await
    }

    /// The machine.
    pub fn host(&self) -> &Host {
        &self.shared.host
    }

    /// The disk.
    pub fn disk(&self) -> &Arc<dyn Disk> {
        &self.shared.host.disk
    }

    /// The directory itself.
    pub fn path(&self) -> &Path {
        &self.shared.path
    }

    /// The directory of the log that counts.
    pub fn log_dir(&self) -> PathBuf {
        self.log_dir_of(self.current().log_generation)
    }

    pub(crate) fn log_dir_of(&self, generation: u64) -> PathBuf {
        self.path().join(format!("log-{generation}"))
    }

    /// The directory of the tables that count.
    pub fn tables_dir(&self) -> PathBuf {
        self.path()
            .join(format!("tables-{}", self.current().tables_generation))
    }

    /// Where copies of the tables are kept.
    pub fn checkpoints_dir(&self) -> PathBuf {
        self.path().join("checkpoints")
    }

    /// Where the files of one snapshot are received.
    pub fn incoming_dir(&self, snapshot_id: &str) -> PathBuf {
        self.path().join("incoming").join(snapshot_id)
    }

    fn current(&self) -> std::sync::MutexGuard<'_, Superblock> {
        self.shared.current()
    }

    /// Returns when nothing is being replaced.
    pub async fn settled(&self) {
        drop(self.replacing.lock().await);
    }

    /// Replaces the superblock on the disk, then in memory. Also if nobody waits for it any more: one that ended half-way would
    /// leave nobody knowing which superblock is on the disk, and the next one, which may be the last word of a replica that
    /// has to end, could not be saved.
    async fn update(&self, change: impl FnOnce(&mut Superblock)) -> Result<()> {
        let mut failed = self.replacing.clone().lock_owned().await;
        if let Some(error) = &*failed {
            return Err(error.clone());
        }
        let mut next = self.superblock();
        change(&mut next);
        // Until it is known to be there.
        *failed = Some(StoreError::Closed);
        let shared = self.shared.clone();
        let replacing = tokio::spawn(async move {
            let replaced = replace(&*shared.host.disk, &shared.path, &next).await;
            *failed = replaced.clone().err();
            if replaced.is_ok() {
                *shared.current() = next;
            }
            replaced
        });
        // None comes back where the whole process ends.
        replacing.await.unwrap_or(Err(StoreError::Closed))
    }
}

async fn create_durably(disk: &dyn Disk, path: &Path) -> Result<()> {
    if disk.exists(path) {
        return Ok(());
    }
    disk.create_dir_all(path)
        .map_err(StoreError::io("create", path))?;
    // The names of all directories that were just made must survive a power cut, or the replica's
    // promises do not.
    for above in path
        .ancestors()
        .skip(1)
        .filter(|above| *above != Path::new(""))
    {
        match disk.sync_dir(above).await {
            Ok(()) => {}
            // Directories that this user may not open existed before.
            Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied => break,
            Err(error) => return Err(StoreError::io("sync", above)(error)),
        }
    }
    Ok(())
}

pub(crate) fn lock(disk: &dyn Disk, path: &Path) -> Result<Box<dyn Send + Sync>> {
    let path = path.join("lock");
    disk.lock(&path).map_err(|error| match error.kind() {
        std::io::ErrorKind::WouldBlock => StoreError::Locked { path: path.clone() },
        _ => StoreError::io("lock", &path)(error),
    })
}

pub(crate) fn read(disk: &dyn Disk, dir: &Path) -> Result<Option<Superblock>> {
    let path = dir.join("superblock");
    let file = match disk.open(&path) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(StoreError::io("open", &path)(error)),
    };
    let len = file.len().map_err(StoreError::io("read", &path))?;
    if len > SUPERBLOCK_BYTES_MAX {
        return Err(StoreError::corrupt(
            &path,
            format!("{len} bytes are too many"),
        ));
    }
    let mut bytes = vec![0; usize::try_from(len).expect("the length was bounded")];
    let count = file
        .read_at(0, &mut bytes)
        .map_err(StoreError::io("read", &path))?;
    match superblock::decode(&bytes[..count]) {
        Ok(superblock) => Ok(Some(superblock)),
        Err(DecodeError::Version(found)) => Err(StoreError::Version {
            path,
            found,
            supported: superblock::VERSION,
        }),
        Err(error) => Err(StoreError::corrupt(&path, error.to_string())),
    }
}

async fn replace(disk: &dyn Disk, dir: &Path, superblock: &Superblock) -> Result<()> {
    let (beside, path) = (dir.join("superblock.new"), dir.join("superblock"));
    let file = disk
        .create(&beside)
        .map_err(StoreError::io("create", &beside))?;
    let bytes = Bytes::from(superblock::encode(superblock));
    file.write_and_sync(0, vec![bytes])
        .await
        .map_err(StoreError::io("write", &beside))?;
    disk.rename(&beside, &path)
        .map_err(StoreError::io("rename", &beside))?;
    disk.sync_dir(dir)
        .await
        .map_err(StoreError::io("sync", dir))
}

fn check_names(identity: &Identity) -> Result<()> {
    for (field, text) in [
        ("cluster_id", &identity.cluster_id),
        ("group", &identity.group),
    ] {
        if text.is_empty() || !superblock::field_fits(text.as_bytes()) {
            return Err(StoreError::Config {
                detail: format!("{field} must be a short name"),
            });
        }
    }
    Ok(())
}

fn fresh(identity: &Identity, log: &LogConfig) -> Result<Superblock> {
    check_names(identity)?;
    Ok(Superblock {
        identity: identity.clone(),
        vote: Bytes::new(),
        purged: None,
        log_generation: 1,
        tables_generation: 1,
        segment_bytes: log.segment_bytes,
    })
}

/// A directory with a log, or with the file `replica`, which is made after the superblock, but without a
/// superblock has lost its vote: starting over would break promises.
fn refuse_leftovers(disk: &dyn Disk, dir: &Path) -> Result<()> {
    let paths = disk.list(dir).map_err(StoreError::io("list", dir))?;
    let is_data = |path: &&PathBuf| {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        name.starts_with("log-")
            || name.starts_with("tables-")
            || name == "checkpoints"
            || name == "replica"
    };
    match paths.iter().find(is_data) {
        Some(path) => Err(StoreError::corrupt(
            &dir.join("superblock"),
            format!("it is missing, but {} is there", path.display()),
        )),
        None => Ok(()),
    }
}

fn check_identity(path: &Path, found: &Identity, expected: &Identity) -> Result<()> {
    let pairs = [
        (
            "cluster",
            found.cluster_id.clone(),
            expected.cluster_id.clone(),
        ),
        ("group", found.group.clone(), expected.group.clone()),
        (
            "broker",
            found.broker_id.to_string(),
            expected.broker_id.to_string(),
        ),
    ];
    match pairs
        .into_iter()
        .find(|(_, found, expected)| found != expected)
    {
        Some((field, found, expected)) => Err(StoreError::Identity {
            path: path.to_path_buf(),
            field,
            expected,
            found,
        }),
        None => Ok(()),
    }
}

/// Removes a directory tree that may not exist.
pub(crate) fn remove_if_there(disk: &dyn Disk, path: &Path) -> Result<()> {
    match disk.remove_dir_all(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(StoreError::io("remove", path)(error))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use host::testing::{CrashDisk, FaultyDisk, ManualClock};

    use super::*;

    fn host(disk: Arc<dyn Disk>) -> Host {
        Host {
            clock: Arc::new(ManualClock::new(1)),
            disk,
        }
    }

    fn identity() -> Identity {
        Identity {
            cluster_id: "c".into(),
            group: "g".into(),
            broker_id: 1,
        }
    }

    async fn open(host: &Host, identity: &Identity) -> Result<DataDir> {
        DataDir::open(
            host,
            Path::new("/data/replica"),
            identity,
            &LogConfig::default(),
        )
        .await
    }

    /// Catches a replica that has to end and cannot save its last word, since somebody stopped waiting for the one before:
    /// whose tables had rotted ended at each start.
    #[tokio::test]
    async fn what_nobody_waits_for_is_saved_and_so_is_the_next_one() {
        let host = host(Arc::new(CrashDisk::new()));
        let dir = open(&host, &identity()).await.unwrap();
        let mut given_up = Box::pin(dir.save_tables_generation(2));
        assert!(futures::poll!(given_up.as_mut()).is_pending());
        drop(given_up);
        // Held until it is there, whoever else has let go of it.
        let vote = Bytes::from_static(b"vote");
        dir.save_vote(vote.clone()).await.unwrap();
        let saved = dir.superblock();
        assert_eq!((saved.tables_generation, &saved.vote), (2, &vote));
        dir.settled().await;
        drop(dir);
        let dir = open(&host, &identity()).await.unwrap();
        assert_eq!(dir.superblock(), saved);
    }

    /// Catches a second process on one directory, and a directory of another broker taken for ours.
    #[tokio::test]
    async fn a_directory_has_one_user_and_one_owner() {
        let host = host(Arc::new(CrashDisk::new()));
        let dir = open(&host, &identity()).await.unwrap();
        assert!(matches!(
            open(&host, &identity()).await,
            Err(StoreError::Locked { .. })
        ));
        drop(dir);
        for other in [
            Identity {
                cluster_id: "x".into(),
                ..identity()
            },
            Identity {
                group: "x".into(),
                ..identity()
            },
            Identity {
                broker_id: 2,
                ..identity()
            },
        ] {
            assert!(matches!(
                open(&host, &other).await,
                Err(StoreError::Identity { .. })
            ));
        }
        assert!(open(&host, &identity()).await.is_ok());
    }

    /// Catches a vote that is given twice because the first was forgotten.
    #[tokio::test]
    async fn a_saved_vote_survives_every_crash() {
        for seed in 0..100 {
            let disk = CrashDisk::new();
            let host = host(Arc::new(disk.clone()));
            let dir = open(&host, &identity()).await.unwrap();
            dir.save_vote(Bytes::from_static(b"first")).await.unwrap();
            // A second save dies at some step; then the power fails.
            let faulty = FaultyDisk::new(Arc::new(disk.clone()));
            drop(dir);
            let host = Host {
                disk: Arc::new(faulty.clone()),
                ..host
            };
            let dir = open(&host, &identity()).await.unwrap();
            faulty.stop_after(seed % 6);
            let saved = dir.save_vote(Bytes::from_static(b"second")).await.is_ok();
            drop(dir);
            disk.crash(seed);
            faulty.heal();
            let vote = open(&host, &identity()).await.unwrap().superblock().vote;
            assert!(
                vote == "second" || (!saved && vote == "first"),
                "{saved} {vote:?}"
            );
        }
    }

    /// Catches a replica that lost its superblock and starts over with what else is left of it: a log, or a name
    /// under which its peers take it for the one that promised.
    #[tokio::test]
    async fn what_is_left_without_a_superblock_is_refused() {
        for left in ["log-1", "replica"] {
            let disk = CrashDisk::new();
            let host = host(Arc::new(disk.clone()));
            let left = Path::new("/data/replica").join(left);
            disk.create_dir_all(&left).unwrap();
            assert!(
                open(&host, &identity())
                    .await
                    .is_err_and(|error| error.is_corruption())
            );
        }
    }
}
