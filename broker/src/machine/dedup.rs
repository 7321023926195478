//! Recognises messages that were stored before, for as long as a client may send them again.
//!
//! What is recognised is that very message: its id, and a digest of what it says. Another message under a known id is
//! stored. Two kinds of senders:
//!
//! - **Sequenced** ones, our SDK's: the upper half of an id is a sender, the lower one counts its messages, and of those
//!   that go to one queue none is sent before the one before it was settled. So what counts is the newest of each queue: what
//!   is not newer was decided. What the last command stored of a sender is enough to answer whoever still waits, at any speed.
//! - **Clients**, all others: each message is remembered on its own.
//!
//! What is remembered is bounded by time and by bytes; both bounds come with the entry, so that every replica forgets the
//! same at the same entry. The time is what has passed along the log, not what a clock says. When there is too much, the
//! one who takes most forgets his oldest ([`shares`]): nobody loses what he needs to somebody else's traffic. Ids of one
//! topic are known in all of its queues: a client that tries again may choose another queue.

mod owned;
mod sequences;
mod shares;

use std::collections::BTreeMap;

use proto::QueueId;
use store::table::dedup::{self, Owner, Row, RowKey, Run};
use store::{Batch, StoreError};

use self::owned::Owned;
use self::sequences::Spot;
use self::shares::Shares;
use super::entry::Place;
use super::limits::DEDUP_BYTES_MAX;

/// What is remembered.
#[derive(Default)]
pub(crate) struct Dedup {
    owners: BTreeMap<OwnerKey, Owned>,
    /// Messages of clients, by topic, id and digest.
    spots: BTreeMap<(u64, u128, u64), Spot>,
    /// All rows in log order, with their time.
    order: BTreeMap<(RowNumber, OwnerKey), u64>,
    shares: Shares,
    noted: Noted,
}

/// A topic, and whose messages.
pub(super) type OwnerKey = (u64, Owner);

/// What made a row: the entry, and the command in it.
type RowNumber = (u64, u32);

/// Messages that one sender sent to one queue under ids that follow each other.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sent<'a> {
    pub(super) topic_id: u64,
    pub(super) queue: QueueId,
    pub(super) owner: Owner,
    pub(super) first: u128,
    /// What each says; as many as there are messages.
    pub(super) digests: &'a [u64],
}

/// What is known of the first ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Found {
    /// The first `count` were stored before.
    Known {
        /// How many.
        count: usize,
        /// In this queue.
        queue: QueueId,
        /// Offset of the first.
        first_offset: u64,
    },
    /// The first `count` are new.
    New {
        /// How many.
        count: usize,
        /// Who pays for remembering them.
        owner: Owner,
    },
    /// Later ones of the same sequenced sender were stored in this queue, and whether the first one was, nobody knows.
    TooLate,
}

/// What operators want to know. Of this process, and not replicated.
#[derive(Debug, Default, Clone, Copy)]
struct Noted {
    window_ms: u64,
    /// Stamp of the youngest row that had to go before its time; and of the youngest that was all of a sequenced sender.
    crowded_out_ms: Option<u64>,
    sender_crowded_out_ms: Option<u64>,
    repeated: u64,
    too_late: u64,
    different: u64,
}

/// How well repetitions are recognised at the moment.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) struct DedupStatus {
    /// About what it takes in memory.
    pub(crate) bytes: u64,
    /// Sequenced senders that are remembered: one for each producer of the SDK and queue that it sends to.
    pub(crate) senders: u64,
    /// What was stored in so many milliseconds is remembered one by one.
    pub(crate) window_ms: u64,
    /// Sequenced senders that stored anything in so many milliseconds are remembered.
    pub(crate) sender_window_ms: u64,
    /// Messages that were recognised, since this process started.
    pub(crate) repeated: u64,
    /// Messages that were stored although their id was known: they said something else.
    pub(crate) different: u64,
    /// Messages that were refused because later ones of their sender were stored.
    pub(crate) too_late: u64,
}

impl Dedup {
    /// Looks at messages and tells about the first of them.
    pub(super) fn find(&mut self, sent: Sent<'_>) -> Found {
        let found = match sent.owner {
            Owner::Sequenced(sender) => self.find_sequenced(sent, sender),
            Owner::Client(_) => self.find_of_client(sent),
        };
        match found {
            Found::Known { count, .. } => self.noted.repeated += count as u64,
            Found::TooLate => self.noted.too_late += 1,
            Found::New { owner, .. } if owner != sent.owner => self.noted.different += 1,
            Found::New {
                owner: Owner::Client(_),
                ..
            } if self.knows_id(sent.topic_id, sent.first) => self.noted.different += 1,
            Found::New { .. } => {}
        }
        found
    }

