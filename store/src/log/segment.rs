//! A segment file: its name, its header, and the index that is written beside it when it is full.
//!
//! Layouts: `docs/formats/segment.md`. Pure codecs; other files of this folder read and write.

use std::path::{Path, PathBuf};

use thiserror::Error;

/// Bytes before the first record.
pub(crate) const HEADER_BYTES: usize = 64;

/// A segment cannot begin here or later: the index behind its last record must exist, and it has fewer
/// than 2^32 records, because positions are 32 bits.
const FIRST_INDEX_END: u64 = u64::MAX - u32::MAX as u64;

/// Bytes of an index file before the positions.
pub(crate) const INDEX_HEADER_BYTES: usize = 64;

const MAGIC: [u8; 4] = *b"RMQL";
const INDEX_MAGIC: [u8; 4] = *b"RMQI";
const VERSION: u32 = 1;

/// Why bytes are not what they should be.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub(crate) enum DecodeError {
    #[error("file is cut short")]
    Short,
    #[error("file begins with something else")]
    Magic,
    #[error("format version {0} is not known")]
    Version(u32),
    #[error("checksum of the file's header differs")]
    HeaderChecksum,
    #[error("checksum of the positions differs")]
    PositionsChecksum,
    #[error("file is for the segment of index {0}")]
    FirstIndex(u64),
    #[error("positions do not fit together")]
    Positions,
}

/// A sealed segment in numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Summary {
    pub(crate) first_index: u64,
    /// Records in the segment; at least one.
    pub(crate) count: u64,
    /// Bytes up to the end of the last record.
    pub(crate) len: u64,
    /// CRC32C over the segment's header and all record headers, which hold the checksums of the
    /// bodies.
    pub(crate) checksum: u32,
    /// Term of the last record.
    pub(crate) last_term: u64,
}

impl Summary {
    pub(crate) fn last_index(&self) -> u64 {
        self.first_index + (self.count - 1)
    }
}

/// Where each record of a sealed segment stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SegmentIndex {
    pub(crate) summary: Summary,
    pub(crate) positions: Vec<u32>,
}

impl SegmentIndex {
    /// Bytes of the record of `index` and where they begin, if the segment has it.
    pub(crate) fn span(&self, index: u64) -> Option<std::ops::Range<u64>> {
        let place = usize::try_from(index.checked_sub(self.summary.first_index)?).ok()?;
        let start = u64::from(*self.positions.get(place)?);
        let end = self
            .positions
            .get(place + 1)
            .map_or(self.summary.len, |next| u64::from(*next));
        Some(start..end)
    }
}

pub(crate) fn segment_path(dir: &Path, first_index: u64) -> PathBuf {
    dir.join(format!("{first_index:020}.seg"))
}

pub(crate) fn index_path(dir: &Path, first_index: u64) -> PathBuf {
    dir.join(format!("{first_index:020}.idx"))
}

pub(crate) fn spare_path(dir: &Path, number: u64) -> PathBuf {
    dir.join(format!("spare-{number:06}"))
}

/// What a file in a log directory is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FileName {
    Segment(u64),
    Index(u64),
    Spare(u64),
    Other,
}

impl FileName {
    pub(crate) fn of(path: &Path) -> FileName {
        let name = path
            .file_name()
            .and_then(|name| name.to_str())
            .unwrap_or_default();
        let number = |text: &str| text.parse().ok().filter(|number| *number < FIRST_INDEX_END);
        if let Some(first) = name.strip_suffix(".seg").and_then(number) {
            FileName::Segment(first)
        } else if let Some(first) = name.strip_suffix(".idx").and_then(number) {
            FileName::Index(first)
        } else if let Some(number) = name.strip_prefix("spare-").and_then(number) {
            FileName::Spare(number)
        } else {
            FileName::Other
        }
    }
}

/// The header of the segment whose first record has `first_index`.
pub(crate) fn encode_header(first_index: u64) -> [u8; HEADER_BYTES] {
    let mut header = [0; HEADER_BYTES];
    header[0..4].copy_from_slice(&MAGIC);
    header[4..8].copy_from_slice(&VERSION.to_le_bytes());
    header[8..16].copy_from_slice(&first_index.to_le_bytes());
    let checksum = crc32c::crc32c(&header[..HEADER_BYTES - 4]);
    header[HEADER_BYTES - 4..].copy_from_slice(&checksum.to_le_bytes());
    header
}

/// Checks the header of the segment whose first record has `first_index`.
pub(crate) fn check_header(bytes: &[u8], first_index: u64) -> Result<(), DecodeError> {
    let header = checked_header(bytes, MAGIC)?;
    match u64_at(header, 8) {
        found if found == first_index => Ok(()),
        found => Err(DecodeError::FirstIndex(found)),
    }
}

