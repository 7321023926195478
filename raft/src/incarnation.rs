//! Which data directory this is, and how often it was opened.
//!
//! ```text
//! <data>/replica   magic "RMQRPL01" | replica id u64 | starts u64 | crc32c u32 of what stands before
//! ```
//!
//! Little-endian. The replica id is drawn when the directory is made: the membership in the log
//! holds it, so that a directory that lost everything is not taken for the one that made the
//! promises. Starts grow with each opening, which the directory's lock makes exclusive, so of two
//! processes with the same replica id the one that started later is the living one, unless somebody
//! copied the directory. A start that peers refused is taken back.

use std::path::Path;

use host::Host;
use rand::TryRng;

use crate::error::RaftError;
use crate::runtime::random;
use crate::small_file::{failed, replace, seal};

const MAGIC: &[u8; 8] = b"RMQRPL01";
const FILE_BYTES: usize = 28;
const FILE_NAME: &str = "replica";

/// Who this process is among all that ever had its broker id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Incarnation {
    /// Drawn when the data directory was made; never 0.
    pub(crate) replica_id: u64,
    /// How often the directory was opened (upper half) and a random number (lower half).
    pub(crate) number: u64,
}

impl Incarnation {
    /// Reads the file in the locked directory `dir`, or makes it, and counts this start. A directory that was
    /// `used` has one: its peers know the replica by it, and would take it for a wiped one under another id.
    pub(crate) async fn start(
        host: &Host,
        dir: &Path,
        used: bool,
    ) -> Result<Incarnation, RaftError> {
        let path = dir.join(FILE_NAME);
        let (replica_id, starts) = match host.disk.exists(&path) {
            true => read(host, &path)?,
            false if used => {
                return Err(RaftError::Damaged {
                    path,
                    detail: "missing, though the replica has voted: bring the file back from a copy of the \
                             directory, or replace the replica (`raftmq group replace`)"
                        .to_owned(),
                });
            }
            false => (random_number() | 1, 0),
        };
        let starts = starts + 1;
        write(host, dir, replica_id, starts).await?;
        Ok(Incarnation {
            replica_id,
            number: starts << 32 | random_number() >> 32,
        })
    }

    /// Makes the locked directory `dir` one that nobody has heard of; returns its replica id.
    pub(crate) async fn renew(host: &Host, dir: &Path) -> Result<u64, RaftError> {
        let replica_id = random_number() | 1;
        write(host, dir, replica_id, 0).await?;
        Ok(replica_id)
    }

    /// Takes this start back, which peers refused: an old copy of a directory must not pass for a newer process than the
    /// one that they know, however often it is started.
    pub(crate) async fn take_back(self, host: &Host, dir: &Path) -> Result<(), RaftError> {
        let (replica_id, starts) = read(host, &dir.join(FILE_NAME))?;
        let is_ours = replica_id == self.replica_id && starts == starts_of(self.number);
        if !is_ours {
            return Ok(());
        }
        write(host, dir, replica_id, starts.saturating_sub(1)).await
    }
}

/// How often the directory had been opened when a process drew this number.
pub(crate) fn starts_of(number: u64) -> u64 {
    number >> 32
}

fn random_number() -> u64 {
    let Ok(number) = random().try_next_u64();
    number
}

fn read(host: &Host, path: &Path) -> Result<(u64, u64), RaftError> {
    let file = host.disk.open(path).map_err(failed("open", path))?;
    let mut bytes = [0; FILE_BYTES];
    let read = file.read_at(0, &mut bytes).map_err(failed("read", path))?;
    let damaged = |detail: &str| RaftError::Damaged {
        path: path.to_path_buf(),
        detail: detail.to_string(),
    };
    if read < FILE_BYTES || &bytes[..8] != MAGIC {
        return Err(damaged("not a replica file"));
    }
    let number = |from: usize| {
        u64::from_le_bytes(
            bytes[from..from + 8]
                .try_into()
                .expect("the array holds both"),
        )
    };
    let checksum = u32::from_le_bytes(bytes[24..].try_into().expect("four bytes are left"));
    if checksum != crc32c::crc32c(&bytes[..24]) {
        return Err(damaged("checksum differs"));
    }
    Ok((number(8), number(16)))
}

async fn write(host: &Host, dir: &Path, replica_id: u64, starts: u64) -> Result<(), RaftError> {
    let body = [replica_id.to_le_bytes(), starts.to_le_bytes()].concat();
    replace(host, dir, FILE_NAME, seal(MAGIC, &body)).await
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    /// Catches an old copy of a directory that is started until it passes for the newest process.
    #[tokio::test]
    async fn a_start_that_was_refused_does_not_count() {
        let host = Host::real();
        let dir = tempfile::tempdir().unwrap();
        let first = Incarnation::start(&host, dir.path(), false).await.unwrap();
        for _ in 0..3 {
            let refused = Incarnation::start(&host, dir.path(), true).await.unwrap();
            assert_eq!(starts_of(refused.number), starts_of(first.number) + 1);
            refused.take_back(&host, dir.path()).await.unwrap();
            // Nobody takes back what another process counted.
            refused.take_back(&host, dir.path()).await.unwrap();
        }
    }

    /// Catches a restart that looks like another replica, or a new directory that looks like the old.
    #[tokio::test]
    async fn starts_grow_and_the_replica_id_stays() {
        let host = Host::real();
        let dir = tempfile::tempdir().unwrap();
        let first = Incarnation::start(&host, dir.path(), false).await.unwrap();
        let second = Incarnation::start(&host, dir.path(), false).await.unwrap();
        assert_eq!(first.replica_id, second.replica_id);
        assert!(first.number < second.number);
        let other = tempfile::tempdir().unwrap();
        let other = Incarnation::start(&host, other.path(), false)
            .await
            .unwrap();
        assert_ne!(first.replica_id, other.replica_id);
    }

    /// Catches a damaged file being taken for a new directory.
    #[tokio::test]
    async fn a_damaged_file_is_refused() {
        let host = Host::real();
        let dir = tempfile::tempdir().unwrap();
        Incarnation::start(&host, dir.path(), false).await.unwrap();
        let file = host.disk.open(&dir.path().join(FILE_NAME)).unwrap();
        file.write_at(9, &[Bytes::from_static(b"x")]).unwrap();
        let error = Incarnation::start(&host, dir.path(), true)
            .await
            .unwrap_err();
        assert!(matches!(error, RaftError::Damaged { .. }), "{error}");
    }

    /// Catches a replica that lost only this file and goes on under an id that its peers refuse for ever.
    #[tokio::test]
    async fn a_missing_file_is_refused_once_the_directory_was_used() {
        let host = Host::real();
        let dir = tempfile::tempdir().unwrap();
        let error = Incarnation::start(&host, dir.path(), true)
            .await
            .unwrap_err();
        assert!(matches!(error, RaftError::Damaged { .. }), "{error}");
        assert!(Incarnation::start(&host, dir.path(), false).await.is_ok());
    }
}
