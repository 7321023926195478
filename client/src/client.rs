//! The client: who we are, whom we know, how long we wait.

use std::sync::Arc;
use std::time::Duration;

use futures::stream::{FuturesUnordered, StreamExt};
use host::Host;
use host::network::ClientTls;
use proto::v2::{ClientType, HeartbeatRequest};
use rand::RngExt;
use tokio::time::Instant;

use crate::admin::Admin;
use crate::administration::Administration;
use crate::answer::Attempt;
use crate::backoff::Backoff;
use crate::connection::{Connection, Identity, Timeouts};
use crate::consumer::{PullConsumerBuilder, TopicQueue};
use crate::core::Core;
use crate::deadline;
use crate::error::Error;
use crate::member_ids::MemberIds;
use crate::offsets;
use crate::producer::ProducerBuilder;
use crate::push_consumer::PushConsumerBuilder;

/// Where a broker or a development cluster listens unless told otherwise.
const SEED_DEFAULT: &str = "127.0.0.1:8081";

/// Connections, routes and identity, shared by producers and consumers. Cheap to clone; make one per process.
#[derive(Clone)]
pub struct Client {
    core: Arc<Core>,
    member_ids: MemberIds,
}

impl Client {
    /// Starts to describe a client.
    pub fn builder() -> ClientBuilder {
        ClientBuilder {
            seeds: vec![SEED_DEFAULT.to_owned()],
            client_id: None,
            request_timeout: Duration::from_secs(10),
            attempt_timeout: Duration::from_secs(3),
            start_timeout: Duration::from_secs(10),
            host: Host::real(),
            tls: None,
            administration: None,
        }
    }

    /// The id under which the servers know this client. Its second and further consumers have a number behind it.
    pub fn client_id(&self) -> &str {
        self.core.connection.identity.client_id()
    }

    /// Starts to describe a producer.
    pub fn producer(&self) -> ProducerBuilder {
        ProducerBuilder::new(self.core.clone())
    }

    /// Starts to describe a consumer of `group`.
    pub fn pull_consumer(&self, group: impl Into<String>) -> PullConsumerBuilder {
        PullConsumerBuilder::new(self.core.clone(), group.into(), self.member_ids.clone())
    }

    /// Starts to describe a consumer of `group` that gives each message to a listener or a stream.
    pub fn push_consumer(&self, group: impl Into<String>) -> PushConsumerBuilder {
        PushConsumerBuilder::new(self.core.clone(), group.into(), self.member_ids.clone())
    }

    /// Administration calls. They need [`ClientBuilder::administration`]; without it each is refused.
    pub fn admin(&self) -> Admin {
        Admin::new(self.core.clone())
    }

    /// The readable queues of a topic, in order, asked anew.
    ///
    /// # Errors
    /// [`Error::Refused`] with `TOPIC_NOT_FOUND` if there is no such topic; [`Error::TimedOut`].
    pub async fn queues(&self, topic: &str) -> Result<Vec<TopicQueue>, Error> {
        let topic: Arc<str> = topic.into();
        let route = self.core.fresh_route(&topic).await?;
        Ok(route
            .readable()
            .map(|queue| TopicQueue::new(topic.clone(), queue.queue))
            .collect())
    }

    /// Offset of the oldest message still in the queue.
    ///
    /// # Errors
    /// [`Error::Refused`] if there is no such queue; [`Error::TimedOut`].
    pub async fn min_offset(&self, queue: &TopicQueue) -> Result<u64, Error> {
        offsets::query(&self.core, queue, offsets::Place::First).await
    }

    /// Offset that the queue's next message will get.
    ///
    /// # Errors
    /// As [`Client::min_offset`].
    pub async fn max_offset(&self, queue: &TopicQueue) -> Result<u64, Error> {
        offsets::query(&self.core, queue, offsets::Place::Next).await
    }

    /// Offset of the first message stored at or after a time, in milliseconds since the Unix epoch.
    ///
    /// # Errors
    /// As [`Client::min_offset`].
    pub async fn offset_at(&self, queue: &TopicQueue, time_ms: u64) -> Result<u64, Error> {
        offsets::query(&self.core, queue, offsets::Place::AtMs(time_ms)).await
    }
}

/// Describes a [`Client`].
#[derive(Clone)]
pub struct ClientBuilder {
    seeds: Vec<String>,
    client_id: Option<String>,
    request_timeout: Duration,
    attempt_timeout: Duration,
    start_timeout: Duration,
    host: Host,
    tls: Option<ClientTls>,
    administration: Option<Administration>,
}

impl ClientBuilder {
    /// Name servers or brokers to start from, `host:port`; any one that answers is enough. Default `127.0.0.1:8081`.
    #[must_use]
    pub fn seeds<S: Into<String>>(mut self, seeds: impl IntoIterator<Item = S>) -> Self {
        self.seeds = seeds.into_iter().map(Into::into).collect();
        self
    }

    /// The id under which the servers know this client; unique among the members of a consumer group, whatever process they
    /// are in. Default: random, which is always right. A consumer whose id is that of another living one is refused with
    /// `PRECONDITION_FAILED`, and told so again with each heartbeat; one that takes the place of a process that was killed
    /// waits until that one has missed three heartbeats.
    #[must_use]
    pub fn client_id(mut self, client_id: impl Into<String>) -> Self {
        self.client_id = Some(client_id.into());
        self
    }

