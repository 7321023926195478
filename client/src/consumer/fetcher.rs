//! Keeps one queue's buffer filled: finds where to start, then pulls, and pulls again.
//!
//! Always goes on at the offset that the holdings name, whatever failed and whoever leads now: nothing is skipped. What a
//! pull brought before it broke is kept. Never commits: where a group starts is the servers' to say, the same each time.

use std::sync::Arc;
use std::time::Duration;

use host::Shutdown;
use proto::opaque::PullMessageResponse;
use proto::opaque::pull_message_response::Content;
use proto::place::{LIFE, Life};
use proto::v2::{Code, PullMessageRequest};
use tonic::{Status, Streaming};

use crate::answer::{self, Attempt, Refusal, header, leader_hint, read_status};
use crate::backoff::Backoff;
use crate::connection::late;
use crate::consumer::delivery::{Delivery, Filter, TopicQueue};
use crate::consumer::holdings::{FetchNext, Signals};
use crate::consumer::shared::{REFUSALS_MAX, Shared};
use crate::error::Error;
use crate::lookout::PATIENCE_PARKED;
use crate::measure;
use crate::offsets;
use crate::pursuit::Pursuit;
use crate::received::ReceivedMessage;

/// Pause after an error that will not pass by itself. The user hears of it; perhaps somebody repairs it.
const PAUSE_AFTER_FAILURE: Duration = Duration::from_secs(1);
/// Pause before a queue is begun again: should two not agree which topic it is, they do not argue all the time.
pub(super) const PAUSE_AFTER_OTHER_LIFE: Duration = Duration::from_millis(100);
const OPERATION: &str = "pull";

/// See the module's text.
pub(super) struct Fetcher {
    pub(super) shared: Arc<Shared>,
    pub(super) queue: TopicQueue,
    pub(super) filter: Filter,
    pub(super) signals: Arc<Signals>,
}

/// What one pull brought.
struct Pulled {
    deliveries: Vec<Delivery>,
    /// Where to go on.
    next: u64,
    /// Of the topic.
    life: Option<Life>,
    outcome: Outcome,
}

/// How a pull ended.
enum Outcome {
    /// Well, with or without messages.
    Complete,
    /// The offset is outside the queue. The nearest one inside, if the server said.
    OutOfRange {
        nearest: Option<u64>,
        refusal: Refusal,
    },
    /// The place is of another life of the topic.
    OtherLife,
    /// With a refusal, or without an end.
    Failed {
        attempt: Attempt<()>,
        redirected: bool,
    },
    /// With an answer that breaks the contract.
    Nonsense(String),
}

impl Fetcher {
    /// Runs until the queue is given up.
    pub(super) async fn run(self, shutdown: Shutdown) {
        tokio::select! {
            biased;
            () = shutdown.wait() => {}
            () = self.fetch() => {}
        }
    }

    async fn fetch(&self) {
        let mut backoff = Backoff::default();
        let mut pursuit = self.shared.pursuit(&self.queue).await;
        loop {
            let next = self.shared.holdings().fetch_next(&self.queue);
            let wait = match next {
                FetchNext::Gone => return,
                FetchNext::Full => {
                    self.signals.room.notified().await;
                    None
                }
                FetchNext::FindStart { epoch } => {
                    let wait = self.find_start(epoch, &mut backoff).await;
                    // The queue's broker group may be another by now, or known at last.
                    pursuit = self.shared.pursuit(&self.queue).await;
                    wait
                }
                FetchNext::Pull {
                    epoch,
                    life,
                    offset,
                    messages,
                } => tokio::select! {
                    biased;
                    // What is being pulled is not wanted any more.
                    () = self.signals.moved.notified() => None,
                    wait = self.pull_once(epoch, (life, offset), messages, &mut pursuit) => wait,
                },
            };
            if let Some(wait) = wait {
                tokio::time::sleep(wait).await;
            }
        }
    }

    /// Asks where the group is in this queue. Returns how long to wait if that failed.
    async fn find_start(&self, epoch: u64, backoff: &mut Backoff) -> Option<Duration> {
        match self.shared.start(&self.queue).await {
            Ok(start) => {
                let committed = start.committed.then_some(start.offset);
                self.shared.holdings().start_at(
                    &self.queue,
                    epoch,
                    start.offset,
                    (committed, start.life),
                );
                backoff.reset();
                None
            }
            Err(error) if error.may_pass() => {
                tracing::debug!(queue = %self.queue, %error, "start not found yet");
                Some(backoff.next_wait())
            }
            Err(error) => {
                self.fail(epoch, error);
                Some(PAUSE_AFTER_FAILURE)
            }
        }
    }

