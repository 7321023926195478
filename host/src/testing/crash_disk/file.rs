//! One file's bytes: as they are, as they would be after a crash, and the changes between.

use std::collections::BTreeSet;
use std::io;
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use futures::FutureExt;
use futures::future::BoxFuture;

use super::{Chance, CrashDisk, Lost, NodeId};
use crate::disk::{File, INPUT_OUTPUT_ERROR};

/// What a disk writes in one piece, and loses in one.
const SECTOR_BYTES: usize = 512;

/// What a system reads and keeps in one piece.
const PAGE_BYTES: usize = 4096;

enum Change {
    Write { position: usize, bytes: Vec<u8> },
    SetLen(usize),
}

#[derive(Default)]
pub(super) struct MemoryFile {
    bytes: Vec<u8>,
    durable: Vec<u8>,
    unsynced: Vec<Change>,
    /// Sectors that the disk does not give back, by number.
    unreadable: BTreeSet<usize>,
    /// Shared with each handle.
    open: Arc<()>,
}

impl MemoryFile {
    /// What a handle holds as long as it is there.
    pub(super) fn opened(&self) -> Arc<()> {
        self.open.clone()
    }

    pub(super) fn is_open(&self) -> bool {
        Arc::strong_count(&self.open) > 1
    }

    pub(super) fn flip_bit(&mut self, position: u64, bit: u32) -> io::Result<()> {
        let position = position as usize;
        for bytes in [&mut self.bytes, &mut self.durable] {
            if let Some(byte) = bytes.get_mut(position) {
                *byte ^= 1 << bit;
            }
        }
        Ok(())
    }

    pub(super) fn overwrite(&mut self, position: u64, replacement: &[u8]) {
        // What is lost was there: a write that is not synced yet must not bring it back after a crash.
        self.sync();
        put(&mut self.bytes, position as usize, replacement);
        self.persist(position as usize, replacement);
    }

    pub(super) fn make_unreadable(&mut self, bytes: Range<u64>) {
        let bytes = bytes.start as usize..(bytes.end as usize).min(self.durable.len());
        self.unreadable.extend(sectors(&bytes));
    }

    /// What stands there, whether or not it can be read.
    pub(super) fn content(&self) -> Bytes {
        Bytes::copy_from_slice(&self.bytes)
    }

    pub(super) fn empty(&mut self) {
        self.bytes.clear();
        self.durable.clear();
        self.unsynced.clear();
        self.unreadable.clear();
    }

    pub(super) fn set_len(&mut self, len: usize) {
        self.bytes.resize(len, 0);
        self.unsynced.push(Change::SetLen(len));
    }

    fn write(&mut self, position: usize, bytes: Vec<u8>) {
        put(&mut self.bytes, position, &bytes);
        self.unsynced.push(Change::Write { position, bytes });
    }

    fn sync(&mut self) {
        for change in std::mem::take(&mut self.unsynced) {
            self.apply(&change);
        }
    }

    /// What was written and not synced comes from memory; of the rest the disk may give back nothing.
    fn read(&self, position: usize, buffer: &mut [u8]) -> io::Result<usize> {
        let start = position.min(self.bytes.len());
        let count = buffer.len().min(self.bytes.len() - start);
        let read = sectors(&(start..start + count));
        let mut lost = self.unreadable.range(read);
        if lost.any(|sector| !self.is_in_memory(*sector)) {
            return Err(io::Error::from_raw_os_error(INPUT_OUTPUT_ERROR));
        }
        buffer[..count].copy_from_slice(&self.bytes[start..start + count]);
        Ok(count)
    }

    /// To write a part of a page the system reads the page first.
    fn read_edges(&self, position: usize, len: usize) -> io::Result<()> {
        let end = position + len;
        for edge in [position, end] {
            let start = edge / PAGE_BYTES * PAGE_BYTES;
            if start < edge && start < self.bytes.len() {
                self.read(start, &mut [0; PAGE_BYTES])?;
            }
        }
        Ok(())
    }

    fn is_in_memory(&self, sector: usize) -> bool {
        self.unsynced.iter().any(|change| match change {
            Change::Write { position, bytes } => {
                sectors(&(*position..position + bytes.len())).contains(&sector)
            }
            Change::SetLen(len) => sectors(&(0..*len)).end <= sector,
        })
    }

    fn apply(&mut self, change: &Change) {
        match change {
            Change::Write { position, bytes } => self.persist(*position, bytes),
            Change::SetLen(len) => {
                self.durable.resize(*len, 0);
                drop(self.unreadable.split_off(&sectors(&(0..*len)).end));
            }
        }
    }

    /// These bytes are on the disk now. It puts another sector in the place of one that it could not read.
    fn persist(&mut self, position: usize, bytes: &[u8]) {
        put(&mut self.durable, position, bytes);
        let written = sectors(&(position..position + bytes.len()));
        self.unreadable.retain(|sector| !written.contains(sector));
    }

    /// A sync that fails: the changes are neither durable nor remembered as missing.
    fn fail_sync(&mut self) {
        self.unsynced.clear();
    }

