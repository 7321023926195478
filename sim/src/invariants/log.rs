//! The logs of all replicas hold the same committed entries, byte for byte. Looked at once, at the end; what
//! rotted unseen until then must be repairable. (openraft's log matching and committed-immutable.)

use std::collections::BTreeMap;

use crate::machine::Machine;
use crate::violation::Violation;
use crate::world::World;

/// Entries read in one go.
const READ_BYTES: usize = 1 << 20;

/// Compares the committed entries that two or more of the running replicas still have.
pub async fn compare_logs(world: &World) -> Result<(), Violation> {
    let mut seen: BTreeMap<u64, (Machine, u64, bytes::Bytes)> = BTreeMap::new();
    let members = world.members();
    for broker in world.all_brokers() {
        let Some(live) = broker.live() else {
            continue;
        };
        let (log, status) = (live.group.log(), live.group.status());
        let dropped = log.positions().dropped;
        // Asked in this order: it rises first.
        let floor = live.view.log_floor();
        let is_member = |id: &u8| broker.machine == Machine::Broker(*id);
        if dropped > floor && members.iter().any(is_member) {
            let detail = format!(
                "{} has dropped what its queues point at: its log begins at {dropped}, they at {floor}",
                broker.machine
            );
            return Err(Violation::new("what-is-kept-is-there", detail));
        }
        let end = status.applied.map_or(0, |applied| applied + 1);
        let mut next = log.positions().dropped;
        let mut repaired = None;
        while next < end {
            let entries = match log.read(next, end, READ_BYTES).await {
                Ok(entries) => entries,
                // Retention goes on while this looks.
                Err(_) if log.positions().dropped > next => {
                    next = log.positions().dropped;
                    continue;
                }
                Err(error) if error.is_corruption() && repaired != Some(next) => {
                    // The read begins with the entry that is asked for.
                    repaired = Some(next);
                    let repairing = live.group.repair_entry(next).await;
                    repairing.map_err(|error| {
                        let detail = format!("{}, entry {next}: {error}", broker.machine);
                        Violation::new("damage-is-repaired", detail)
                    })?;
                    continue;
                }
                Err(error) => {
                    let detail = format!("{} cannot read entry {next}: {error}", broker.machine);
                    return Err(Violation::new("log-matching", detail));
                }
            };
            for entry in entries {
                next = entry.index + 1;
                let first = seen
                    .entry(entry.index)
                    .or_insert_with(|| (broker.machine, entry.term, entry.body.clone()));
                if (first.1, &first.2) != (entry.term, &entry.body) {
                    let (other, index) = (first.0, entry.index);
                    let detail = format!("{other} and {} differ at {index}", broker.machine);
                    return Err(Violation::new("log-matching", detail));
                }
            }
        }
    }
    Ok(())
}