    /// One pull, and what follows from it. Returns how long to wait if it failed.
    async fn pull_once(
        &self,
        epoch: u64,
        (life, offset): (Option<Life>, u64),
        messages: usize,
        pursuit: &mut Pursuit,
    ) -> Option<Duration> {
        let brokers = &self.shared.core.connection.brokers;
        let address = pursuit.address(brokers);
        let place = (life, offset);
        let pulled = self
            .pull_unless_overtaken(place, messages, pursuit.group(), &address)
            .await;
        if let (None, Some(life)) = (life, pulled.life) {
            self.shared.holdings().lives(&self.queue, epoch, life);
        }
        let any = !pulled.deliveries.is_empty();
        let now_ms = self.shared.core.connection.clock.now_ms();
        measure::received(self.shared.group.as_str(), &pulled.deliveries, now_ms);
        if pulled.next > offset
            && self
                .shared
                .holdings()
                .fetched(&self.queue, epoch, pulled.deliveries, pulled.next)
            && any
        {
            self.shared.arrived.notify_waiters();
        }
        match pulled.outcome {
            Outcome::Complete => {
                *pursuit = Pursuit::new(pursuit.group().clone(), REFUSALS_MAX);
                None
            }
            Outcome::OutOfRange { nearest, refusal } => {
                self.out_of_range(epoch, (life, offset), nearest, refusal, &address)
            }
            Outcome::OtherLife => {
                let why = "its topic was made again or restored";
                self.shared.start_again(&self.queue, life, why);
                Some(PAUSE_AFTER_OTHER_LIFE)
            }
            Outcome::Nonsense(reason) => {
                let error = Error::Protocol {
                    operation: OPERATION,
                    subject: self.subject(),
                    address: address.to_string(),
                    reason,
                };
                self.fail(epoch, error);
                Some(PAUSE_AFTER_FAILURE)
            }
            Outcome::Failed {
                attempt,
                redirected,
            } => {
                self.shared.core.refresh_soon(&self.queue.topic);
                match pursuit.after(&attempt, redirected, brokers, &address) {
                    crate::pursuit::Next::Again(wait) => Some(wait),
                    crate::pursuit::Next::GiveUp => {
                        if let Attempt::Refused(refusal) = attempt {
                            self.fail(epoch, self.refused(refusal, &address));
                        }
                        // The queue's broker group may be another by now.
                        *pursuit = self.shared.pursuit(&self.queue).await;
                        Some(PAUSE_AFTER_FAILURE)
                    }
                }
            }
        }
    }

    /// Pulls, but waits no longer at a broker of which its peers say that another one leads.
    async fn pull_unless_overtaken(
        &self,
        (life, offset): (Option<Life>, u64),
        messages: usize,
        group: &str,
        address: &str,
    ) -> Pulled {
        let connection = &self.shared.core.connection;
        tokio::select! {
            biased;
            pulled = self.pull((life, offset), messages, group, address) => pulled,
            () = connection.overtaken(group, address, PATIENCE_PARKED) => Pulled {
                deliveries: Vec::new(),
                next: offset,
                life,
                outcome: Outcome::Failed {
                    attempt: answer::overtaken(),
                    redirected: true,
                },
            },
        }
    }

    /// Below the queue's begin: retention took the messages, so the begin is where to go on, and the user is told in the
    /// log. Beyond its end: who keeps its own progress starts again; else the user is told, and the place is kept, because
    /// going back is not ours to decide.
    fn out_of_range(
        &self,
        epoch: u64,
        (life, offset): (Option<Life>, u64),
        nearest: Option<u64>,
        refusal: Refusal,
        address: &str,
    ) -> Option<Duration> {
        if let Some(begin) = nearest.filter(|nearest| *nearest > offset) {
            tracing::warn!(queue = %self.queue, offset, begin, "messages were gone before they were consumed");
            self.shared
                .holdings()
                .fetched(&self.queue, epoch, Vec::new(), begin);
            return None;
        }
        if self.shared.forget_progress(&self.queue) {
            let why = "its progress lies beyond the queue's end";
            self.shared.start_again(&self.queue, life, why);
            return None;
        }
        self.fail(epoch, self.refused(refusal, address));
        Some(PAUSE_AFTER_FAILURE)
    }

    /// Tells the user, through the next poll that finds no messages.
    fn fail(&self, epoch: u64, error: Error) {
        tracing::debug!(queue = %self.queue, %error, "cannot fetch");
        self.shared.holdings().failed(&self.queue, epoch, error);
        self.shared.arrived.notify_waiters();
    }

    fn refused(&self, refusal: Refusal, address: &str) -> Error {
        Error::Refused {
            operation: OPERATION,
            subject: self.subject(),
            address: address.to_owned(),
            code: refusal.code,
            reason: refusal.reason,
        }
    }

    fn subject(&self) -> String {
        format!("queue {} of topic {}", self.queue.queue, self.queue.topic)
    }

