//! The files of a map that is not open: copied and made durable.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use host::{Disk, File};

use crate::error::StoreError;

/// Bytes copied at once.
const COPY_BYTES: usize = 1 << 20;
/// Files of this suffix are never changed once they are made, so a second name is as good as a copy.
const UNCHANGING_SUFFIX: &str = "sst";

/// Makes `live` a copy of the directory `checkpoint`: built beside, synced, renamed.
pub(super) async fn restore(
    disk: Arc<dyn Disk>,
    checkpoint: PathBuf,
    live: PathBuf,
) -> Result<(), StoreError> {
    let parent = parent(&live);
    let building = live.with_extension("building");
    let copied = {
        let (disk, building) = (disk.clone(), building.clone());
        host::blocking::run(move || {
            remove_dir(&*disk, &building)?;
            copy_files(&*disk, &checkpoint, &building)
        })
        .await?
    };
    for (path, file) in copied {
        file.sync().await.map_err(StoreError::io("sync", &path))?;
    }
    disk.sync_dir(&building)
        .await
        .map_err(StoreError::io("sync", &building))?;
    remove_dir(&*disk, &live)?;
    disk.rename(&building, &live)
        .map_err(StoreError::io("rename", &building))?;
    disk.sync_dir(&parent)
        .await
        .map_err(StoreError::io("sync", &parent))
}

/// Syncs every file of a directory that may have been written just now, the directory, and its name.
/// Files that never change were synced by whoever made them, before they had that name.
pub(super) async fn sync_changing(disk: &Arc<dyn Disk>, dir: &Path) -> Result<(), StoreError> {
    for path in disk.list(dir).map_err(StoreError::io("list", dir))? {
        let name = path.file_name().and_then(|name| name.to_str());
        if name.is_some_and(never_changes) {
            continue;
        }
        let file = disk.open(&path).map_err(StoreError::io("open", &path))?;
        file.sync().await.map_err(StoreError::io("sync", &path))?;
    }
    disk.sync_dir(dir)
        .await
        .map_err(StoreError::io("sync", dir))?;
    let parent = parent(dir);
    disk.sync_dir(&parent)
        .await
        .map_err(StoreError::io("sync", &parent))
}

/// Removes a directory; an absent one is no error.
pub(super) fn remove_dir(disk: &dyn Disk, dir: &Path) -> Result<(), StoreError> {
    if !disk.exists(dir) {
        return Ok(());
    }
    disk.remove_dir_all(dir)
        .map_err(StoreError::io("remove", dir))
}

/// Whether a file of this name is never written again once it is there.
pub(crate) fn never_changes(name: &str) -> bool {
    Path::new(name)
        .extension()
        .is_some_and(|suffix| suffix == UNCHANGING_SUFFIX)
}

/// The directory that holds `path`.
pub(super) fn parent(path: &Path) -> PathBuf {
    match path.parent() {
        Some(parent) if parent != Path::new("") => parent.to_path_buf(),
        _ => PathBuf::from("."),
    }
}

type Copied = Vec<(PathBuf, Arc<dyn File>)>;

/// Links what never changes and copies the rest. Returns the copies, which are not synced yet.
fn copy_files(disk: &dyn Disk, from: &Path, to: &Path) -> Result<Copied, StoreError> {
    disk.create_dir_all(to)
        .map_err(StoreError::io("create", to))?;
    let mut copied = Vec::new();
    for source_path in disk.list(from).map_err(StoreError::io("list", from))? {
        let Some(name) = source_path.file_name() else {
            continue;
        };
        let target = to.join(name);
        if name.to_str().is_some_and(never_changes) {
            disk.link(&source_path, &target)
                .map_err(StoreError::io("link", &target))?;
            continue;
        }
        let file = copy_file(disk, &source_path, &target)?;
        copied.push((target, file));
    }
    Ok(copied)
}

fn copy_file(disk: &dyn Disk, from: &Path, to: &Path) -> Result<Arc<dyn File>, StoreError> {
    let source_file = disk.open(from).map_err(StoreError::io("open", from))?;
    let target = disk.create(to).map_err(StoreError::io("create", to))?;
    let mut position = 0;
    let mut buffer = vec![0; COPY_BYTES];
    loop {
        let len = source_file
            .read_at(position, &mut buffer)
            .map_err(StoreError::io("read", from))?;
        if len == 0 {
            return Ok(target);
        }
        target
            .write_at(position, &[Bytes::copy_from_slice(&buffer[..len])])
            .map_err(StoreError::io("write", to))?;
        position += len as u64;
    }
}
