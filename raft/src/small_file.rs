//! Small files beside the log, replaced whole: written beside, synced, renamed, the directory synced.

use std::path::Path;

use bytes::Bytes;
use host::Host;

use crate::error::RaftError;

/// Puts `bytes` in the place of the file `name` in `dir`; durable when this returns.
pub(crate) async fn replace(
    host: &Host,
    dir: &Path,
    name: &str,
    bytes: Vec<u8>,
) -> Result<(), RaftError> {
    let (path, beside) = (dir.join(name), dir.join(format!("{name}.new")));
    let file = host
        .disk
        .create(&beside)
        .map_err(failed("create", &beside))?;
    file.write_and_sync(0, vec![Bytes::from(bytes)])
        .await
        .map_err(failed("write", &beside))?;
    host.disk
        .rename(&beside, &path)
        .map_err(failed("rename", &beside))?;
    host.disk.sync_dir(dir).await.map_err(failed("sync", dir))
}

/// For `map_err`: the disk failed to `verb` `path`.
pub(crate) fn failed(verb: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> RaftError {
    let path = path.to_path_buf();
    move |source| RaftError::File { verb, path, source }
}
