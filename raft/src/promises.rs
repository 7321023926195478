//! What peers have promised, as far as this replica has heard: kept on its disk.
//!
//! ```text
//! <data>/peers   magic "RMQPRM01" | for each peer: broker id, replica id, incarnation, term, end (u64 each)
//!                | crc32c u32 of what stands before
//! ```
//!
//! Little-endian, replaced whole. A data directory can be replaced by an older copy of itself, which knows nothing of
//! what it promised since. Its peers do: each remembers of each data directory the process that it heard last, the term
//! that it voted in, and an entry that it had synced and applied, and that therefore never leaves its log again. Who
//! comes back with less is refused, also by a peer that was itself started again.
//!
//! An entry is remembered a while after it was heard of: by then the other's own note of what it synced is durable, so
//! that it knows of damage behind it, and is not taken for a copy. Losing this file loses a safeguard, no promise.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use host::{Host, Mutant, mutant};
use proto::raft as wire;
use tokio::time::Instant;

use crate::error::RaftError;
use crate::incarnation::starts_of;
use crate::small_file::{failed, replace};

const MAGIC: &[u8; 8] = b"RMQPRM01";
const FILE_NAME: &str = "peers";

/// One peer's part of the file.
const PEER_BYTES: usize = 40;

/// Longest file that is read: more peers than a group ever has.
const FILE_BYTES_MAX: usize = 8 + 256 * PEER_BYTES + 4;

/// Time until an entry that a peer says to have is held against it. The note of what was synced is itself synced after a second.
const REMEMBER_AFTER: Duration = Duration::from_secs(5);

/// What a data directory has promised, at least.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Promise {
    pub(crate) replica_id: u64,
    /// The process that said so.
    pub(crate) incarnation: u64,
    /// It voted in this term.
    pub(crate) term: u64,
    /// The index after an entry that it has.
    pub(crate) end: u64,
}

impl Promise {
    pub(crate) fn to_wire(self) -> wire::Promise {
        wire::Promise {
            replica_id: self.replica_id,
            incarnation: self.incarnation,
            term: self.term,
            end: self.end,
        }
    }

    pub(crate) fn from_wire(promise: &wire::Promise) -> Promise {
        Promise {
            replica_id: promise.replica_id,
            incarnation: promise.incarnation,
            term: promise.term,
            end: promise.end,
        }
    }

    /// Why `started`, what a process held when it started, cannot come after this; none if it can.
    pub(crate) fn contradiction(&self, started: &Promise) -> Option<String> {
        let same = self.replica_id == started.replica_id;
        // Mutant: whoever comes is believed.
        if !same
            || self.incarnation == started.incarnation
            || mutant::is(Mutant::RolledBackReplicaBelieved)
        {
            return None;
        }
        let (known, starts) = (starts_of(self.incarnation), starts_of(started.incarnation));
        if starts < known {
            return Some(format!("it was started {known} times, and says {starts}"));
        }
        if started.term < self.term {
            let (known, term) = (self.term, started.term);
            return Some(format!("it voted in term {known}, and knows of {term}"));
        }
        if started.end < self.end {
            let (known, end) = (self.end, started.end);
            return Some(format!("it had synced {known} entries, and has {end}"));
        }
        None
    }
}

/// An entry that a peer said to have.
#[derive(Clone, Copy, Debug)]
struct Sample {
    incarnation: u64,
    end: u64,
    at: Instant,
}

/// What peers have promised, by broker id.
#[derive(Debug, Default)]
pub(crate) struct Promises {
    known: BTreeMap<u64, Promise>,
    samples: BTreeMap<u64, Sample>,
    changed: bool,
}

impl Promises {
    pub(crate) fn of(&self, broker_id: u64) -> Option<Promise> {
        self.known.get(&broker_id).copied()
    }

