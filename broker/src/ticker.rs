//! What is looked at from time to time: the disk's free space, silent clients, retention.
//!
//! Proposes nothing unless this broker serves as the leader. Never drops anything itself: that is the
//! log's business, after the proposal was applied.

use std::sync::Arc;
use std::time::Duration;

use proto::TimestampMs;
use proto::command::{self, command::Body};
use store::SegmentInfo;
use tokio::time::Instant;

use crate::retention;
use crate::service::Service;

/// Entries at the end of a segment that are looked at for one that says its time.
const TIMED_ENTRIES_MAX: u64 = 64;

/// Runs until the broker stops.
pub(crate) async fn run(service: Arc<Service>) {
    let interval = Duration::from_millis(service.config.retention_interval_ms);
    let mut proposed_floor = 0;
    loop {
        measure_disk(&service).await;
        service.clients.expire(Instant::now());
        if service.leadership.is_serving() {
            retain(&service, &mut proposed_floor).await;
        }
        if let Err(error) = service.group.drop_log().await {
            tracing::warn!(%error, "cannot drop log segments");
        }
        tokio::select! {
            biased;
            () = service.shutdown.wait() => return,
            () = tokio::time::sleep(interval) => {}
        }
    }
}

async fn measure_disk(service: &Service) {
    let (disk, path) = (service.host.disk.clone(), service.config.data_dir.clone());
    match host::blocking::run(move || disk.free_bytes(&path)).await {
        Ok(free_bytes) => service.disk_space.measured(free_bytes),
        Err(error) => tracing::warn!(%error, "cannot measure the free space of the disk"),
    }
}

/// Proposes to forget what retention no longer keeps, once for each floor.
async fn retain(service: &Service, proposed_floor: &mut u64) {
    let segments = service.group.log().segments();
    let by_size = match service.config.log_retain_bytes {
        0 => None,
        bytes => retention::floor_by_size(&segments, bytes),
    };
    let by_age = match service.config.log_retain_ms {
        0 => None,
        age_ms => floor_by_age(service, &segments, age_ms).await,
    };
    let Some(floor) = retention::higher(by_size, by_age) else {
        return;
    };
    if floor <= *proposed_floor {
        return;
    }
    match service
        .propose_upkeep(Body::DropLog(command::DropLog { first_index: floor }))
        .await
    {
        Ok(_) => {
            tracing::info!(
                first_index = floor,
                "retention drops the log before this entry"
            );
            *proposed_floor = floor;
        }
        Err(error) => tracing::debug!(?error, "retention was not agreed on, it is tried again"),
    }
}

/// First index to keep so that no sealed segment ends before `age_ms` ago.
async fn floor_by_age(service: &Service, segments: &[SegmentInfo], age_ms: u64) -> Option<u64> {
    let oldest_ms = service.host.clock.now_ms().checked_sub(age_ms)?;
    let mut floor = None;
    for segment in segments.iter().take_while(|segment| segment.sealed) {
        let ended_ms = ended_at(service, segment).await?;
        if ended_ms >= oldest_ms {
            break;
        }
        floor = Some(segment.last_index + 1);
    }
    floor
}

/// Time of the last entry of a segment that has one; Raft's own entries have none.
async fn ended_at(service: &Service, segment: &SegmentInfo) -> Option<TimestampMs> {
    let lowest = segment
        .last_index
        .saturating_sub(TIMED_ENTRIES_MAX)
        .max(segment.first_index);
    for index in (lowest..=segment.last_index).rev() {
        let entry = match service.group.log().entry(index).await {
            Ok(entry) => entry,
            Err(error) => {
                tracing::warn!(index, %error, "cannot read the age of a segment");
                return None;
            }
        };
        if entry.kind != store::EntryKind::Normal {
            continue;
        }
        let decoded: Result<command::Entry, _> = prost::Message::decode(entry.body);
        return decoded.ok().map(|entry| entry.time_ms);
    }
    None
}
