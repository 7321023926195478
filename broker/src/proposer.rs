//! Gathers what waits into log entries and has them agreed on.
//!
//! Every change to the replicated state goes through here, from the gRPC methods and from the ticker.
//! One worker drains whatever waits, merges the sends of one queue into one command, stamps the
//! log's time and proposes one entry; while that entry is written and synced, the next one fills.
//! So the sync before is the linger, and there is no timer. What waits is bounded in bytes and in
//! count: more is refused at once.
//!
//! Must never answer a request before its entry was applied here, let what has passed along the log
//! decrease, or hold a request without a bound.

mod batch;
mod encode;
mod item;
mod reply;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use proto::QueueId;
use proto::command::{Command, CommandReply};
use raft::{ProposeError, RaftGroup};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;

use self::batch::{Batch, Request};
pub(crate) use self::item::{MessageId, QueueSend, Sender};
use self::reply::Waiter;
pub(crate) use self::reply::{Fate, Placed};
use crate::log_time::{LogTime, Moment};
use crate::view::View;

/// Longest time that one entry may take from proposal to reply before its requests are told that the
/// outcome is unknown. Requests have deadlines of their own; this one keeps a stuck entry from holding
/// its place for ever.
const PROPOSAL_DURATION_MAX: Duration = Duration::from_secs(30);

/// Bytes that a request occupies beside its messages.
const REQUEST_BYTES: usize = 128;

/// Why a change was not made, or may not have been.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub(crate) enum ProposalError {
    /// What is waiting exceeds the bound; nothing was proposed.
    #[error("too much is in flight: {0}")]
    TooMuchInFlight(&'static str),
    /// This broker does not lead; nothing was proposed.
    #[error("this broker does not lead its group")]
    NotLeader,
    /// No majority answers; nothing was agreed on so far.
    #[error("no majority of the replicas answers")]
    NoQuorum,
    /// The log may not grow; nothing was proposed.
    #[error("the disk of the broker is full")]
    Full,
    /// An entry of this size cannot be agreed on; nothing was proposed.
    #[error("the entry is too large")]
    TooLarge,
    /// The entry may or may not be agreed on.
    #[error("the outcome is unknown: {0}")]
    Unknown(String),
    /// The broker is going down; nothing was proposed.
    #[error("the broker is stopping")]
    Stopped,
    /// Agreed on, and refused by the rules of the state machine.
    #[error("refused: {reply:?}")]
    Refused {
        /// What the state machine answered.
        reply: CommandReply,
    },
}

impl From<ProposeError> for ProposalError {
    fn from(error: ProposeError) -> ProposalError {
        match error {
            ProposeError::NotLeader { .. } => ProposalError::NotLeader,
            ProposeError::NoQuorum => ProposalError::NoQuorum,
            ProposeError::Full => ProposalError::Full,
            ProposeError::Stopped => ProposalError::Stopped,
            ProposeError::TooLarge { .. } => ProposalError::TooLarge,
            unknown => ProposalError::Unknown(unknown.to_string()),
        }
    }
}

/// Bounds of the proposer; see `BrokerConfig` for the meaning of each.
#[derive(Clone, Debug)]
pub(crate) struct ProposerConfig {
    pub(crate) entry_bytes_target: usize,
    pub(crate) proposals_inflight_max: usize,
    pub(crate) inflight_bytes_max: u64,
    pub(crate) inflight_requests_max: usize,
    pub(crate) dedup_window_ms: u64,
    pub(crate) dedup_bytes_max: u64,
}

/// Where entries go and what time it was last. Implemented by the raft group with its view, and by
/// tests.
pub(crate) trait Agreement: Send + Sync + 'static {
    /// Has one entry agreed on and applied; its reply. `upkeep` makes room on the disk, and may use what
    /// is held in reserve.
    fn propose(
        &self,
        entry: Bytes,
        upkeep: bool,
    ) -> impl Future<Output = Result<Bytes, ProposalError>> + Send;
    /// What the last applied entry said of time.
    fn last_moment(&self) -> Moment;
}

