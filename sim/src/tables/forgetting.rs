//! What brokers remember for a while only, and forget: by the rows that they remove from their tables.
//!
//! Judges nothing. It is for a sweep that would not notice that nothing is ever forgotten in it.

use store::table::{Kind, clock};
use store::{Batch, Kv, Operation};

use crate::effect::Effect;

/// What goes with this batch, and why: what is `window_ms` old is old enough, and of what is younger only message ids go, for
/// want of room. (Settled state of topics and groups that are deleted, or set back, is none of it.)
pub(super) fn with(batch: &Batch, kv: &dyn Kv, window_ms: u64) -> Vec<Effect> {
    let deleted = |operation| match operation {
        Operation::Delete { key } => stamped(key).map(|stamp| (key, stamp)),
        _ => None,
    };
    let mut deleted = batch.iter().filter_map(deleted).peekable();
    if deleted.peek().is_none() {
        return Vec::new();
    }
    let passed_ms = passed(batch, kv);
    let forgets = |(key, stamp): (&[u8], Stamp)| {
        // One that was made by the same batch.
        let value = kv.get(key).ok().flatten()?;
        let stored_ms = number(value.get(stamp.at..)?)?;
        let is_old = passed_ms.saturating_sub(stored_ms) >= window_ms;
        match (stamp.kind, is_old) {
            (Kind::Dedup, true) => Some(Effect::MessageIdsExpired),
            (Kind::Dedup, false) => Some(Effect::MessageIdsCrowdedOut),
            (_, true) => Some(Effect::SettledExpired),
            (_, false) => None,
        }
    };
    deleted.filter_map(forgets).collect()
}

/// Where a row says how much time had passed along the log.
struct Stamp {
    kind: Kind,
    at: usize,
}

/// Of the rows that are there for a while only.
fn stamped(key: &[u8]) -> Option<Stamp> {
    let kind = key.first().copied().and_then(Kind::from_tag)?;
    match kind {
        Kind::Dedup => Some(Stamp { kind, at: 0 }),
        Kind::Settled => Some(Stamp { kind, at: 4 }),
        _ => None,
    }
}

/// How much time has passed along the log once the batch is written.
fn passed(batch: &Batch, kv: &dyn Kv) -> u64 {
    let told = batch.iter().filter_map(|operation| match operation {
        Operation::Put { key, value } if key == [Kind::Clock.tag()] => number(value.get(16..)?),
        _ => None,
    });
    let before = || clock::get(kv).unwrap_or_default().passed_ms;
    told.last().unwrap_or_else(before)
}

fn number(bytes: &[u8]) -> Option<u64> {
    let bytes = bytes.first_chunk::<8>()?;
    Some(u64::from_be_bytes(*bytes))
}
