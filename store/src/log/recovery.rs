//! Opening a log: what is there, what was promised, and what to do about the difference.
//!
//! Only the tail is read. Up to the mark everything must be there; what is missing is damage, and
//! nothing is cut then. A mark that cannot be read tells nothing: then whatever may have stood behind the end
//! is damage too, until the group's leader says how far that can be. So it is where the disk refuses the block in which the
//! next record would stand: a mark may be a second old. Above the mark the first invalid record is where a torn write began, unless
//! a valid record stands so far behind it that no single write explains both: then an earlier write
//! had been synced, and its records are damaged.
//!
//! What is kept above the mark is written again and synced: the process may have died of a failed
//! sync, and then the page cache shows records that the disk does not have.

mod unknown;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use host::{Disk, File};

use self::unknown::{is_end_refused, is_mark_lost, unknown_end};
use super::flush::{Tail, Writer};
use super::mark::{MARK_NAME, Mark, MarkFile};
use super::record;
use super::scan::{self, Furthest, Scanned};
use super::sealed_files::read_summary;
use super::segment::{FileName, index_path, segment_path, spare_path};
use super::segment_list::{Open, Sealed, SegmentList};
use super::state::{Damage, Positions, Spare, State};
use super::truncate::zero;
use crate::config::LogConfig;
use crate::data_dir::{DataDir, remove_if_there};
use crate::entry::LogId;
use crate::error::{Result, StoreError};
use crate::superblock::Superblock;

/// What was found when the log was opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Recovered {
    /// The last entry that can be read, or the floor.
    pub last: Option<LogId>,
    /// Bytes of a torn write that were cut off; they were never promised.
    pub torn_bytes_cut: u64,
    /// What was promised and is missing.
    pub damage: Option<Damage>,
}

/// The names in a log directory.
#[derive(Default)]
struct Names {
    segments: BTreeSet<u64>,
    indexes: BTreeSet<u64>,
    spares: BTreeSet<u64>,
}

/// The segment that will be written to.
struct FoundTail {
    first_index: u64,
    path: PathBuf,
    file: Arc<dyn File>,
    scanned: Scanned,
    /// The furthest valid record behind the end of the log.
    furthest: Option<Furthest>,
}

impl FoundTail {
    fn end_index(&self) -> u64 {
        self.first_index + self.scanned.positions.len() as u64
    }
}

/// What reading the directory found.
struct Found {
    sealed: Vec<Arc<Sealed>>,
    tail: Option<FoundTail>,
    /// Segments behind the tail without a single valid record, and what stands in them.
    empty: Vec<FoundTail>,
    /// Last entry that an index file vouches for.
    indexed: Option<LogId>,
    spares: Vec<Spare>,
    next_spare: u64,
}

pub(super) async fn recover(
    dir: &Arc<DataDir>,
    config: &LogConfig,
) -> Result<(State, Writer, Recovered)> {
    let superblock = dir.superblock();
    let log_dir = dir.log_dir();
    check_not_lost(&**dir.disk(), &superblock, &log_dir)?;
    prepare_directory(dir, &log_dir).await?;
    let mut mark = MarkFile::open(&**dir.disk(), &log_dir)?;
    let disk = dir.disk().clone();
    let (path, segment_bytes) = (log_dir.clone(), superblock.segment_bytes);
    let keep = spares_to_keep(&**dir.disk(), dir.path(), config)?;
    let found = move || find(&*disk, &path, segment_bytes, keep);
    let mut found = host::blocking::run(found).await?;
    let mut tail_damage = judge_tail(
        &found,
        mark.mark(),
        superblock.purged,
        config.group_bytes_max,
    );
    let refused = superblock.is_used() && is_end_refused(&found, mark.mark()).await;
    let mark_lost = refused || is_mark_lost(&mark, &superblock);
    if mark_lost {
        tracing::error!(
            path = %log_dir.join(MARK_NAME).display(),
            refused,
            "the mark cannot be read, or the disk refuses the log's end: nobody knows how far the log was synced before a \
             leader was asked"
        );
        tail_damage = tail_damage.or(Some(unknown_end(&found, superblock.purged)));
    }
    let mut damages = gaps(&found, superblock.purged);
    damages.extend(tail_damage);
    let mut promised = None;
    let torn_bytes_cut = match tail_damage {
        // What the file says is kept for the next look until the leader was asked.
        Some(_) if mark_lost => 0,
        Some(damage) => {
            promised = Some(hold_mark(&mut mark, damage, &found).await?);
            0
        }
        None => clean(&**dir.disk(), &log_dir, &mut found, &mut mark, config).await?,
    };
    let damage = damages.first().copied();
    if let Some(damage) = damage {
        tracing::error!(
            ?damage,
            "the log is damaged and must be repaired from its peers"
        );
    }
    let tail = found.tail.as_ref().map(writer_tail);
    let mut state = state_of(found, damages, &superblock, log_dir);
    (state.promised, state.mark_lost) = (promised, mark_lost);
    let last = state.positions.appended;
    let writer = Writer {
        tail,
        mark,
        mark_held: false,
    };
    Ok((
        state,
        writer,
        Recovered {
            last,
            torn_bytes_cut,
            damage,
        },
    ))
}

