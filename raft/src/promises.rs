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
//! A machine can be put back together with its memory: then the very same process says less than it said before, and is
//! refused from then on. That cannot be a late answer: a peer is asked again only after it has answered or was given up.
//!
//! An entry is remembered a while after it was heard of, so that this file is written seldom. The other's own note of what it
//! synced is durable before it tells, so that it knows of damage behind it, and is not taken for a copy. Losing this file
//! loses a safeguard, no promise.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use host::Host;
use proto::raft as wire;
use tokio::time::Instant;

use crate::error::RaftError;
use crate::incarnation::starts_of;
use crate::small_file::{self, replace, seal, unseal};

const MAGIC: &[u8; 8] = b"RMQPRM01";
const FILE_NAME: &str = "peers";

/// One peer's part of the file.
const PEER_BYTES: usize = 40;

/// Longest file that is read: more peers than a group ever has.
const FILE_BYTES_MAX: usize = 8 + 256 * PEER_BYTES + 4;

/// Time between the entries of a peer that are remembered; each is, when the next one is heard of after that time.
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
        if !same || self.incarnation == started.incarnation {
            return None;
        }
        let (known, starts) = (starts_of(self.incarnation), starts_of(started.incarnation));
        if starts < known {
            return Some(format!("it was started {known} times, and says {starts}"));
        }
        started.less_than((self.term, self.end))
    }

    /// What of a term voted in, and of an end, this does not hold.
    fn less_than(&self, (term, end): (u64, u64)) -> Option<String> {
        if self.term < term {
            return Some(format!(
                "it voted in term {term}, and knows of {}",
                self.term
            ));
        }
        if self.end < end {
            return Some(format!("it had synced {end} entries, and has {}", self.end));
        }
        None
    }
}

/// What a peer says of itself while it runs. Nothing, where an earlier version does not say.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Heard {
    pub(crate) replica_id: u64,
    pub(crate) incarnation: u64,
    pub(crate) term: Option<u64>,
    pub(crate) end: Option<u64>,
}

/// An entry that a peer said to have.
#[derive(Clone, Copy, Debug)]
struct Sample {
    incarnation: u64,
    end: u64,
    at: Instant,
    /// The highest term and end that the process ever told us.
    told: (u64, u64),
}

/// What peers have promised, by broker id.
#[derive(Debug, Default)]
pub(crate) struct Promises {
    known: BTreeMap<u64, Promise>,
    samples: BTreeMap<u64, Sample>,
    /// Processes that said less than they had said before, by broker id, and what.
    rolled_back: BTreeMap<u64, (u64, String)>,
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

    /// Why a process that runs is an older copy of what it was itself.
    pub(crate) fn rolled_back(&self, broker_id: u64, incarnation: u64) -> Option<String> {
        let (process, reason) = self.rolled_back.get(&broker_id)?;
        (*process == incarnation).then(|| reason.clone())
    }

    /// Hears what a member says of itself. Must be told its answers in the order in which it gave them.
    pub(crate) fn note(&mut self, broker_id: u64, heard: Heard, now: Instant) {
        let before = self.of(broker_id);
        let before = before.filter(|before| before.replica_id == heard.replica_id);
        let says = Promise {
            replica_id: heard.replica_id,
            incarnation: heard.incarnation,
            term: heard.term.unwrap_or(u64::MAX),
            end: heard.end.unwrap_or(u64::MAX),
        };
        if before.is_some_and(|before| before.contradiction(&says).is_some()) {
            return;
        }
        let before = before.unwrap_or_default();
        let sample = self.samples.get(&broker_id).copied();
        let sample = sample.filter(|sample| sample.incarnation == heard.incarnation);
        let told = sample.map_or((0, 0), |sample| sample.told);
        if let Some(reason) = says.less_than(told) {
            self.set_back(broker_id, says, told, reason);
            return;
        }
        let told = (
            told.0.max(heard.term.unwrap_or(0)),
            told.1.max(heard.end.unwrap_or(0)),
        );
        let old =
            sample.filter(|sample| now.saturating_duration_since(sample.at) >= REMEMBER_AFTER);
        let next = Sample {
            incarnation: heard.incarnation,
            end: told.1,
            at: now,
            told,
        };
        let next = match (sample, old) {
            (Some(sample), None) => Sample { told, ..sample },
            _ => next,
        };
        self.samples.insert(broker_id, next);
        let promise = Promise {
            term: before.term.max(told.0),
            end: before.end.max(old.map_or(0, |sample| sample.end)),
            ..says
        };
        self.changed |= self.known.insert(broker_id, promise) != Some(promise);
    }

