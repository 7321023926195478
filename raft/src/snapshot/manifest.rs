//! What a snapshot consists of: names, sizes, checksums.
//!
//! Names come from another machine. Only those that this crate itself would give are accepted:
//!
//! ```text
//! checkpoint/META    checkpoint/tables/<plain>    log/<plain>
//! ```

use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use host::Disk;
use proto::raft as wire;
use store::{Checkpoint, SegmentExport, StoreError};

use super::segments::{LOG_DIR, segment_to_wire};

/// Where a checkpoint's files go.
pub(super) const CHECKPOINT_DIR: &str = "checkpoint";

/// Bytes that are read at once when a file is checksummed or sent.
pub(super) const CHUNK_BYTES: usize = 1 << 20;

/// A file to send: how it is called there, and where its bytes are.
#[derive(Clone)]
pub(super) struct Source {
    pub(super) file: wire::SnapshotFile,
    pub(super) content: Content,
}

/// Where bytes come from.
#[derive(Clone)]
pub(super) enum Content {
    File { disk: Arc<dyn Disk>, path: PathBuf },
    Segment(Arc<SegmentExport>),
}

impl Source {
    pub(super) fn segment(export: SegmentExport) -> Source {
        let file = segment_to_wire(&export.info());
        Source {
            file,
            content: Content::Segment(Arc::new(export)),
        }
    }
}

impl Content {
    /// Exactly `len` bytes from `position` on.
    pub(super) async fn read(&self, position: u64, len: usize) -> Result<Bytes, StoreError> {
        let bytes = match self {
            Content::Segment(export) => export.read(position, len).await?,
            Content::File { disk, path } => {
                let (disk, path) = (disk.clone(), path.clone());
                host::blocking::run(move || {
                    let file = disk.open(&path).map_err(StoreError::io("open", &path))?;
                    let mut buffer = vec![0; len];
                    let read = file.read_at(position, &mut buffer);
                    buffer.truncate(read.map_err(StoreError::refused(&path))?);
                    Ok::<Bytes, StoreError>(Bytes::from(buffer))
                })
                .await?
            }
        };
        if bytes.len() == len {
            return Ok(bytes);
        }
        let detail = format!("{} bytes at {position}, expected {len}", bytes.len());
        Err(StoreError::Refused { detail })
    }
}

/// The files of a checkpoint. Reads all of them: `Corrupt` if one is not what it was when the checkpoint
/// was made.
pub(super) async fn checkpoint_sources(
    disk: Arc<dyn Disk>,
    checkpoint: Checkpoint,
) -> Result<Vec<Source>, StoreError> {
    let dir = checkpoint.dir().to_path_buf();
    let paths = checkpoint.relative_paths();
    host::blocking::run(move || {
        let source = |relative: PathBuf| {
            let path = dir.join(&relative);
            let (size_bytes, crc32c) = checksum(&*disk, &path)?;
            let expected = checkpoint.checksum(&relative);
            if expected.is_some_and(|expected| expected != crc32c) {
                return Err(StoreError::corrupt(&path, "the checksum does not match"));
            }
            let name = format!("{CHECKPOINT_DIR}/{}", relative.display());
            let file = wire::SnapshotFile {
                name,
                size_bytes,
                crc32c,
                ..Default::default()
            };
            Ok(Source {
                file,
                content: Content::File {
                    disk: disk.clone(),
                    path,
                },
            })
        };
        paths.into_iter().map(source).collect()
    })
    .await
}

/// Length and CRC32C of a file. Blocks.
pub(super) fn checksum(disk: &dyn Disk, path: &Path) -> Result<(u64, u32), StoreError> {
    let file = disk.open(path).map_err(StoreError::io("open", path))?;
    let mut buffer = vec![0; CHUNK_BYTES];
    let (mut position, mut crc32c) = (0, 0);
    loop {
        let read = file
            .read_at(position, &mut buffer)
            .map_err(StoreError::refused(path))?;
        if read == 0 {
            return Ok((position, crc32c));
        }
        crc32c = crc32c::crc32c_append(crc32c, &buffer[..read]);
        position += read as u64;
    }
}

/// Whether a name leads to a place that a snapshot's file may have.
pub(super) fn is_allowed(file: &wire::SnapshotFile) -> bool {
    let parts: Vec<&str> = file.name.split('/').collect();
    match parts[..] {
        [CHECKPOINT_DIR, "META"] => !file.segment,
        // `.part` is where a file of another name grows.
        [CHECKPOINT_DIR, "tables", plain] => {
            !file.segment && is_plain(plain) && !plain.ends_with(".part")
        }
        [LOG_DIR, plain] => file.segment && is_plain(plain),
        _ => false,
    }
}

/// One ordinary name: no path, no special directory.
pub(super) fn is_plain(name: &str) -> bool {
    let mut components = Path::new(name).components();
    let first = components.next();
    let normal = matches!(first, Some(Component::Normal(normal)) if normal == name);
    normal && components.next().is_none()
}

/// A name for the snapshot that only the same files get, so that a broken transfer is resumed only
/// with what it was begun with.
pub(super) fn snapshot_id(last: store::LogId, sources: &[Source]) -> String {
    let mut crc32c = 0;
    for source in sources {
        crc32c = crc32c::crc32c_append(crc32c, source.file.name.as_bytes());
        crc32c = crc32c::crc32c_append(crc32c, &source.file.size_bytes.to_le_bytes());
        crc32c = crc32c::crc32c_append(crc32c, &source.file.crc32c.to_le_bytes());
    }
    format!("{}-{}-{crc32c:08x}", last.term, last.index)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn allowed(name: &str, segment: bool) -> bool {
        is_allowed(&wire::SnapshotFile {
            name: name.into(),
            segment,
            ..Default::default()
        })
    }

    /// Catches a name that leads out of the directory for what is received.
    #[test]
    fn only_our_own_names_are_allowed() {
        assert!(allowed("checkpoint/META", false));
        assert!(allowed("checkpoint/tables/000012.sst", false));
        assert!(allowed("log/00000000000000000000.seg", true));
        assert!(!allowed("checkpoint/META", true));
        assert!(!allowed("log/00000000000000000000.seg", false));
        for name in [
            "",
            "/",
            "log/",
            "log/..",
            "log/.",
            "log/../x",
            "../log/x",
            "/log/x",
            "checkpoint/x",
            "checkpoint/tables/../META",
            "checkpoint/tables/000012.sst.part",
            "log/a/b",
            "checkpoint/tables",
            "superblock",
        ] {
            assert!(!allowed(name, false) && !allowed(name, true), "{name}");
        }
    }
}