fn state_of(found: Found, damages: Vec<Damage>, superblock: &Superblock, dir: PathBuf) -> State {
    let last = last_of(&found).or(superblock.purged);
    let mut segments = SegmentList::default();
    for sealed in found.sealed {
        segments.push_sealed(sealed);
    }
    if let Some(tail) = found.tail {
        segments.push_open(open_tail(tail));
    }
    let positions = Positions {
        dropped: segments
            .first_index()
            .unwrap_or(last.map_or(0, |last| last.index + 1)),
        purged: superblock.purged,
        flushed: last,
        appended: last,
    };
    State {
        positions,
        segments,
        ring: Default::default(),
        queue: Default::default(),
        pending_bytes: 0,
        in_flight: false,
        exclusive: false,
        closed: false,
        failure: None,
        damages,
        promised: None,
        mark_lost: false,
        generation: superblock.log_generation,
        dir,
        spares: found.spares,
        next_spare: found.next_spare,
        epoch: 0,
    }
}

/// The mark is durable before the first promise. A replica that promised something and has no mark has lost
/// its log: an empty one in its place would vote as if nothing had been stored.
fn check_not_lost(disk: &dyn Disk, superblock: &Superblock, log_dir: &Path) -> Result<()> {
    let mark = log_dir.join(MARK_NAME);
    match superblock.is_used() && !disk.exists(&mark) {
        true => Err(StoreError::corrupt(
            &mark,
            "it is missing, though this replica has promised what stood in its log: \
             bring the whole directory back, or replace the replica (`raftmq group replace`)",
        )),
        false => Ok(()),
    }
}

/// Makes the directory if needed and removes those of other generations.
async fn prepare_directory(dir: &DataDir, log_dir: &Path) -> Result<()> {
    let disk = &**dir.disk();
    for path in disk
        .list(dir.path())
        .map_err(StoreError::io("list", dir.path()))?
    {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if name.starts_with("log-") && path != log_dir {
            tracing::info!(path = %path.display(), "removing a log that does not count");
            remove_if_there(disk, &path)?;
        }
    }
    disk.create_dir_all(log_dir)
        .map_err(StoreError::io("create", log_dir))?;
    disk.sync_dir(dir.path())
        .await
        .map_err(StoreError::io("sync", dir.path()))
}

fn names(disk: &dyn Disk, dir: &Path) -> Result<Names> {
    let mut names = Names::default();
    for path in disk.list(dir).map_err(StoreError::io("list", dir))? {
        match FileName::of(&path) {
            FileName::Segment(first) => drop(names.segments.insert(first)),
            FileName::Index(first) => drop(names.indexes.insert(first)),
            FileName::Spare(number) => drop(names.spares.insert(number)),
            FileName::Other => {}
        }
    }
    Ok(names)
}

