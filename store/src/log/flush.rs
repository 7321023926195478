//! The flusher: the one task that writes the log, one write and one sync for each group.
//!
//! Takes everything that waits, writes it, syncs it, notes the mark, publishes `flushed`, and calls
//! back in order. Once a second it syncs the mark too. While it does, the next group fills. Nothing else in the write path waits for the
//! disk. After a failed write or sync it never writes again: what the disk holds is unknown then.

use std::path::PathBuf;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use host::File;
use tokio::time::Instant;

use super::Shared;
use super::counters::Counters;
use super::mark::MarkFile;
use super::record::{self, record_len};
use super::segment::{self, SegmentIndex, Summary, index_path, segment_path};
use super::segment_list::Sealed;
use super::state::{Done, Item, Spare, State};
use crate::entry::{Entry, LogId};
use crate::error::{Result, StoreError};

/// The write side of the log: one owner at a time.
pub(crate) struct Writer {
    pub(crate) tail: Option<Tail>,
    pub(crate) mark: MarkFile,
    /// Whether the mark stays where it is: while a repair is not complete.
    pub(crate) mark_held: bool,
}

/// The segment that is written to.
pub(crate) struct Tail {
    pub(crate) first_index: u64,
    pub(crate) file: Arc<dyn File>,
    pub(crate) path: PathBuf,
    /// Where the next record goes.
    pub(crate) position: u64,
    /// Checksum of the segment so far; unknown after entries were taken back.
    pub(crate) checksum: Option<u32>,
}

/// What is written and synced together.
struct Group {
    roll: Option<(u64, Spare)>,
    entries: Vec<Entry>,
    bytes: u64,
    dones: Vec<Done>,
}

impl Shared {
    /// Writes what is appended until the log is closed and everything is written.
    pub(crate) async fn flush_groups(self: Arc<Shared>) {
        let _watch = PanicWatch {
            shared: self.clone(),
        };
        loop {
            let woken = self.appended.notified();
            let group = take_group(&mut self.state(), self.config.group_bytes_max);
            match group {
                Some(group) => self.flush(group).await,
                None if self.state().closed => return,
                None => self.idle(woken).await,
            }
        }
    }

    /// Waits until there is something to write; makes the mark durable meanwhile, when it is time.
    async fn idle(&self, woken: impl Future<Output = ()>) {
        let due = self.writer.lock().await.mark.sync_due();
        let Some(due) = due.filter(|_| self.failure().is_none()) else {
            return woken.await;
        };
        let left = due.saturating_duration_since(Instant::now());
        if tokio::time::timeout(left, woken).await.is_ok() {
            return;
        }
        let synced = self.writer.lock().await.mark.sync().await;
        if let Err(error) = synced {
            self.state().failure = Some(error.clone());
            self.announce_failure(&error);
        }
    }

    async fn flush(&self, mut group: Group) {
        let last = group.entries.last().map(Entry::log_id);
        let result = match self.failure() {
            Some(error) => Err(error),
            None => self.write(&mut group).await,
        };
        {
            let mut state = self.state();
            state.in_flight = false;
            state.pending_bytes -= group.bytes;
            match &result {
                Ok(()) => {
                    state.positions.flushed = last.or(state.positions.flushed);
                    state.assert_positions();
                    let flushed = state.positions.flushed;
                    state.ring.evict(self.config.cache_bytes, flushed);
                }
                Err(error) => state.failure = Some(error.clone()),
            }
        }
        if let Err(error) = &result {
            self.announce_failure(error);
        }
        self.progress.notify_waiters();
        for done in group.dones {
            done(result.clone());
        }
    }

