//! How far the log was synced, noted without a sync of its own each time.
//!
//! The flusher writes the mark after every sync, and syncs it a second later. Without a power cut it
//! is exact when the log is opened again; after one it may be a second old, never too new: so long
//! rot in what was just written passes for a torn write. Everything at or below the
//! mark must be there: an invalid record there is damage, not a torn tail. Layout:
//! `docs/formats/segment.md`. Two slots, written in turn, so that a torn one leaves the other. A power
//! cut never takes both: where neither can be read the disk lost what it held, and nobody may take that
//! for "nothing was synced".

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use host::{Disk, File};
use tokio::time::Instant;

use crate::entry::LogId;
use crate::error::{Result, StoreError};

const MAGIC: [u8; 4] = *b"RMQM";
const SLOT_BYTES: usize = 64;

/// Slots stand in different blocks: no disk loses both with one of them. A slot is written with its whole block: to write a part,
/// the system reads the rest first, which fails for ever where the disk does not give it back.
const SLOT_DISTANCE: u64 = 4096;

const FILE_BYTES: u64 = 2 * SLOT_DISTANCE;

/// Longest time for which a mark that was written is not synced.
const SYNC_AFTER: Duration = Duration::from_secs(1);

/// How far the log was synced.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Mark {
    /// Grows with every write: the larger one counts.
    sequence: u64,
    /// The last entry that was synced; none if there was none.
    pub(crate) synced: Option<LogId>,
    /// First index of the segment that holds it.
    pub(crate) segment: u64,
    /// Where its record ends there.
    pub(crate) position: u64,
    /// While the records behind it are taken back: where the last of them ends, otherwise 0.
    pub(crate) cut_end: u64,
}

/// The file's name.
pub(crate) const MARK_NAME: &str = "synced";

/// The file `synced`.
pub(crate) struct MarkFile {
    path: PathBuf,
    file: Arc<dyn File>,
    mark: Mark,
    readable: bool,
    /// The index after the last entry that the mark speaks of, as far as it was synced since it was opened.
    durable_end: Arc<AtomicU64>,
    /// When what was written is to be synced; none if it is.
    sync_due: Option<Instant>,
}

impl MarkFile {
    /// Reads the mark, or makes the file; its name is durable once the directory was synced. A file that
    /// cannot be read is no error here: see [`MarkFile::is_readable`].
    pub(crate) fn open(disk: &dyn Disk, dir: &Path) -> Result<MarkFile> {
        let path = dir.join(MARK_NAME);
        if disk.exists(&path) {
            let file = disk.open(&path).map_err(StoreError::io("open", &path))?;
            let (mark, readable) = read(&*file, &path);
            return Ok(MarkFile {
                path,
                file,
                mark,
                readable,
                durable_end: Arc::default(),
                sync_due: None,
            });
        }
        let file = disk
            .create(&path)
            .map_err(StoreError::io("create", &path))?;
        file.preallocate(FILE_BYTES)
            .map_err(StoreError::io("write", &path))?;
        Ok(MarkFile {
            path,
            file,
            mark: Mark::default(),
            readable: true,
            durable_end: Arc::default(),
            sync_due: None,
        })
    }

    /// Whether the file said anything when it was opened, or was made then. If not, nobody knows how far
    /// the log was synced.
    pub(crate) fn is_readable(&self) -> bool {
        self.readable
    }

    /// The newest mark.
    pub(crate) fn mark(&self) -> Mark {
        self.mark
    }

    /// The index after the last entry of which not even a power cut takes the note.
    pub(crate) fn durable_end(&self) -> &Arc<AtomicU64> {
        &self.durable_end
    }

    /// Tells through what the mark before this one told.
    pub(crate) fn follow(&mut self, former: &MarkFile) {
        let end = self.durable_end.load(Ordering::Relaxed);
        self.durable_end = former.durable_end.clone();
        self.durable_end.store(end, Ordering::Relaxed);
    }

    /// When the mark is to be synced; none if it is.
    pub(crate) fn sync_due(&self) -> Option<Instant> {
        self.sync_due
    }

    /// Notes how far the log is synced; survives the process, and a power cut only after a sync.
    pub(crate) fn write(
        &mut self,
        synced: Option<LogId>,
        segment: u64,
        position: u64,
    ) -> Result<()> {
        self.write_cut(synced, segment, position, 0)
    }

