//! Finds damage in the log, and repairs it, before Raft runs.
//!
//! What this replica acknowledged up to its synced index counts towards the group's majorities, so
//! it must acknowledge nothing before it holds again what is committed there, and vote only for whoever
//! reaches as far (`service/ballot.rs`). Once a peer has committed everything up to that index, the peer's
//! entries are what must stand here: whatever of ours was committed is among them. So are those of a leader
//! in the term of our last vote, or a later one, whatever of them is committed.
//!
//! Where the mark is lost nobody knows that index here, but a leader does: whatever this replica promised, it
//! promised to leaders of at most the term that it voted in last. One that leads now, in that term or a later
//! one, has all of it that is or can be committed, so its last entry is the end of what counts.

use std::time::Duration;

use store::{Damage, Entry, LogId, StoreError};

use super::Startup;
use crate::counters::Counters;
use crate::error::RaftError;
use crate::introductions::Acquaintance;
use crate::repair::FetchError;

/// Pause between attempts, while no peer can help. There is no deadline: a replica that cannot be
/// repaired yet waits for its peers.
const RETRY_PAUSE: Duration = Duration::from_millis(200);

/// Most that is read at once to look for damage, in bytes.
const READ_BYTES: usize = 8 << 20;

/// How many entries further back an attempt begins when a peer's entries do not continue ours.
const STEP_BACK: u64 = 256;

impl Startup {
    /// Reads what Raft will read first: the entries that the tables do not hold yet, and those from which
    /// it learns where each term ends. What is damaged of them is the log's damage from now on.
    pub(crate) async fn look_for_damage(&self) -> Result<(), RaftError> {
        self.look_at_new_entries().await?;
        self.look_at_ends_of_terms().await
    }

