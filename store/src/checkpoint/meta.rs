//! What a checkpoint is a copy of, and of which files it consists.
//!
//! ```text
//! magic 8 | term u64 | index u64 | applied_len u32 | applied | files u32
//!   (name_len u16 | name | size_bytes u64 | crc32c u32)* | crc32c u32 of all before
//! ```

use std::path::{Component, Path};

use bytes::{Buf, Bytes};

use crate::LogId;

const MAGIC: &[u8; 8] = b"RMQCKPT2";
const CHECKSUM_BYTES: usize = 4;

/// The content of a checkpoint's META file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CheckpointMeta {
    /// The last entry that the tables hold.
    pub log_id: LogId,
    /// The tables' `applied` row, opaque: log id and membership.
    pub applied: Bytes,
    /// The files of the tables, by name.
    pub files: Vec<CheckpointFile>,
}

/// One file of the tables.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CheckpointFile {
    /// Its name in the tables' directory: one plain name, no path.
    pub name: String,
    /// Its size in bytes.
    pub size_bytes: u64,
    /// The checksum of its bytes: a copy must not be made of, nor sent to others from, a file that rotted.
    pub crc32c: u32,
}

impl CheckpointMeta {
    /// The bytes of META.
    pub fn encode(&self) -> Bytes {
        let mut bytes = Vec::from(MAGIC);
        bytes.extend_from_slice(&self.log_id.term.to_be_bytes());
        bytes.extend_from_slice(&self.log_id.index.to_be_bytes());
        bytes.extend_from_slice(&(self.applied.len() as u32).to_be_bytes());
        bytes.extend_from_slice(&self.applied);
        bytes.extend_from_slice(&(self.files.len() as u32).to_be_bytes());
        for file in &self.files {
            bytes.extend_from_slice(&(file.name.len() as u16).to_be_bytes());
            bytes.extend_from_slice(file.name.as_bytes());
            bytes.extend_from_slice(&file.size_bytes.to_be_bytes());
            bytes.extend_from_slice(&file.crc32c.to_be_bytes());
        }
        let checksum = crc32c::crc32c(&bytes);
        bytes.extend_from_slice(&checksum.to_be_bytes());
        Bytes::from(bytes)
    }

    /// Reads META, or says what is wrong with it. Names that are not plain names are refused: they
    /// may come from another machine.
    pub fn decode(mut bytes: Bytes) -> Result<CheckpointMeta, &'static str> {
        if bytes.len() < MAGIC.len() + CHECKSUM_BYTES {
            return Err("the file is cut off");
        }
        let mut trailer = bytes.split_off(bytes.len() - CHECKSUM_BYTES);
        if crc32c::crc32c(&bytes) != trailer.get_u32() {
            return Err("the checksum does not match");
        }
        if !bytes.starts_with(MAGIC) {
            return Err("not a checkpoint's META");
        }
        bytes.advance(MAGIC.len());
        decode_body(bytes).ok_or("the fields do not fit the length")?
    }
}

/// The fields after the magic; none if they end too early.
fn decode_body(mut bytes: Bytes) -> Option<Result<CheckpointMeta, &'static str>> {
    let term = bytes.try_get_u64().ok()?;
    let index = bytes.try_get_u64().ok()?;
    let applied_len = bytes.try_get_u32().ok()? as usize;
    let applied = split(&mut bytes, applied_len)?;
    let count = bytes.try_get_u32().ok()?;
    let mut files = Vec::new();
    for _ in 0..count {
        let name_len = usize::from(bytes.try_get_u16().ok()?);
        let name = String::from_utf8(split(&mut bytes, name_len)?.to_vec()).ok()?;
        let size_bytes = bytes.try_get_u64().ok()?;
        let crc32c = bytes.try_get_u32().ok()?;
        if !is_plain(&name) {
            return Some(Err("a file's name is not a plain name"));
        }
        files.push(CheckpointFile {
            name,
            size_bytes,
            crc32c,
        });
    }
    if index == u64::MAX {
        return Some(Err("no entry can follow its last one"));
    }
    let log_id = LogId { term, index };
    bytes.is_empty().then_some(Ok(CheckpointMeta {
        log_id,
        applied,
        files,
    }))
}

fn split(bytes: &mut Bytes, len: usize) -> Option<Bytes> {
    (bytes.len() >= len).then(|| bytes.split_to(len))
}

fn is_plain(name: &str) -> bool {
    let mut components = Path::new(name).components();
    let first = components.next();
    matches!(first, Some(Component::Normal(normal)) if normal == name)
        && components.next().is_none()
}