    /// Deadline of a call, attempts and all, where nothing else is said. Default 10 s.
    #[must_use]
    pub fn request_timeout(mut self, timeout: Duration) -> Self {
        self.request_timeout = timeout;
        self
    }

    /// Longest wait for one attempt's answer before another address is tried. Default 3 s.
    #[must_use]
    pub fn attempt_timeout(mut self, timeout: Duration) -> Self {
        self.attempt_timeout = timeout;
        self
    }

    /// How long [`ClientBuilder::build`] waits for the first seed to answer. Default 10 s.
    #[must_use]
    pub fn start_timeout(mut self, timeout: Duration) -> Self {
        self.start_timeout = timeout;
        self
    }

    /// Speaks TLS with all servers, and trusts whom this says. Default plaintext.
    #[cfg(feature = "tls")]
    #[must_use]
    pub fn tls(mut self, tls: ClientTls) -> Self {
        self.tls = Some(tls);
        self
    }

    /// What [`Client::admin`] needs: the secret of the cluster, and where operators are served. Default: none, which is
    /// enough to send and to consume.
    #[must_use]
    pub fn administration(mut self, administration: impl Into<Option<Administration>>) -> Self {
        self.administration = administration.into();
        self
    }

    /// The machine to run on: its clock stamps messages, its disk has the files that consumers are told to keep. Default
    /// the real one.
    #[must_use]
    pub fn host(mut self, host: &Host) -> Self {
        self.host = host.clone();
        self
    }

    /// Returns when one seed has answered, whatever it answered: also a cluster that has no leader yet is one.
    ///
    /// # Errors
    /// [`Error::Invalid`]: no seeds, or an address or client id that cannot be one. [`Error::NoSeedAnswered`].
    pub async fn build(self) -> Result<Client, Error> {
        if self.seeds.is_empty() {
            return Err(Error::invalid("seeds", "there is none"));
        }
        for (name, timeout) in [
            ("request_timeout", self.request_timeout),
            ("attempt_timeout", self.attempt_timeout),
        ] {
            if timeout.is_zero() {
                return Err(Error::invalid(
                    name,
                    "it is 0, so that nobody could answer in time",
                ));
            }
        }
        let client_id = self.client_id.clone().unwrap_or_else(random_id);
        let mut seeds: Vec<Arc<str>> = Vec::new();
        for seed in self
            .seeds
            .iter()
            .flat_map(|seeds| seeds.split([',', ';']))
            .map(str::trim)
        {
            if !seeds.iter().any(|known| &**known == seed) {
                seeds.push(seed.into());
            }
        }
        let connection = Connection::new(
            Identity::new(&client_id)?,
            seeds,
            self.host.clock.clone(),
            Timeouts {
                request: self.request_timeout.min(deadline::LONGEST),
                attempt: self.attempt_timeout.min(deadline::LONGEST),
            },
            self.tls.clone(),
            self.administration
                .as_ref()
                .map(Administration::to_endpoints),
        );
        self.first_answer(&connection).await?;
        Ok(Client {
            member_ids: MemberIds::new(connection.identity.clone()),
            core: Arc::new(Core::new(connection, self.host.disk)),
        })
    }

    /// Asks all seeds at once, again and again, until one answers.
    async fn first_answer(&self, connection: &Connection) -> Result<(), Error> {
        let started = Instant::now();
        let mut backoff = Backoff::default();
        loop {
            let left = self
                .start_timeout
                .min(deadline::LONGEST)
                .saturating_sub(started.elapsed());
            let timeout = self.attempt_timeout.min(left);
            let seeds = connection.brokers.seeds();
            let mut asked: FuturesUnordered<_> = seeds
                .iter()
                .map(|seed| ask_seed(connection, seed, timeout))
                .collect();
            let mut last = String::new();
            while let Some(answered) = asked.next().await {
                match answered {
                    Ok(()) => return Ok(()),
                    Err(reason) => last = reason,
                }
            }
            let wait = backoff.next_wait();
            if started.elapsed() + wait >= self.start_timeout {
                return Err(Error::NoSeedAnswered {
                    seeds: seeds.join(","),
                    waited_ms: u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX),
                    reason: last,
                });
            }
            tokio::time::sleep(wait).await;
        }
    }
}

/// Any answer will do: it shows that someone who speaks the protocol is there.
async fn ask_seed(connection: &Connection, seed: &str, timeout: Duration) -> Result<(), String> {
    let heartbeat = HeartbeatRequest {
        group: None,
        client_type: ClientType::Producer as i32,
    };
    let call = async {
        let request = connection.request(heartbeat, timeout);
        connection.messaging(seed)?.heartbeat(request).await
    };
    match connection.attempt("", seed, timeout, call).await {
        (Attempt::Lost { reason, .. }, _) => Err(format!("{seed}: {reason}")),
        _ => Ok(()),
    }
}

fn random_id() -> String {
    format!("raftmq-{:016x}", rand::rng().random::<u64>())
}
