//! Entries of one index and term are the same in every log, and so are those before them. (openraft's log
//! matching.) Each entry is looked at when it is appended; and at the end all that is left of the logs, which
//! must hold the same committed entries; what rotted unseen until then must be repairable.

use std::collections::BTreeMap;

use bytes::Bytes;
use store::{CommitLog, Entry, EntryKind, LogId};

use crate::broker_group::BrokerGroup;
use crate::machine::Machine;
use crate::violation::Violation;
use crate::world::World;

/// Entries read in one go.
const READ_BYTES: usize = 1 << 20;

/// What all logs together have ever held.
#[derive(Default)]
pub(super) struct LogMatching {
    seen: BTreeMap<LogId, First>,
}

/// An entry, where it was seen first.
struct First {
    machine: Machine,
    kind: EntryKind,
    body: Bytes,
    /// Of the entry before it.
    previous_term: Option<u64>,
}

impl LogMatching {
    /// `previous` is the entry before, if that is known.
    pub(super) fn seen(
        &mut self,
        machine: Machine,
        previous: Option<LogId>,
        entry: &Entry,
    ) -> Result<(), Violation> {
        let Entry {
            term, index, kind, ..
        } = *entry;
        let previous_term = previous.map(|previous| previous.term);
        let first = self.seen.entry(LogId { term, index }).or_insert(First {
            machine,
            kind,
            body: entry.body.clone(),
            previous_term,
        });
        let other = first.machine;
        if (first.kind, &first.body) != (kind, &entry.body) {
            let detail = format!("{other} and {machine} differ at {index} in term {term}");
            return Err(Violation::new("log-matching", detail));
        }
        let differs = |term: u64| first.previous_term.is_some_and(|other| other != term);
        if previous_term.is_some_and(differs) {
            let detail = format!(
                "{other} and {machine} have the same entry {index} of term {term} and differ before it"
            );
            return Err(Violation::new("log-matching", detail));
        }
        first.previous_term = first.previous_term.or(previous_term);
        Ok(())
    }
}

/// Follows a log as it is written. Begins at its end, so that it reads from memory alone: what is older was
/// seen when it was written.
pub(super) struct Follower {
    log: CommitLog,
    /// Index of the first entry that it looks at.
    begun: u64,
    /// The last one that it has looked at.
    last: Option<LogId>,
    /// The index after what was committed then.
    committed_end: u64,
}

impl Follower {
    pub(super) fn new(log: CommitLog) -> Follower {
        let last = log.last();
        let begun = last.map_or(0, |last| last.index + 1);
        Follower {
            log,
            begun,
            last,
            committed_end: 0,
        }
    }

    /// What was appended since the last look, and the entry before it if that is known.
    pub(super) async fn look(&mut self, committed: Option<u64>) -> (Option<LogId>, Vec<Entry>) {
        let Some(now) = self.log.last() else {
            return (None, Vec::new());
        };
        if self.last.is_some_and(|last| last.term < now.term) {
            // What was not committed may have been replaced.
            let committed_end = self.committed_end;
            self.last = self.last.filter(|last| last.index < committed_end);
        }
        let purged_end = self.log.purged().map_or(0, |purged| purged.index + 1);
        let begin = self.last.map_or(self.committed_end, |last| last.index + 1);
        let begin = begin.max(self.begun).max(purged_end);
        let before = self.last.filter(|last| last.index + 1 == begin);
        let reading = self.log.read(begin, now.index + 1, READ_BYTES).await;
        // Damaged, or replaced meanwhile: there will be another look.
        let entries = reading.unwrap_or_default();
        if let Some(last) = entries.last() {
            let Entry { term, index, .. } = *last;
            self.last = Some(LogId { term, index });
        }
        self.committed_end = committed.map_or(0, |committed| committed + 1);
        (before, entries)
    }
}

/// Compares the committed entries that two or more of the running replicas of a group still have.
pub async fn compare_logs(world: &World) -> Result<(), Violation> {
    for group in world.groups() {
        compare_logs_of(world, group).await?;
    }
    Ok(())
}

async fn compare_logs_of(world: &World, group: BrokerGroup) -> Result<(), Violation> {
    let mut matching = LogMatching::default();
    let mut terms: BTreeMap<u64, (Machine, u64)> = BTreeMap::new();
    let members = world.members(group);
    for broker in world.brokers_of(group) {
        let Some(live) = broker.live() else {
            continue;
        };
        let (log, status) = (live.group.log(), live.group.status());
        let dropped = log.positions().dropped;
        // Asked in this order: it rises first.
        let floor = live.view.log_floor();
        let is_member = (members.iter()).any(|id| broker.machine == Machine::Broker(*id));
        if dropped > floor && is_member {
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
                // Nobody repairs a replica that was taken out of the group, nor gives it back what its disk lost of its end;
                // what it has is needed by nobody.
                Err(_) if !is_member => break,
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
                matching.seen(broker.machine, None, &entry)?;
                let first = *terms
                    .entry(entry.index)
                    .or_insert((broker.machine, entry.term));
                if first.1 != entry.term {
                    let (other, index) = (first.0, entry.index);
                    let detail = format!("{other} and {} differ at {index}", broker.machine);
                    return Err(Violation::new("log-matching", detail));
                }
            }
        }
    }
    Ok(())
}
