//! The decoders of the log's files, for `fuzz/`. Each takes any bytes, as they are and with the
//! checksums put right, because no fuzzer guesses a checksum. What decodes must encode to the same.

use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use host::testing::CrashDisk;
use host::{Disk, File};

use super::mark::MarkFile;
use super::{record, scan, segment};
use crate::entry::Entry;

/// First index of the segment that records are read from: any small number does.
const FIRST_INDEX: u64 = 7;

/// A record, and a segment full of what may be records.
pub fn record(data: &[u8]) {
    let _ = record::decode(record::seed(FIRST_INDEX), data);
    let mut bytes = data.to_vec();
    for (place, record) in split_records(&mut bytes).into_iter().enumerate() {
        fix_record(&mut bytes[record], FIRST_INDEX + place as u64);
    }
    check_record(&bytes);
    scan_segment(&bytes);
}

/// Both headers of a segment, and its index.
pub fn segment(data: &[u8]) {
    let first_index = u64::from_le_bytes(
        *data
            .get(8..)
            .and_then(<[u8]>::first_chunk)
            .unwrap_or(&[0; 8]),
    );
    let _ = segment::check_header(data, first_index);
    let _ = segment::decode_index(data, first_index);
    if data.len() < segment::INDEX_HEADER_BYTES {
        return;
    }
    let mut bytes = data.to_vec();
    let header = segment::encode_header(first_index);
    bytes[..8].copy_from_slice(&header[..8]);
    put_checksum(&mut bytes[..segment::HEADER_BYTES]);
    let _ = segment::check_header(&bytes, first_index);
    bytes[..4].copy_from_slice(b"RMQI");
    let positions = crc32c::crc32c(&bytes[segment::INDEX_HEADER_BYTES..]);
    bytes[44..48].copy_from_slice(&positions.to_le_bytes());
    put_checksum(&mut bytes[..segment::INDEX_HEADER_BYTES]);
    let Ok(index) = segment::decode_index(&bytes, first_index) else {
        return;
    };
    let last_index = index.summary.last_index();
    for wanted in [0, first_index, last_index, u64::MAX] {
        let span = index.span(wanted);
        assert_eq!(span.is_some(), (first_index..=last_index).contains(&wanted));
        assert!(span.is_none_or(|span| span.start < span.end && span.end <= index.summary.len));
    }
    let again = segment::decode_index(&segment::encode_index(&index), first_index);
    assert_eq!(again, Ok(index));
}

/// The file `synced`: two slots, of which the newest readable one counts.
pub fn mark(data: &[u8]) {
    open_mark(data);
    let mut bytes = data.to_vec();
    for slot in bytes.chunks_mut(4096) {
        if let Some(slot) = slot.get_mut(..64) {
            slot[..4].copy_from_slice(b"RMQM");
            put_checksum(slot);
        }
    }
    open_mark(&bytes);
}

fn open_mark(bytes: &[u8]) {
    let (disk, dir) = (CrashDisk::new(), Path::new("/"));
    put_file(&disk, &dir.join("synced"), bytes);
    let mut marks =
        MarkFile::open(&disk, dir).expect("a mark may be unreadable, the file is there");
    let synced = marks.mark().synced;
    marks.write(synced, 1, 2).expect("the disk takes writes");
    let read = MarkFile::open(&disk, dir).expect("it was written");
    assert_eq!(
        read.mark(),
        marks.mark(),
        "the mark that was written last is the newest"
    );
}

/// Where the record headers in `bytes` say that records are, with the magic written into each.
fn split_records(bytes: &mut [u8]) -> Vec<std::ops::Range<usize>> {
    let (mut records, mut start) = (Vec::new(), 0);
    while let Some(header) = bytes.get_mut(start..start + record::HEADER_BYTES) {
        header[..4].copy_from_slice(&record::MAGIC);
        let Ok(header) = record::decode_header(header) else {
            break;
        };
        let end = start + record::HEADER_BYTES + header.body_len as usize;
        if end > bytes.len() {
            break;
        }
        records.push(start..end);
        start = end;
    }
    records
}

fn fix_record(bytes: &mut [u8], index: u64) {
    bytes[24..32].copy_from_slice(&index.to_le_bytes());
    let seed = record::seed(FIRST_INDEX);
    let checksum = crc32c::crc32c_append(seed, &bytes[..8]);
    let checksum = crc32c::crc32c_append(checksum, &bytes[12..]);
    bytes[8..12].copy_from_slice(&checksum.to_le_bytes());
}

fn check_record(bytes: &[u8]) {
    let seed = record::seed(FIRST_INDEX);
    let Ok(header) = record::decode(seed, bytes) else {
        return;
    };
    let len = usize::try_from(header.record_len()).expect("it was decoded from memory");
    let entry = Entry {
        term: header.term,
        index: header.index,
        kind: header.kind,
        body: Bytes::copy_from_slice(&bytes[record::HEADER_BYTES..len]),
    };
    assert_eq!(
        record::encode_header(seed, &entry),
        bytes[..record::HEADER_BYTES]
    );
}

/// Reads a segment as a start does.
fn scan_segment(records: &[u8]) {
    let (disk, path) = (CrashDisk::new(), Path::new("/segment"));
    let bytes = [&segment::encode_header(FIRST_INDEX)[..], records].concat();
    let file = put_file(&disk, path, &bytes);
    let scanned = scan::scan(&*file, path, FIRST_INDEX, None, 0).expect("the disk can be read");
    assert!(scanned.end <= bytes.len() as u64);
    let expected = FIRST_INDEX + scanned.positions.len() as u64;
    let furthest = scan::furthest_valid(&*file, path, FIRST_INDEX, scanned.end, expected)
        .expect("the disk can be read");
    assert!(furthest.is_none_or(|furthest| furthest.end > scanned.end));
}

fn put_file(disk: &CrashDisk, path: &Path, bytes: &[u8]) -> Arc<dyn File> {
    let file = disk.create(path).expect("the disk is empty");
    file.write_at(0, &[Bytes::copy_from_slice(bytes)])
        .expect("the disk takes writes");
    file
}

/// Puts the checksum of what is before into the last four bytes.
fn put_checksum(bytes: &mut [u8]) {
    let (front, checksum) = bytes.split_at_mut(bytes.len() - 4);
    checksum.copy_from_slice(&crc32c::crc32c(front).to_le_bytes());
}
