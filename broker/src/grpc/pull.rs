//! `PullMessage`: the messages of a queue from an offset on, waiting for some if there are none.
//!
//! The answer is a status, then the messages, then the offset to go on from. Only committed and applied
//! messages are read. "Nothing there" and "no such offset" are said only after confirming that this
//! broker still leads, so that they are true of everything that was acknowledged before.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use futures::stream::{self, BoxStream};
use host::network::AnswerHold;
use model::Filter;
use proto::QueueOffset;
use proto::message::{Delivery, View as MessageView, deliver, deliver_dead_letter};
use proto::opaque::{PullMessageResponse, pull_message_response::Content};
use proto::place;
use proto::v2::{Code, PullMessageRequest, Status as MessagingStatus};
use tokio::time::Instant;
use tonic::{Request, Response, Status};

use super::offset::Place;
use super::status::{CallError, Refusal, not_available, ok, too_many_requests, unreadable};
use super::{filter, group_name};
use crate::call::{Context, Effect, LeaderCall};
use crate::pullers::Reading;
use crate::service::Service;
use crate::view::{ReadError, Stored};

/// Messages in an answer when the client names no number.
const BATCH_SIZE_DEFAULT: usize = 32;

/// Kept back from the deadline by a pull that waits, to answer in.
const ANSWER_RESERVE: Duration = Duration::from_millis(200);

/// Messages read at once to be filtered.
const FILTERED_READ: usize = 256;

/// Messages looked at in vain before a filtered pull answers that it found none; its next offset is
/// past them.
const FILTERED_MAX: usize = 65_536;

type AnswerStream = BoxStream<'static, Result<PullMessageResponse, Status>>;

impl LeaderCall for PullMessageRequest {
    type Answer = AnswerStream;

    const EFFECT: Effect = Effect::None;

    async fn serve(
        &self,
        service: &Arc<Service>,
        context: &Context,
    ) -> Result<AnswerStream, CallError> {
        let group = group_name(self.group.as_ref())?;
        let filter = filter(self.filter_expression.as_ref())?;
        let place = Place::of_life(service, context, self.message_queue.as_ref()).await?;
        context.remark(place::LIFE, place.topic.life());
        service.group_or_create(&group, context).await?;
        let reading = Reading {
            group: &group,
            topic_id: place.topic.id,
            queue: place.queue,
        };
        let offset = QueueOffset::try_from(self.offset).unwrap_or(0);
        let client_id = context.client_id()?;
        (service.pullers).pulled(&reading, client_id, offset, Instant::now());
        let pull = Pull {
            service,
            place,
            filter,
            messages_max: batch_size(self.batch_size, service.config.pull_messages_max),
            answer_by: context.deadline,
            wait_until: wait_until(self, service, context),
            context,
        };
        Ok(answer(pull.run(self.offset).await?))
    }

    fn patience(&self) -> Duration {
        polling(self)
    }

    async fn forward(
        request: Request<Self>,
        service: &Service,
        address: &str,
    ) -> Result<Response<AnswerStream>, Status> {
        service.forwarder.pull_message(address, request).await
    }

    fn refused(refusal: Refusal) -> AnswerStream {
        answer(Pulled {
            status: refusal.into_status(),
            messages: Vec::new(),
            next_offset: None,
        })
    }
}

/// What a pull found.
struct Pulled {
    status: MessagingStatus,
    messages: Vec<Bytes>,
    next_offset: Option<QueueOffset>,
}

/// One pull under way.
struct Pull<'a> {
    service: &'a Service,
    context: &'a Context,
    place: Place,
    filter: Filter,
    messages_max: usize,
    answer_by: Instant,
    wait_until: Instant,
}

/// What one look at the queue gave.
enum Look {
    Found(Pulled),
    /// The queue has nothing from the first offset on; it ends at this one.
    Nothing(QueueOffset),
    /// Many messages up to this offset, none of which was asked for.
    Skipped(QueueOffset),
    Illegal(Pulled),
}

