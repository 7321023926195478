//! `PullRetries`: the messages of a queue that are due for another delivery, waiting for one if there is none.
//!
//! Whatever the answer says was so after the call began: this broker makes sure that it still leads, and
//! looks after that.

use std::collections::BTreeSet;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use host::network::AnswerHold;
use proto::QueueOffset;
use proto::message::{self, deliver};
use proto::redelivery::{PullRetriesRequest, PullRetriesResponse};
use proto::v2::Code;
use store::StoreError;
use store::table::{DeliveryKey, GroupQueue};
use tokio::time::Instant;
use tonic::{Request, Response, Status};

use super::{Target, forward};
use crate::call::{Context, Effect, LeaderCall};
use crate::grpc::status::{
    CallError, Refusal, group_not_found, not_available, too_many_requests, unreadable,
};
use crate::machine::{Due, Retry};
use crate::service::Service;
use crate::view::ReadError;

/// Messages in an answer when the caller names no number.
const MESSAGES_DEFAULT: u32 = 32;

/// Offsets that a caller may hold. A call that waits keeps them, and so may thousands of calls.
const HELD_MAX: usize = 1024;

/// Kept back from the deadline by a pull that waits, to answer in.
const ANSWER_RESERVE: Duration = Duration::from_millis(200);

/// How often a message is looked for anew that was moved while it was read.
const MOVES_MAX: u32 = 3;

impl LeaderCall for PullRetriesRequest {
    type Answer = PullRetriesResponse;

    const EFFECT: Effect = Effect::None;

    async fn serve(
        &self,
        service: &Arc<Service>,
        context: &Context,
    ) -> Result<PullRetriesResponse, CallError> {
        if self.held.len() > HELD_MAX {
            let reason = format!("{} held messages are more than {HELD_MAX}", self.held.len());
            return Err(Refusal::new(Code::BadRequest, reason).into());
        }
        let target = Target::find(service, context, (&self.group, &self.topic, self.queue)).await?;
        let view = &service.view;
        let queue = view.group_queue(&target.group.name, target.topic.id, target.queue);
        let queue = queue.ok_or_else(|| group_not_found(&target.group.name))?;
        let messages_max = match self.messages_max {
            0 => MESSAGES_DEFAULT,
            count => count,
        };
        let bytes_max = match self.bytes_max {
            0 => service.config.pull_bytes_max,
            bytes => bytes.min(service.config.pull_bytes_max),
        };
        let pull = Pull {
            service,
            context,
            target,
            queue,
            held: self.held.iter().copied().collect(),
            messages_max: messages_max.min(service.config.pull_messages_max) as usize,
            bytes_max: bytes_max as usize,
            answer_by: context.deadline,
            wait_until: wait_until(self, service, context),
        };
        pull.run().await
    }

    fn patience(&self) -> Duration {
        Duration::from_millis(self.wait_ms)
    }

    async fn forward(
        request: Request<Self>,
        service: &Service,
        address: &str,
    ) -> Result<Response<PullRetriesResponse>, Status> {
        forward!(pull_retries, request, service, address)
    }

    fn refused(refusal: Refusal) -> PullRetriesResponse {
        PullRetriesResponse {
            code: refusal.code.into(),
            message: refusal.reason,
            ..PullRetriesResponse::default()
        }
    }
}

/// One pull under way.
struct Pull<'a> {
    service: &'a Service,
    context: &'a Context,
    target: Target,
    queue: GroupQueue,
    held: BTreeSet<QueueOffset>,
    messages_max: usize,
    bytes_max: usize,
    answer_by: Instant,
    wait_until: Instant,
}

