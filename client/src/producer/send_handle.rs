//! How a sender learns what became of its message.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use tokio::sync::oneshot;

use crate::error::Error;

/// Where a message is stored.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct SendReceipt {
    /// Its id.
    pub message_id: String,
    /// The topic.
    pub topic: Arc<str>,
    /// Number of the queue within the topic: where the message is, which for one that was stored before, by an earlier
    /// attempt or an earlier send under the same id, may be another than it was sent to.
    pub queue: u32,
    /// Offset in the queue.
    pub offset: u64,
}

/// A message on its way: a future of its receipt, ready by the message's deadline at the latest.
/// Dropping it does not recall the message.
#[derive(Debug)]
#[must_use = "the handle tells whether the message was stored"]
pub struct SendHandle {
    topic: Arc<str>,
    outcome: oneshot::Receiver<Result<SendReceipt, Error>>,
}

/// The other end of a [`SendHandle`].
pub(super) type Completion = oneshot::Sender<Result<SendReceipt, Error>>;

impl SendHandle {
    pub(super) fn new(topic: Arc<str>) -> (SendHandle, Completion) {
        let (completion, outcome) = oneshot::channel();
        (SendHandle { topic, outcome }, completion)
    }
}

impl Future for SendHandle {
    type Output = Result<SendReceipt, Error>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        match Pin::new(&mut self.outcome).poll(context) {
            Poll::Pending => Poll::Pending,
            Poll::Ready(Ok(outcome)) => Poll::Ready(outcome),
            // Its task was dropped with the runtime, in the middle of whatever it was doing.
            Poll::Ready(Err(_)) => Poll::Ready(Err(Error::OutcomeUnknown {
                operation: "send",
                subject: format!("topic {}", self.topic),
                address: "nobody".to_owned(),
                reason: "the runtime stopped during the send".to_owned(),
                message_id: None,
            })),
        }
    }
}
