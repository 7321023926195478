//! Gives each waiting request its part of an entry's reply. Pure but for the answering.

use bytes::Bytes;
use prost::Message;
use proto::command::{CommandReply, PlacedRun, Reply, command_reply::Refusal};
use proto::{QueueId, QueueOffset};
use tokio::sync::oneshot;

use super::{ProposalError, Reservation};

/// Messages of one request that follow each other and have offsets that follow each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Placed {
    pub(crate) count: u32,
    pub(crate) first_offset: QueueOffset,
    /// The queue where they are.
    pub(crate) queue: QueueId,
    pub(crate) fate: Fate,
}

/// What became of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    /// It was stored there.
    Stored,
    /// It had been stored there before.
    Repeated,
    /// It was not stored, and has no place: later ones of its sender were, and whether it was before, nobody knows.
    TooLate,
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

/// Answers everyone who waits for an entry.
pub(super) fn settle(outcome: Result<Bytes, ProposalError>, waiters: Vec<Waiter>) {
    match outcome.and_then(decode) {
        Ok(mut replies) => {
            for waiter in waiters {
                answer(waiter, &mut replies);
            }
        }
        Err(error) => {
            for waiter in waiters {
                refuse(waiter, error.clone());
            }
        }
    }
}

fn decode(reply: Bytes) -> Result<Vec<CommandReply>, ProposalError> {
    let mut replies = Reply::decode(reply)
        .map_err(|error| ProposalError::Unknown(format!("the reply is unreadable: {error}")))?
        .commands;
    for reply in &mut replies {
        reply.placed.sort_unstable_by_key(|run| run.first);
    }
    Ok(replies)
}

// A caller that no longer waits is no error: its deadline passed. The reservation ends with the answer.
fn answer(waiter: Waiter, replies: &mut [CommandReply]) {
    match waiter {
        Waiter::Send {
            command,
            first,
            count,
            answer,
            reservation,
        } => {
            let result = match replies.get(command) {
                Some(reply) if reply.refusal != Refusal::None as i32 => {
                    Err(ProposalError::Refused {
                        reply: reply.clone(),
                    })
                }
                Some(reply) => placed(&reply.placed, first, count).ok_or_else(missing),
                None => Err(missing()),
            };
            drop(reservation);
            let _ = answer.send(result);
        }
        Waiter::Command {
            command,
            answer,
            reservation,
        } => {
            let result = match replies.get_mut(command) {
                Some(reply) if reply.refusal != Refusal::None as i32 => {
                    Err(ProposalError::Refused {
                        reply: std::mem::take(reply),
                    })
                }
                Some(reply) => Ok(std::mem::take(reply)),
                None => Err(missing()),
            };
            drop(reservation);
            let _ = answer.send(result);
        }
    }
}

fn refuse(waiter: Waiter, error: ProposalError) {
    match waiter {
        Waiter::Send {
            answer,
            reservation,
            ..
        } => {
            drop(reservation);
            let _ = answer.send(Err(error));
        }
        Waiter::Command {
            answer,
            reservation,
            ..
        } => {
            drop(reservation);
            let _ = answer.send(Err(error));
        }
    }
}

fn missing() -> ProposalError {
    ProposalError::Unknown("the reply lacks a part of the request".to_owned())
}

/// The part of an append's runs that belongs to its messages `first .. first + count`; `None` unless
/// the runs cover all of them. `runs` is sorted by position.
pub(super) fn placed(runs: &[PlacedRun], first: u32, count: u32) -> Option<Vec<Placed>> {
    let end = first.checked_add(count)?;
    let mut parts = Vec::with_capacity(1);
    let mut position = first;
    let start = runs.partition_point(|run| run_end(run) <= u64::from(first));
    for run in &runs[start..] {
        if position == end {
            break;
        }
        if run.first > position {
            return None;
        }
        let skipped = position - run.first;
        let taken = run.count.checked_sub(skipped)?.min(end - position);
        parts.push(Placed {
            count: taken,
            first_offset: run.first_offset.checked_add(skipped.into())?,
            queue: run.queue,
            fate: match (run.stored, run.too_late) {
                (true, _) => Fate::Stored,
                (false, true) => Fate::TooLate,
                (false, false) => Fate::Repeated,
            },
        });
        position += taken;
    }
    (position == end).then_some(parts)
}

fn run_end(run: &PlacedRun) -> u64 {
    u64::from(run.first) + u64::from(run.count)
}
