//! Small files beside the log, replaced whole: written beside, synced, renamed, the directory synced.
//!
//! ```text
//! magic (8 bytes) | body | crc32c u32, little-endian, of what stands before
//! ```

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

/// What the file `name` in `dir` holds, of at most so many bytes; none if there is none.
pub(crate) fn read(
    host: &Host,
    dir: &Path,
    name: &str,
    bytes_max: usize,
) -> std::io::Result<Option<Vec<u8>>> {
    let path = dir.join(name);
    if !host.disk.exists(&path) {
        return Ok(None);
    }
    let mut bytes = vec![0; bytes_max];
    let length = host.disk.open(&path)?.read_at(0, &mut bytes)?;
    bytes.truncate(length);
    Ok(Some(bytes))
}

/// A file's bytes with this body.
pub(crate) fn seal(magic: &[u8; 8], body: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(magic.len() + body.len() + 4);
    bytes.extend_from_slice(magic);
    bytes.extend_from_slice(body);
    bytes.extend_from_slice(&crc32c::crc32c(&bytes).to_le_bytes());
    bytes
}

/// The body; none if the file is another one, or not whole.
pub(crate) fn unseal<'a>(magic: &[u8; 8], bytes: &'a [u8]) -> Option<&'a [u8]> {
    let (front, checksum) = bytes.split_last_chunk::<4>()?;
    let is_whole = crc32c::crc32c(front).to_le_bytes() == *checksum;
    front.strip_prefix(magic).filter(|_| is_whole)
}

/// For `map_err`: the disk failed to `verb` `path`.
pub(crate) fn failed(verb: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> RaftError {
    let path = path.to_path_buf();
    move |source| RaftError::File { verb, path, source }
}
