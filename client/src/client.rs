//! The client: who we are, whom we know, how long we wait.

use std::time::Duration;

use host::Host;

use crate::admin::Admin;
use crate::consumer::{PullConsumerBuilder, TopicQueue};
use crate::error::Error;
use crate::producer::ProducerBuilder;

/// Connections, routes and identity, shared by producers and consumers. Cheap to clone.
#[derive(Clone)]
pub struct Client {}

impl Client {
    /// Starts to describe a client.
    pub fn builder() -> ClientBuilder { unimplemented!() }
    /// The id under which the servers know this client.
    pub fn client_id(&self) -> &str { unimplemented!() }
    /// Starts to describe a producer.
    pub fn producer(&self) -> ProducerBuilder { unimplemented!() }
    /// Starts to describe a consumer of `group`.
    pub fn pull_consumer(&self, group: impl Into<String>) -> PullConsumerBuilder { unimplemented!() }
    /// Administration calls.
    pub fn admin(&self) -> Admin { unimplemented!() }
    /// The readable queues of a topic, in order.
    pub async fn queues(&self, topic: &str) -> Result<Vec<TopicQueue>, Error> { unimplemented!() }
    /// Offset of the oldest message still in the queue.
    pub async fn min_offset(&self, queue: &TopicQueue) -> Result<u64, Error> { unimplemented!() }
    /// Offset that the queue's next message will get.
    pub async fn max_offset(&self, queue: &TopicQueue) -> Result<u64, Error> { unimplemented!() }
    /// Offset of the first message stored at or after a time (milliseconds since the Unix epoch).
    pub async fn offset_at(&self, queue: &TopicQueue, time_ms: u64) -> Result<u64, Error> { unimplemented!() }
}

/// Describes a [`Client`].
#[derive(Clone)]
pub struct ClientBuilder {}

impl ClientBuilder {
    /// Name servers or brokers to start from, `host:port`; any one that answers is enough. Default `127.0.0.1:8081`.
    #[must_use]
    pub fn seeds<S: Into<String>>(self, seeds: impl IntoIterator<Item = S>) -> Self { unimplemented!() }
    /// The id under which the servers know this client; unique among the members of a consumer group. Default: random.
    #[must_use]
    pub fn client_id(self, client_id: impl Into<String>) -> Self { unimplemented!() }
    /// Deadline of a call, attempts and all, where nothing else is said. Default 10 s.
    #[must_use]
    pub fn request_timeout(self, timeout: Duration) -> Self { unimplemented!() }
    /// Longest wait for one attempt's answer before another address is tried. Default 3 s.
    #[must_use]
    pub fn attempt_timeout(self, timeout: Duration) -> Self { unimplemented!() }
    /// How long `build` waits for the first seed to answer. Default 10 s.
    #[must_use]
    pub fn start_timeout(self, timeout: Duration) -> Self { unimplemented!() }
    /// The machine to run on: whose clock stamps messages. Default the real one.
    #[must_use]
    pub fn host(self, host: Host) -> Self { unimplemented!() }
    /// Returns when one seed has answered.
    pub async fn build(self) -> Result<Client, Error> { unimplemented!() }
}