    async fn look_at_new_entries(&self) -> Result<(), RaftError> {
        let applied = self.state.applied_index().map_or(0, |index| index + 1);
        let mut next = applied.max(self.log.positions().dropped);
        let end = self.log.last().map_or(0, |last| last.index + 1);
        while next < end && !self.needs_repair() {
            match self.log.read(next, end, READ_BYTES).await {
                Ok(entries) => next += entries.len().max(1) as u64,
                Err(StoreError::Corrupt { index, .. }) => {
                    self.log.report_damage(index.unwrap_or(next))?;
                }
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    /// Looks where openraft's `get_key_log_ids` will: halves every range whose ends are of different terms.
    async fn look_at_ends_of_terms(&self) -> Result<(), RaftError> {
        let floor = self.log.purged().map_or(0, |purged| purged.index + 1);
        let Some(last) = self.log.last().filter(|last| last.index >= floor) else {
            return Ok(());
        };
        let Some(floor_term) = self.look_at_term(floor).await? else {
            return Ok(());
        };
        let mut ranges = vec![((floor, floor_term), (last.index, last.term))];
        while let Some((first, last)) = ranges.pop() {
            if first.1 == last.1 || first.0 + 1 >= last.0 {
                continue;
            }
            let middle = (first.0 + last.0) / 2;
            let Some(term) = self.look_at_term(middle).await? else {
                return Ok(());
            };
            ranges.push(((middle, term), last));
            if term != first.1 {
                ranges.push((first, (middle, term)));
            }
        }
        Ok(())
    }

    /// The term of an entry; none if the entry is damaged, which the log knows then.
    async fn look_at_term(&self, index: u64) -> Result<Option<u64>, RaftError> {
        if self.needs_repair() {
            return Ok(None);
        }
        match self.log.term_at(index).await {
            Ok(term) => Ok(Some(term)),
            Err(StoreError::Corrupt { index: damaged, .. }) => {
                self.log.report_damage(damaged.unwrap_or(index))?;
                Ok(None)
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Returns when it is known how far this log was synced, or can have been.
    pub(super) async fn learn_promise(&self) -> Result<(), RaftError> {
        while self.log.is_mark_lost() {
            let Some((_, last)) = self.leader() else {
                tokio::time::sleep(RETRY_PAUSE).await;
                continue;
            };
            tracing::warn!(
                ?last,
                "nobody knows what was synced here; the leader's log is what counts"
            );
            self.log.learn_promise(last).await?;
        }
        Ok(())
    }

    /// A peer that said since this process started that it leads, in our last vote's term at least, and its last entry
    /// then. One that leads in an earlier term need not have what later leaders sent us.
    pub(super) fn leader(&self) -> Option<(Acquaintance, LogId)> {
        let voted = self.state.vote()?.term;
        let known = self.known.borrow();
        let leads = |peer: &&Acquaintance| {
            let status = &peer.status;
            status.leader == status.broker_id && status.term >= voted
        };
        let leaders = known.values().filter(leads);
        let newest = leaders.max_by_key(|peer| peer.status.term)?;
        let last = newest.status.last.as_ref()?;
        let last = LogId {
            term: last.term,
            index: last.index,
        };
        Some((newest.clone(), last))
    }

    /// Returns when the log is whole again.
    pub(super) async fn repair_log(&mut self) -> Result<(), RaftError> {
        while let Some(damage) = self.log.damage() {
            Counters::add(&self.state.counters.damage_found, 1);
            tracing::error!(
                ?damage,
                "log is damaged below what was synced; repairing from peers"
            );
            match damage.sealed {
                true => self.repair_segments(damage).await?,
                false => self.repair_tail(damage).await?,
            }
        }
        Ok(())
    }

    async fn repair_segments(&mut self, damage: Damage) -> Result<(), RaftError> {
        while !self.repairer.replace(damage.first_bad_index).await? {
            if self.is_dropped_everywhere(damage.first_bad_index)
                && self.repair_by_snapshot(damage).await?
            {
                break;
            }
            tokio::time::sleep(RETRY_PAUSE).await;
        }
        Ok(())
    }

    async fn repair_tail(&mut self, damage: Damage) -> Result<(), RaftError> {
        let mut first = damage.first_bad_index;
        loop {
            // Entries below what Raft may ask for cannot be put back one by one.
            let by_snapshot = damage.first_bad_index < self.first_entry()
                || self.is_dropped_everywhere(self.compared(first));
            if by_snapshot {
                if self.repair_by_snapshot(damage).await? {
                    return Ok(());
                }
            } else if let Some(source) = self.source(first, damage.synced_index) {
                // What a leader does not have was never agreed on.
                first = first.min(source.last + 1);
                match self.repair_from(&source, first).await? {
                    Outcome::Repaired => return Ok(()),
                    Outcome::StepBack => {
                        // What Raft may not ask for any more is committed, here as there.
                        first = first.saturating_sub(STEP_BACK).max(self.first_entry());
                        continue;
                    }
                    Outcome::Failed => {}
                }
            }
            tokio::time::sleep(RETRY_PAUSE).await;
        }
    }

    /// The first entry that is asked for where `first` is the first that is missing: one before it shows whether theirs
    /// continue ours. Not where ours is committed: then it is theirs too, and they may have dropped it.
    fn compared(&self, first: u64) -> u64 {
        let committed = self.state.applied_index().map_or(0, |index| index + 1);
        match first <= self.first_entry().max(committed) {
            true => first,
            false => first - 1,
        }
    }

    /// A peer that has committed all that we ever promised, and still has its entries.
    fn helper(&self, from: u64, synced: u64) -> Option<Acquaintance> {
        self.any_peer(|status| {
            status.has_entries && status.applied >= synced && status.dropped <= from
        })
    }

    /// Who gives back what is missing: somebody who has committed all of it, or else a leader, who has whatever of it can
    /// still be committed.
    fn source(&self, first: u64, synced: u64) -> Option<Source> {
        let from = self.compared(first);
        if let Some(peer) = self.helper(from, synced) {
            return Some(Source {
                peer,
                last: synced,
                leader_term: None,
            });
        }
        let (peer, last) = self.leader()?;
        (peer.status.dropped <= from).then(|| Source {
            last: last.index.min(synced),
            leader_term: Some(peer.status.term),
            peer,
        })
    }

    async fn repair_from(&self, source: &Source, first: u64) -> Result<Outcome, RaftError> {
        let peer = &source.peer;
        let from = self.compared(first);
        // Nothing may be missing: what the leader has ends where ours does.
        let mut entries = Vec::new();
        if from <= source.last {
            let (address, range) = (&peer.address, from..=source.last);
            let fetched = self.fetcher.fetch(address, range, source.leader_term).await;
            entries = match fetched {
                Ok(entries) => entries,
                Err(error) => {
                    log_failure(peer, &error);
                    return Ok(Outcome::Failed);
                }
            };
            if from < first && !self.is_ours(&entries[0]).await? {
                return Ok(Outcome::StepBack);
            }
        }
        let entries: Vec<Entry> = entries
            .into_iter()
            .filter(|entry| entry.index >= first)
            .collect();
        let count = entries.len() as u64;
        self.log.reset_from(first, entries).await?;
        Counters::add(&self.state.counters.entries_repaired, count);
        tracing::info!(first, count, peer = peer.address, "log was repaired");
        Ok(Outcome::Repaired)
    }

    async fn is_ours(&self, entry: &Entry) -> Result<bool, RaftError> {
        match self.log.entry(entry.index).await {
            Ok(ours) => Ok(ours.term == entry.term),
            Err(error) if error.is_corruption() => Ok(false),
            Err(StoreError::OutOfRange { .. }) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }
}

/// Who gives back what is missing.
struct Source {
    peer: Acquaintance,
    /// The last entry that is missing.
    last: u64,
    /// The term that it leads in, if not all of it is committed.
    leader_term: Option<u64>,
}

enum Outcome {
    Repaired,
    /// The peer's entries do not continue ours: ours are of a leader that lost.
    StepBack,
    Failed,
}

fn log_failure(peer: &Acquaintance, error: &FetchError) {
    tracing::warn!(peer = peer.address, %error, "peer could not help");
}