/// The agreement of a running broker.
pub(crate) struct GroupAgreement {
    pub(crate) group: RaftGroup,
    pub(crate) view: View,
}

impl Agreement for GroupAgreement {
    async fn propose(&self, entry: Bytes, upkeep: bool) -> Result<Bytes, ProposalError> {
        let proposed = match upkeep {
            true => self.group.propose_upkeep(entry).await?,
            false => self.group.propose(entry).await?,
        };
        Ok(proposed.reply)
    }

    fn last_moment(&self) -> Moment {
        self.view.last_moment()
    }
}

/// Bytes of the requests that wait or are being agreed on.
#[derive(Debug)]
struct Budget {
    used: AtomicU64,
    max: u64,
}

/// A request's share of the budget; given back when it is dropped.
#[derive(Debug)]
struct Reservation {
    budget: Arc<Budget>,
    bytes: u64,
}

impl Budget {
    fn reserve(self: &Arc<Budget>, bytes: usize) -> Option<Reservation> {
        let bytes = bytes as u64;
        let before = self.used.fetch_add(bytes, Ordering::Relaxed);
        let reservation = Reservation {
            budget: self.clone(),
            bytes,
        };
        (before.saturating_add(bytes) <= self.max).then_some(reservation)
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.budget.used.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

/// Handle of the proposer. Cheap to clone; the worker ends when the last one is dropped and everything
/// that was accepted has been answered.
#[derive(Clone)]
pub(crate) struct Proposer {
    requests: mpsc::Sender<Request>,
    budget: Arc<Budget>,
}

impl Proposer {
    /// Starts the worker; the other half is its task.
    pub(crate) fn start<A: Agreement>(
        config: ProposerConfig,
        agreement: A,
        log_time: Arc<LogTime>,
    ) -> (Proposer, JoinHandle<()>) {
        let (requests, receiver) = mpsc::channel(config.inflight_requests_max);
        let budget = Arc::new(Budget {
            used: AtomicU64::new(0),
            max: config.inflight_bytes_max,
        });
        let agreement = Arc::new(agreement);
        let worker = Worker {
            config,
            agreement,
            log_time,
            receiver,
        };
        (Proposer { requests, budget }, tokio::spawn(worker.run()))
    }

    /// Stores messages in one queue, in their order; where each went. `messages` and `ids` have the
    /// same length, and are not empty.
    pub(crate) async fn send(&self, send: QueueSend) -> Result<Vec<Placed>, ProposalError> {
        debug_assert_eq!(send.messages.len(), send.ids.len());
        let bytes = send.bytes + REQUEST_BYTES;
        let (answer, answered) = oneshot::channel();
        self.submit(bytes, |reservation| Request::Send {
            send,
            answer,
            reservation,
        })?;
        answered.await.unwrap_or(Err(ProposalError::Stopped))
    }

    /// Has one other command agreed on and applied; its reply, unless that is a refusal.
    pub(crate) async fn command(&self, command: Command) -> Result<CommandReply, ProposalError> {
        self.submit_command(command, false).await
    }

    /// Like [`Proposer::command`], in an entry of its own, also while the disk is full: for what makes
    /// room.
    pub(crate) async fn upkeep(&self, command: Command) -> Result<CommandReply, ProposalError> {
        self.submit_command(command, true).await
    }

    async fn submit_command(
        &self,
        command: Command,
        upkeep: bool,
    ) -> Result<CommandReply, ProposalError> {
        let bytes = prost::Message::encoded_len(&command) + REQUEST_BYTES;
        let (answer, answered) = oneshot::channel();
        self.submit(bytes, |reservation| Request::Command {
            command,
            upkeep,
            answer,
            reservation,
        })?;
        answered.await.unwrap_or(Err(ProposalError::Stopped))
    }

    /// Bytes that wait or are being agreed on.
    #[cfg(test)]
    pub(crate) fn inflight_bytes(&self) -> u64 {
        self.budget.used.load(Ordering::Relaxed)
    }

    fn submit(
        &self,
        bytes: usize,
        request: impl FnOnce(Reservation) -> Request,
    ) -> Result<(), ProposalError> {
        let Some(reservation) = self.budget.reserve(bytes) else {
            return Err(ProposalError::TooMuchInFlight("bytes"));
        };
        self.requests
            .try_send(request(reservation))
            .map_err(|error| match error {
                mpsc::error::TrySendError::Full(_) => ProposalError::TooMuchInFlight("requests"),
                mpsc::error::TrySendError::Closed(_) => ProposalError::Stopped,
            })
    }
}

/// Owns the requests from the queue until they are answered.
struct Worker<A> {
    config: ProposerConfig,
    agreement: Arc<A>,
    log_time: Arc<LogTime>,
    receiver: mpsc::Receiver<Request>,
}

impl<A: Agreement> Worker<A> {
    async fn run(mut self) {
        let mut in_flight = FuturesUnordered::new();
        let mut batch = Batch::new(self.config.entry_bytes_target);
        let mut upkeep = Batch::new(self.config.entry_bytes_target);
        let mut closed = false;
        loop {
            let room = in_flight.len() < self.config.proposals_inflight_max;
            if !upkeep.is_empty() && room {
                in_flight.push(self.launch(&mut upkeep, true));
                continue;
            }
            // One small entry at a time: what comes meanwhile waits for its sync and shares the next.
            // Full entries do not wait.
            if !batch.is_empty() && (in_flight.is_empty() || (batch.is_full() && room)) {
                in_flight.push(self.launch(&mut batch, false));
                continue;
            }
            if closed && in_flight.is_empty() {
                return;
            }
            tokio::select! {
                biased;
                Some(()) = in_flight.next(), if !in_flight.is_empty() => {}
                request = self.receiver.recv(), if !closed && !batch.is_full() => match request {
                    Some(request) => self.gather(request, &mut batch, &mut upkeep),
                    None => closed = true,
                },
            }
        }
    }

    /// Takes a request and what waits behind it, as far as the batch has room.
    fn gather(&mut self, request: Request, batch: &mut Batch, upkeep: &mut Batch) {
        let mut next = Some(request);
        while let Some(request) = next {
            match request {
                Request::Command { upkeep: true, .. } => upkeep.add(request),
                _ => batch.add(request),
            }
            if batch.is_full() {
                return;
            }
            next = self.receiver.try_recv().ok();
        }
    }

    /// Seals the batch and has it agreed on.
    fn launch(
        &mut self,
        batch: &mut Batch,
        upkeep: bool,
    ) -> impl Future<Output = ()> + Send + use<A> {
        let (entry, waiters) = batch.seal(&encode::Stamp {
            moment: self.log_time.now(self.agreement.last_moment()),
            dedup_window_ms: self.config.dedup_window_ms,
            dedup_bytes_max: self.config.dedup_bytes_max,
        });
        agree(self.agreement.clone(), entry, waiters, upkeep)
    }
}

/// Sees one entry through and answers those who wait for it.
async fn agree<A: Agreement>(agreement: Arc<A>, entry: Bytes, waiters: Vec<Waiter>, upkeep: bool) {
    let proposal = agreement.propose(entry, upkeep);
    let proposal = tokio::time::timeout(PROPOSAL_DURATION_MAX, proposal);
    let outcome = match proposal.await {
        Ok(outcome) => outcome,
        Err(_) => Err(ProposalError::Unknown(
            "the entry was not applied in time".to_owned(),
        )),
    };
    if let Err(error) = &outcome {
        tracing::debug!(%error, waiters = waiters.len(), "an entry was not agreed on");
    }
    reply::settle(outcome, waiters);
}

/// A send's queue: topic id and queue.
type QueueKey = (u64, QueueId);

#[cfg(test)]
#[path = "proposer_test.rs"]
mod proposer_test;