/// Reads what is there; changes nothing but files that belong to nobody. Blocking.
fn find(disk: &dyn Disk, dir: &Path, segment_bytes: u64, keep_spares: usize) -> Result<Found> {
    let mut names = names(disk, dir)?;
    let next_spare = names.spares.last().map_or(0, |last| last + 1);
    let spares = find_spares(disk, dir, &names, segment_bytes, keep_spares)?;
    let (mut empty, mut tail, mut indexed) = (Vec::new(), None, None);
    while let Some(first) = names.segments.pop_last() {
        let summary = read_summary(disk, dir, first).filter(|_| names.indexes.contains(&first));
        indexed = indexed.max(summary.map(|summary| LogId {
            term: summary.last_term,
            index: summary.last_index(),
        }));
        let before = names.segments.last();
        let before = before.and_then(|before| read_summary(disk, dir, *before));
        let term_before = before.map_or(0, |summary| summary.last_term);
        let found = scan_tail(disk, dir, first, term_before)?;
        if found.scanned.positions.is_empty() {
            // A roll that was torn: nothing was promised in it, unless the mark says otherwise.
            empty.push(found);
        } else {
            tail = Some(found);
            break;
        }
    }
    let mut ends = names.segments.iter().skip(1).copied().collect::<Vec<_>>();
    ends.extend(tail.as_ref().map(|tail| tail.first_index));
    let sealed = names.segments.iter().zip(ends).map(|(first, end)| {
        let summary = read_summary(disk, dir, *first);
        let last_index = summary.map_or(end - 1, |summary| summary.last_index().min(end - 1));
        Arc::new(Sealed::new(
            *first,
            last_index,
            segment_path(dir, *first),
            summary,
        ))
    });
    Ok(Found {
        sealed: sealed.collect(),
        tail,
        empty,
        indexed,
        spares,
        next_spare,
    })
}

fn scan_tail(disk: &dyn Disk, dir: &Path, first_index: u64, term_before: u64) -> Result<FoundTail> {
    let path = segment_path(dir, first_index);
    let file = disk.open(&path).map_err(StoreError::io("open", &path))?;
    let scanned = scan::scan(&*file, &path, first_index, None, term_before)?;
    let expected = first_index + scanned.positions.len() as u64;
    let furthest = scan::furthest_valid(&*file, &path, first_index, scanned.end, expected)?;
    Ok(FoundTail {
        first_index,
        path,
        file,
        scanned,
        furthest,
    })
}

fn find_spares(
    disk: &dyn Disk,
    dir: &Path,
    names: &Names,
    segment_bytes: u64,
    keep: usize,
) -> Result<Vec<Spare>> {
    let mut spares = Vec::new();
    for number in &names.spares {
        let path = spare_path(dir, *number);
        let file = disk.open(&path).map_err(StoreError::io("open", &path))?;
        let len = file.len().map_err(StoreError::io("read", &path))?;
        if len == segment_bytes && spares.len() < keep {
            spares.push(Spare { file, path, len });
        } else {
            disk.remove(&path)
                .map_err(StoreError::io("remove", &path))?;
        }
    }
    Ok(spares)
}

/// On a full disk a start needs the room of spare files more than the files: the superblock and the tables are replaced
/// before old ones go.
fn spares_to_keep(disk: &dyn Disk, dir: &Path, config: &LogConfig) -> Result<usize> {
    let free = disk
        .free_bytes(dir)
        .map_err(StoreError::io("look at", dir))?;
    Ok(match free < config.reserve_bytes / 2 {
        true => 0,
        false => config.recycled_segments_max.max(config.spare_segments),
    })
}

/// What was promised and is missing between segments, lowest first.
fn gaps(found: &Found, purged: Option<LogId>) -> Vec<Damage> {
    let mut gaps = Vec::new();
    let mut next = purged.map_or(0, |purged| purged.index + 1);
    let tail = found
        .tail
        .iter()
        .map(|tail| (tail.first_index, tail.end_index()));
    let sealed = found
        .sealed
        .iter()
        .map(|sealed| (sealed.first_index, sealed.last_index + 1));
    // The lowest segment may begin anywhere below the floor.
    for (first, end) in sealed.chain(tail) {
        if first > next {
            gaps.push(Damage {
                first_bad_index: next,
                synced_index: first - 1,
                sealed: true,
            });
        }
        next = end;
    }
    gaps
}

