//! The private decoders of files, for `fuzz/`: only there with `--cfg fuzzing`. None may panic.

pub use crate::log::fuzz::{mark, record, segment};
use crate::superblock;

/// The superblock, as it is and behind a header that fits.
pub fn superblock(data: &[u8]) {
    let _ = superblock::decode(data);
    let mut bytes = Vec::from(*b"RMQS");
    bytes.extend_from_slice(&superblock::VERSION.to_le_bytes());
    bytes.extend_from_slice(&(data.len() as u32).to_le_bytes());
    bytes.extend_from_slice(&crc32c::crc32c(data).to_le_bytes());
    bytes.extend_from_slice(data);
    if let Ok(decoded) = superblock::decode(&bytes)
        && decoded.purged.is_some()
    {
        assert_eq!(superblock::encode(&decoded), bytes);
    }
}
