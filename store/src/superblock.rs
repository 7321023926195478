//! The few facts of a replica that are neither log nor table. Layout: `docs/formats/superblock.md`.
//!
//! A pure codec; `data_dir` reads and replaces the file. Knows nothing of what a vote means.

use bytes::Bytes;
use thiserror::Error;

use crate::entry::LogId;

const MAGIC: [u8; 4] = *b"RMQS";

/// Version of the layout.
pub(crate) const VERSION: u32 = 1;

const HEADER_BYTES: usize = 16;

/// Longest vote, and longest name: generous, and small enough that garbage cannot ask for memory.
const FIELD_BYTES_MAX: usize = 4096;

/// Who a data directory belongs to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The cluster.
    pub cluster_id: String,
    /// The broker group.
    pub group: String,
    /// The broker in the group.
    pub broker_id: u64,
}

impl Superblock {
    /// Whether the replica has promised anything: it votes, or follows whoever was voted for, before it stores
    /// its first entry.
    pub fn is_used(&self) -> bool {
        !self.vote.is_empty() || self.purged.is_some()
    }
}

/// A replica's identity, its vote, and which generation of its files counts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Superblock {
    /// Who the data directory belongs to.
    pub identity: Identity,
    /// Opaque to the store; empty before the first vote.
    pub vote: Bytes,
    /// Raft will not ask for entries up to here. Records below it may still be in the log.
    pub purged: Option<LogId>,
    /// Number of the log directory that counts.
    pub log_generation: u64,
    /// Number of the table directory that counts.
    pub tables_generation: u64,
    /// Bytes of a segment, fixed when the directory was made.
    pub segment_bytes: u64,
}

/// Why bytes are not a superblock.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub(crate) enum DecodeError {
    #[error("it does not begin like a superblock")]
    Magic,
    #[error("format version {0} is not known")]
    Version(u32),
    #[error("checksum differs")]
    Checksum,
    #[error("field {0} does not fit")]
    Field(&'static str),
}

/// The file's bytes.
pub(crate) fn encode(superblock: &Superblock) -> Vec<u8> {
    let identity = &superblock.identity;
    let mut body = Vec::new();
    put_bytes(&mut body, identity.cluster_id.as_bytes());
    put_bytes(&mut body, identity.group.as_bytes());
    body.extend_from_slice(&identity.broker_id.to_le_bytes());
    put_bytes(&mut body, &superblock.vote);
    let purged = superblock.purged.unwrap_or_default();
    body.push(u8::from(superblock.purged.is_some()));
    for number in [
        purged.term,
        purged.index,
        superblock.log_generation,
        superblock.tables_generation,
        superblock.segment_bytes,
    ] {
        body.extend_from_slice(&number.to_le_bytes());
    }
    let mut bytes = Vec::with_capacity(HEADER_BYTES + body.len());
    bytes.extend_from_slice(&MAGIC);
    bytes.extend_from_slice(&VERSION.to_le_bytes());
    bytes.extend_from_slice(&(body.len() as u32).to_le_bytes());
    bytes.extend_from_slice(&crc32c::crc32c(&body).to_le_bytes());
    bytes.extend_from_slice(&body);
    bytes
}

/// Reads a whole file. Never panics, whatever the bytes.
pub(crate) fn decode(bytes: &[u8]) -> Result<Superblock, DecodeError> {
    let mut header = Reader(bytes);
    if header.take(4, "magic").map_err(|_| DecodeError::Magic)? != MAGIC {
        return Err(DecodeError::Magic);
    }
    match header.u32("version")? {
        VERSION => {}
        version => return Err(DecodeError::Version(version)),
    }
    let (len, checksum) = (header.u32("length")? as usize, header.u32("checksum")?);
    let body = header.0;
    if body.len() != len {
        return Err(DecodeError::Field("length"));
    }
    if crc32c::crc32c(body) != checksum {
        return Err(DecodeError::Checksum);
    }
    let mut body = Reader(body);
    let identity = Identity {
        cluster_id: body.text("cluster")?,
        group: body.text("group")?,
        broker_id: body.u64("broker")?,
    };
    let vote = Bytes::copy_from_slice(body.bytes("vote")?);
    let has_purged = match body.take(1, "purged")? {
        [0] => false,
        [1] => true,
        _ => return Err(DecodeError::Field("purged")),
    };
    let purged = LogId {
        term: body.u64("purged")?,
        index: body.u64("purged")?,
    };
    // The entry after it must exist.
    if purged.index == u64::MAX {
        return Err(DecodeError::Field("purged"));
    }
    let superblock = Superblock {
        identity,
        vote,
        purged: has_purged.then_some(purged),
        log_generation: body.u64("log generation")?,
        tables_generation: body.u64("tables generation")?,
        segment_bytes: body.u64("segment bytes")?,
    };
    if body.0.is_empty() {
        Ok(superblock)
    } else {
        Err(DecodeError::Field("end"))
    }
}

