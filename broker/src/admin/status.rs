//! What this broker is doing: for operators and tests.

use std::time::Duration;

use proto::cluster::{AdminResponse, BrokerStatusResponse, Dedup, ReplicaProgress, Transfers};
use proto::v2::Code;
use raft::{GroupStatus, MemberStatus, Phase};

use super::done;
use crate::registration::replica;
use crate::service::Service;

/// Longest time a checkpoint may take.
const CHECKPOINT_DURATION_MAX: Duration = Duration::from_secs(60);

pub(super) fn status(service: &Service) -> BrokerStatusResponse {
    let raft = service.group.status();
    let leadership = &raft.leadership;
    let leader = leadership.leader.as_ref();
    let voters = raft.members.iter().filter(|one| one.voter);
    let position = |index: Option<u64>| index.unwrap_or(0);
    BrokerStatusResponse {
        cluster_id: service.config.cluster_id.clone(),
        group: service.config.group.clone(),
        broker_id: service.own.broker_id,
        term: leadership.term,
        leader: leader.map_or(0, |leader| leader.broker_id),
        leader_address: leader
            .map(|leader| leader.client_address.clone())
            .unwrap_or_default(),
        state: state(&raft, service.own.broker_id).to_owned(),
        dropped: raft.dropped,
        purged: position(raft.purged),
        checkpoint: position(raft.checkpoint),
        // What is in the tables survives a crash only as far as the newest checkpoint does.
        durable_applied: position(raft.checkpoint),
        applied: position(raft.applied),
        committed: position(raft.committed),
        flushed: position(raft.flushed),
        appended: position(raft.appended),
        replicas: raft
            .members
            .iter()
            .map(|one| replica(&one.member))
            .collect(),
        voters: voters.map(|one| one.member.broker_id).collect(),
        uptime_ms: service.started.elapsed().as_millis() as u64,
        log_bytes_written: raft.log.bytes_written,
        log_syncs: raft.log.syncs,
        snapshots_installed: raft.snapshots_installed,
        segments_repaired: raft.segments_repaired,
        version: env!("CARGO_PKG_VERSION").to_owned(),
        serving: service.leadership.is_serving(),
        payload_bytes: service.view.payload_bytes(),
        client_address: service.own.client_address.clone(),
        peer_address: service.own.peer_address.clone(),
        now_ms: service.host.clock.now_ms(),
        disk_free_bytes: service.disk_space.free_bytes(),
        disk_needed_bytes: service.disk_space.needed_bytes(),
        sync_p99_us: sync_p99_us(&raft.log.sync_time_us),
        damage_found: raft.damage_found,
        progress: raft.members.iter().filter_map(progress).collect(),
        name_servers: service.config.name_servers.clone(),
        dedup_window_ms: service.config.dedup_window_ms,
        dedup: Some(dedup(service)),
        clock_apart_ms: raft.clocks.apart_ms().unwrap_or(0),
        transfers: Some(transfers(service)),
    }
}

fn dedup(service: &Service) -> Dedup {
    let status = service.view.dedup_status();
    Dedup {
        bytes: status.bytes,
        bytes_max: service.config.dedup_bytes_max,
        senders: status.senders,
        window_ms: status.window_ms,
        sender_window_ms: status.sender_window_ms,
        repeated: status.repeated,
        different: status.different,
        too_late: status.too_late,
    }
}

fn transfers(service: &Service) -> Transfers {
    let status = service.bounds.status();
    Transfers {
        request_bytes: status.request_bytes,
        request_bytes_max: status.request_bytes_max,
        answer_bytes: status.answer_bytes,
        answer_bytes_max: status.answer_bytes_max,
        connections: status.connections,
        requests_cut: status.requests_cut,
        answers_cut: status.answers_cut,
        gave_way: status.gave_way,
        refused: status.refused,
    }
}

fn progress(one: &MemberStatus) -> Option<ReplicaProgress> {
    Some(ReplicaProgress {
        broker_id: one.member.broker_id,
        matched: one.matched?,
    })
}

/// The end of the bucket below which 99 of 100 syncs lie; 0 while there was none.
fn sync_p99_us(buckets: &[u64]) -> u64 {
    let all: u64 = buckets.iter().sum();
    let mut longer = all;
    for (bucket, count) in buckets.iter().enumerate() {
        longer -= count;
        if all > 0 && longer <= all / 100 {
            return 1 << bucket;
        }
    }
    0
}

/// One word for what the replica is.
fn state(raft: &GroupStatus, own: u64) -> &'static str {
    let voter = raft
        .members
        .iter()
        .any(|one| one.member.broker_id == own && one.voter);
    match raft.phase {
        Phase::Repairing => "repairing",
        Phase::Stopped => "stopped",
        _ if raft.leadership.is_leader => "leader",
        _ if !voter => "learner",
        _ if raft.leadership.leader.is_none() => "candidate",
        _ => "follower",
    }
}

/// A checkpoint of this broker's own tables; the answer's value is the index that it reaches.
pub(super) async fn checkpoint(service: &Service) -> AdminResponse {
    match service.group.checkpoint(CHECKPOINT_DURATION_MAX).await {
        Ok(index) => done(index),
        Err(error) => AdminResponse {
            code: Code::InternalServerError.into(),
            message: error.to_string(),
            value: 0,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::sync_p99_us;

    /// Catches a slow disk that hides behind its many fast syncs, and a figure without a single sync.
    #[test]
    fn the_slowest_of_a_hundred_syncs_is_told() {
        assert_eq!(sync_p99_us(&[0; 24]), 0);
        let mut buckets = [0; 24];
        buckets[10] = 99;
        buckets[20] = 1;
        assert_eq!(sync_p99_us(&buckets), 1 << 10);
        buckets[20] = 3;
        assert_eq!(sync_p99_us(&buckets), 1 << 20);
    }
}
