//! Entries that were read lately, decoded.
//!
//! An entry may hold thousands of messages of which a reader takes a few at a time; without this,
//! every read would fetch and decode all of it again.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use prost::Message;
use proto::command::Entry;
use proto::command::command::Body;

/// Entries kept.
const ENTRIES_MAX: usize = 32;
/// Bytes of their bodies together; the last one read is kept whatever its size.
const BYTES_MAX: usize = 8 << 20;

/// The messages of one entry.
pub(crate) struct DecodedEntry {
    /// By command; none where a command holds no messages.
    commands: Vec<Option<Messages>>,
    bytes: usize,
}

/// The messages of one command.
struct Messages {
    bytes: Bytes,
    /// Where each message ends.
    ends: Box<[u32]>,
}

impl DecodedEntry {
    /// Reads an entry's body; none if it is not an entry, or its sizes do not fit.
    pub(crate) fn decode(body: Bytes) -> Option<DecodedEntry> {
        let bytes = body.len();
        let entry = Entry::decode(body).ok()?;
        let commands = entry
            .commands
            .into_iter()
            .map(|command| match command.body {
                Some(Body::Append(append)) => messages(&append.sizes_bytes, append.messages),
                Some(Body::Keep(keep)) => messages(&keep.sizes_bytes, keep.messages),
                _ => None,
            })
            .collect();
        Some(DecodedEntry { commands, bytes })
    }

    /// One message, a slice of the entry's own bytes.
    pub(crate) fn message(&self, command: u32, position: u32) -> Option<Bytes> {
        let messages = self.commands.get(command as usize)?.as_ref()?;
        let position = position as usize;
        let end = *messages.ends.get(position)? as usize;
        let start = match position.checked_sub(1) {
            Some(before) => messages.ends[before] as usize,
            None => 0,
        };
        Some(messages.bytes.slice(start..end))
    }
}

fn messages(sizes_bytes: &[u32], bytes: Bytes) -> Option<Messages> {
    let mut end = 0_u32;
    let ends = sizes_bytes
        .iter()
        .map(|size| {
            end = end.checked_add(*size)?;
            Some(end)
        })
        .collect::<Option<Box<[u32]>>>()?;
    (end as usize == bytes.len()).then_some(Messages { bytes, ends })
}

/// The cache; the entry used last is at the back.
#[derive(Default)]
pub(crate) struct EntryCache {
    kept: Mutex<Kept>,
}

#[derive(Default)]
struct Kept {
    entries: VecDeque<(u64, Arc<DecodedEntry>)>,
    bytes: usize,
}

impl EntryCache {
    /// The entry with this log index, if it is kept.
    pub(crate) fn get(&self, log_index: u64) -> Option<Arc<DecodedEntry>> {
        let mut kept = self.kept();
        let place = kept
            .entries
            .iter()
            .rposition(|(index, _)| *index == log_index)?;
        let found = kept.entries.remove(place)?;
        let entry = found.1.clone();
        kept.entries.push_back(found);
        Some(entry)
    }

    /// Keeps an entry, and lets go of those that were not used for the longest time.
    pub(crate) fn put(&self, log_index: u64, entry: Arc<DecodedEntry>) {
        let mut kept = self.kept();
        if kept.entries.iter().any(|(index, _)| *index == log_index) {
            return;
        }
        kept.bytes += entry.bytes;
        kept.entries.push_back((log_index, entry));
        while kept.entries.len() > ENTRIES_MAX || (kept.bytes > BYTES_MAX && kept.entries.len() > 1)
        {
            if let Some((_, oldest)) = kept.entries.pop_front() {
                kept.bytes -= oldest.bytes;
            }
        }
    }

    pub(crate) fn clear(&self) {
        *self.kept() = Kept::default();
    }

    /// What is kept is a copy of what is in the log: a panic in a holder does no harm.
    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use proto::command::{Append, Command};

    use super::*;

    fn entry(messages: &[&'static [u8]]) -> Bytes {
        let append = Append {
            sizes_bytes: messages
                .iter()
                .map(|message| message.len() as u32)
                .collect(),
            messages: Bytes::from(messages.concat()),
            ..Append::default()
        };
        let commands = vec![
            Command { body: None },
            Command {
                body: Some(Body::Append(append)),
            },
        ];
        Bytes::from(
            Entry {
                commands,
                ..Entry::default()
            }
            .encode_to_vec(),
        )
    }

    /// Would catch slices that are off by one message, and panics on places that do not exist.
    #[test]
    fn cuts_messages_where_they_end() {
        let decoded = DecodedEntry::decode(entry(&[b"one", b"", b"three"])).unwrap();
        let message = |position| decoded.message(1, position);
        assert_eq!(message(0).unwrap(), "one");
        assert_eq!(message(1).unwrap(), "");
        assert_eq!(message(2).unwrap(), "three");
        assert_eq!(message(3), None);
        assert_eq!(decoded.message(0, 0), None);
        assert_eq!(decoded.message(2, 0), None);
    }

    /// Would catch a cache that grows, that forgets what is in use, or that keeps no large entry.
    #[test]
    fn keeps_what_is_used_within_its_bounds() {
        let cache = EntryCache::default();
        let small = Arc::new(DecodedEntry {
            commands: Vec::new(),
            bytes: 1,
        });
        for log_index in 0..ENTRIES_MAX as u64 {
            cache.put(log_index, small.clone());
        }
        assert!(cache.get(0).is_some());
        cache.put(100, small);
        assert!(cache.get(1).is_none() && cache.get(0).is_some() && cache.get(100).is_some());
        let large = Arc::new(DecodedEntry {
            commands: Vec::new(),
            bytes: BYTES_MAX + 1,
        });
        cache.put(200, large);
        assert!(cache.get(200).is_some() && cache.get(100).is_none());
        assert_eq!(cache.kept().entries.len(), 1);
    }
}
