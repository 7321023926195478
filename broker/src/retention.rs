//! Which entries are no longer kept.
//!
//! Age is what has passed along the log: no clock that can be set makes an entry old, or keeps it young.
//!
//! Only sealed segments go, whole and oldest first; one that is written to and begins with what is too old is ended. The
//! leader decides and proposes; the rows that point at the entries go first, on every replica alike, then each replica drops
//! its segments, never above its newest checkpoint. What retries and dead letters point at is written once more before ([`keep`]).
//! Never drops anything itself.

pub(crate) mod keep;

use std::time::Duration;

use proto::command::{self, command::Body};
use store::{EntryKind, SegmentInfo, StoreError};
use tokio::time::Instant;

use crate::service::Service;

/// Entries at an end of a segment that are looked at for one that says its time.
const TIMED_ENTRIES_MAX: u64 = 64;

/// The segments are listed again after this time even if nothing was written, since a snapshot may have
/// brought others.
const LISTING_AGE_MAX: Duration = Duration::from_secs(60);

/// What a bound by size may write once more, for each byte that is written anyway: where what must be kept
/// is more than the bound, the log stays longer, and does not turn over for ever.
const KEPT_SHARE: u64 = 2;

/// What is written once more in one go, in bytes: other things are looked at in between.
const KEPT_AT_ONCE: u64 = 64 << 20;

/// First index to keep so that the sealed segments together hold at most `bytes_max`; `None` when they do.
pub(crate) fn floor_by_size<'a>(
    segments: impl IntoIterator<Item = &'a SegmentInfo> + Clone,
    bytes_max: u64,
) -> Option<u64> {
    let mut bytes: u64 = segments
        .clone()
        .into_iter()
        .filter(|one| one.sealed)
        .map(|one| one.len)
        .sum();
    let mut floor = None;
    for segment in segments.into_iter().take_while(|one| one.sealed) {
        if bytes <= bytes_max {
            break;
        }
        bytes -= segment.len;
        floor = Some(segment.last_index + 1);
    }
    floor
}

/// A sealed segment, and how much had passed along the log by its last entry, once that was needed.
struct Sealed {
    info: SegmentInfo,
    ended_ms: Option<u64>,
}

/// When the segments were listed: that reads files.
struct Listed {
    at: Instant,
    /// Where the segment began that was written to.
    tail_begin: Option<u64>,
    /// Whether all before it were sealed: that happens some time after the next one has begun.
    is_settled: bool,
}

/// The leader's memory of what it may drop.
pub(crate) struct Retention {
    sealed: Vec<Sealed>,
    listed: Option<Listed>,
    /// Where the segment that is written to begins, and how much had passed by then.
    tail: Option<(u64, u64)>,
    proposed_floor: u64,
    /// Bytes written once more, of those that this process has written.
    kept_bytes: u64,
}

impl Retention {
    pub(crate) fn new() -> Retention {
        Retention {
            sealed: Vec::new(),
            listed: None,
            tail: None,
            proposed_floor: 0,
            kept_bytes: 0,
        }
    }

    /// Proposes to forget what is no longer kept, if there is any.
    pub(crate) async fn enforce(&mut self, service: &Service) -> Result<(), StoreError> {
        drop_dead_letters(service).await;
        if service.config.log_retain_ms > 0 {
            self.roll(service).await?;
        }
        self.list(service).await?;
        let by_size = match service.config.log_retain_bytes {
            0 => None,
            bytes => {
                let segments: Vec<SegmentInfo> = self.sealed.iter().map(|one| one.info).collect();
                floor_by_size(&segments, bytes)
            }
        };
        let by_age = match service.config.log_retain_ms {
            0 => None,
            age_ms => self.floor_by_age(service, age_ms).await?,
        };
        if let Some(floor) = by_age.filter(|floor| *floor > self.proposed_floor) {
            self.release(service, floor, u64::MAX).await;
        }
        if let Some(floor) = by_size.filter(|floor| *floor > self.proposed_floor) {
            let written = service.group.log().counters().bytes_written;
            let allowed = (written + service.config.segment_bytes) / KEPT_SHARE;
            let bytes_max = allowed.saturating_sub(self.kept_bytes);
            self.release(service, floor, bytes_max).await;
        }
        Ok(())
    }

