//! What a disk does to bytes that lie on it: it flips a bit, writes a block over another one, or does not give blocks back.

use std::path::{Path, PathBuf};

use host::Disk;

use super::SimDisk;
use crate::chance::Chance;

/// What a disk writes to the wrong place, or does not give back.
const BLOCK_BYTES: u64 = 4096;

/// Most blocks in a row that a disk does not give back.
const UNREADABLE_BLOCKS_MAX: u64 = 16;

/// Most of the log's end that is lost together with the note of what was synced.
const LOST_BYTES_MAX: u64 = 64 << 10;

impl SimDisk {
    /// Flips one bit of a file that is chosen by `seed` among those that `eligible` names. Tells where, if
    /// there was any.
    pub fn rot(&self, seed: u64, eligible: impl Fn(&Path) -> bool) -> Option<String> {
        let mut chance = Chance::new(seed, "rot");
        let (path, len) = self.victim(&mut chance, eligible)?;
        let position = chance.below(len);
        let bit = chance.below(8) as u32;
        self.inner.flip_bit(&path, position, bit).ok()?;
        Some(format!(
            "bit {bit} of byte {position} of {}",
            path.display()
        ))
    }

    /// Copies a block of a file over another block of it. Tells which, if there was a file of two blocks.
    pub fn misdirect(&self, seed: u64, eligible: impl Fn(&Path) -> bool) -> Option<String> {
        let mut chance = Chance::new(seed, "misdirect");
        let (path, len) = self.victim(&mut chance, eligible)?;
        let blocks = len / BLOCK_BYTES;
        if blocks < 2 {
            return None;
        }
        let from = chance.below(blocks);
        let to = (from + chance.between(1..=blocks - 1)) % blocks;
        let start = usize::try_from(from * BLOCK_BYTES).ok()?;
        let content = self.content(&path)?;
        let block = content.get(start..start + BLOCK_BYTES as usize)?;
        self.inner.overwrite(&path, to * BLOCK_BYTES, block).ok()?;
        Some(format!(
            "block {from} over block {to} of {}",
            path.display()
        ))
    }

    /// Some blocks of a file cannot be read any more, until somebody writes there. Tells which, if there was a file.
    pub fn make_unreadable(&self, seed: u64, eligible: impl Fn(&Path) -> bool) -> Option<String> {
        let mut chance = Chance::new(seed, "unreadable");
        let (path, len) = self.victim(&mut chance, eligible)?;
        let first = chance.below(len.div_ceil(BLOCK_BYTES));
        let count = match chance.one_in(2) {
            true => 1,
            false => chance.between(1..=UNREADABLE_BLOCKS_MAX),
        };
        let bytes = first * BLOCK_BYTES..(first + count) * BLOCK_BYTES;
        self.inner.make_unreadable(&path, bytes.clone()).ok()?;
        let (from, end) = (bytes.start, bytes.end.min(len));
        Some(format!("bytes {from} to {end} of {}", path.display()))
    }

    /// Spoils the note of what was synced, and empties the end of the log. Tells how, if there was a log.
    pub fn lose_mark(&self, seed: u64) -> Option<String> {
        let mut chance = Chance::new(seed, "mark");
        let mut files = Vec::new();
        self.files_below(Path::new("/"), &mut files);
        let (mark, len) = files.iter().find(|(path, _)| path.ends_with("synced"))?;
        let dir = mark.parent()?;
        let is_segment = |path: &Path| {
            path.parent() == Some(dir) && path.extension().is_some_and(|suffix| suffix == "seg")
        };
        let mut segments = files.iter().filter(|(path, _)| is_segment(path));
        let (tail, _) = segments.next_back()?;
        let how = match chance.below(3) {
            0 => {
                self.inner.empty(mark).ok()?;
                "emptied"
            }
            kind => {
                let byte = if kind == 1 { 0 } else { 0xa5 };
                let bytes = vec![byte; usize::try_from(*len).ok()?];
                self.inner.overwrite(mark, 0, &bytes).ok()?;
                "overwritten"
            }
        };
        let bytes = self.content(tail)?;
        let end = bytes.iter().rposition(|byte| *byte != 0)? as u64 + 1;
        let from = end - chance.between(1..=end.min(LOST_BYTES_MAX));
        let zeros = vec![0; usize::try_from(end - from).ok()?];
        self.inner.overwrite(tail, from, &zeros).ok()?;
        Some(format!(
            "{how}, and bytes {from} to {end} of {} lost",
            tail.display()
        ))
    }

    fn victim(
        &self,
        chance: &mut Chance,
        eligible: impl Fn(&Path) -> bool,
    ) -> Option<(PathBuf, u64)> {
        let mut files = Vec::new();
        self.files_below(Path::new("/"), &mut files);
        files.retain(|(path, len)| *len > 0 && eligible(path));
        match files.is_empty() {
            true => None,
            false => Some(chance.pick(&files).clone()),
        }
    }

    /// All files and their lengths.
    pub(super) fn files_below(&self, dir: &Path, files: &mut Vec<(PathBuf, u64)>) {
        for path in self.inner.list(dir).unwrap_or_default() {
            match self.inner.open(&path).and_then(|file| file.len()) {
                Ok(len) => files.push((path, len)),
                Err(_) => self.files_below(&path, files),
            }
        }
    }
}