    fn find_sequenced(&self, sent: Sent<'_>, sender: u64) -> Found {
        let count = sent.digests.len();
        let new = |count| Found::New {
            count,
            owner: sent.owner,
        };
        let Some(owned) = self.owners.get(&(sent.topic_id, sent.owner)) else {
            return new(count);
        };
        let sequence = sent.first as u64;
        if owned.highest() < Some(sequence) {
            return new(count);
        }
        if let Some((spot, stored)) = owned.find(sequence) {
            let same = stored.iter().zip(sent.digests);
            let same = same.take_while(|(stored, sent)| stored == sent).count();
            if same > 0 {
                return known(same, spot);
            }
            // Another message under a known id: a sender that was copied, with its machine. It is remembered beside.
            return self.find_spot(sent).unwrap_or(Found::New {
                count: 1,
                owner: Owner::Client(sender),
            });
        }
        if let Some(found) = self.find_spot(sent) {
            return found;
        }
        if owned.highest_of(sent.queue) >= Some(sequence) {
            return Found::TooLate;
        }
        let next = owned.next_after(sequence);
        let until_next = next.map_or(u64::MAX, |next| next - sequence);
        new(count.min(usize::try_from(until_next).unwrap_or(usize::MAX)))
    }

    fn find_of_client(&self, sent: Sent<'_>) -> Found {
        if let Some(found) = self.find_spot(sent) {
            return found;
        }
        // Who sends again under the id of a send whose outcome he was not told does not count any more.
        let sender = Owner::Sequenced((sent.first >> 64) as u64);
        let owned = self.owners.get(&(sent.topic_id, sender));
        let found = owned.and_then(|owned| owned.find(sent.first as u64));
        match found {
            Some((spot, stored)) if stored.first() == sent.digests.first() => known(1, spot),
            _ => Found::New {
                count: 1,
                owner: sent.owner,
            },
        }
    }

    /// Whether any message with this id was stored as a client's.
    fn knows_id(&self, topic_id: u64, id: u128) -> bool {
        let any = (topic_id, id, 0)..=(topic_id, id, u64::MAX);
        self.spots.range(any).next().is_some()
    }

    /// The first one, if it was stored as a client's.
    fn find_spot(&self, sent: Sent<'_>) -> Option<Found> {
        let digest = *sent.digests.first()?;
        let spot = self.spots.get(&(sent.topic_id, sent.first, digest))?;
        Some(known(1, *spot))
    }

    /// Remembers messages that [`Dedup::find`] called new, at the expense of whom it named. The rows are written by
    /// [`Dedup::write`].
    pub(super) fn remember(&mut self, place: Place, sent: Sent<'_>, first_offset: u64) {
        let key = (sent.topic_id, sent.owner);
        let number = (place.log_index, place.command);
        let run = Run {
            first: sent.first,
            count: sent.digests.len() as u32,
            first_offset,
        };
        let owned = self.owners.entry(key).or_default();
        if owned.newest() != Some(number) {
            owned.begin(number, place.passed_ms, sent.queue);
            self.order.insert((number, key), place.passed_ms);
        }
        self.add(key, sent.queue, run, sent.digests);
        self.weigh(key);
    }

    /// Writes the row that a command made of an owner.
    pub(super) fn write(&self, place: Place, key: OwnerKey, batch: &mut Batch) {
        let number = (place.log_index, place.command);
        let owned = self.owners.get(&key);
        if let Some(row) = owned.and_then(|owned| owned.row(number)) {
            dedup::put(batch, row_key(key, number), row);
        }
    }

    /// Loads a row; an owner's rows come in log order.
    pub(super) fn load(&mut self, key: RowKey, row: Row) -> Result<(), StoreError> {
        let owner = (key.topic_id, key.owner);
        let number = (key.log_index, key.command);
        let owned = self.owners.entry(owner).or_default();
        owned.begin(number, row.passed_ms, row.queue);
        self.order.insert((number, owner), row.passed_ms);
        let mut digests = &row.digests[..];
        for run in &row.runs {
            let (of_run, rest) = digests.split_at(run.count as usize);
            digests = rest;
            if !is_of(key.owner, run) {
                return Err(dedup::corrupt("a run that is not of its sender"));
            }
            self.add(owner, row.queue, *run, of_run);
        }
        self.weigh(owner);
        Ok(())
    }