    /// The index after the last entry that each is known to have, by broker id.
    pub(crate) fn ends(&self) -> BTreeMap<u64, u64> {
        let ends = self.known.iter();
        ends.map(|(broker_id, promise)| (*broker_id, promise.end))
            .collect()
    }

    /// Hears what a member says of itself.
    pub(crate) fn note(&mut self, broker_id: u64, heard: Promise, now: Instant) {
        let before = self.of(broker_id);
        let before = before.filter(|before| before.replica_id == heard.replica_id);
        if before.is_some_and(|before| before.contradiction(&heard).is_some()) {
            return;
        }
        let sample = self.samples.get(&broker_id).copied();
        let sample = sample.filter(|sample| sample.incarnation == heard.incarnation);
        let old =
            sample.filter(|sample| now.saturating_duration_since(sample.at) >= REMEMBER_AFTER);
        if sample.is_none() || old.is_some() {
            let sample = Sample {
                incarnation: heard.incarnation,
                end: heard.end,
                at: now,
            };
            self.samples.insert(broker_id, sample);
        }
        let before = before.unwrap_or_default();
        let promise = Promise {
            term: before.term.max(heard.term),
            end: before.end.max(old.map_or(0, |sample| sample.end)),
            ..heard
        };
        self.changed |= self.known.insert(broker_id, promise) != Some(promise);
    }

    /// Forgets who is no member any more.
    pub(crate) fn keep(&mut self, is_member: impl Fn(u64) -> bool) {
        let before = self.known.len();
        self.known.retain(|broker_id, _| is_member(*broker_id));
        self.samples.retain(|broker_id, _| is_member(*broker_id));
        self.changed |= self.known.len() != before;
    }

    /// What was taken last was not kept: there is something to keep still.
    pub(crate) fn keep_later(&mut self) {
        self.changed = true;
    }

    /// The file's bytes, if it says something else than is known now.
    pub(crate) fn take_changes(&mut self) -> Option<Vec<u8>> {
        std::mem::take(&mut self.changed).then(|| encode(&self.known))
    }

    /// What is remembered in `dir`. A file that cannot be read says nothing.
    pub(crate) fn load(host: &Host, dir: &Path) -> Result<Promises, RaftError> {
        let path = dir.join(FILE_NAME);
        if !host.disk.exists(&path) {
            return Ok(Promises::default());
        }
        let file = host.disk.open(&path).map_err(failed("open", &path))?;
        let mut bytes = vec![0; FILE_BYTES_MAX];
        let read = file.read_at(0, &mut bytes);
        let known = read.ok().and_then(|count| decode(&bytes[..count]));
        if known.is_none() {
            tracing::error!(path = %path.display(), "cannot read what peers had promised; it is learned again");
        }
        Ok(Promises {
            known: known.unwrap_or_default(),
            ..Promises::default()
        })
    }

    /// Replaces the file.
    pub(crate) async fn save(host: &Host, dir: &Path, bytes: Vec<u8>) -> Result<(), RaftError> {
        replace(host, dir, FILE_NAME, bytes).await
    }
}

fn encode(known: &BTreeMap<u64, Promise>) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(MAGIC.len() + known.len() * PEER_BYTES + 4);
    bytes.extend_from_slice(MAGIC);
    for (broker_id, promise) in known {
        let Promise {
            replica_id,
            incarnation,
            term,
            end,
        } = *promise;
        for number in [*broker_id, replica_id, incarnation, term, end] {
            bytes.extend_from_slice(&number.to_le_bytes());
        }
    }
    bytes.extend_from_slice(&crc32c::crc32c(&bytes).to_le_bytes());
    bytes
}

