//! Reading a segment from front to back, believing nothing.
//!
//! Blocking: runs at start, when an index file is rebuilt, and when a segment is verified. Decides
//! nothing: says what is there, and `recovery` judges it. What the disk does not give back is not there.

use std::path::Path;

use host::File;

use super::record::{self, Header};
use super::segment;
use crate::entry::LogId;
use crate::error::{Result, StoreError};

/// Bytes read at once.
const WINDOW_BYTES: usize = 1 << 20;

/// What a disk fails to read at once, where it fails.
const BLOCK_BYTES: usize = 4096;

/// What stands in a segment up to the first thing that does not belong there.
pub(crate) struct Scanned {
    /// Where each valid record begins.
    pub(crate) positions: Vec<u32>,
    /// The last valid record.
    pub(crate) last: Option<LogId>,
    /// Where the last valid record ends; 0 if not even the segment's header is valid.
    pub(crate) end: u64,
    /// Checksum of the segment up to `end`, as its summary would hold it.
    pub(crate) checksum: u32,
    /// What does not belong there.
    pub(crate) stopped: String,
}

/// Reads records until one is invalid, or `count` were read. They must follow each other from
/// `first_index` on, with terms that never fall below `term_before`.
pub(crate) fn scan(
    file: &dyn File,
    path: &Path,
    first_index: u64,
    count: Option<u64>,
    term_before: u64,
) -> Result<Scanned> {
    let mut window = Window::new(file, path)?;
    let mut scanned = Scanned {
        positions: Vec::new(),
        last: None,
        end: 0,
        checksum: 0,
        stopped: String::new(),
    };
    let head = window.at(0, segment::HEADER_BYTES)?;
    if let Err(error) = segment::check_header(head, first_index) {
        scanned.stopped = error.to_string();
        return Ok(scanned);
    }
    scanned.checksum = crc32c::crc32c(head);
    scanned.end = segment::HEADER_BYTES as u64;
    let seed = record::seed(first_index);
    let mut last_term = term_before;
    while count.is_none_or(|count| (scanned.positions.len() as u64) < count) {
        let expected = first_index + scanned.positions.len() as u64;
        let header = match next(&mut window, seed, scanned.end, expected, last_term)? {
            Ok(header) => header,
            Err(error) => {
                scanned.stopped = error.to_string();
                break;
            }
        };
        let Ok(position) = u32::try_from(scanned.end) else {
            scanned.stopped = "segment is too long".to_string();
            break;
        };
        let head = window.at(scanned.end, record::HEADER_BYTES)?;
        scanned.checksum = crc32c::crc32c_append(scanned.checksum, head);
        scanned.positions.push(position);
        scanned.last = Some(header.log_id());
        scanned.end += header.record_len();
        last_term = header.term;
    }
    Ok(scanned)
}

/// The record at `position`, or why there is none.
fn next(
    window: &mut Window<'_>,
    seed: u32,
    position: u64,
    expected: u64,
    last_term: u64,
) -> Result<Result<Header, record::DecodeError>> {
    let header = match record::decode_header(window.at(position, record::HEADER_BYTES)?) {
        Ok(header) => header,
        Err(error) => return Ok(Err(error)),
    };
    if let Err(error) = record::check_follows(&header, expected, last_term) {
        return Ok(Err(error));
    }
    let len = usize::try_from(header.record_len()).expect("bodies are bounded");
    Ok(record::decode(seed, window.at(position, len)?))
}

/// Whether the disk refuses to give what stands where a record would begin, or a part of the record that does: then nobody
/// knows whether there is one. What it gives when it is asked once more is not lost.
pub(crate) fn is_refused(file: &dyn File, position: u64) -> bool {
    let read = |bytes: &mut [u8]| {
        let first = file.read_at(position, bytes);
        first.or_else(|_| file.read_at(position, bytes))
    };
    let mut head = [0; record::HEADER_BYTES];
    let Ok(count) = read(&mut head) else {
        return true;
    };
    let Ok(header) = record::decode_header(&head[..count]) else {
        return false;
    };
    let mut record = vec![0; usize::try_from(header.record_len()).expect("bodies are bounded")];
    read(&mut record).is_err()
}

/// A valid record behind an invalid one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Furthest {
    /// Where it ends.
    pub(crate) end: u64,
    pub(crate) index: u64,
    pub(crate) term: u64,
}

/// Looks behind an invalid record for valid ones of the same segment, at any position. Returns the
/// last of them.
pub(crate) fn furthest_valid(
    file: &dyn File,
    path: &Path,
    first_index: u64,
    from: u64,
    expected: u64,
) -> Result<Option<Furthest>> {
    let seed = record::seed(first_index);
    let mut search = Window::new(file, path)?;
    let mut records = Window::new(file, path)?;
    let mut position = from;
    let mut furthest = None;
    while position + record::HEADER_BYTES as u64 <= search.len {
        let bytes = search.rest(position, record::HEADER_BYTES)?;
        if bytes.len() < record::HEADER_BYTES {
            break;
        }
        let Some(found) = find_magic(bytes) else {
            // The magic may begin in the last bytes of this window.
            position += (bytes.len() - (record::MAGIC.len() - 1)) as u64;
            continue;
        };
        position += found as u64;
        match candidate(&mut records, seed, position, expected)? {
            Some(header) => {
                position += header.record_len();
                furthest = Some(Furthest {
                    end: position,
                    index: header.index,
                    term: header.term,
                });
            }
            None => position += 1,
        }
    }
    Ok(furthest)
}