/// Whether something that was promised is missing at the end of the log.
fn judge_tail(
    found: &Found,
    mark: Mark,
    purged: Option<LogId>,
    group_bytes: u64,
) -> Option<Damage> {
    let promised = [
        mark.synced.map(|synced| synced.index),
        purged.map(|purged| purged.index),
    ];
    let indexed = found.indexed.map(|indexed| indexed.index);
    let promised = promised.into_iter().flatten().chain(indexed).max();
    let floor = purged.map_or(0, |purged| purged.index + 1);
    // A roll that was torn begins at the floor or above it. One below it held entries that tables may still point at.
    let begins = found.empty.iter().map(|empty| empty.first_index);
    let lost = begins.min().filter(|first| *first < floor);
    let end = match &found.tail {
        Some(tail) => tail.end_index(),
        None => lost.unwrap_or(floor),
    };
    // One torn write explains valid records behind an invalid one, as far as one write reaches; so
    // does taking back entries, as far as those reached. A segment behind the tail was begun only
    // when everything before it was synced.
    let reach = if found.empty.is_empty() {
        group_bytes
    } else {
        0
    };
    let explained = |segment: &FoundTail, reach: u64| {
        let cut = if mark.segment == segment.first_index {
            mark.cut_end
        } else {
            0
        };
        cut.max(segment.scanned.end + reach)
    };
    let tail = found.tail.iter().map(|tail| (tail, explained(tail, reach)));
    let empty = found
        .empty
        .iter()
        .map(|empty| (empty, explained(empty, group_bytes)));
    let unexplained = tail
        .chain(empty)
        .any(|(segment, explained)| segment.furthest.is_some_and(|found| found.end > explained));
    if promised.is_none_or(|promised| promised < end) && !unexplained {
        return None;
    }
    let segments = found.tail.iter().chain(&found.empty);
    let seen = segments
        .filter_map(|segment| segment.furthest)
        .map(|furthest| furthest.index);
    let synced_index = promised.into_iter().chain(seen).max().unwrap_or(end);
    Some(Damage {
        first_bad_index: end,
        synced_index,
        sealed: false,
    })
}

/// Notes for good how much was promised: a repair destroys the evidence before it is complete. Terms never fall along
/// a log, so the highest that was seen is at least that of the last entry.
async fn hold_mark(mark: &mut MarkFile, damage: Damage, found: &Found) -> Result<LogId> {
    let held = mark.mark();
    let segments = found.tail.iter().chain(&found.empty);
    let seen = segments.filter_map(|segment| segment.furthest);
    let terms = seen.map(|furthest| furthest.term);
    let known = [last_of(found), held.synced, found.indexed];
    let terms = terms.chain(known.into_iter().flatten().map(|known| known.term));
    let promised = LogId {
        term: terms.max().unwrap_or(0),
        index: damage.synced_index,
    };
    mark.write(Some(promised), held.segment, held.position)?;
    mark.sync().await?;
    Ok(promised)
}

/// Makes the log end where it ends: removes what was torn, makes durable what is kept.
async fn clean(
    disk: &dyn Disk,
    dir: &Path,
    found: &mut Found,
    mark: &mut MarkFile,
    config: &LogConfig,
) -> Result<u64> {
    let mut cut_bytes = 0;
    for empty in found.empty.drain(..) {
        cut_bytes += torn_bytes(&empty);
        disk.remove(&empty.path)
            .map_err(StoreError::io("remove", &empty.path))?;
    }
    remove_stale_indexes(disk, dir, found)?;
    if let Some(tail) = &found.tail {
        cut_bytes += torn_bytes(tail);
        let from = match mark.mark() {
            mark if mark.segment == tail.first_index => mark.position.min(tail.scanned.end),
            _ => 0,
        };
        rewrite(tail, from).await?;
        cut_tail(tail, config.group_bytes_max).await?;
    }
    let place = found
        .tail
        .as_ref()
        .map_or((0, 0), |tail| (tail.first_index, tail.scanned.end));
    mark.write(last_of(found).or(mark.mark().synced), place.0, place.1)?;
    mark.sync().await?;
    disk.sync_dir(dir)
        .await
        .map_err(StoreError::io("sync", dir))?;
    Ok(cut_bytes)
}

