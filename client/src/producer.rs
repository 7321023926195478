//! Producers.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use crate::error::Error;
use crate::message::Message;

/// Sends messages. Cheap to clone; clones share order, bounds and routes.
#[derive(Clone)]
pub struct Producer {}

impl Producer {
    /// Sends one message and returns when it is on the disks of a majority.
    pub async fn send(&self, message: Message) -> Result<SendReceipt, Error> { unimplemented!() }
    /// Hands one message over and returns as soon as there is room for it; the handle resolves when it is stored.
    pub async fn send_async(&self, message: Message) -> Result<SendHandle, Error> { unimplemented!() }
    /// Sends several messages of any topics and returns when each is settled; results in the order of the messages.
    pub async fn send_batch(&self, messages: Vec<Message>) -> Vec<Result<SendReceipt, Error>> { unimplemented!() }
    /// Returns when everything handed over before is settled.
    pub async fn flush(&self) -> Result<(), Error> { unimplemented!() }
    /// Takes no more messages, settles those in flight, says goodbye to the servers.
    pub async fn close(&self) -> Result<(), Error> { unimplemented!() }
}

/// Describes a [`Producer`].
#[derive(Clone)]
pub struct ProducerBuilder {}

impl ProducerBuilder {
    /// Deadline of each message, retries and all. Default 10 s.
    #[must_use]
    pub fn send_timeout(self, timeout: Duration) -> Self { unimplemented!() }
    /// Further attempts after a refusal that is neither final nor passing (an internal error, a topic not found).
    /// Passing ones (an election, an overload, no answer) are retried until the deadline. Default 2.
    #[must_use]
    pub fn retries(self, retries: u32) -> Self { unimplemented!() }
    /// Most messages handed over and not settled. Default 4096.
    #[must_use]
    pub fn max_in_flight(self, messages: usize) -> Self { unimplemented!() }
    /// Most bytes handed over and not settled. Default 64 MiB.
    #[must_use]
    pub fn max_in_flight_bytes(self, bytes: usize) -> Self { unimplemented!() }
    /// Most messages gathered into one request. Default 1024.
    #[must_use]
    pub fn request_messages_max(self, messages: usize) -> Self { unimplemented!() }
    /// Most bytes gathered into one request. Default 1 MiB.
    #[must_use]
    pub fn request_bytes_max(self, bytes: usize) -> Self { unimplemented!() }
    /// Most requests on their way at once for one topic. Default 4.
    #[must_use]
    pub fn requests_in_flight_max(self, requests: usize) -> Self { unimplemented!() }
    /// The producer.
    pub fn build(self) -> Result<Producer, Error> { unimplemented!() }
}

/// Where a message is stored.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct SendReceipt {
    /// Its id.
    pub message_id: String,
    /// The topic.
    pub topic: Arc<str>,
    /// Number of the queue within the topic.
    pub queue: u32,
    /// Offset in the queue.
    pub offset: u64,
}

/// A message on its way: a future of its receipt. Dropping it does not recall the message.
#[must_use = "the handle tells whether the message was stored"]
pub struct SendHandle {}

impl Future for SendHandle {
    type Output = Result<SendReceipt, Error>;
    fn poll(self: Pin<&mut Self>, _context: &mut Context<'_>) -> Poll<Self::Output> { unimplemented!() }
}
