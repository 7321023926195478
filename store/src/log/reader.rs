//! Reading entries: from memory while they are recent, from the segments otherwise.
//!
//! Every record read from the disk is checked. A bad one, or one that the disk does not give back, is an
//! error that names the segment and the index, never garbage. A file that was dropped or cut while it was read is not damage.

use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use host::File;

use super::counters::Counters;
use super::record::{self, record_len};
use super::segment_list::{Place, Sealed};
use super::state::State;
use super::{CommitLog, Shared};
use crate::entry::Entry;
use crate::error::{Result, StoreError};

/// Bytes read from a segment at once, a single larger record excepted.
const READ_BYTES_MAX: usize = 2 << 20;

/// Reads that begin again because the log changed beneath them, at most. It changes on elections
/// and when segments are dropped: rarely, compared with a read.
const ATTEMPTS_MAX: usize = 8;

/// Where the next entries come from.
enum Source {
    Memory(Vec<Entry>),
    Open {
        file: Arc<dyn File>,
        path: PathBuf,
        first_index: u64,
        spans: Vec<u64>,
    },
    Sealed(Arc<Sealed>),
}

/// Records that stand behind each other in one file.
struct Run {
    file: Arc<dyn File>,
    path: PathBuf,
    /// First index of the segment.
    first_index: u64,
    /// Index of the first record.
    start: u64,
    /// Where each record begins, and where the last one ends.
    spans: Vec<u64>,
}

impl CommitLog {
    /// The entries from `start` to `end_exclusive`, at least one if the log has it, and more as
    /// long as their records fit in `max_bytes`. Entries that are not synced yet are among them.
    ///
    /// Fails with [`StoreError::OutOfRange`] if `start` is not in the log and with
    /// [`StoreError::Corrupt`] if its record is damaged.
    pub async fn read(
        &self,
        start: u64,
        end_exclusive: u64,
        max_bytes: usize,
    ) -> Result<Vec<Entry>> {
        let mut entries: Vec<Entry> = Vec::new();
        let mut bytes = 0;
        let mut next = start;
        while next < end_exclusive {
            let piece = match self
                .shared
                .read_piece(next, end_exclusive, max_bytes - bytes)
                .await
            {
                Ok(piece) => piece,
                // What was read is good: the error comes with the next call, which begins there.
                Err(_) if !entries.is_empty() => break,
                Err(error) => return Err(error),
            };
            for entry in piece {
                let len = usize::try_from(record_len(&entry)).expect("bodies are bounded");
                if !entries.is_empty() && bytes + len > max_bytes {
                    return Ok(entries);
                }
                bytes = (bytes + len).min(max_bytes);
                next = entry.index + 1;
                entries.push(entry);
            }
            if next >= self.shared.state().next_index() {
                break;
            }
        }
        Ok(entries)
    }

    /// One entry. Kept in memory for a while, if it came from the disk.
    ///
    /// Fails like [`CommitLog::read`].
    pub async fn entry(&self, index: u64) -> Result<Entry> {
        let cached = self.shared.read_cache().get(index);
        if let Some(entry) = cached {
            Counters::add(&self.shared.counters.reads_from_memory, 1);
            return Ok(entry);
        }
        let epoch = self.shared.state().epoch;
        let mut piece = self.shared.read_piece(index, index + 1, 0).await?;
        let entry = piece.pop().expect("a piece has at least one entry");
        let state = self.shared.state();
        // Entries in memory need no second place there, and what was taken back must not come back.
        if state.epoch == epoch && state.ring.get(index).is_none() {
            self.shared
                .read_cache()
                .put(index, entry.clone(), record_len(&entry));
        }
        Ok(entry)
    }

    /// The term of an entry, or of the floor.
    ///
    /// Fails like [`CommitLog::read`].
    pub async fn term_at(&self, index: u64) -> Result<u64> {
        match self.purged() {
            Some(purged) if purged.index == index => Ok(purged.term),
            _ => self.entry(index).await.map(|entry| entry.term),
        }
    }
}

impl Shared {
    fn read_cache(&self) -> std::sync::MutexGuard<'_, super::Lru<Entry>> {
        self.read_cache
            .lock()
            .expect("nobody panics while holding the cache")
    }

    pub(super) fn forget_cached(&self) {
        self.read_cache().remove_from(0);
    }

    /// Entries from one source: at least one, and about as many as fit in `max_bytes`.
    pub(super) async fn read_piece(
        self: &Arc<Shared>,
        start: u64,
        end: u64,
        max_bytes: usize,
    ) -> Result<Vec<Entry>> {
        let mut attempt = 0;
        loop {
            attempt += 1;
            let (epoch, source) = {
                let state = self.state();
                (state.epoch, find(&state, start, end, max_bytes)?)
            };
            let (result, segment) = match source {
                Source::Memory(entries) => {
                    Counters::add(&self.counters.reads_from_memory, entries.len() as u64);
                    return Ok(entries);
                }
                Source::Open {
                    file,
                    path,
                    first_index,
                    spans,
                } => {
                    let run = Run {
                        file,
                        path,
                        first_index,
                        start,
                        spans,
                    };
                    (host::blocking::run(move || run.read()).await, None)
                }
                Source::Sealed(sealed) => {
                    let result = self
                        .read_sealed(sealed.clone(), start, end, max_bytes)
                        .await;
                    (result, Some(sealed))
                }
            };
            let retired = segment.is_some_and(|sealed| sealed.is_retired());
            match result {
                Ok(entries) => {
                    Counters::add(&self.counters.reads_from_disk, entries.len() as u64);
                    return Ok(entries);
                }
                Err(_) if attempt < ATTEMPTS_MAX && (retired || self.state().epoch != epoch) => {}
                Err(error) => return Err(error),
            }
        }
    }

    async fn read_sealed(
        self: &Arc<Shared>,
        sealed: Arc<Sealed>,
        start: u64,
        end: u64,
        max_bytes: usize,
    ) -> Result<Vec<Entry>> {
        let shared = self.clone();
        let read = move || {
            let opened = shared
                .sealed_files
                .open(&**shared.disk(), &sealed, &shared.counters)?;
            let span = |index| opened.index.span(index);
            let spans = spans(span, start, end, max_bytes).ok_or_else(|| {
                StoreError::corrupt_at(&sealed.path, start, "the segment ends before this entry")
            })?;
            let (file, path) = (opened.file.clone(), sealed.path.clone());
            Run {
                file,
                path,
                first_index: sealed.first_index,
                start,
                spans,
            }
            .read()
        };
        host::blocking::run(read).await
    }
}