    /// Ends the segment that is written to once it begins with what is too old to be kept: in a group that is quiet it would
    /// not be full for ever.
    async fn roll(&mut self, service: &Service) -> Result<(), StoreError> {
        let Some(first_index) = service.group.log().tail_begin() else {
            return Ok(());
        };
        if self.tail.is_none_or(|(known, _)| known != first_index) {
            let began_ms = began_at(service, first_index).await?;
            self.tail = began_ms.map(|began_ms| (first_index, began_ms));
        }
        let kept_from_ms = (service.now().passed_ms).checked_sub(service.config.log_retain_ms);
        let is_old = (self.tail).is_some_and(|(_, began_ms)| Some(began_ms) < kept_from_ms);
        if is_old {
            match service.group.roll().await {
                Ok(rolled) => tracing::info!(
                    first_index,
                    next_index = rolled.log_id.index,
                    "ended a segment that begins with what is too old to be kept"
                ),
                Err(error) => {
                    tracing::debug!(?error, "the segment was not ended, it is tried again");
                }
            }
        }
        Ok(())
    }

    /// Gives up what is before `floor`, as far as writing so many bytes once more allows.
    async fn release(&mut self, service: &Service, floor: u64, bytes_max: u64) {
        match keep::before(service, floor, bytes_max.min(KEPT_AT_ONCE)).await {
            Ok(bytes) => self.kept_bytes += bytes,
            Err(error) => tracing::warn!(%error, "what is to be kept cannot be written once more"),
        }
        let floor = floor.min(service.view.lowest_reference().unwrap_or(u64::MAX));
        let given_up = self.sealed.iter().map(|one| one.info.last_index + 1);
        let floor = given_up.take_while(|end| *end <= floor).last();
        if let Some(floor) = floor.filter(|floor| *floor > self.proposed_floor) {
            self.propose(service, floor).await;
        }
    }

    async fn propose(&mut self, service: &Service, floor: u64) {
        match service
            .propose_upkeep(Body::DropLog(command::DropLog { first_index: floor }))
            .await
        {
            Ok(reply) => {
                let floor = floor.min(reply.value);
                tracing::info!(
                    first_index = floor,
                    "retention drops the log before this entry"
                );
                self.proposed_floor = floor;
                self.sealed.retain(|one| one.info.last_index >= floor);
            }
            Err(error) => tracing::debug!(?error, "retention was not agreed on, it is tried again"),
        }
    }

    /// Lists the sealed segments, if there may be other ones than last time.
    async fn list(&mut self, service: &Service) -> Result<(), StoreError> {
        let log = service.group.log();
        let tail_begin = log.tail_begin();
        let current = self.listed.as_ref().is_some_and(|listed| {
            let is_same = listed.is_settled && listed.tail_begin == tail_begin;
            is_same && listed.at.elapsed() < LISTING_AGE_MAX
        });
        if current {
            return Ok(());
        }
        let at = Instant::now();
        let (segments, written_to): (Vec<_>, Vec<_>) =
            (log.segments().await?.into_iter()).partition(|info| info.sealed);
        self.listed = Some(Listed {
            at,
            tail_begin,
            is_settled: written_to
                .iter()
                .all(|info| Some(info.first_index) == tail_begin),
        });
        let kept = |info: &SegmentInfo| info.last_index >= self.proposed_floor;
        self.sealed = segments
            .into_iter()
            .filter(kept)
            .map(|info| {
                let known = self.sealed.iter().find(|one| one.info == info);
                Sealed {
                    info,
                    ended_ms: known.and_then(|one| one.ended_ms),
                }
            })
            .collect();
        Ok(())
    }