    async fn write(&self, group: &mut Group) -> Result<()> {
        let mut writer = self.writer.lock().await;
        if let Some((first_index, spare)) = group.roll.take() {
            self.roll(&mut writer, first_index, spare).await?;
        }
        let Some(last) = group.entries.last().map(Entry::log_id) else {
            return Ok(());
        };
        let Writer {
            tail,
            mark,
            mark_held,
        } = &mut *writer;
        let tail = tail
            .as_mut()
            .expect("the first record of a log comes behind a roll");
        let begun = Instant::now();
        let written = tail.write(&group.entries).await?;
        self.counters.sync_took(begun.elapsed());
        Counters::add(&self.counters.syncs, 1);
        Counters::add(&self.counters.bytes_written, written);
        Counters::add(&self.counters.entries, group.entries.len() as u64);
        if !*mark_held {
            mark.write(Some(last), tail.first_index, tail.position)?;
        }
        mark.sync_if_due().await
    }

    /// Ends the segment that is written to and begins the next.
    async fn roll(&self, writer: &mut Writer, first_index: u64, spare: Spare) -> Result<()> {
        if let Some(tail) = writer.tail.take() {
            self.seal(tail).await?;
        }
        let dir = self.state().dir.clone();
        let path = segment_path(&dir, first_index);
        self.disk()
            .rename(&spare.path, &path)
            .map_err(StoreError::io("rename", &spare.path))?;
        // Makes the name of the sealed segment's index durable too.
        self.disk()
            .sync_dir(&dir)
            .await
            .map_err(StoreError::io("sync", &dir))?;
        Counters::add(&self.counters.segments_begun, 1);
        let file = spare.file;
        writer.tail = Some(Tail {
            first_index,
            file,
            path,
            position: 0,
            checksum: Some(0),
        });
        Ok(())
    }

    /// Writes the index of a full segment. It counts as sealed once the directory was synced.
    async fn seal(&self, tail: Tail) -> Result<()> {
        let (positions, dir) = {
            let state = self.state();
            let open = state
                .segments
                .open_front()
                .expect("a segment being written is open");
            assert_eq!(
                open.first_index, tail.first_index,
                "segments are sealed in order"
            );
            (open.positions.clone(), state.dir.clone())
        };
        let index = index_of(&tail, positions).await?;
        let summary = index.summary;
        write_index(&**self.disk(), &dir, &index).await?;
        let sealed = Sealed::new(
            summary.first_index,
            summary.last_index(),
            tail.path.clone(),
            Some(summary),
        );
        let sealed = Arc::new(sealed);
        self.sealed_files.keep(&sealed, tail.file, index);
        self.state().segments.seal(sealed);
        Ok(())
    }
}

/// Says so when the flusher dies of a bug, its own or that of a callback: nobody would ever be
/// answered again.
struct PanicWatch {
    shared: Arc<Shared>,
}

impl Drop for PanicWatch {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            return;
        }
        // The panic may have struck while the state was locked: then every later call panics anyway.
        if let Ok(mut state) = self.shared.state.lock() {
            state.failure.get_or_insert(StoreError::Closed);
        }
        self.shared.announce_failure(&StoreError::Closed);
        self.shared.progress.notify_waiters();
    }
}

/// What the flusher writes next: up to the bound, and nothing beyond the end of a segment.
fn take_group(state: &mut State, bytes_max: u64) -> Option<Group> {
    if state.queue.is_empty() {
        return None;
    }
    state.in_flight = true;
    let mut group = Group {
        roll: None,
        entries: Vec::new(),
        bytes: 0,
        dones: Vec::new(),
    };
    while let Some(item) = state.queue.pop_front() {
        match item {
            Item::Roll { first_index, spare } if group.entries.is_empty() => {
                assert!(group.roll.is_none(), "a segment has at least one record");
                group.roll = Some((first_index, spare));
            }
            Item::Record(entry)
                if group.entries.is_empty() || group.bytes + record_len(&entry) <= bytes_max =>
            {
                group.bytes += record_len(&entry);
                group.entries.push(entry);
            }
            Item::Done(done) => group.dones.push(done),
            item => {
                state.queue.push_front(item);
                break;
            }
        }
    }
    Some(group)
}