    /// Like [`MarkFile::write`], before the records up to `cut_end` are overwritten: what is left
    /// of them when that is interrupted is no damage.
    pub(crate) fn write_cut(
        &mut self,
        synced: Option<LogId>,
        segment: u64,
        position: u64,
        cut_end: u64,
    ) -> Result<()> {
        // At the highest number one slot is written again and again, and it is the one that counts.
        let sequence = self.mark.sequence.saturating_add(1);
        let mark = Mark {
            sequence,
            synced,
            segment,
            position,
            cut_end,
        };
        let slot = (sequence % 2) * SLOT_DISTANCE;
        let mut block = vec![0; SLOT_DISTANCE as usize];
        block[..SLOT_BYTES].copy_from_slice(&encode(&mark));
        let written = self.file.write_at(slot, &[block.into()]);
        written.map_err(StoreError::io("write", &self.path))?;
        self.mark = mark;
        self.sync_due
            .get_or_insert_with(|| Instant::now() + SYNC_AFTER);
        Ok(())
    }

    /// Makes the mark durable: before anything that it speaks of is removed.
    pub(crate) async fn sync(&mut self) -> Result<()> {
        let synced = self.file.clone().sync().await;
        synced.map_err(StoreError::io("sync", &self.path))?;
        let end = self.mark.synced.map_or(0, |synced| synced.index + 1);
        self.durable_end.store(end, Ordering::Relaxed);
        self.sync_due = None;
        Ok(())
    }

    /// Makes the mark durable if it is time.
    pub(crate) async fn sync_if_due(&mut self) -> Result<()> {
        match self.sync_due {
            Some(due) if due <= Instant::now() => self.sync().await,
            _ => Ok(()),
        }
    }
}

/// What the file of a log that nobody has opened says.
pub(crate) enum Look {
    /// It is not there.
    Missing,
    /// It is there, and says nothing.
    Unreadable,
    /// The newest mark.
    Mark(Mark),
}

/// Reads the mark of the log in `dir`.
pub(crate) fn look(disk: &dyn Disk, dir: &Path) -> Result<Look> {
    let path = dir.join(MARK_NAME);
    if !disk.exists(&path) {
        return Ok(Look::Missing);
    }
    let file = disk.open(&path).map_err(StoreError::io("open", &path))?;
    Ok(match read(&*file, &path) {
        (mark, true) => Look::Mark(mark),
        (_, false) => Look::Unreadable,
    })
}

/// The newest mark, and whether there is one. A slot that the disk refuses may hold a newer one than the other
/// slot: then neither is believed, and what is returned says no more than after which sequence to go on.
fn read(file: &dyn File, path: &Path) -> (Mark, bool) {
    let mut newest: Option<Mark> = None;
    let mut refused = false;
    for position in [0, SLOT_DISTANCE] {
        let mut slot = [0; SLOT_BYTES];
        match file.read_at(position, &mut slot) {
            Ok(count) => {
                let marks = newest.into_iter().chain(decode(&slot[..count]));
                newest = marks.max_by_key(|mark| mark.sequence);
            }
            Err(error) => {
                tracing::error!(path = %path.display(), position, %error, "cannot read the mark");
                refused = true;
            }
        }
    }
    let sequence = newest.map_or(0, |newest| newest.sequence);
    let nothing = Mark {
        sequence,
        ..Mark::default()
    };
    match newest.filter(|_| !refused) {
        Some(newest) => (newest, true),
        None => (nothing, false),
    }
}

fn encode(mark: &Mark) -> [u8; SLOT_BYTES] {
    let synced = mark.synced.unwrap_or_default();
    let mut slot = [0; SLOT_BYTES];
    slot[0..4].copy_from_slice(&MAGIC);
    slot[4] = u8::from(mark.synced.is_some());
    let Mark {
        sequence,
        segment,
        position,
        cut_end,
        ..
    } = *mark;
    let numbers = [
        sequence,
        synced.term,
        synced.index,
        segment,
        position,
        cut_end,
    ];
    for (place, number) in slot[8..56].chunks_exact_mut(8).zip(numbers) {
        place.copy_from_slice(&number.to_le_bytes());
    }
    let checksum = crc32c::crc32c(&slot[..SLOT_BYTES - 4]);
    slot[SLOT_BYTES - 4..].copy_from_slice(&checksum.to_le_bytes());
    slot
}