fn decode(bytes: &[u8]) -> Option<BTreeMap<u64, Promise>> {
    let (front, checksum) = bytes.split_last_chunk::<4>()?;
    let peers = front.strip_prefix(MAGIC)?;
    if crc32c::crc32c(front).to_le_bytes() != *checksum || peers.len() % PEER_BYTES != 0 {
        return None;
    }
    let number = |peer: &[u8], place: usize| {
        let bytes = peer[8 * place..8 * place + 8].try_into();
        u64::from_le_bytes(bytes.expect("eight bytes of forty"))
    };
    let promise = |peer: &[u8]| {
        let promise = Promise {
            replica_id: number(peer, 1),
            incarnation: number(peer, 2),
            term: number(peer, 3),
            end: number(peer, 4),
        };
        (number(peer, 0), promise)
    };
    Some(peers.chunks_exact(PEER_BYTES).map(promise).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn promise(starts: u64, random: u64, term: u64, end: u64) -> Promise {
        Promise {
            replica_id: 22,
            incarnation: starts << 32 | random,
            term,
            end,
        }
    }

    /// Catches an older copy that is believed, and a restart that is taken for one.
    #[test]
    fn who_comes_back_with_less_is_an_older_copy() {
        let known = promise(5, 1, 7, 100);
        let believed = |started| known.contradiction(&started).is_none();
        assert!(believed(promise(6, 2, 7, 100)), "a restart");
        assert!(believed(promise(9, 2, 8, 300)), "later restarts");
        assert!(
            believed(promise(5, 1, 6, 50)),
            "the same process, as it started"
        );
        assert!(!believed(promise(4, 2, 7, 100)), "an earlier start");
        assert!(!believed(promise(6, 2, 6, 100)), "a forgotten vote");
        assert!(!believed(promise(6, 2, 7, 99)), "a forgotten entry");
        assert!(!believed(promise(5, 2, 7, 99)), "as many starts, and less");
        let other = Promise {
            replica_id: 33,
            ..promise(1, 1, 0, 0)
        };
        assert!(believed(other), "another data directory");
    }

    /// Catches an entry that is held against a replica which does not know itself yet that it had synced it, and one
    /// that is never remembered.
    #[test]
    fn what_was_synced_is_remembered_after_a_while() {
        let mut promises = Promises::default();
        let mut now = Instant::now();
        let mut end = 10;
        for _ in 0..20 {
            promises.note(2, promise(5, 1, 7, end), now);
            now += Duration::from_secs(1);
            end += 10;
        }
        let known = promises.of(2).unwrap();
        let (first, last) = (end - 10 - 10 * 12, end - 10 - 10 * 5);
        assert!((first..=last).contains(&known.end), "{known:?} at {end}");
        // What was heard of the process before is not said of the next one.
        promises.note(2, promise(6, 1, 7, known.end), now);
        now += 2 * REMEMBER_AFTER;
        promises.note(2, promise(6, 1, 8, known.end), now);
        assert_eq!(promises.of(2), Some(promise(6, 1, 8, known.end)));
    }

    /// Catches a file that is not read as it was written, garbage that is believed, and a replica that does not start for it.
    #[tokio::test]
    async fn the_file_is_read_as_it_was_written() {
        let host = Host::real();
        let dir = tempfile::tempdir().unwrap();
        let mut promises = Promises::default();
        promises.note(2, promise(5, 1, 7, 0), Instant::now());
        promises.note(3, promise(1, 9, 7, 0), Instant::now());
        let bytes = promises.take_changes().unwrap();
        assert_eq!(promises.take_changes(), None);
        Promises::save(&host, dir.path(), bytes.clone())
            .await
            .unwrap();
        let loaded = Promises::load(&host, dir.path()).unwrap();
        assert_eq!(loaded.known, promises.known);
        for at in 0..bytes.len() {
            assert_eq!(decode(&bytes[..at]), None);
            let mut garbage = bytes.clone();
            garbage[at] ^= 1;
            assert_eq!(decode(&garbage), None);
        }
        Promises::save(&host, dir.path(), vec![1; 50])
            .await
            .unwrap();
        assert!(Promises::load(&host, dir.path()).unwrap().known.is_empty());
    }
}
