//! Messages by their place, for operators: what is stored, without a consumer group.
//!
//! There is no index by id or key: whoever looks for one has the leader read on from an offset, a bounded
//! number of messages a call, and is told how far it came.

use bytes::Bytes;
use proto::QueueOffset;
use proto::cluster::{ReadMessagesRequest, ReadMessagesResponse};
use proto::message::{Delivery, View as MessageView, deliver};
use proto::v2::Code;

use crate::call::Context;
use crate::grpc::status::{CallError, Refusal, queue_not_found, unreadable};
use crate::service::Service;
use crate::view::{QueueBounds, ReadError, Stored, Topic};

/// Messages in one answer at most, whatever was asked for.
const MESSAGES_MAX: usize = 1_024;
/// Messages that one call looks at, at most; the caller goes on from where it ended.
const SCAN_MAX: usize = 65_536;
/// Messages read at once.
const READ_MESSAGES: usize = 256;

/// Reads on from an offset until there is enough, the end, or enough was looked at.
pub(super) async fn read(
    service: &Service,
    request: &ReadMessagesRequest,
    context: &Context,
) -> Result<ReadMessagesResponse, CallError> {
    // What is not there is said only after confirming that this broker still leads.
    service.confirm_leadership(context.left()).await?;
    let topic = service.topic(&request.topic)?;
    let bounds = service.view.queue(topic.id, request.queue).ok_or_else(|| {
        let queue = i32::try_from(request.queue).unwrap_or(i32::MAX);
        queue_not_found(&topic, queue)
    })?;
    let mut reader = Reader {
        service,
        request,
        topic: &topic,
        bounds,
        next: request.offset.max(bounds.min_offset),
        messages: Vec::new(),
        bytes: 0,
    };
    reader.read().await?;
    Ok(ReadMessagesResponse {
        code: Code::Ok.into(),
        message: String::new(),
        next_offset: reader.next,
        messages: reader.messages,
        min_offset: bounds.min_offset,
        max_offset: bounds.next_offset,
    })
}

/// One call under way.
struct Reader<'a> {
    service: &'a Service,
    request: &'a ReadMessagesRequest,
    topic: &'a Topic,
    bounds: QueueBounds,
    /// The next offset to look at.
    next: QueueOffset,
    messages: Vec<Bytes>,
    bytes: usize,
}

impl Reader<'_> {
    async fn read(&mut self) -> Result<(), CallError> {
        let request = self.request;
        let most = (request.messages_max.max(1) as usize).min(MESSAGES_MAX);
        let everything = request.message_id.is_empty() && request.key.is_empty();
        let scan_max = match (everything, request.scan_max as usize) {
            (true, _) => most,
            (false, 0) => SCAN_MAX,
            (false, asked) => asked.min(SCAN_MAX),
        };
        let end = match request.end_offset {
            0 => self.bounds.next_offset,
            end => end.min(self.bounds.next_offset),
        };
        let mut left = scan_max as u64;
        while self.next < end && left > 0 && self.messages.len() < most {
            let count = (end - self.next).min(left).min(READ_MESSAGES as u64) as usize;
            let stored = self.stored(count).await?;
            if stored.is_empty() {
                return Ok(());
            }
            for one in &stored {
                if self.messages.len() == most || self.is_full(one) {
                    return Ok(());
                }
                self.look_at(one);
                left -= 1;
            }
            // A long scan of entries that are in memory must not keep others from running.
            host::task::yield_now().await;
        }
        Ok(())
    }

    async fn stored(&mut self, count: usize) -> Result<Vec<Stored>, CallError> {
        let bytes_max = self.service.config.pull_bytes_max as usize;
        let view = &self.service.view;
        let (topic_id, queue) = (self.topic.id, self.request.queue);
        match view
            .read(topic_id, queue, self.next, count, bytes_max)
            .await
        {
            Ok(stored) => Ok(stored),
            // Retention dropped messages since the bounds were read.
            Err(ReadError::OffsetTooSmall { min }) => {
                self.next = min;
                Ok(view
                    .read(topic_id, queue, min, count, bytes_max)
                    .await
                    .map_err(|error| unreadable(&self.topic.name, &error))?)
            }
            Err(error) => Err(unreadable(&self.topic.name, &error).into()),
        }
    }

    /// Whether the answer would grow beyond what one answer may hold.
    fn is_full(&self, one: &Stored) -> bool {
        let bytes_max = self.service.config.pull_bytes_max as usize;
        !self.messages.is_empty() && self.bytes + one.message.len() > bytes_max
    }

    fn look_at(&mut self, one: &Stored) {
        self.next = one.offset + 1;
        if !self.is_wanted(&one.message) {
            return;
        }
        self.bytes += one.message.len();
        self.messages.push(deliver(
            &one.message,
            &Delivery {
                queue_id: self.request.queue,
                queue_offset: one.offset,
                store_timestamp_ms: one.time_ms,
                store_host: &self.service.own.client_address,
                receipt_handle: None,
                attempt: 0,
                invisible_duration: None,
            },
        ));
    }

    fn is_wanted(&self, message: &[u8]) -> bool {
        let (id, key) = (&self.request.message_id, &self.request.key);
        if id.is_empty() && key.is_empty() {
            return true;
        }
        MessageView::parse(message).is_ok_and(|view| {
            (id.is_empty() || view.message_id.eq_ignore_ascii_case(id))
                && (key.is_empty() || view.keys().any(|known| known == key))
        })
    }
}

/// When the message at an offset was stored, if it is there.
pub(super) async fn stored_at(
    service: &Service,
    topic_id: u64,
    queue: u32,
    offset: QueueOffset,
) -> Result<Option<u64>, Refusal> {
    match service.view.time_of(topic_id, queue, offset).await {
        Ok(time_ms) => Ok(time_ms),
        Err(ReadError::OffsetTooSmall { .. } | ReadError::OffsetTooLarge { .. }) => Ok(None),
        Err(error) => Err(Refusal::new(Code::InternalServerError, error.to_string())),
    }
}
