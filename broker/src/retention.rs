//! Which entries are no longer kept. Pure; the ticker acts.
//!
//! Only sealed segments go, whole and oldest first. The leader decides and proposes; the rows that point
//! at the entries go first, on every replica alike, then each replica drops its segments, never above
//! its newest checkpoint.

use store::SegmentInfo;

/// First index to keep so that the sealed segments together hold at most `bytes_max`; `None` when they do.
pub(crate) fn floor_by_size(segments: &[SegmentInfo], bytes_max: u64) -> Option<u64> {
    let mut bytes: u64 = segments
        .iter()
        .filter(|one| one.sealed)
        .map(|one| one.len)
        .sum();
    let mut floor = None;
    for segment in segments.iter().take_while(|one| one.sealed) {
        if bytes <= bytes_max {
            break;
        }
        bytes -= segment.len;
        floor = Some(segment.last_index + 1);
    }
    floor
}

/// The later of two floors.
pub(crate) fn higher(one: Option<u64>, other: Option<u64>) -> Option<u64> {
    one.max(other)
}