/// Reads one slot; nothing if it was never written, or torn, or names an entry that none can
/// follow.
fn decode(bytes: &[u8]) -> Option<Mark> {
    let slot: &[u8; SLOT_BYTES] = bytes.first_chunk()?;
    let (front, checksum) = slot.split_at(SLOT_BYTES - 4);
    if slot[0..4] != MAGIC || crc32c::crc32c(front).to_le_bytes() != checksum {
        return None;
    }
    let number =
        |at: usize| u64::from_le_bytes(slot[at..at + 8].try_into().expect("eight bytes of a slot"));
    let synced = LogId {
        term: number(16),
        index: number(24),
    };
    if synced.index == u64::MAX {
        return None;
    }
    Some(Mark {
        sequence: number(8),
        synced: (slot[4] == 1).then_some(synced),
        segment: number(32),
        position: number(40),
        cut_end: number(48),
    })
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use futures::FutureExt;
    use host::testing::CrashDisk;

    use super::*;

    fn id(index: u64) -> Option<LogId> {
        Some(LogId { term: 3, index })
    }

    /// Catches a mark that is not exact after the process died, and one that goes back to zero when
    /// the newest slot is torn.
    #[test]
    fn the_newest_readable_slot_counts() {
        let disk = CrashDisk::new();
        let dir = Path::new("/");
        let mut marks = MarkFile::open(&disk, dir).unwrap();
        assert_eq!(marks.mark().synced, None);
        for index in 0..5 {
            marks.write(id(index), 0, index * 100).unwrap();
        }
        assert_eq!(MarkFile::open(&disk, dir).unwrap().mark(), marks.mark());
        assert_eq!(marks.mark().synced, id(4));
        disk.flip_bit(
            Path::new("/synced"),
            (marks.mark.sequence % 2) * SLOT_DISTANCE + 30,
            3,
        )
        .unwrap();
        let mut marks = MarkFile::open(&disk, dir).unwrap();
        assert_eq!((marks.mark().synced, marks.mark().position), (id(3), 300));
        marks.write(None, 0, 0).unwrap();
        assert_eq!(
            MarkFile::open(&disk, dir).unwrap().mark().synced,
            None,
            "lowering counts too"
        );
    }

    /// Catches a disk block that cannot be read, and so cannot be written in part, which ends every process that notes something; and
    /// a slot of before that counts instead of what was noted since.
    #[test]
    fn a_slot_that_cannot_be_read_is_written_as_a_whole() {
        let (dir, path) = (Path::new("/"), Path::new("/synced"));
        for newest in [4, 5] {
            let disk = CrashDisk::new();
            let mut marks = MarkFile::open(&disk, dir).unwrap();
            for index in 1..=newest {
                marks.write(id(index), 0, 0).unwrap();
            }
            marks.file.clone().sync().now_or_never().unwrap().unwrap();
            let slot = marks.mark().sequence % 2 * SLOT_DISTANCE;
            disk.make_unreadable(path, slot..slot + 1).unwrap();
            let mut marks = MarkFile::open(&disk, dir).unwrap();
            assert!(!marks.is_readable());
            marks.write(id(7), 0, 0).unwrap();
            let marks = MarkFile::open(&disk, dir).unwrap();
            assert_eq!(marks.mark().synced, id(7));
        }
    }

    /// Catches a file that says nothing and is taken for one that says "nothing was synced".
    #[test]
    fn a_file_without_a_readable_slot_says_nothing() {
        let dir = Path::new("/");
        for spoil in [
            |file: &dyn File| file.set_len(0),
            |file: &dyn File| file.set_len(SLOT_BYTES as u64 - 1),
            |file: &dyn File| file.write_at(0, &[Bytes::from(vec![0; FILE_BYTES as usize])]),
            |file: &dyn File| file.write_at(0, &[Bytes::from(vec![7; FILE_BYTES as usize])]),
        ] {
            let disk = CrashDisk::new();
            let mut marks = MarkFile::open(&disk, dir).unwrap();
            assert!(marks.is_readable(), "one that was made now");
            marks.write(id(1), 0, 100).unwrap();
            assert!(MarkFile::open(&disk, dir).unwrap().is_readable());
            spoil(&*disk.open(Path::new("/synced")).unwrap()).unwrap();
            assert!(!MarkFile::open(&disk, dir).unwrap().is_readable());
            assert!(matches!(look(&disk, dir).unwrap(), Look::Unreadable));
        }
    }

    /// Catches an overflow where the entry after the mark is looked for.
    #[test]
    fn an_entry_that_none_can_follow_says_nothing() {
        let mark = |index| Mark {
            sequence: 1,
            synced: id(index),
            ..Mark::default()
        };
        assert_eq!(decode(&encode(&mark(1))), Some(mark(1)));
        assert_eq!(decode(&encode(&mark(u64::MAX))), None);
    }

    /// Catches an overflow, and an old mark that counts, behind the highest number.
    #[test]
    fn the_last_mark_counts_at_the_highest_sequence() {
        let disk = CrashDisk::new();
        let dir = Path::new("/");
        let mut marks = MarkFile::open(&disk, dir).unwrap();
        marks.mark.sequence = u64::MAX - 2;
        for index in 0..4 {
            marks.write(id(index), 0, 0).unwrap();
            assert_eq!(MarkFile::open(&disk, dir).unwrap().mark(), marks.mark());
        }
    }

    /// Catches a panic on garbage.
    #[test]
    fn garbage_says_nothing() {
        for len in 0..SLOT_BYTES + 1 {
            assert_eq!(decode(&vec![0xa5; len]), None);
        }
    }
}