    /// Asks one address, and reads its answer to the end or to where it breaks.
    async fn pull(
        &self,
        (life, offset): (Option<Life>, u64),
        messages: usize,
        broker_group: &str,
        address: &str,
    ) -> Pulled {
        let Shared {
            core,
            identity,
            group,
            settings,
            ..
        } = &*self.shared;
        let polling = settings.long_polling_timeout;
        // The server answers when the polling ends; the rest is for the way.
        let timeout = polling.saturating_add(core.connection.attempt_timeout);
        let request = PullMessageRequest {
            group: Some(crate::route::resource(group.as_str())),
            message_queue: Some(offsets::message_queue(&self.queue, broker_group)),
            offset: i64::try_from(offset).unwrap_or(i64::MAX),
            batch_size: i32::try_from(messages.min(settings.pull_messages_max)).unwrap_or(i32::MAX),
            filter_expression: Some(self.filter.to_wire()),
            long_polling_timeout: prost_types::Duration::try_from(polling).ok(),
        };
        let identity = identity.for_group(broker_group);
        let identity = identity.meaning(&self.queue.of_life(life));
        let call = async {
            core.connection
                .messaging(address)?
                .pull_message(identity.request(request, timeout))
                .await
        };
        let mut pulled = Pulled {
            deliveries: Vec::new(),
            next: offset,
            life,
            outcome: Outcome::Complete,
        };
        let answer = tokio::time::timeout(timeout, call)
            .await
            .unwrap_or_else(|_| Err(late(timeout)));
        match answer {
            Err(status) => pulled.outcome = self.failed(&status, broker_group, address),
            Ok(response) => {
                let told = header(response.metadata(), LIFE).and_then(|life| life.parse().ok());
                pulled.life = life.or(told);
                let hint = leader_hint(response.metadata());
                let redirected = hint.is_some_and(|leader| {
                    core.connection.brokers.heard(broker_group, leader, address)
                });
                let ended = self
                    .read(response.into_inner(), timeout, redirected, &mut pulled)
                    .await;
                if let Err(status) = ended {
                    pulled.outcome = self.failed(&status, broker_group, address);
                }
            }
        }
        pulled
    }

    fn failed(&self, status: &Status, broker_group: &str, address: &str) -> Outcome {
        let brokers = &self.shared.core.connection.brokers;
        let redirected = leader_hint(status.metadata())
            .is_some_and(|leader| brokers.heard(broker_group, leader, address));
        Outcome::Failed {
            attempt: read_status(status),
            redirected,
        }
    }

    /// Reads an answer's parts. The first may take as long as the polling, each further one as long as an attempt.
    async fn read(
        &self,
        mut parts: Streaming<PullMessageResponse>,
        first_timeout: Duration,
        redirected: bool,
        pulled: &mut Pulled,
    ) -> Result<(), Status> {
        let mut timeout = first_timeout;
        let mut go_on = None;
        let mut status = None;
        loop {
            let part = tokio::time::timeout(timeout, parts.message()).await;
            let part = part.unwrap_or_else(|_| Err(late(timeout)))?;
            timeout = self.shared.core.connection.attempt_timeout;
            match part.map(|part| part.content) {
                Some(Some(Content::Message(encoded))) => {
                    if let Err(reason) = self.accept(encoded, pulled) {
                        pulled.outcome = Outcome::Nonsense(reason);
                        return Ok(());
                    }
                }
                Some(Some(Content::Status(said))) => status = Some(said),
                Some(Some(Content::NextOffset(offset))) => go_on = u64::try_from(offset).ok(),
                Some(None) => {}
                None => break,
            }
        }
        let Some(status) = status else {
            return Err(Status::unknown("the answer ended without a status"));
        };
        match Code::try_from(status.code) {
            Ok(Code::Ok | Code::MessageNotFound) => {
                // Without a filter every offset has a message: a gap would be a loss.
                if self.filter != Filter::All {
                    pulled.next = pulled.next.max(go_on.unwrap_or(0));
                }
            }
            Ok(Code::IllegalOffset) => {
                let refusal = Refusal::new(status.code, &status.message);
                pulled.outcome = Outcome::OutOfRange {
                    nearest: go_on,
                    refusal,
                };
            }
            Ok(Code::PreconditionFailed) => pulled.outcome = Outcome::OtherLife,
            _ => {
                let refusal = Refusal::new(status.code, &status.message);
                let attempt = Attempt::Refused(refusal);
                pulled.outcome = Outcome::Failed {
                    attempt,
                    redirected,
                };
            }
        }
        Ok(())
    }

    /// Takes one message of an answer, if it is the next one.
    fn accept(&self, encoded: bytes::Bytes, pulled: &mut Pulled) -> Result<(), String> {
        let message = ReceivedMessage::decode(encoded).map_err(|error| error.to_string())?;
        let offset = message.queue_offset().ok_or("a message has no offset")?;
        let expected = pulled.next;
        if offset < expected {
            return Err(format!(
                "offset {offset} came after {expected} was asked for"
            ));
        }
        if offset > expected && self.filter == Filter::All {
            return Err(format!(
                "offset {offset} came where {expected} was expected"
            ));
        }
        pulled.next = offset + 1;
        let (topic, queue) = (self.queue.topic.clone(), self.queue.queue);
        pulled.deliveries.push(Delivery {
            topic,
            queue,
            offset,
            attempt: 1,
            message,
            life: pulled.life,
        });
        Ok(())
    }
}