impl Pull<'_> {
    async fn run(&self) -> Result<PullRetriesResponse, CallError> {
        let arrivals = self.service.view.retry_arrivals(self.queue);
        loop {
            let mut changed = pin!(arrivals.changed());
            // Registered before looking, so that what comes in between is not missed.
            changed.as_mut().enable();
            let (passed_ms, due) = self.due();
            if !due.now.is_empty() || Instant::now() >= self.wait_until {
                break;
            }
            let wait_ms = due.next_ms.map(|due_ms| (due_ms - passed_ms).max(1));
            let wake_at = wait_ms
                .and_then(|wait_ms| Instant::now().checked_add(Duration::from_millis(wait_ms)));
            let wake_at = wake_at.map_or(self.wait_until, |at| at.min(self.wait_until));
            self.park(changed, wake_at).await?;
        }
        // A leader that was deposed without knowing would deliver what is settled.
        let left = self.answer_by.saturating_duration_since(Instant::now());
        self.service.confirm_leadership(left).await?;
        let (passed_ms, due) = self.due();
        self.answer(passed_ms, due).await
    }

    /// How much has passed along the log, and what is due then.
    fn due(&self) -> (u64, Due) {
        let view = &self.service.view;
        let passed_ms = self.service.now().passed_ms;
        let due = view.retries_due(self.queue, passed_ms, &self.held, self.messages_max);
        (passed_ms, due)
    }

    async fn park(
        &self,
        changed: impl Future<Output = ()>,
        wake_at: Instant,
    ) -> Result<(), CallError> {
        let Ok(_permit) = self.service.long_polls.try_acquire() else {
            return Err(too_many_requests("too many pulls are waiting").into());
        };
        tokio::select! {
            biased;
            () = changed => Ok(()),
            () = tokio::time::sleep_until(wake_at) => Ok(()),
            () = self.service.shutdown.wait() => {
                Err(not_available("the broker is stopping").into())
            }
        }
    }

    async fn answer(&self, passed_ms: u64, due: Due) -> Result<PullRetriesResponse, CallError> {
        let mut hold = match due.now.is_empty() {
            true => AnswerHold::default(),
            false => self.context.room(self.service).await?,
        };
        let mut retries = Vec::with_capacity(due.now.len());
        let (mut bytes, mut next_ms) = (0, due.next_ms);
        let mut failure = None;
        for (offset, retry) in due.now {
            let due_ms = retry.due_ms;
            let (retry, stored) = match self.read(offset, retry, &mut hold, bytes).await? {
                Ok(Some(found)) => found,
                Ok(None) => continue,
                Err(Unread::Later) => {
                    next_ms = Some(due_ms);
                    break;
                }
                // It is due first each time: those behind it must not wait until it is repaired.
                Err(Unread::Failed(error)) => {
                    tracing::warn!(%error, "a retry is passed over, it cannot be read");
                    failure = Some(error);
                    continue;
                }
            };
            bytes += stored.len();
            if bytes > self.bytes_max && !retries.is_empty() {
                next_ms = Some(retry.due_ms);
                break;
            }
            retries.push(self.deliver(offset, &retry, &stored));
        }
        if let Some(error) = failure.filter(|_| retries.is_empty()) {
            return Err(unreadable(&self.target.topic.name, &error).into());
        }
        let bytes = retries.iter().map(|retry| retry.message.len() as u64);
        hold.shrink(bytes.sum());
        self.context.keep(hold);
        Ok(PullRetriesResponse {
            code: Code::Ok.into(),
            message: String::new(),
            retries,
            next_due_ms: next_ms.map_or(0, |due_ms| due_ms.saturating_sub(passed_ms).max(1)),
        })
    }

    fn deliver(
        &self,
        offset: QueueOffset,
        retry: &Retry,
        stored: &Bytes,
    ) -> proto::redelivery::Retry {
        let attempt = retry.attempt.saturating_add(1);
        let delivery = message::Delivery {
            queue_id: self.target.queue,
            queue_offset: offset,
            store_timestamp_ms: retry.time_ms,
            store_host: &self.service.own.client_address,
            receipt_handle: None,
            attempt,
            invisible_duration: None,
        };
        proto::redelivery::Retry {
            attempt,
            message: deliver(stored, &delivery),
        }
    }

    /// A message as it was stored; none if it was settled meanwhile. Has `read` bytes of others already.
    async fn read(
        &self,
        offset: QueueOffset,
        mut retry: Retry,
        hold: &mut AnswerHold,
        read: usize,
    ) -> Result<Result<Option<(Retry, Bytes)>, Unread>, CallError> {
        let queue = self.queue;
        let mut moves = 0;
        loop {
            let error = match self.message_at(&retry, hold, read).await? {
                Ok(Some(message)) => return Ok(Ok(Some((retry, message)))),
                Ok(None) => ReadError::Corrupt {
                    topic_id: queue.topic_id,
                    queue: queue.queue,
                    offset,
                    detail: "its entry does not hold it".to_owned(),
                },
                Err(Unread::Failed(error)) => error,
                Err(Unread::Later) => return Ok(Err(Unread::Later)),
            };
            // Retention may have moved it in the meantime.
            match self.service.view.retry(DeliveryKey { queue, offset }) {
                None => return Ok(Ok(None)),
                Some(now) if now.location != retry.location && moves < MOVES_MAX => {
                    retry = now;
                    moves += 1;
                }
                Some(_) => return Ok(Err(Unread::Failed(error))),
            }
        }
    }

    /// What is damaged is fetched from another replica first. Meanwhile nothing is held, neither bytes of answers nor others
    /// that were read.
    async fn message_at(
        &self,
        retry: &Retry,
        hold: &mut AnswerHold,
        read: usize,
    ) -> Result<Result<Option<Bytes>, Unread>, CallError> {
        let view = &self.service.view;
        let failed = |error: StoreError| Unread::Failed(error.into());
        let error = match view.message_at(retry.location).await {
            Ok(message) => return Ok(Ok(message)),
            Err(error @ StoreError::Corrupt { .. }) => error,
            Err(error) => return Ok(Err(failed(error))),
        };
        if read > 0 {
            return Ok(Err(Unread::Later));
        }
        *hold = AnswerHold::default();
        let is_repaired = self.service.repaired(&error).await;
        *hold = self.context.room(self.service).await?;
        Ok(match is_repaired {
            true => view.message_at(retry.location).await.map_err(failed),
            false => Err(failed(error)),
        })
    }
}

/// Why a message was not read.
enum Unread {
    Failed(ReadError),
    /// It has to be repaired, and others are there that need not wait for it.
    Later,
}

fn wait_until(request: &PullRetriesRequest, service: &Service, context: &Context) -> Instant {
    let most = Duration::from_millis(service.config.long_polling_ms_max);
    let left = context.left();
    let wait = Duration::from_millis(request.wait_ms)
        .min(most)
        .min(left - ANSWER_RESERVE.min(left / 4));
    Instant::now() + wait
}