/// The bytes of an index file.
pub(crate) fn encode_index(index: &SegmentIndex) -> Vec<u8> {
    let summary = &index.summary;
    assert_eq!(
        summary.count,
        index.positions.len() as u64,
        "one position for each record"
    );
    let positions: Vec<u8> = index
        .positions
        .iter()
        .flat_map(|at| at.to_le_bytes())
        .collect();
    let mut header = [0; INDEX_HEADER_BYTES];
    header[0..4].copy_from_slice(&INDEX_MAGIC);
    header[4..8].copy_from_slice(&VERSION.to_le_bytes());
    header[8..16].copy_from_slice(&summary.first_index.to_le_bytes());
    header[16..24].copy_from_slice(&summary.count.to_le_bytes());
    header[24..32].copy_from_slice(&summary.len.to_le_bytes());
    header[32..40].copy_from_slice(&summary.last_term.to_le_bytes());
    header[40..44].copy_from_slice(&summary.checksum.to_le_bytes());
    header[44..48].copy_from_slice(&crc32c::crc32c(&positions).to_le_bytes());
    let checksum = crc32c::crc32c(&header[..INDEX_HEADER_BYTES - 4]);
    header[INDEX_HEADER_BYTES - 4..].copy_from_slice(&checksum.to_le_bytes());
    [&header[..], &positions].concat()
}

/// Reads the front of an index file.
pub(crate) fn decode_summary(bytes: &[u8], first_index: u64) -> Result<Summary, DecodeError> {
    let header = checked_header(bytes, INDEX_MAGIC)?;
    let summary = Summary {
        first_index: u64_at(header, 8),
        count: u64_at(header, 16),
        len: u64_at(header, 24),
        last_term: u64_at(header, 32),
        checksum: u32_at(header, 40),
    };
    if summary.first_index != first_index {
        return Err(DecodeError::FirstIndex(summary.first_index));
    }
    // The count is not worth a byte of memory before it is known to be possible, and the index
    // after the last one must exist.
    if summary.count == 0
        || summary.count > summary.len / super::record::HEADER_BYTES as u64
        || first_index.checked_add(summary.count).is_none()
    {
        return Err(DecodeError::Positions);
    }
    Ok(summary)
}

/// Reads a whole index file.
pub(crate) fn decode_index(bytes: &[u8], first_index: u64) -> Result<SegmentIndex, DecodeError> {
    let summary = decode_summary(bytes, first_index)?;
    let positions = &bytes[INDEX_HEADER_BYTES..];
    if positions.len() as u64 != summary.count * 4 {
        return Err(DecodeError::Short);
    }
    if crc32c::crc32c(positions) != u32_at(bytes, 44) {
        return Err(DecodeError::PositionsChecksum);
    }
    let (numbers, _) = positions.as_chunks();
    let positions: Vec<u32> = numbers
        .iter()
        .map(|bytes| u32::from_le_bytes(*bytes))
        .collect();
    let rises = positions.is_sorted_by(|a, b| a < b);
    let last = positions.last().map_or(0, |last| u64::from(*last));
    if positions[0] as usize != HEADER_BYTES || !rises || last >= summary.len {
        return Err(DecodeError::Positions);
    }
    Ok(SegmentIndex { summary, positions })
}

/// The first 64 bytes, after checking what both kinds of file have in common.
fn checked_header(bytes: &[u8], magic: [u8; 4]) -> Result<&[u8], DecodeError> {
    let header: &[u8; HEADER_BYTES] = bytes.first_chunk().ok_or(DecodeError::Short)?;
    if header[0..4] != magic {
        return Err(DecodeError::Magic);
    }
    if crc32c::crc32c(&header[..HEADER_BYTES - 4]) != u32_at(header, HEADER_BYTES - 4) {
        return Err(DecodeError::HeaderChecksum);
    }
    match u32_at(header, 4) {
        VERSION => Ok(header),
        version => Err(DecodeError::Version(version)),
    }
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(
        bytes[at..at + 4]
            .try_into()
            .expect("four bytes were asked for"),
    )
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(
        bytes[at..at + 8]
            .try_into()
            .expect("eight bytes were asked for"),
    )
}

