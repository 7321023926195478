//! One request's messages while they are being sent: encoded once, settled one by one.
//!
//! Retries send the same bytes under the same ids, in the same order, so that a broker that has stored one already
//! recognises it. Waits for nothing; `topic_sender` does the waiting.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use proto::v2::{Code, SendMessageResponse, SendResultEntry};
use tokio::time::Instant;

use crate::answer::Refusal;
use crate::encode::{Stamp, encode, size_hint};
use crate::error::Error;
use crate::message::Message;
use crate::producer::gatherer::Handed;
use crate::producer::send_handle::{Completion, SendReceipt};

/// A message that was handed over.
pub(super) struct Pending {
    pub(super) message: Message,
    pub(super) born_ms: u64,
    pub(super) completion: Completion,
}

/// See the module's text.
pub(super) struct Sending {
    topic: Arc<str>,
    entries: Vec<Entry>,
    /// All ids are this producer's own, and count. So it is for all attempts: brokers look for a repetition where they put
    /// the first one.
    sequenced: bool,
}

struct Entry {
    encoded: Bytes,
    /// What was encoded, where another queue would do as well.
    source: Option<(Message, u64)>,
    message_id: String,
    queue: u32,
    bytes: usize,
    deadline: Instant,
    /// Taken when the message is settled.
    completion: Option<Completion>,
}

impl Sending {
    /// Encodes a request's messages. `new_id` is asked, in order, for those that have none of their own. `movable`: they
    /// may be moved to another queue later.
    pub(super) fn encode(
        topic: Arc<str>,
        items: Vec<(u32, Handed<Pending>)>,
        movable: bool,
        mut new_id: impl FnMut(u32) -> String,
    ) -> Sending {
        let total = items
            .iter()
            .map(|(_, handed)| size_hint(&handed.item.message))
            .sum();
        let sequenced = items
            .iter()
            .all(|(_, handed)| handed.item.message.message_id.is_none());
        let mut buffer = BytesMut::with_capacity(total);
        let entries = items.into_iter().map(|(queue, handed)| {
            let Pending {
                mut message,
                born_ms,
                completion,
            } = handed.item;
            let message_id = message.message_id.take().unwrap_or_else(|| new_id(queue));
            let stamp = Stamp {
                message_id: &message_id,
                queue,
                born_ms,
            };
            Entry {
                encoded: encode(&mut buffer, &message, stamp),
                source: movable.then_some((message, born_ms)),
                message_id,
                queue,
                bytes: handed.bytes,
                deadline: handed.deadline,
                completion: Some(completion),
            }
        });
        Sending {
            topic,
            entries: entries.collect(),
            sequenced,
        }
    }

    /// Whether brokers may go by the order of the ids.
    pub(super) fn is_sequenced(&self) -> bool {
        self.sequenced
    }

    /// Nothing is left to be settled.
    pub(super) fn is_settled(&self) -> bool {
        self.entries.iter().all(|entry| entry.completion.is_none())
    }

    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    /// How many are not settled.
    pub(super) fn open_count(&self) -> usize {
        self.open().count()
    }

    /// Whether all that is left may go to another queue.
    pub(super) fn is_movable(&self) -> bool {
        self.open().all(|entry| entry.source.is_some())
    }

    /// Encodes what is left for another queue, under the same ids. Only for messages that were surely not stored: another
    /// broker group does not know what this one has.
    pub(super) fn move_to(&mut self, queue: u32) {
        let mut buffer = BytesMut::new();
        for entry in self.entries.iter_mut() {
            let Some((message, born_ms)) = &entry.source else {
                continue;
            };
            let stamp = Stamp {
                message_id: &entry.message_id,
                queue,
                born_ms: *born_ms,
            };
            entry.encoded = encode(&mut buffer, message, stamp);
            entry.queue = queue;
        }
    }

    /// What the next attempt sends: everything not settled. Positions in its answer are positions from here on.
    pub(super) fn messages(&mut self) -> Vec<Bytes> {
        self.entries.retain(|entry| entry.completion.is_some());
        self.entries
            .iter()
            .map(|entry| entry.encoded.clone())
            .collect()
    }

    /// When the first of those not settled is to be given up.
    pub(super) fn earliest_deadline(&self) -> Option<Instant> {
        self.open().map(|entry| entry.deadline).min()
    }

    /// When the last of those not settled is to be given up.
    pub(super) fn latest_deadline(&self) -> Option<Instant> {
        self.open().map(|entry| entry.deadline).max()
    }

    fn open(&self) -> impl Iterator<Item = &Entry> {
        self.entries
            .iter()
            .filter(|entry| entry.completion.is_some())
    }

    /// Settles what waits past its deadline, or everything if there is none; returns the settled messages' bytes.
    pub(super) fn give_up(
        &mut self,
        past: Option<Instant>,
        error: impl Fn(&str) -> Error,
    ) -> Vec<usize> {
        let mut settled = Vec::new();
        for entry in &mut self.entries {
            if past.is_none_or(|now| entry.deadline <= now) {
                settled.extend(entry.settle(|id| Err(error(&id))));
            }
        }
        settled
    }

    /// Settles by an answer: what was stored, and what is refused for good according to `keep`. `queues`: where the
    /// messages are, as far as that is not where they were sent to. Returns the settled messages' bytes, and the first
    /// refusal that is kept.
    pub(super) fn read(
        &mut self,
        answer: &SendMessageResponse,
        queues: &[u32],
        mut keep: impl FnMut(&Refusal) -> bool,
        error: impl Fn(&Refusal, &str) -> Error,
    ) -> (Vec<usize>, Option<Refusal>) {
        let (mut settled, mut kept) = (Vec::new(), None);
        let results = self.entries.iter_mut().zip(&answer.entries);
        for (position, (entry, result)) in results.enumerate() {
            match stored_at(result) {
                Ok(offset) => {
                    let topic = self.topic.clone();
                    let queue = queues.get(position).copied().unwrap_or(entry.queue);
                    settled.extend(entry.settle(|message_id| {
                        Ok(SendReceipt {
                            message_id,
                            topic,
                            queue,
                            offset,
                        })
                    }));
                }
                Err(refusal) if keep(&refusal) => {
                    kept.get_or_insert(refusal);
                }
                Err(refusal) => settled.extend(entry.settle(|id| Err(error(&refusal, &id)))),
            }
        }
        (settled, kept)
    }

    /// The second half, to be sent on its own after the first.
    pub(super) fn split(&mut self) -> Sending {
        let half = self.entries.split_off(self.entries.len().div_ceil(2));
        Sending {
            topic: self.topic.clone(),
            entries: half,
            sequenced: self.sequenced,
        }
    }
}

impl Entry {
    /// The message's bytes, if it was not settled before.
    fn settle(
        &mut self,
        outcome: impl FnOnce(String) -> Result<SendReceipt, Error>,
    ) -> Option<usize> {
        let completion = self.completion.take()?;
        // Nobody listening means that the sender does not care.
        let _ = completion.send(outcome(std::mem::take(&mut self.message_id)));
        Some(self.bytes)
    }
}

/// Whether a result says that its message is stored.
pub(super) fn is_stored(result: &SendResultEntry) -> bool {
    stored_at(result).is_ok()
}

fn stored_at(result: &SendResultEntry) -> Result<u64, Refusal> {
    let (code, reason) = result
        .status
        .as_ref()
        .map_or((0, ""), |status| (status.code, &status.message));
    if code != Code::Ok as i32 {
        return Err(Refusal::new(code, reason));
    }
    u64::try_from(result.offset).map_err(|_| Refusal::new(0, "a stored message has no offset"))
}