fn find(state: &State, start: u64, end: u64, max_bytes: usize) -> Result<Source> {
    if start < state.positions.dropped || start >= state.next_index() {
        return Err(state.out_of_range(start));
    }
    if let Some(first) = state.ring.get(start) {
        let mut entries = vec![first.clone()];
        let mut bytes = record_len(first);
        for index in start + 1..end {
            let Some(entry) = state.ring.get(index) else {
                break;
            };
            bytes += record_len(entry);
            if bytes > max_bytes as u64 {
                break;
            }
            entries.push(entry.clone());
        }
        return Ok(Source::Memory(entries));
    }
    // What is not synced is in memory only: a segment may not have it yet.
    let end = end.min(
        state
            .positions
            .flushed
            .map_or(0, |flushed| flushed.index + 1),
    );
    let damaged = || StoreError::corrupt_at(&state.dir, start, "no segment holds this entry");
    match state.segments.find(start).ok_or_else(damaged)? {
        Place::Sealed(sealed) => Ok(Source::Sealed(sealed.clone())),
        Place::Open(open) => {
            let spans = spans(|index| open.span(index), start, end, max_bytes);
            Ok(Source::Open {
                file: open.file.clone(),
                path: open.path.clone(),
                first_index: open.first_index,
                spans: spans.ok_or_else(damaged)?,
            })
        }
    }
}

/// Where the records from `start` on begin, and where the last of them ends: at least one, if the
/// segment has it.
fn spans(
    span: impl Fn(u64) -> Option<std::ops::Range<u64>>,
    start: u64,
    end: u64,
    max_bytes: usize,
) -> Option<Vec<u64>> {
    let first = span(start)?;
    let limit = first.start + max_bytes.min(READ_BYTES_MAX) as u64;
    let mut spans = vec![first.start, first.end];
    for index in start + 1..end {
        match span(index) {
            Some(next) if next.end <= limit => spans.push(next.end),
            _ => break,
        }
    }
    Some(spans)
}

impl Run {
    /// Blocking. The bodies share one buffer.
    fn read(&self) -> Result<Vec<Entry>> {
        let (begin, end) = (self.spans[0], self.spans[self.spans.len() - 1]);
        let len = usize::try_from(end - begin).expect("a segment fits in memory");
        let mut buffer = vec![0; len];
        let mut whole = self.spans.len() - 1;
        match self.file.read_at(begin, &mut buffer) {
            Ok(count) => buffer.truncate(count),
            Err(_) => whole = self.read_one_by_one(&mut buffer)?,
        }
        let buffer = Bytes::from(buffer);
        let seed = record::seed(self.first_index);
        let mut entries = Vec::with_capacity(self.spans.len() - 1);
        for (index, span) in (self.start..).zip(self.spans.windows(2).take(whole)) {
            let damaged = |detail: String| StoreError::corrupt_at(&self.path, index, detail);
            let from = usize::try_from(span[0] - begin).expect("inside of the buffer");
            let to = usize::try_from(span[1] - begin).expect("inside of the buffer");
            let bytes = buffer
                .get(from..to)
                .ok_or_else(|| damaged("file ends early".into()))?;
            let header = match record::decode(seed, bytes) {
                Ok(header) => header,
                // The records before it are good: they are not lost with it.
                Err(_) if !entries.is_empty() => break,
                Err(error) => return Err(damaged(error.to_string())),
            };
            if header.index != index || header.record_len() != bytes.len() as u64 {
                return Err(damaged(format!("record {} stands there", header.index)));
            }
            entries.push(Entry {
                term: header.term,
                index,
                kind: header.kind,
                body: buffer.slice(from + record::HEADER_BYTES..to),
            });
        }
        Ok(entries)
    }

    /// How many records the disk gives before the first that it refuses; an error names that one if it is the first.
    fn read_one_by_one(&self, buffer: &mut [u8]) -> Result<usize> {
        for (number, span) in self.spans.windows(2).enumerate() {
            let place = |position: u64| {
                usize::try_from(position - self.spans[0]).expect("inside of the buffer")
            };
            let record = &mut buffer[place(span[0])..place(span[1])];
            match self.file.read_at(span[0], record) {
                Ok(count) if count == record.len() => {}
                Ok(_) if number == 0 => {
                    return Err(StoreError::corrupt_at(
                        &self.path,
                        self.start,
                        "file ends early",
                    ));
                }
                Err(error) if number == 0 => {
                    return Err(StoreError::unreadable(&self.path, Some(self.start))(error));
                }
                Ok(_) | Err(_) => return Ok(number),
            }
        }
        Ok(self.spans.len() - 1)
    }
}
