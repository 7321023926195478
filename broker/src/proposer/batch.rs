//! The requests of one entry to be, in the form in which they are written.

use std::collections::BTreeMap;

use bytes::Bytes;
use proto::QueueId;
use proto::command::{Command, CommandReply};
use tokio::sync::oneshot;

use super::encode::{self, Stamp};
use super::{Placed, ProposalError, QueueKey, Reservation};

/// Commands in one entry at most, so that one entry is applied in bounded time.
const COMMANDS_MAX: usize = 4_096;

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

/// What the handle gives to the worker.
pub(super) enum Request {
    Send {
        send: QueueSend,
        answer: oneshot::Sender<Result<Vec<Placed>, ProposalError>>,
        reservation: Reservation,
    },
    Command {
        command: Command,
        /// Goes in an entry of its own kind, which may use the disk's reserve.
        upkeep: bool,
        answer: oneshot::Sender<Result<CommandReply, ProposalError>>,
        reservation: Reservation,
    },
}

/// Who waits for which part of an entry's reply.
pub(super) enum Waiter {
    /// Messages `first .. first + count` of the append that is command number `command`.
    Send {
        command: usize,
        first: u32,
        count: u32,
        answer: oneshot::Sender<Result<Vec<Placed>, ProposalError>>,
        reservation: Reservation,
    },
    /// The whole reply of command number `command`.
    Command {
        command: usize,
        answer: oneshot::Sender<Result<CommandReply, ProposalError>>,
        reservation: Reservation,
    },
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

/// Fills until it is sealed; then it is empty again.
pub(super) struct Batch {
    bytes_target: usize,
    bytes: usize,
    items: Vec<Item>,
    /// Which item gathers the sends of a queue.
    groups: BTreeMap<QueueKey, usize>,
    waiters: Vec<Waiter>,
}

impl Batch {
    pub(super) fn new(bytes_target: usize) -> Batch {
        Batch {
            bytes_target,
            bytes: 0,
            items: Vec::new(),
            groups: BTreeMap::new(),
            waiters: Vec::new(),
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    /// No further request may be added. The last one may have gone past the target: an entry is at most
    /// the target and one request.
    pub(super) fn is_full(&self) -> bool {
        self.bytes >= self.bytes_target || self.items.len() >= COMMANDS_MAX
    }

    /// A request whose caller has gone is dropped: it was not proposed, so nothing is owed.
    pub(super) fn add(&mut self, request: Request) {
        match request {
            Request::Send { answer, .. } if answer.is_closed() => {}
            Request::Command { answer, .. } if answer.is_closed() => {}
            Request::Send {
                send,
                answer,
                reservation,
            } => {
                self.bytes += send.bytes;
                let command = self.group_of(&send);
                let Item::Append(group) = &mut self.items[command] else {
                    unreachable!("the groups index points at appends only")
                };
                let first = group.add(send);
                let count = group.messages.len() as u32 - first;
                self.waiters.push(Waiter::Send {
                    command,
                    first,
                    count,
                    answer,
                    reservation,
                });
            }
            Request::Command {
                command,
                answer,
                reservation,
                ..
            } => {
                self.bytes += prost::Message::encoded_len(&command);
                self.items.push(Item::Other(command));
                let command = self.items.len() - 1;
                self.waiters.push(Waiter::Command {
                    command,
                    answer,
                    reservation,
                });
            }
        }
    }

    /// The entry's bytes and those who wait for it; the batch is empty afterwards.
    pub(super) fn seal(&mut self, stamp: &Stamp) -> (Bytes, Vec<Waiter>) {
        let entry = encode::entry(stamp, &self.items);
        self.items.clear();
        self.groups.clear();
        self.bytes = 0;
        (entry, std::mem::take(&mut self.waiters))
    }

    fn group_of(&mut self, send: &QueueSend) -> usize {
        let next = self.items.len();
        let command = *self
            .groups
            .entry((send.topic_id, send.queue))
            .or_insert(next);
        if command == next {
            self.items.push(Item::Append(Group {
                topic_id: send.topic_id,
                queue: send.queue,
                messages: Vec::new(),
                runs: Vec::new(),
                digests: Vec::new(),
                bytes: 0,
            }));
        }
        command
    }
}

impl Group {
    /// Appends the messages; the position of the first.
    fn add(&mut self, send: QueueSend) -> u32 {
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