/// The record at `position`, if it is valid and could follow `expected`.
fn candidate(
    window: &mut Window<'_>,
    seed: u32,
    position: u64,
    expected: u64,
) -> Result<Option<Header>> {
    let possible = expected..=expected + window.len / record::HEADER_BYTES as u64;
    let Ok(header) = record::decode_header(window.at(position, record::HEADER_BYTES)?) else {
        return Ok(None);
    };
    // Old records of a reused file have lower indexes: no need to check their bodies.
    if !possible.contains(&header.index) {
        return Ok(None);
    }
    let len = usize::try_from(header.record_len()).expect("bodies are bounded");
    let valid = record::decode(seed, window.at(position, len)?).is_ok();
    Ok(valid.then_some(header))
}

/// Where the magic of a record begins. Looks at every fourth byte only, unless it is one of the
/// magic's.
fn find_magic(bytes: &[u8]) -> Option<usize> {
    let [r, m, q, e] = record::MAGIC;
    let mut at = 0;
    while let Some(last) = bytes.get(at + 3) {
        at += match *last {
            byte if byte == e => match bytes[at..at + 4] == record::MAGIC {
                true => return Some(at),
                false => 4,
            },
            byte if byte == q => 1,
            byte if byte == m => 2,
            byte if byte == r => 3,
            _ => 4,
        };
    }
    None
}

/// A piece of a file in memory, moved as needed.
struct Window<'a> {
    file: &'a dyn File,
    path: &'a Path,
    /// Length of the file when the scan began.
    len: u64,
    start: u64,
    bytes: Vec<u8>,
}

impl<'a> Window<'a> {
    fn new(file: &'a dyn File, path: &'a Path) -> Result<Window<'a>> {
        let len = file.len().map_err(StoreError::io("read", path))?;
        Ok(Window {
            file,
            path,
            len,
            start: 0,
            bytes: Vec::new(),
        })
    }

    /// Fills the window block by block of the disk, with zeros where it does not give what it holds; returns the bytes
    /// that there are.
    fn read_blocks(&mut self, position: u64) -> usize {
        let mut filled = 0;
        while filled < self.bytes.len() {
            let at = position + filled as u64;
            let left = BLOCK_BYTES - usize::try_from(at).unwrap_or(0) % BLOCK_BYTES;
            let end = self.bytes.len().min(filled + left);
            let block = &mut self.bytes[filled..end];
            match self.file.read_at(at, block) {
                Ok(count) if count < block.len() => return filled + count,
                Ok(_) => {}
                Err(_) => block.fill(0),
            }
            filled = end;
        }
        filled
    }

    /// What is in memory from `position` on: at least `len` bytes, fewer at the end of the file.
    fn rest(&mut self, position: u64, len: usize) -> Result<&[u8]> {
        self.at(position, len)?;
        let from = usize::try_from(position - self.start).expect("inside of the window");
        Ok(&self.bytes[from..])
    }

    /// `len` bytes from `position` on; fewer at the end of the file.
    fn at(&mut self, position: u64, len: usize) -> Result<&[u8]> {
        let left = self.len.saturating_sub(position);
        let len = len.min(usize::try_from(left).unwrap_or(usize::MAX));
        let end = self.start + self.bytes.len() as u64;
        if position < self.start || position + len as u64 > end {
            let wanted = len.max(WINDOW_BYTES);
            let wanted = wanted.min(usize::try_from(left).unwrap_or(usize::MAX));
            self.bytes.resize(wanted, 0);
            let count = match self.file.read_at(position, &mut self.bytes) {
                Ok(count) => count,
                Err(error) => {
                    tracing::error!(path = %self.path.display(), position, %error, "cannot read");
                    self.read_blocks(position)
                }
            };
            self.bytes.truncate(count);
            self.start = position;
        }
        let from = usize::try_from(position - self.start).expect("inside of the window");
        Ok(&self.bytes[from..self.bytes.len().min(from + len)])
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Catches a search that jumps over a record.
        #[test]
        fn the_magic_is_found_wherever_it_is(
            before in proptest::collection::vec(proptest::sample::select(b"RMQEx".to_vec()), 0..40),
        ) {
            let first = before.windows(4).position(|window| window == record::MAGIC);
            prop_assert_eq!(find_magic(&before), first);
            let bytes = [&before[..], &record::MAGIC].concat();
            let first = bytes.windows(4).position(|window| window == record::MAGIC);
            prop_assert_eq!(find_magic(&bytes), first);
        }
    }
}
