//! The requests of one entry to be, in the form in which they are written.

use std::collections::BTreeMap;

use bytes::Bytes;
use proto::command::{Command, CommandReply};
use tokio::sync::oneshot;

use super::encode::{self, Stamp};
use super::item::{Group, Item, QueueSend};
use super::reply::Waiter;
use super::{Placed, ProposalError, QueueKey, Reservation};

/// Commands in one entry at most, so that one entry is applied in bounded time.
const COMMANDS_MAX: usize = 4_096;

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