const _: () = assert!(
    HEADER_BYTES == INDEX_HEADER_BYTES,
    "both headers are checked by one function"
);

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn any_index() -> impl Strategy<Value = SegmentIndex> {
        let lens = proptest::collection::vec(32..500_u32, 1..50);
        (0..u64::MAX / 2, lens, any::<u32>(), any::<u64>()).prop_map(
            |(first_index, lens, checksum, last_term)| {
                let mut end = HEADER_BYTES as u32;
                let mut positions = Vec::new();
                for len in lens {
                    positions.push(end);
                    end += len;
                }
                let count = positions.len() as u64;
                let len = u64::from(end);
                let summary = Summary {
                    first_index,
                    count,
                    len,
                    checksum,
                    last_term,
                };
                SegmentIndex { summary, positions }
            },
        )
    }

    proptest! {
        /// Catches a number that is written and not read, or read elsewhere.
        #[test]
        fn what_is_written_is_read(index in any_index()) {
            let bytes = encode_index(&index);
            let first = index.summary.first_index;
            prop_assert_eq!(decode_summary(&bytes, first), Ok(index.summary));
            prop_assert!(decode_index(&bytes, first + 1).is_err());
            let decoded = decode_index(&bytes, first).unwrap();
            prop_assert_eq!(decoded.span(first).unwrap().start, HEADER_BYTES as u64);
            prop_assert_eq!(decoded.span(index.summary.last_index()).unwrap().end, index.summary.len);
            prop_assert_eq!(decoded.span(index.summary.last_index() + 1), None);
            prop_assert_eq!(decoded, index);
        }

        /// Catches a flipped bit or a cut that goes unnoticed.
        #[test]
        fn damage_is_noticed(index in any_index(), at: usize, bit in 0..8) {
            let mut bytes = encode_index(&index);
            let at = at % bytes.len();
            prop_assert!(decode_index(&bytes[..at], index.summary.first_index).is_err());
            bytes[at] ^= 1_u8 << bit;
            prop_assert!(decode_index(&bytes, index.summary.first_index).is_err());
        }

        /// Catches a panic or a huge allocation on garbage with right checksums.
        #[test]
        fn garbage_is_refused_without_a_panic(
            mut garbage in proptest::collection::vec(any::<u8>(), 0..200),
            first: u64,
        ) {
            prop_assert!(decode_index(&garbage, first).is_err());
            prop_assert!(check_header(&garbage, first).is_err());
            if garbage.len() >= INDEX_HEADER_BYTES {
                garbage[0..4].copy_from_slice(&INDEX_MAGIC);
                garbage[4..8].copy_from_slice(&VERSION.to_le_bytes());
                garbage[8..16].copy_from_slice(&first.to_le_bytes());
                let positions = crc32c::crc32c(&garbage[INDEX_HEADER_BYTES..]);
                garbage[44..48].copy_from_slice(&positions.to_le_bytes());
                let checksum = crc32c::crc32c(&garbage[..INDEX_HEADER_BYTES - 4]);
                garbage[INDEX_HEADER_BYTES - 4..INDEX_HEADER_BYTES]
                    .copy_from_slice(&checksum.to_le_bytes());
                prop_assert!(decode_index(&garbage, first).is_err());
            }
        }
    }

    /// Catches a segment that would end behind the highest index there is.
    #[test]
    fn indexes_that_do_not_exist_are_refused() {
        let summary = Summary {
            first_index: u64::MAX,
            count: 1,
            len: 96,
            checksum: 0,
            last_term: 1,
        };
        let bytes = encode_index(&SegmentIndex {
            summary,
            positions: vec![HEADER_BYTES as u32],
        });
        assert_eq!(decode_index(&bytes, u64::MAX), Err(DecodeError::Positions));
        assert_eq!(summary.last_index(), u64::MAX);
    }

    /// Catches a file taken for another, and a name that is not found again.
    #[test]
    fn names_and_headers_tell_segments_apart() {
        let dir = Path::new("/log-1");
        assert_eq!(segment_path(dir, 42), dir.join("00000000000000000042.seg"));
        let last = FIRST_INDEX_END - 1;
        assert_eq!(
            FileName::of(&segment_path(dir, last)),
            FileName::Segment(last)
        );
        // No segment of ours: counting its records would pass the end of the numbers.
        let strange = segment_path(dir, FIRST_INDEX_END);
        assert_eq!(FileName::of(&strange), FileName::Other);
        assert_eq!(FileName::of(&index_path(dir, 7)), FileName::Index(7));
        assert_eq!(FileName::of(&spare_path(dir, 7)), FileName::Spare(7));
        assert_eq!(FileName::of(Path::new("synced")), FileName::Other);
        assert_eq!(FileName::of(Path::new("x.seg")), FileName::Other);
        assert!(check_header(&encode_header(42), 42).is_ok());
        assert_eq!(
            check_header(&encode_header(42), 43),
            Err(DecodeError::FirstIndex(42))
        );
    }
}
