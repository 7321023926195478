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
    /// Number of each message's id (`proto::message_id::id_number`).
    pub(crate) ids: Vec<u128>,
    /// Sum of the sizes of `messages`.
    pub(crate) bytes: usize,
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

/// The messages of one queue that will be one `Append`.
pub(super) struct Group {
    pub(super) topic_id: u64,
    pub(super) queue: QueueId,
    pub(super) messages: Vec<Bytes>,
    /// Ids that follow each other: first, count.
    pub(super) runs: Vec<(u128, u32)>,
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
                Some((start, count)) if start.checked_add(u128::from(*count)) == Some(*id) => {
                    *count += 1;
                }
                _ => self.runs.push((*id, 1)),
            }
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