    /// Decides what became of the unsynced changes.
    pub(super) fn crash(&mut self, chance: &mut Chance, lost: &mut Lost) {
        let changes = std::mem::take(&mut self.unsynced);
        let count = changes.len() as u64;
        match chance.below(4) {
            0 => lost.writes += count,
            1 => {
                for change in &changes {
                    self.apply(change);
                }
                lost.kept += count;
            }
            2 => self.keep_prefix(&changes, chance, lost),
            _ => self.keep_sectors(&changes, chance, lost),
        }
        self.bytes = self.durable.clone();
    }

    /// All changes up to one, and that one torn in the middle.
    fn keep_prefix(&mut self, changes: &[Change], chance: &mut Chance, lost: &mut Lost) {
        let kept = chance.below(changes.len() as u64 + 1) as usize;
        for change in &changes[..kept] {
            self.apply(change);
        }
        if let Some(Change::Write { position, bytes }) = changes.get(kept) {
            let torn = chance.below(bytes.len() as u64 + 1) as usize;
            self.persist(*position, &bytes[..torn]);
            lost.torn += u64::from(0 < torn && torn < bytes.len());
        }
        lost.kept += kept as u64;
        lost.writes += (changes.len() - kept) as u64;
    }

    /// Any sectors of any changes: a disk may write its cache in whatever order it likes.
    fn keep_sectors(&mut self, changes: &[Change], chance: &mut Chance, lost: &mut Lost) {
        for change in changes {
            match change {
                Change::SetLen(_) if chance.below(2) == 0 => self.apply(change),
                Change::SetLen(_) => {}
                Change::Write { position, bytes } => {
                    let (mut start, mut kept, mut missing) = (0, false, false);
                    while start < bytes.len() {
                        let sector_end =
                            (position + start) / SECTOR_BYTES * SECTOR_BYTES + SECTOR_BYTES;
                        let end = (sector_end - position).min(bytes.len());
                        if chance.below(2) == 0 {
                            self.persist(position + start, &bytes[start..end]);
                            kept = true;
                        } else {
                            missing = true;
                        }
                        start = end;
                    }
                    match (kept, missing) {
                        (true, true) => lost.torn += 1,
                        (true, false) => lost.kept += 1,
                        _ => lost.writes += 1,
                    }
                }
            }
        }
    }
}

/// The sectors that hold these bytes.
fn sectors(bytes: &Range<usize>) -> Range<usize> {
    match bytes.is_empty() {
        true => 0..0,
        false => bytes.start / SECTOR_BYTES..bytes.end.div_ceil(SECTOR_BYTES),
    }
}

fn put(target: &mut Vec<u8>, position: usize, bytes: &[u8]) {
    let end = position + bytes.len();
    if target.len() < end {
        target.resize(end, 0);
    }
    target[position..end].copy_from_slice(bytes);
}

/// A handle, good until the disk crashes.
pub(super) struct OpenFile {
    pub(super) disk: CrashDisk,
    pub(super) node: NodeId,
    pub(super) life: u64,
    /// Held so that the file is known to be open.
    pub(super) _open: Arc<()>,
}

impl OpenFile {
    fn with<T>(&self, work: impl FnOnce(&mut MemoryFile) -> T) -> io::Result<T> {
        let mut world = self.disk.world();
        if world.life != self.life {
            return Err(io::Error::other(
                "the machine that held this file has crashed",
            ));
        }
        Ok(work(world.file(self.node)?))
    }
}

impl File for OpenFile {
    fn len(&self) -> io::Result<u64> {
        self.with(|file| file.bytes.len() as u64)
    }

    fn read_at(&self, position: u64, buffer: &mut [u8]) -> io::Result<usize> {
        self.with(|file| file.read(position as usize, buffer))?
    }

    fn write_at(&self, position: u64, buffers: &[Bytes]) -> io::Result<()> {
        let bytes = buffers.concat();
        self.with(|file| {
            file.read_edges(position as usize, bytes.len())?;
            file.write(position as usize, bytes);
            Ok(())
        })?
    }

    fn preallocate(&self, len: u64) -> io::Result<()> {
        self.with(|file| {
            if file.bytes.len() < len as usize {
                file.set_len(len as usize);
            }
        })
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.with(|file| file.set_len(len as usize))
    }

    fn sync(self: Arc<Self>) -> BoxFuture<'static, io::Result<()>> {
        async move {
            let fails = {
                let mut world = self.disk.world();
                let place = world
                    .failing_syncs
                    .iter()
                    .position(|node| *node == self.node);
                place.map(|place| world.failing_syncs.swap_remove(place))
            };
            if fails.is_some() {
                self.with(MemoryFile::fail_sync)?;
                return Err(io::Error::other("input/output error"));
            }
            self.with(MemoryFile::sync)
        }
        .boxed()
    }

    fn write_and_sync(
        self: Arc<Self>,
        position: u64,
        buffers: Vec<Bytes>,
    ) -> BoxFuture<'static, io::Result<()>> {
        async move {
            self.write_at(position, &buffers)?;
            self.sync().await
        }
        .boxed()
    }
}
