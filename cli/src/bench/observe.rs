//! What the processes used during a load: processor, memory, syncs, bytes.

use std::collections::BTreeMap;
use std::time::Duration;

use proto::cluster::BrokerStatusResponse;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::Measured;
use super::measured::round;
use crate::process::{Group, Usage, reset_peak};

const MIB: f64 = 1_048_576.0;

/// The figures of every process when a load began.
pub struct Observation {
    brokers: BTreeMap<u64, (u32, Usage, BrokerStatusResponse)>,
    own: Usage,
    started: Instant,
}

impl Observation {
    /// Begins to watch the brokers that run and answer.
    pub async fn begin(group: &mut Group) -> Observation {
        let mut brokers = BTreeMap::new();
        for id in group.ids() {
            let Some(status) = group.status(id).await else {
                continue;
            };
            let Some(pid) = group.broker(id).pid() else {
                continue;
            };
            reset_peak(pid);
            brokers.insert(id, (pid, Usage::of(pid), status));
        }
        Observation {
            brokers,
            own: Usage::of(std::process::id()),
            started: Instant::now(),
        }
    }

    /// What was used since `begin`, set against what `measured` sent.
    pub async fn end(self, group: &Group, measured: &Measured) -> Value {
        let seconds = self.started.elapsed().as_secs_f64().max(f64::EPSILON);
        let cores = |processor: Duration| round(processor.as_secs_f64() / seconds);
        let payload = measured.all_bytes.max(1) as f64;
        let own = Usage::of(std::process::id()).since(&self.own);
        let mut brokers = Vec::new();
        for (id, (pid, usage, before)) in &self.brokers {
            let used = Usage::of(*pid).since(usage);
            let Some(after) = group.status(*id).await else {
                continue;
            };
            let log_bytes = after
                .log_bytes_written
                .saturating_sub(before.log_bytes_written) as f64;
            let syncs = after.log_syncs.saturating_sub(before.log_syncs) as f64;
            brokers.push(json!({
                "broker_id": id,
                "leads": after.serving,
                "cores": cores(used.processor),
                "peak_mib": round(used.resident_peak_bytes as f64 / MIB),
                "syncs_per_second": (syncs / seconds).round(),
                "log_bytes_per_payload_byte": round(log_bytes / payload),
                "disk_bytes_per_payload_byte": round(used.written_bytes as f64 / payload),
            }));
        }
        let leader = brokers
            .iter()
            .find(|broker| broker["leads"] == true)
            .cloned();
        json!({ "client_cores": cores(own.processor), "leader": leader, "brokers": brokers })
    }
}