impl Pull<'_> {
    async fn run(&self, offset: i64) -> Result<Pulled, CallError> {
        let Ok(mut from) = QueueOffset::try_from(offset) else {
            return Ok(self.illegal(offset, self.place.bounds.min_offset));
        };
        // The arrivals are subscribed to before the look, so that nothing falls between the two.
        let mut arrivals = self
            .service
            .view
            .arrivals(self.place.topic.id, self.place.queue);
        loop {
            match self.look(from).await? {
                Look::Found(pulled) => return Ok(pulled),
                Look::Skipped(next) => return Ok(nothing(next)),
                Look::Nothing(next) => from = next,
                Look::Illegal(_) => break,
            }
            if Instant::now() >= self.wait_until {
                break;
            }
            self.park(arrivals.wait_past(from)).await?;
        }
        // A leader that was deposed without knowing would say that there is nothing for ever.
        let left = self.answer_by.saturating_duration_since(Instant::now());
        self.service.confirm_leadership(left).await?;
        match self.look(from).await? {
            Look::Found(pulled) | Look::Illegal(pulled) => Ok(pulled),
            Look::Nothing(next) | Look::Skipped(next) => Ok(nothing(next)),
        }
    }

    /// Waits for `arrival` as long as this pull may.
    async fn park(&self, arrival: impl Future<Output = ()>) -> Result<(), CallError> {
        let Ok(_permit) = self.service.long_polls.try_acquire() else {
            return Err(too_many_requests("too many pulls are waiting").into());
        };
        let wait = self.wait_until.saturating_duration_since(Instant::now());
        tokio::select! {
            biased;
            () = arrival => Ok(()),
            () = tokio::time::sleep(wait) => Ok(()),
            () = self.service.shutdown.wait() => {
                Err(not_available("the broker is stopping").into())
            }
        }
    }

    /// Reads on until there is something to deliver, or the end of the queue, or enough was skipped.
    async fn look(&self, from: QueueOffset) -> Result<Look, CallError> {
        let view = &self.service.view;
        let bounds = view.queue(self.place.topic.id, self.place.queue);
        if bounds.is_some_and(|bounds| bounds.next_offset == from) {
            return Ok(Look::Nothing(from));
        }
        self.scan(from).await
    }

    async fn scan(&self, from: QueueOffset) -> Result<Look, CallError> {
        let at_once = if self.filter.is_all() {
            self.messages_max
        } else {
            self.messages_max.max(FILTERED_READ)
        };
        let (mut next, mut skipped) = (from, 0);
        while skipped < FILTERED_MAX {
            let (read, mut hold) = self.read(next, at_once).await?;
            let stored = match read {
                Ok(stored) => stored,
                Err(error) => return self.unread(next, &error),
            };
            let Some(last) = stored.last() else {
                return Ok(Look::Nothing(next));
            };
            let end = last.offset + 1;
            let (messages, next_offset) = self.deliver(&stored, end);
            if !messages.is_empty() {
                let bytes = messages.iter().map(|message| message.len() as u64);
                hold.shrink(bytes.sum());
                self.context.keep(hold);
                let next_offset = Some(next_offset);
                return Ok(Look::Found(Pulled {
                    status: ok(),
                    messages,
                    next_offset,
                }));
            }
            next = end;
            skipped += stored.len();
            // A long scan of entries that are in memory must not keep others from running, nor have what it does not answer
            // with.
            drop((stored, hold));
            host::task::yield_now().await;
        }
        Ok(Look::Skipped(next))
    }

    /// Reads from the queue; what turns out to be damaged on the disk is fetched from another replica
    /// first. Takes the bytes of an answer before anything is read: thousands of pulls that wake at once would be as many
    /// answers. While another replica is asked it has none.
    async fn read(
        &self,
        from: QueueOffset,
        count: usize,
    ) -> Result<(Result<Vec<Stored>, ReadError>, AnswerHold), CallError> {
        let (topic_id, queue) = (self.place.topic.id, self.place.queue);
        let bytes_max = self.service.config.pull_bytes_max as usize;
        let read = || {
            self.service
                .view
                .read(topic_id, queue, from, count, bytes_max)
        };
        let hold = self.context.room(self.service).await?;
        let result = read().await;
        let Err(ReadError::Store(error)) = &result else {
            return Ok((result, hold));
        };
        drop(hold);
        if !self.service.repaired(error).await {
            return Ok((result, AnswerHold::default()));
        }
        let hold = self.context.room(self.service).await?;
        Ok((read().await, hold))
    }

    fn unread(&self, offset: QueueOffset, error: &ReadError) -> Result<Look, CallError> {
        match error {
            ReadError::OffsetTooSmall { min } => {
                Ok(Look::Illegal(self.illegal(offset as i64, *min)))
            }
            ReadError::OffsetTooLarge { max } => {
                Ok(Look::Illegal(self.illegal(offset as i64, *max)))
            }
            other => Err(unreadable(&self.place.topic.name, other).into()),
        }
    }

    /// Refuses an offset and says where to go on instead.
    fn illegal(&self, offset: i64, nearest: QueueOffset) -> Pulled {
        let bounds = self
            .service
            .view
            .queue(self.place.topic.id, self.place.queue);
        let place = Place {
            topic: self.place.topic.clone(),
            queue: self.place.queue,
            bounds: bounds.unwrap_or(self.place.bounds),
        };
        Pulled {
            status: place.illegal_offset(offset).into_status(),
            messages: Vec::new(),
            next_offset: Some(nearest),
        }
    }

    /// The messages that were asked for, in the form in which consumers get them, and the offset after
    /// the last one that was looked at: `end` if that was all of them.
    fn deliver(&self, stored: &[Stored], end: QueueOffset) -> (Vec<Bytes>, QueueOffset) {
        let mut delivered = Vec::with_capacity(stored.len().min(self.messages_max));
        for one in stored {
            if delivered.len() == self.messages_max {
                return (delivered, one.offset);
            }
            if !self.filter.is_all() {
                let view = MessageView::parse(&one.message);
                if !view.is_ok_and(|view| self.filter.accepts(view.tag)) {
                    continue;
                }
            }
            let delivery = Delivery {
                queue_id: self.place.queue,
                queue_offset: one.offset,
                store_timestamp_ms: one.time_ms,
                store_host: &self.service.own.client_address,
                receipt_handle: None,
                attempt: 1,
                invisible_duration: None,
            };
            delivered.push(match self.place.topic.dead_letters {
                true => deliver_dead_letter(&one.message, &delivery),
                false => deliver(&one.message, &delivery),
            });
        }
        (delivered, end)
    }
}