    /// The process goes on, and knows less than it told: neither it nor its next start is believed.
    fn set_back(&mut self, broker_id: u64, says: Promise, told: (u64, u64), reason: String) {
        if self.rolled_back(broker_id, says.incarnation).is_none() {
            tracing::error!(broker_id, reason, "a peer is an older copy of what it was");
        }
        self.rolled_back
            .insert(broker_id, (says.incarnation, reason));
        let before = self.of(broker_id).unwrap_or_default();
        let promise = Promise {
            term: before.term.max(told.0),
            end: before.end.max(told.1),
            ..says
        };
        self.changed |= self.known.insert(broker_id, promise) != Some(promise);
    }

    /// Forgets who is no member any more.
    pub(crate) fn keep(&mut self, is_member: impl Fn(u64) -> bool) {
        let before = self.known.len();
        self.known.retain(|broker_id, _| is_member(*broker_id));
        self.samples.retain(|broker_id, _| is_member(*broker_id));
        self.rolled_back
            .retain(|broker_id, _| is_member(*broker_id));
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
    pub(crate) fn load(host: &Host, dir: &Path) -> Promises {
        let known = match small_file::read(host, dir, FILE_NAME, FILE_BYTES_MAX) {
            Ok(None) => return Promises::default(),
            Ok(Some(bytes)) => decode(&bytes).ok_or_else(|| "it is damaged".to_string()),
            Err(error) => Err(error.to_string()),
        };
        if let Err(reason) = &known {
            let path = dir.join(FILE_NAME);
            tracing::warn!(path = %path.display(), reason, "cannot read what peers had promised; it is learned again");
        }
        Promises {
            known: known.unwrap_or_default(),
            ..Promises::default()
        }
    }

    /// Replaces the file.
    pub(crate) async fn save(host: &Host, dir: &Path, bytes: Vec<u8>) -> Result<(), RaftError> {
        replace(host, dir, FILE_NAME, bytes).await
    }
}

fn encode(known: &BTreeMap<u64, Promise>) -> Vec<u8> {
    let mut body = Vec::with_capacity(known.len() * PEER_BYTES);
    for (broker_id, promise) in known {
        let Promise {
            replica_id,
            incarnation,
            term,
            end,
        } = *promise;
        for number in [*broker_id, replica_id, incarnation, term, end] {
            body.extend_from_slice(&number.to_le_bytes());
        }
    }
    seal(MAGIC, &body)
}

fn decode(bytes: &[u8]) -> Option<BTreeMap<u64, Promise>> {
    let peers = unseal(MAGIC, bytes)?;
    if peers.len() % PEER_BYTES != 0 {
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
    use std::io::ErrorKind;
    use std::sync::Arc;

    use host::testing::{CrashDisk, Fault, FaultyDisk, Operation};

    use super::*;

    fn promise(starts: u64, random: u64, term: u64, end: u64) -> Promise {
        Promise {
            replica_id: 22,
            incarnation: starts << 32 | random,
            term,
            end,
        }
    }

    fn heard(promise: Promise) -> Heard {
        Heard {
            replica_id: promise.replica_id,
            incarnation: promise.incarnation,
            term: Some(promise.term),
            end: Some(promise.end),
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
            promises.note(2, heard(promise(5, 1, 7, end)), now);
            now += Duration::from_secs(1);
            end += 10;
        }
        let known = promises.of(2).unwrap();
        let (first, last) = (end - 10 - 10 * 12, end - 10 - 10 * 5);
        assert!((first..=last).contains(&known.end), "{known:?} at {end}");
        // What was heard of the process before is not said of the next one.
        promises.note(2, heard(promise(6, 1, 7, known.end)), now);
        now += 2 * REMEMBER_AFTER;
        promises.note(2, heard(promise(6, 1, 8, known.end)), now);
        assert_eq!(promises.of(2), Some(promise(6, 1, 8, known.end)));
    }

    /// Catches a file that is not read as it was written, garbage that is believed, and a replica that does not start for it.
    #[tokio::test]
    async fn the_file_is_read_as_it_was_written() {
        let host = Host::real();
        let dir = tempfile::tempdir().unwrap();
        let mut promises = Promises::default();
        promises.note(2, heard(promise(5, 1, 7, 0)), Instant::now());
        promises.note(3, heard(promise(1, 9, 7, 0)), Instant::now());
        let bytes = promises.take_changes().unwrap();
        assert_eq!(promises.take_changes(), None);
        Promises::save(&host, dir.path(), bytes.clone())
            .await
            .unwrap();
        let loaded = Promises::load(&host, dir.path());
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
        assert!(Promises::load(&host, dir.path()).known.is_empty());
    }

    /// Catches a replica that does not start because the disk does not give back what it only learns again.
    #[tokio::test]
    async fn a_file_that_cannot_be_read_says_nothing() {
        for operation in [Operation::Open, Operation::Read] {
            let disk = FaultyDisk::new(Arc::new(CrashDisk::new()));
            let host = Host {
                disk: Arc::new(disk.handle()),
                ..Host::real()
            };
            let dir = Path::new("/");
            let mut promises = Promises::default();
            promises.note(2, heard(promise(5, 1, 7, 0)), Instant::now());
            let bytes = promises.take_changes().unwrap();
            Promises::save(&host, dir, bytes).await.unwrap();
            assert_eq!(Promises::load(&host, dir).known, promises.known);
            disk.inject(Fault::always(
                operation,
                FILE_NAME,
                ErrorKind::PermissionDenied,
            ));
            assert!(Promises::load(&host, dir).known.is_empty());
        }
    }

    /// Catches a machine that was put back with its memory and is believed, and a process that is refused although it never
    /// told what another one before it, or nobody, had told.
    #[test]
    fn a_process_that_says_less_than_before_is_refused() {
        let now = Instant::now();
        for (term, end) in [(7, 100), (6, 120)] {
            let mut promises = Promises::default();
            promises.note(2, heard(promise(5, 1, 6, 90)), now);
            promises.note(2, heard(promise(5, 1, 7, 120)), now);
            assert_eq!(
                promises.rolled_back(2, promise(5, 1, 0, 0).incarnation),
                None
            );
            promises.note(2, heard(promise(5, 1, term, end)), now);
            let same = promise(5, 1, 7, 120).incarnation;
            assert!(promises.rolled_back(2, same).is_some(), "{term} {end}");
            // And once it says as much again, of other entries.
            promises.note(2, heard(promise(5, 1, 9, 900)), now);
            assert!(promises.rolled_back(2, same).is_some());
            let known = promises.of(2).unwrap();
            assert!(known.contradiction(&promise(6, 2, term, end)).is_some());
        }
        let mut promises = Promises::default();
        promises.note(2, heard(promise(5, 1, 7, 100)), now);
        promises.note(2, heard(promise(5, 1, 7, 100)), now + 2 * REMEMBER_AFTER);
        // A repair after a start: what is applied and noted may be less than before.
        promises.note(2, heard(promise(6, 2, 7, 100)), now);
        let other = promise(6, 2, 0, 0).incarnation;
        assert_eq!(promises.rolled_back(2, other), None);
        // An earlier version says nothing of it.
        let silent = Heard {
            term: None,
            end: None,
            ..heard(promise(6, 2, 0, 0))
        };
        promises.note(2, silent, now);
        assert_eq!(promises.rolled_back(2, other), None);
        assert_eq!(promises.of(2), Some(promise(6, 2, 7, 100)));
    }
}