fn put_bytes(body: &mut Vec<u8>, bytes: &[u8]) {
    body.extend_from_slice(&(bytes.len() as u32).to_le_bytes());
    body.extend_from_slice(bytes);
}

/// What is left to read.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, len: usize, field: &'static str) -> Result<&'a [u8], DecodeError> {
        let (taken, rest) = self
            .0
            .split_at_checked(len)
            .ok_or(DecodeError::Field(field))?;
        self.0 = rest;
        Ok(taken)
    }

    fn u32(&mut self, field: &'static str) -> Result<u32, DecodeError> {
        let bytes = self.take(4, field)?;
        Ok(u32::from_le_bytes(
            bytes.try_into().expect("four bytes were taken"),
        ))
    }

    fn u64(&mut self, field: &'static str) -> Result<u64, DecodeError> {
        let bytes = self.take(8, field)?;
        Ok(u64::from_le_bytes(
            bytes.try_into().expect("eight bytes were taken"),
        ))
    }

    fn bytes(&mut self, field: &'static str) -> Result<&'a [u8], DecodeError> {
        let len = self.u32(field)? as usize;
        if len > FIELD_BYTES_MAX {
            return Err(DecodeError::Field(field));
        }
        self.take(len, field)
    }

    fn text(&mut self, field: &'static str) -> Result<String, DecodeError> {
        let bytes = self.bytes(field)?;
        String::from_utf8(bytes.to_vec()).map_err(|_| DecodeError::Field(field))
    }
}

/// Whether a field fits: checked before it is stored, so that what was written can be read.
pub(crate) fn field_fits(bytes: &[u8]) -> bool {
    bytes.len() <= FIELD_BYTES_MAX
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn any_superblock() -> impl Strategy<Value = Superblock> {
        (
            ("[a-z]{0,20}", ".{0,20}", any::<u64>()),
            proptest::collection::vec(any::<u8>(), 0..40),
            proptest::option::of((any::<u64>(), 0..u64::MAX)),
            (any::<u64>(), any::<u64>(), any::<u64>()),
        )
            .prop_map(|((cluster_id, group, broker_id), vote, purged, numbers)| {
                Superblock {
                    identity: Identity {
                        cluster_id,
                        group,
                        broker_id,
                    },
                    vote: vote.into(),
                    purged: purged.map(|(term, index)| LogId { term, index }),
                    log_generation: numbers.0,
                    tables_generation: numbers.1,
                    segment_bytes: numbers.2,
                }
            })
    }

    /// Catches an overflow when the entry after the floor is looked for.
    #[test]
    fn a_floor_at_the_highest_index_is_refused() {
        let superblock = |index| Superblock {
            identity: Identity {
                cluster_id: "c".into(),
                group: "g".into(),
                broker_id: 1,
            },
            vote: Bytes::new(),
            purged: Some(LogId { term: 1, index }),
            log_generation: 0,
            tables_generation: 0,
            segment_bytes: 0,
        };
        assert!(decode(&encode(&superblock(u64::MAX - 1))).is_ok());
        let refused = decode(&encode(&superblock(u64::MAX)));
        assert_eq!(refused, Err(DecodeError::Field("purged")));
    }

    proptest! {
        /// Catches a field that is written and not read, or read elsewhere.
        #[test]
        fn what_is_written_is_read(superblock in any_superblock()) {
            prop_assert_eq!(decode(&encode(&superblock)), Ok(superblock));
        }

        /// Catches any single flipped bit and any cut that goes unnoticed.
        #[test]
        fn damage_is_noticed(superblock in any_superblock(), at in any::<usize>(), bit in 0..8) {
            let mut bytes = encode(&superblock);
            let at = at % bytes.len();
            prop_assert!(decode(&bytes[..at]).is_err());
            bytes[at] ^= 1_u8 << bit;
            prop_assert!(decode(&bytes).is_err());
        }

        /// Catches a panic on garbage, behind a header that looks right too.
        #[test]
        fn garbage_is_refused_without_a_panic(body in proptest::collection::vec(any::<u8>(), 0..200)) {
            prop_assert!(decode(&body).is_err());
            let mut bytes = Vec::from(MAGIC);
            bytes.extend_from_slice(&VERSION.to_le_bytes());
            bytes.extend_from_slice(&(body.len() as u32).to_le_bytes());
            bytes.extend_from_slice(&crc32c::crc32c(&body).to_le_bytes());
            bytes.extend_from_slice(&body);
            let _ = decode(&bytes);
        }
    }
}