/// The answer when no message that was asked for is there.
fn nothing(next: QueueOffset) -> Pulled {
    Pulled {
        status: MessagingStatus {
            code: Code::MessageNotFound.into(),
            message: "no message arrived in time".to_owned(),
        },
        messages: Vec::new(),
        next_offset: Some(next),
    }
}

fn answer(pulled: Pulled) -> AnswerStream {
    let mut items = Vec::with_capacity(pulled.messages.len() + 2);
    items.push(Content::Status(pulled.status));
    items.extend(pulled.messages.into_iter().map(Content::Message));
    items.extend(
        pulled
            .next_offset
            .map(|offset| Content::NextOffset(offset as i64)),
    );
    let items = items.into_iter().map(|content| {
        Ok(PullMessageResponse {
            content: Some(content),
        })
    });
    stream::iter(items).boxed()
}

fn batch_size(asked: i32, most: u32) -> usize {
    let asked = usize::try_from(asked).ok().filter(|asked| *asked > 0);
    asked.unwrap_or(BATCH_SIZE_DEFAULT).min(most as usize)
}

fn polling(request: &PullMessageRequest) -> Duration {
    let asked = request
        .long_polling_timeout
        .and_then(|asked| Duration::try_from(asked).ok());
    asked.unwrap_or_default()
}

fn wait_until(request: &PullMessageRequest, service: &Service, context: &Context) -> Instant {
    let most = Duration::from_millis(service.config.long_polling_ms_max);
    let left = context.left();
    let wait = polling(request)
        .min(most)
        .min(left - ANSWER_RESERVE.min(left / 4));
    Instant::now() + wait
}