    /// First index to keep so that no sealed segment ends before `age_ms` ago.
    async fn floor_by_age(
        &mut self,
        service: &Service,
        age_ms: u64,
    ) -> Result<Option<u64>, StoreError> {
        let now_ms = service.now().passed_ms;
        let mut floor = None;
        for segment in &mut self.sealed {
            let ended_ms = match segment.ended_ms {
                Some(ended_ms) => ended_ms,
                None => ended_at(service, &segment.info).await?,
            };
            segment.ended_ms = Some(ended_ms);
            if ended_ms.saturating_add(age_ms) >= now_ms {
                break;
            }
            floor = Some(segment.info.last_index + 1);
        }
        Ok(floor)
    }
}

/// Proposes to forget the dead letters that are too old, so many at a time.
async fn drop_dead_letters(service: &Service) {
    let before_passed_ms = match service.config.dead_letter_retain_ms {
        0 => return,
        age_ms => service.now().passed_ms.saturating_sub(age_ms),
    };
    if service
        .view
        .oldest_death_ms()
        .is_none_or(|died_ms| died_ms >= before_passed_ms)
    {
        return;
    }
    let command = Body::DropDeadLetters(command::DropDeadLetters { before_passed_ms });
    match service.propose_upkeep(command).await {
        Ok(reply) => tracing::info!(count = reply.value, "old dead letters are dropped"),
        Err(error) => tracing::debug!(?error, "dead letters are not dropped, it is tried again"),
    }
}

/// How much had passed by the last entry that says so. Without any, the segment counts as young.
async fn ended_at(service: &Service, segment: &SegmentInfo) -> Result<u64, StoreError> {
    let lowest = segment
        .last_index
        .saturating_sub(TIMED_ENTRIES_MAX)
        .max(segment.first_index);
    let ended_ms = passed_at(service, (lowest..=segment.last_index).rev()).await?;
    Ok(ended_ms.unwrap_or(u64::MAX))
}

/// How much had passed by the first entry that says so of the segment that begins with this one.
async fn began_at(service: &Service, first_index: u64) -> Result<Option<u64>, StoreError> {
    let last = service.group.log().last();
    let end = last.map_or(0, |last| last.index + 1);
    passed_at(
        service,
        first_index..end.min(first_index + TIMED_ENTRIES_MAX),
    )
    .await
}

/// What the first of these entries that says so says of how much had passed; Raft's own entries do not.
async fn passed_at(
    service: &Service,
    indexes: impl Iterator<Item = u64>,
) -> Result<Option<u64>, StoreError> {
    for index in indexes {
        let entry = service.group.log().entry(index).await?;
        if entry.kind != EntryKind::Normal {
            continue;
        }
        let decoded: Result<command::Entry, _> = prost::Message::decode(entry.body);
        return Ok(decoded.ok().map(|entry| entry.passed_ms));
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn segment(first_index: u64, len: u64, sealed: bool) -> SegmentInfo {
        SegmentInfo {
            first_index,
            last_index: first_index + 9,
            len,
            crc32c: 0,
            sealed,
        }
    }

    /// Catches a cut in the middle of what is kept, and one that takes the segment being written.
    #[test]
    fn the_oldest_go_until_the_rest_fits() {
        let segments = [
            segment(1, 100, true),
            segment(11, 50, true),
            segment(21, 100, true),
            segment(31, 70, false),
        ];
        for (bytes_max, floor) in [
            (250, None),
            (249, Some(11)),
            (150, Some(11)),
            (149, Some(21)),
            (99, Some(31)),
            (0, Some(31)),
        ] {
            assert_eq!(floor_by_size(&segments, bytes_max), floor, "{bytes_max}");
        }
        assert_eq!(floor_by_size(&segments[3..], 0), None);
    }
}
