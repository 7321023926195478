//! One entry as it stands in a segment. Layout: `docs/formats/segment.md`.
//!
//! A pure codec: bytes in, entries out. A record's bytes depend on the entry and on its segment's
//! first index alone, so that replicas hold identical segments. The first index seeds the checksum,
//! so that an old record in a reused file is never taken for a new one.

use thiserror::Error;

use crate::entry::{Entry, EntryKind, LogId};

/// Bytes before the body.
pub(crate) const HEADER_BYTES: usize = 32;

/// Largest body. Above anything a message may grow to, and far below what `u32` can count.
pub(crate) const BODY_BYTES_MAX: usize = 256 << 20;

/// What every record begins with.
pub(crate) const MAGIC: [u8; 4] = *b"RMQE";

/// Where the checksum stands in the header.
const CHECKSUM_RANGE: std::ops::Range<usize> = 8..12;

/// Why bytes are not a record.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub(crate) enum DecodeError {
    #[error("record is cut short")]
    Short,
    #[error("no record begins here")]
    Magic,
    #[error("record header holds unknown values")]
    Header,
    #[error("checksum of the record differs")]
    Checksum,
    #[error("record {found} stands where {expected} belongs")]
    Index { expected: u64, found: u64 },
    #[error("term {found} stands after term {last}")]
    Term { last: u64, found: u64 },
}

/// What stands before the body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Header {
    pub(crate) body_len: u32,
    pub(crate) checksum: u32,
    pub(crate) kind: EntryKind,
    pub(crate) term: u64,
    pub(crate) index: u64,
}

impl Header {
    /// Bytes of the whole record.
    pub(crate) fn record_len(&self) -> u64 {
        HEADER_BYTES as u64 + u64::from(self.body_len)
    }

    pub(crate) fn log_id(&self) -> LogId {
        LogId {
            term: self.term,
            index: self.index,
        }
    }
}

/// Bytes that `entry` takes in a segment.
pub(crate) fn record_len(entry: &Entry) -> u64 {
    (HEADER_BYTES + entry.body.len()) as u64
}

/// What the checksums of a segment's records begin with.
pub(crate) fn seed(first_index: u64) -> u32 {
    crc32c::crc32c(&first_index.to_le_bytes())
}

/// The header of `entry`'s record in a segment with this seed.
pub(crate) fn encode_header(seed: u32, entry: &Entry) -> [u8; HEADER_BYTES] {
    let body_len = u32::try_from(entry.body.len()).expect("bodies are bounded when appended");
    let mut header = [0; HEADER_BYTES];
    header[0..4].copy_from_slice(&MAGIC);
    header[4..8].copy_from_slice(&body_len.to_le_bytes());
    header[12] = entry.kind as u8;
    header[16..24].copy_from_slice(&entry.term.to_le_bytes());
    header[24..32].copy_from_slice(&entry.index.to_le_bytes());
    let checksum = checksum(seed, &header, &entry.body);
    header[CHECKSUM_RANGE].copy_from_slice(&checksum.to_le_bytes());
    header
}

/// Reads a header. Says nothing about the checksum.
pub(crate) fn decode_header(bytes: &[u8]) -> Result<Header, DecodeError> {
    let header: &[u8; HEADER_BYTES] = bytes.first_chunk().ok_or(DecodeError::Short)?;
    if header[0..4] != MAGIC {
        return Err(DecodeError::Magic);
    }
    let kind = EntryKind::from_number(header[12]).ok_or(DecodeError::Header)?;
    let body_len = u32_at(header, 4);
    if header[13..16] != [0; 3] || body_len as usize > BODY_BYTES_MAX {
        return Err(DecodeError::Header);
    }
    Ok(Header {
        body_len,
        checksum: u32_at(header, 8),
        kind,
        term: u64_at(header, 16),
        index: u64_at(header, 24),
    })
}

/// Reads the record at the front of `bytes` and checks it. The body is what follows the header.
pub(crate) fn decode(seed: u32, bytes: &[u8]) -> Result<Header, DecodeError> {
    let header = decode_header(bytes)?;
    let end = usize::try_from(header.record_len()).map_err(|_| DecodeError::Short)?;
    let record = bytes.get(..end).ok_or(DecodeError::Short)?;
    let (head, body) = record.split_at(HEADER_BYTES);
    if checksum(seed, head, body) != header.checksum {
        return Err(DecodeError::Checksum);
    }
    Ok(header)
}