impl Tail {
    /// Writes and syncs the entries; returns the bytes written.
    async fn write(&mut self, entries: &[Entry]) -> Result<u64> {
        let seed = record::seed(self.first_index);
        let mut headers =
            BytesMut::with_capacity(segment::HEADER_BYTES + entries.len() * record::HEADER_BYTES);
        if self.position == 0 {
            headers.extend_from_slice(&segment::encode_header(self.first_index));
        }
        let front = headers.len();
        for entry in entries {
            headers.extend_from_slice(&record::encode_header(seed, entry));
        }
        let mut headers = headers.freeze();
        let checksum = self
            .checksum
            .map(|checksum| crc32c::crc32c_append(checksum, &headers));
        let mut buffers: Vec<Bytes> = Vec::with_capacity(2 * entries.len() + 1);
        if front > 0 {
            buffers.push(headers.split_to(front));
        }
        for entry in entries {
            buffers.push(headers.split_to(record::HEADER_BYTES));
            buffers.push(entry.body.clone());
        }
        let len: u64 = buffers.iter().map(|buffer| buffer.len() as u64).sum();
        let file = self.file.clone();
        let written = file.write_and_sync(self.position, buffers).await;
        written.map_err(StoreError::io("write and sync", &self.path))?;
        self.position += len;
        self.checksum = checksum;
        Ok(len)
    }
}

/// The index of a segment that is full.
async fn index_of(tail: &Tail, positions: Vec<u32>) -> Result<SegmentIndex> {
    let last = *positions.last().expect("a segment has at least one record");
    let (file, path) = (tail.file.clone(), tail.path.clone());
    let known = tail.checksum;
    let (checksum, last, positions) = host::blocking::run(move || {
        let last = read_header(&*file, &path, last)?.1.log_id();
        let checksum = match known {
            Some(checksum) => checksum,
            None => checksum_of(&*file, &path, &positions)?,
        };
        Ok::<(u32, LogId, Vec<u32>), StoreError>((checksum, last, positions))
    })
    .await?;
    let summary = Summary {
        first_index: tail.first_index,
        count: positions.len() as u64,
        len: tail.position,
        checksum,
        last_term: last.term,
    };
    assert_eq!(
        summary.last_index(),
        last.index,
        "positions and records agree"
    );
    Ok(SegmentIndex { summary, positions })
}

/// The checksum of a segment, read from the headers of its records.
pub(crate) fn checksum_of(
    file: &dyn File,
    path: &std::path::Path,
    positions: &[u32],
) -> Result<u32> {
    let mut head = [0; segment::HEADER_BYTES];
    file.read_at(0, &mut head)
        .map_err(StoreError::io("read", path))?;
    let mut checksum = crc32c::crc32c(&head);
    for position in positions {
        let (bytes, _) = read_header(file, path, *position)?;
        checksum = crc32c::crc32c_append(checksum, &bytes);
    }
    Ok(checksum)
}

fn read_header(
    file: &dyn File,
    path: &std::path::Path,
    position: u32,
) -> Result<([u8; record::HEADER_BYTES], record::Header)> {
    let mut bytes = [0; record::HEADER_BYTES];
    file.read_at(position.into(), &mut bytes)
        .map_err(StoreError::io("read", path))?;
    let header = record::decode_header(&bytes);
    let header = header.map_err(|error| StoreError::corrupt(path, error.to_string()))?;
    Ok((bytes, header))
}

/// Writes an index file and syncs it; its name is durable once the directory was synced.
pub(crate) async fn write_index(
    disk: &dyn host::Disk,
    dir: &std::path::Path,
    index: &SegmentIndex,
) -> Result<()> {
    let path = index_path(dir, index.summary.first_index);
    let file = disk
        .create(&path)
        .map_err(StoreError::io("create", &path))?;
    let bytes = Bytes::from(segment::encode_index(index));
    file.write_and_sync(0, vec![bytes])
        .await
        .map_err(StoreError::io("write", &path))
}