/// The tail has no index, and an index without a segment says nothing.
fn remove_stale_indexes(disk: &dyn Disk, dir: &Path, found: &Found) -> Result<()> {
    let sealed: BTreeSet<u64> = found
        .sealed
        .iter()
        .map(|sealed| sealed.first_index)
        .collect();
    for first in names(disk, dir)?.indexes {
        if !sealed.contains(&first) {
            let path = index_path(dir, first);
            disk.remove(&path)
                .map_err(StoreError::io("remove", &path))?;
        }
    }
    Ok(())
}

/// How much of a torn write stands behind the end of the log.
fn torn_bytes(tail: &FoundTail) -> u64 {
    let end = tail.scanned.end;
    if let Some(furthest) = tail.furthest {
        return furthest.end - end;
    }
    let mut head = [0; record::HEADER_BYTES];
    let Ok(count) = tail.file.read_at(end, &mut head) else {
        return 0;
    };
    match record::decode_header(&head[..count]) {
        Ok(header) if header.index == tail.end_index() => header.record_len(),
        _ => 0,
    }
}

/// Writes what is kept above the mark once more.
async fn rewrite(tail: &FoundTail, from: u64) -> Result<()> {
    let len = usize::try_from(tail.scanned.end - from).expect("a segment fits in memory");
    let (file, path) = (tail.file.clone(), tail.path.clone());
    let bytes = host::blocking::run(move || {
        let mut bytes = vec![0; len];
        file.read_at(from, &mut bytes)
            .map_err(StoreError::io("read", &path))?;
        Ok::<Bytes, StoreError>(Bytes::from(bytes))
    })
    .await?;
    let written = tail.file.clone().write_and_sync(from, vec![bytes]).await;
    written.map_err(StoreError::io("write and sync", &tail.path))
}

/// Overwrites what stands behind the end: records that will follow must not be continued by it.
async fn cut_tail(tail: &FoundTail, group_bytes: u64) -> Result<()> {
    let from = tail.scanned.end;
    let file_len = tail
        .file
        .len()
        .map_err(StoreError::io("read", &tail.path))?;
    let reach = (from + group_bytes + torn_bytes(tail))
        .max(tail.furthest.map_or(0, |furthest| furthest.end));
    let to = reach.min(file_len);
    let file = tail.file.clone();
    let zeros = move || is_zero(&*file, from, to);
    if !host::blocking::run(zeros).await {
        zero(&tail.file, from, to)
            .await
            .map_err(StoreError::io("cut", &tail.path))?;
    }
    Ok(())
}

/// Whether nothing but zeros stands there. What the disk does not give back is overwritten like anything else.
fn is_zero(file: &dyn File, from: u64, to: u64) -> bool {
    let mut buffer = vec![0; 1 << 20];
    let mut position = from;
    while position < to {
        let wanted = buffer
            .len()
            .min(usize::try_from(to - position).unwrap_or(usize::MAX));
        match file.read_at(position, &mut buffer[..wanted]) {
            Ok(0) => break,
            Ok(count) if buffer[..count].iter().all(|byte| *byte == 0) => position += count as u64,
            _ => return false,
        }
    }
    true
}

fn last_of(found: &Found) -> Option<LogId> {
    found.tail.as_ref().and_then(|tail| tail.scanned.last)
}

fn writer_tail(tail: &FoundTail) -> Tail {
    Tail {
        first_index: tail.first_index,
        file: tail.file.clone(),
        path: tail.path.clone(),
        position: tail.scanned.end,
        checksum: Some(tail.scanned.checksum),
    }
}

fn open_tail(tail: FoundTail) -> Open {
    Open {
        first_index: tail.first_index,
        path: tail.path,
        file: tail.file,
        positions: tail.scanned.positions,
        end: tail.scanned.end,
    }
}
