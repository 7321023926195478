//! Where nobody knows how far a log was synced, before a leader was asked.
//!
//! The note of it is gone, or the disk refuses what may be an entry that was synced after a note which is a second old. Must
//! never take "unknown" for "nothing": the log would be cut, and the replica vote with what is left.

use super::{Found, FoundTail};
use crate::entry::LogId;
use crate::log::mark::{Mark, MarkFile};
use crate::log::scan;
use crate::log::state::Damage;
use crate::superblock::Superblock;

/// The mark is written and synced before the first promise: of a replica that promised something it can be read,
/// unless the disk lost it.
pub(super) fn is_mark_lost(mark: &MarkFile, superblock: &Superblock) -> bool {
    !mark.is_readable() && superblock.is_used()
}

/// Whether the disk refuses what stands behind the last thing that is known to have been written: an entry that was synced
/// after the mark may stand there.
pub(super) async fn is_end_refused(found: &Found, mark: Mark) -> bool {
    let segments = found.tail.iter().chain(&found.empty);
    let ends: Vec<_> = segments
        .map(|segment| {
            let known = match mark.segment == segment.first_index {
                true => mark.position,
                false => 0,
            };
            let seen = segment.furthest.map_or(0, |furthest| furthest.end);
            let end = segment.scanned.end.max(known).max(seen);
            (segment.first_index, segment.file.clone(), end)
        })
        .collect();
    let ends = ends.into_iter();
    // What stands in a segment before the mark's was synced before the mark was written, and is known.
    let open: Vec<_> = ends.filter(|(first, ..)| *first >= mark.segment).collect();
    host::blocking::run(move || {
        open.iter()
            .any(|(_, file, end)| scan::is_refused(&**file, *end))
    })
    .await
}

/// A log without a mark: whatever may have stood behind its end is missing.
pub(super) fn unknown_end(found: &Found, purged: Option<LogId>) -> Damage {
    let floor = purged.map_or(0, |purged| purged.index + 1);
    let end = found.tail.as_ref().map_or(floor, FoundTail::end_index);
    Damage {
        first_bad_index: end,
        synced_index: end,
        sealed: false,
    }
}