    /// Forgets the rows that are older than `window_ms` when `passed_ms` have passed, and what is too much for
    /// `bytes_max`. A bound of 0 does not bound.
    pub(super) fn expire(
        &mut self,
        passed_ms: u64,
        window_ms: u64,
        bytes_max: u64,
        batch: &mut Batch,
    ) {
        self.noted.window_ms = window_ms;
        while let Some((&(number, key), &stored_ms)) = self.order.first_key_value()
            && window_ms > 0
            && stored_ms.saturating_add(window_ms) < passed_ms
        {
            self.forget(key, number, batch);
        }
        let bytes_max = match bytes_max {
            0 => DEDUP_BYTES_MAX,
            bytes_max => bytes_max.min(DEDUP_BYTES_MAX),
        };
        while let Some(key) = self.shares.too_much(bytes_max) {
            self.crowd_out(key, batch);
        }
    }

    /// An owner takes too much: it forgets its oldest row. A sequenced sender that has only what it needs is forgotten as a
    /// whole.
    fn crowd_out(&mut self, key: OwnerKey, batch: &mut Batch) {
        let owned = self.owners.get(&key);
        let spare = owned.and_then(|owned| owned.oldest_to_spare(key.1));
        if let Some(number) = spare {
            let stored_ms = self.forget(key, number, batch);
            self.noted.crowded_out_ms = self.noted.crowded_out_ms.max(stored_ms);
            return;
        }
        while let Some(number) = self.owners.get(&key).and_then(Owned::oldest) {
            let stored_ms = self.forget(key, number, batch);
            self.noted.crowded_out_ms = self.noted.crowded_out_ms.max(stored_ms);
            self.noted.sender_crowded_out_ms = self.noted.sender_crowded_out_ms.max(stored_ms);
        }
    }

    /// How well it works, when `passed_ms` have passed.
    pub(crate) fn status(&self, passed_ms: u64) -> DedupStatus {
        let noted = &self.noted;
        let since = |stamp: Option<u64>| match stamp {
            Some(stamp) => passed_ms.saturating_sub(stamp).min(noted.window_ms),
            None => noted.window_ms,
        };
        let senders = self.owners.keys();
        let senders = senders.filter(|(_, owner)| matches!(owner, Owner::Sequenced(_)));
        DedupStatus {
            bytes: self.shares.total(),
            senders: senders.count() as u64,
            window_ms: since(noted.crowded_out_ms),
            sender_window_ms: since(noted.sender_crowded_out_ms),
            repeated: noted.repeated,
            different: noted.different,
            too_late: noted.too_late,
        }
    }

    /// Forgets a row; its stamp.
    fn forget(&mut self, key: OwnerKey, number: RowNumber, batch: &mut Batch) -> Option<u64> {
        self.order.remove(&(number, key));
        dedup::delete(batch, row_key(key, number));
        let row = self.owners.get_mut(&key)?.forget(key.1, number)?;
        if let Owner::Client(_) = key.1 {
            let ids = row.runs.iter().flat_map(ids);
            for ((id, _), digest) in ids.zip(&row.digests) {
                self.spots.remove(&(key.0, id, *digest));
            }
        }
        self.weigh(key);
        Some(row.passed_ms)
    }

    /// Adds messages to an owner's newest row.
    fn add(&mut self, key: OwnerKey, queue: QueueId, run: Run, digests: &[u64]) {
        let (topic_id, owner) = key;
        if let Owner::Client(_) = owner {
            for ((id, offset), digest) in ids(&run).zip(digests) {
                let spot = Spot { queue, offset };
                self.spots.insert((topic_id, id, *digest), spot);
            }
        }
        let owned = self.owners.get_mut(&key).expect("a row was begun");
        owned.add(owner, queue, run, digests);
    }

    /// Counts what an owner takes now; one without rows goes.
    fn weigh(&mut self, key: OwnerKey) {
        let Some(owned) = self.owners.get_mut(&key) else {
            return;
        };
        let (before, after) = owned.weigh();
        self.shares.change(key, before, after);
        if after == 0 {
            self.owners.remove(&key);
        }
    }
}

fn known(count: usize, spot: Spot) -> Found {
    Found::Known {
        count,
        queue: spot.queue,
        first_offset: spot.offset,
    }
}

/// The ids of a run, with their offsets.
fn ids(run: &Run) -> impl Iterator<Item = (u128, u64)> + use<> {
    let run = *run;
    (0..u64::from(run.count)).map(move |n| (run.first + u128::from(n), run.first_offset + n))
}

/// Whether ids can be those of an owner.
pub(super) fn is_of(owner: Owner, run: &Run) -> bool {
    let last = run.first + u128::from(run.count.saturating_sub(1));
    let half = |id: u128| (id >> 64) as u64;
    match owner {
        Owner::Sequenced(sender) => half(run.first) == sender && half(last) == sender,
        Owner::Client(_) => true,
    }
}

fn row_key((topic_id, owner): OwnerKey, (log_index, command): RowNumber) -> RowKey {
    RowKey {
        topic_id,
        owner,
        log_index,
        command,
    }
}