/// Checks that a record belongs behind the one before it.
pub(crate) fn check_follows(
    header: &Header,
    expected_index: u64,
    last_term: u64,
) -> Result<(), DecodeError> {
    if header.index != expected_index {
        return Err(DecodeError::Index {
            expected: expected_index,
            found: header.index,
        });
    }
    if header.term < last_term {
        return Err(DecodeError::Term {
            last: last_term,
            found: header.term,
        });
    }
    Ok(())
}

fn checksum(seed: u32, header: &[u8], body: &[u8]) -> u32 {
    let before = crc32c::crc32c_append(seed, &header[..CHECKSUM_RANGE.start]);
    let header = crc32c::crc32c_append(before, &header[CHECKSUM_RANGE.end..]);
    crc32c::crc32c_append(header, body)
}

fn u32_at(header: &[u8; HEADER_BYTES], at: usize) -> u32 {
    u32::from_le_bytes(
        header[at..at + 4]
            .try_into()
            .expect("four bytes of a fixed array"),
    )
}

fn u64_at(header: &[u8; HEADER_BYTES], at: usize) -> u64 {
    u64::from_le_bytes(
        header[at..at + 8]
            .try_into()
            .expect("eight bytes of a fixed array"),
    )
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn any_entry() -> impl Strategy<Value = Entry> {
        let body = proptest::collection::vec(any::<u8>(), 0..200);
        (any::<u64>(), any::<u64>(), 0..3_u8, body).prop_map(|(term, index, kind, body)| Entry {
            term,
            index,
            kind: EntryKind::from_number(kind).unwrap(),
            body: body.into(),
        })
    }

    fn encode(seed: u32, entry: &Entry) -> Vec<u8> {
        [&encode_header(seed, entry)[..], &entry.body].concat()
    }

    proptest! {
        /// Catches a field that is not written, or read from elsewhere.
        #[test]
        fn what_is_written_is_read(entry in any_entry(), first: u64) {
            let bytes = encode(seed(first), &entry);
            let header = decode(seed(first), &bytes).unwrap();
            prop_assert_eq!(header.log_id(), entry.log_id());
            prop_assert_eq!(header.kind, entry.kind);
            prop_assert_eq!(header.record_len(), bytes.len() as u64);
            prop_assert_eq!(record_len(&entry), bytes.len() as u64);
        }

        /// Catches an old record in a reused file that passes for a new one.
        #[test]
        fn another_segments_record_is_refused(entry in any_entry(), a: u64, b: u64) {
            prop_assume!(a != b);
            let decoded = decode(seed(b), &encode(seed(a), &entry));
            prop_assert_eq!(decoded, Err(DecodeError::Checksum));
        }

        /// Catches a flipped bit or a cut that goes unnoticed.
        #[test]
        fn damage_is_noticed(entry in any_entry(), at: usize, bit in 0..8) {
            let mut bytes = encode(7, &entry);
            let at = at % bytes.len();
            prop_assert!(decode(7, &bytes[..at]).is_err());
            bytes[at] ^= 1_u8 << bit;
            prop_assert!(decode(7, &bytes).is_err());
        }

        /// Catches a panic on garbage, behind a right magic too.
        #[test]
        fn garbage_is_refused_without_a_panic(
            garbage in proptest::collection::vec(any::<u8>(), 0..100),
        ) {
            prop_assert!(decode(7, &garbage).is_err());
            prop_assert!(decode(7, &[&MAGIC[..], &garbage].concat()).is_err());
        }
    }

    /// Catches a change of the layout: replicas of two builds would no longer be identical.
    #[test]
    fn the_layout_is_fixed() {
        let entry = Entry {
            term: 2,
            index: 259,
            kind: EntryKind::Normal,
            body: "hello".as_bytes().into(),
        };
        let header = encode_header(seed(256), &entry);
        let expected = [
            &b"RMQE"[..],
            &[5, 0, 0, 0],
            &header[8..12],
            &[1, 0, 0, 0],
            &[2, 0, 0, 0, 0, 0, 0, 0],
            &[3, 1, 0, 0, 0, 0, 0, 0],
        ];
        assert_eq!(header[..], expected.concat());
        assert_eq!(u32_at(&header, 8), 0x6bcd_9b26);
    }
}
