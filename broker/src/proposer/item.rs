//! What an entry to be is made of: commands, and the messages that are appended to one queue.

use bytes::Bytes;
use proto::QueueId;
use proto::command::Command;

/// Messages for one queue, as their clients encoded them.
pub(crate) struct QueueSend {
    pub(crate) topic_id: u64,
    pub(crate) queue: QueueId,
    pub(crate) messages: Vec<Bytes>,
    /// By what each message is recognised.
    pub(crate) ids: Vec<MessageId>,
    /// Sum of the sizes of `messages`.
    pub(crate) bytes: usize,
}

/// By what a message is recognised when it is sent again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct MessageId {
    /// Number of its id (`model::id_number`).
    pub(crate) number: u128,
    /// What it says (`proto::message::digest`).
    pub(crate) digest: u64,
    pub(crate) sender: Sender,
}

/// Who says how messages follow each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sender {
    /// The upper half of the id's number counts its messages in the lower half, for each queue one after the other.
    Sequenced,
    /// Nobody: a client, by a hash of its id.
    Client(u64),
}

/// Ids of one sender that follow each other.
#[derive(Clone, Copy, Debug)]
pub(super) struct IdRun {
    pub(super) first: u128,
    pub(super) count: u32,
    pub(super) sender: Sender,
}

/// The messages of one queue that will be one `Append`.
pub(super) struct Group {
    pub(super) topic_id: u64,
    pub(super) queue: QueueId,
    pub(super) messages: Vec<Bytes>,
    pub(super) runs: Vec<IdRun>,
    /// What each message says.
    pub(super) digests: Vec<u64>,
    /// Sum of the sizes of `messages`.
    pub(super) bytes: usize,
}

/// One command of the entry to be.
pub(super) enum Item {
    Append(Group),
    Other(Command),
}

impl Group {
    /// Appends the messages; the position of the first.
    pub(super) fn add(&mut self, send: QueueSend) -> u32 {
        let first = self.messages.len() as u32;
        for id in &send.ids {
            match self.runs.last_mut() {
                Some(run) if run.goes_on_with(id) => run.count += 1,
                _ => self.runs.push(IdRun {
                    first: id.number,
                    count: 1,
                    sender: id.sender,
                }),
            }
            self.digests.push(id.digest);
        }
        self.bytes += send.bytes;
        if self.messages.is_empty() {
            self.messages = send.messages;
        } else {
            self.messages.extend(send.messages);
        }
        first
    }
}

impl IdRun {
    /// Never beyond its sender's numbers.
    fn goes_on_with(&self, id: &MessageId) -> bool {
        self.sender == id.sender
            && self.first.checked_add(u128::from(self.count)) == Some(id.number)
            && self.first >> 64 == id.number >> 64
    }
}
