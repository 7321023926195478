//! Where operators said that other replicas are, across restarts.
//!
//! ```text
//! <data>/addresses   magic "RMQADR01" | count u32 | count * (broker id u64 | length u16 | address) | crc32c u32 of what stands before
//! ```
//!
//! Little-endian. Replaced whole: written beside, synced, renamed. Each is one more place to look at, no more: without the
//! file nothing is lost but an operator's word, so one that cannot be read is told of and left alone.

use std::collections::BTreeMap;
use std::path::Path;

use host::Host;

use crate::error::RaftError;
use crate::small_file::{self, replace, seal, unseal};

const MAGIC: &[u8; 8] = b"RMQADR01";
const FILE_NAME: &str = "addresses";
/// Largest file: some hundred of the longest addresses.
const BYTES_MAX: usize = 64 << 10;

/// What the file in `dir` says; nothing if there is none.
pub(crate) fn read(host: &Host, dir: &Path) -> BTreeMap<u64, String> {
    let addresses = match small_file::read(host, dir, FILE_NAME, BYTES_MAX) {
        Ok(None) => return BTreeMap::new(),
        Ok(Some(bytes)) => decode(&bytes),
        Err(_) => None,
    };
    addresses.unwrap_or_else(|| {
        tracing::warn!(
            path = %dir.join(FILE_NAME).display(),
            "cannot be read; what `raftmq group set-address` said is forgotten: say it again"
        );
        BTreeMap::new()
    })
}

/// Replaces the file in `dir`; durable when this returns. The caller sees to it that nobody else does so meanwhile.
pub(crate) async fn write(
    host: &Host,
    dir: &Path,
    addresses: &BTreeMap<u64, String>,
) -> Result<(), RaftError> {
    replace(host, dir, FILE_NAME, encode(addresses)).await
}

fn encode(addresses: &BTreeMap<u64, String>) -> Vec<u8> {
    let count = u32::try_from(addresses.len()).unwrap_or(u32::MAX);
    let mut body = count.to_le_bytes().to_vec();
    for (broker_id, address) in addresses {
        let length = u16::try_from(address.len()).unwrap_or(u16::MAX);
        body.extend_from_slice(&broker_id.to_le_bytes());
        body.extend_from_slice(&length.to_le_bytes());
        body.extend_from_slice(&address.as_bytes()[..usize::from(length)]);
    }
    seal(MAGIC, &body)
}

fn decode(bytes: &[u8]) -> Option<BTreeMap<u64, String>> {
    let (count, mut rest) = unseal(MAGIC, bytes)?.split_first_chunk::<4>()?;
    let mut addresses = BTreeMap::new();
    for _ in 0..u32::from_le_bytes(*count) {
        let (broker_id, after) = rest.split_first_chunk::<8>()?;
        let (length, after) = after.split_first_chunk::<2>()?;
        let (address, after) = after.split_at_checked(usize::from(u16::from_le_bytes(*length)))?;
        let address = std::str::from_utf8(address).ok()?;
        addresses.insert(u64::from_le_bytes(*broker_id), address.to_owned());
        rest = after;
    }
    Some(addresses)
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    /// Catches an operator's word that is gone after a restart, and a damaged file that stops a replica.
    #[tokio::test]
    async fn what_was_said_is_there_after_a_restart() {
        let (host, dir) = (Host::real(), tempfile::tempdir().unwrap());
        assert!(read(&host, dir.path()).is_empty());
        let said = BTreeMap::from([(2, "b:9081".to_owned()), (3, "[::1]:1".to_owned())]);
        write(&host, dir.path(), &said).await.unwrap();
        assert_eq!(read(&host, dir.path()), said);
        let file = host.disk.open(&dir.path().join(FILE_NAME)).unwrap();
        file.write_at(20, &[Bytes::from_static(b"x")]).unwrap();
        assert!(read(&host, dir.path()).is_empty());
    }

    /// Catches a file that is believed although it ends early or says more than it has.
    #[test]
    fn nonsense_is_no_address() {
        let bytes = encode(&BTreeMap::from([(2, "b:1".to_owned())]));
        assert!(decode(&bytes).is_some());
        for end in 0..bytes.len() {
            assert!(decode(&bytes[..end]).is_none(), "{end}");
        }
        let more = seal(MAGIC, &u32::MAX.to_le_bytes());
        assert!(decode(&more).is_none());
    }
}
