//! Offsets of consumer groups and of queues: `UpdateOffset`, `GetOffset`, `QueryOffset`.
//!
//! What is answered is at least as new as anything that was answered before the call, by whichever
//! leader: reads confirm first that this broker still leads.

mod get;
mod query;
mod update;

use std::sync::Arc;

use proto::QueueId;
use proto::v2::MessageQueue;

use super::status::{CallError, Refusal, queue_not_found};
use super::topic_name;
use crate::call::Context;
use crate::service::Service;
use crate::view::{QueueBounds, Topic};

/// A queue that a client named, and what is in it.
pub(super) struct Place {
    pub(super) topic: Arc<Topic>,
    pub(super) queue: QueueId,
    pub(super) bounds: QueueBounds,
}

impl Place {
    /// Finds a queue.
    pub(super) fn find(
        service: &Service,
        message_queue: Option<&MessageQueue>,
    ) -> Result<Place, Refusal> {
        let name = topic_name(message_queue.and_then(|queue| queue.topic.as_ref()))?;
        let topic = service.topic(&name)?;
        let id = message_queue.map_or(0, |queue| queue.id);
        let unknown = || queue_not_found(&topic, id);
        let queue = QueueId::try_from(id).map_err(|_| unknown())?;
        if !topic.offers(queue) {
            return Err(unknown());
        }
        let bounds = service.view.queue(topic.id, queue).ok_or_else(unknown)?;
        Ok(Place {
            topic,
            queue,
            bounds,
        })
    }

    /// Finds a queue of the topic that the caller means.
    pub(super) async fn of_life(
        service: &Service,
        context: &Context,
        message_queue: Option<&MessageQueue>,
    ) -> Result<Place, CallError> {
        let place = Place::find(service, message_queue)?;
        context.means(service, &place.topic).await?;
        Ok(place)
    }

    /// A refusal of an offset that the queue does not have, naming those it has.
    pub(super) fn illegal_offset(&self, offset: i64) -> Refusal {
        Refusal::new(
            proto::v2::Code::IllegalOffset,
            format!(
                "offset {offset} is not in the valid range {} to {} of queue {} of topic {}",
                self.bounds.min_offset, self.bounds.next_offset, self.queue, self.topic.name
            ),
        )
    }
}
