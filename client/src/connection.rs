//! The way to servers: channels, metadata, deadlines, one attempt. Everything that is the same for every call.
//!
//! Shared by all that a client makes. Never decides what a message or an offset means.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use host::Clock;
use host::network::{self, ChannelOptions, ClientTls};
use proto::cluster::{self, InquiryClient};
use proto::opaque::{self, MessagingServiceClient};
use proto::place::{BROKER_GROUP, LIFE};
use proto::redelivery::{self, RedeliveryClient};
use rand::RngExt;
use tonic::metadata::{MetadataMap, MetadataValue};
use tonic::transport::Channel;
use tonic::{Request, Response, Status};

use crate::answer::{self, Answer, Attempt};
use crate::broker_table::BrokerTable;
use crate::consumer::TopicQueue;
use crate::endpoints::Endpoints;
use crate::error::Error;
use crate::hearsay::Hearsay;

/// Longest wait for a connection; an address that needs longer is as good as dead.
const CONNECT_TIMEOUT_MS: u64 = 1_500;
/// Channels kept open. Addresses are as many as brokers and name servers; this only guards against nonsense in routes.
const CHANNELS_MAX: usize = 256;

/// See the module's text.
pub(crate) struct Connection {
    pub(crate) brokers: BrokerTable,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) request_timeout: Duration,
    pub(crate) attempt_timeout: Duration,
    /// Who calls, where nothing else is said.
    pub(crate) identity: Identity,
    tls: Option<ClientTls>,
    /// Present in a client that administers.
    pub(crate) endpoints: Option<Endpoints>,
    channels: Mutex<BTreeMap<(Arc<str>, As), Channel>>,
    pub(crate) hearsay: Hearsay,
}

/// As whom a channel speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum As {
    /// Everybody.
    Client,
    /// One who proves that it holds the cluster's secret, on a port that clients use too.
    Proven,
    /// The same on a port for operators.
    Operator,
}

/// Who calls: goes with every request.
#[derive(Clone, Debug)]
pub(crate) struct Identity {
    client_id: Arc<str>,
    incarnation: u64,
    metadata: MetadataMap,
}

impl Identity {
    /// Of a client: its own, and drawn anew each time, so that servers tell it from every other one with its id.
    pub(crate) fn new(client_id: &str) -> Result<Identity, Error> {
        Identity::of(client_id, rand::rng().random())
    }

    /// Of a consumer that one client makes and that beats so often.
    pub(crate) fn member(
        &self,
        member_id: &str,
        beat_interval: Duration,
    ) -> Result<Identity, Error> {
        let mut identity = Identity::of(member_id, self.incarnation)?;
        let interval_ms = u64::try_from(beat_interval.as_millis()).unwrap_or(u64::MAX);
        identity
            .metadata
            .insert("x-raftmq-beat-interval-ms", interval_ms.into());
        Ok(identity)
    }

    fn of(client_id: &str, incarnation: u64) -> Result<Identity, Error> {
        let mut metadata = MetadataMap::new();
        let header = client_id
            .parse()
            .ok()
            .filter(|_| !client_id.trim().is_empty());
        let Some(header) = header else {
            return Err(Error::invalid(
                format!("client id {client_id:?}"),
                "it cannot stand in a header",
            ));
        };
        metadata.insert("x-mq-client-id", header);
        metadata.insert("x-mq-language", MetadataValue::from_static("RUST"));
        metadata.insert("x-mq-protocol", MetadataValue::from_static("v2"));
        // Routes with the leaders' own addresses: this client follows leaders by itself.
        metadata.insert("x-raftmq-route", MetadataValue::from_static("leader"));
        metadata.insert(
            "x-mq-client-version",
            MetadataValue::from_static(env!("CARGO_PKG_VERSION")),
        );
        metadata.insert("x-raftmq-incarnation", incarnation.into());
        Ok(Identity {
            client_id: client_id.into(),
            incarnation,
            metadata,
        })
    }

    pub(crate) fn client_id(&self) -> &str {
        &self.client_id
    }

    /// The same caller, whose calls say something more.
    pub(crate) fn with(mut self, header: &'static str, value: &impl ToString) -> Identity {
        if let Ok(value) = value.to_string().parse() {
            self.metadata.insert(header, value);
        }
        self
    }

    /// The same caller, who means a queue of this life of its topic, if one is known.
    pub(crate) fn meaning(&self, queue: &TopicQueue) -> Identity {
        match queue.life() {
            Some(life) => self.clone().with(LIFE, &life),
            None => self.clone(),
        }
    }

    /// The same caller, whose calls this broker group must answer; any may if it is "".
    pub(crate) fn for_group(&self, broker_group: &str) -> Identity {
        let mut identity = self.clone();
        name_group(&mut identity.metadata, broker_group);
        identity
    }

    /// A request of this caller, with a deadline.
    pub(crate) fn request<T>(&self, message: T, timeout: Duration) -> Request<T> {
        let mut request = Request::new(message);
        *request.metadata_mut() = self.metadata.clone();
        request.set_timeout(timeout);
        request
    }
}

/// Says which broker group must answer a call; any may if it is "".
pub(crate) fn name_group(metadata: &mut MetadataMap, broker_group: &str) {
    if let Ok(value) = broker_group.parse()
        && !broker_group.is_empty()
    {
        metadata.insert(BROKER_GROUP, value);
    }
}

/// How long calls may take where nothing else is said.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Timeouts {
    /// All attempts together.
    pub(crate) request: Duration,
    /// One of them.
    pub(crate) attempt: Duration,
}

/// What a call is, for its errors and its way.
#[derive(Clone, Debug)]
pub(crate) struct Call {
    /// For instance `query route`.
    pub(crate) operation: &'static str,
    /// What it is about, for instance `topic orders`.
    pub(crate) subject: String,
    /// The broker group to ask; "" for any.
    pub(crate) group: Arc<str>,
    /// All attempts together.
    pub(crate) timeout: Duration,
    /// Whether it changes anything, so that a lost answer leaves its outcome unknown.
    pub(crate) changes: bool,
    /// Whether it must not be repeated once it may have arrived: late, it would undo what others did since.
    pub(crate) once: bool,
}

impl Connection {
    pub(crate) fn new(
        identity: Identity,
        seeds: Vec<Arc<str>>,
        clock: Arc<dyn Clock>,
        timeouts: Timeouts,
        tls: Option<ClientTls>,
        endpoints: Option<Endpoints>,
    ) -> Connection {
        Connection {
            brokers: BrokerTable::new(seeds),
            clock,
            request_timeout: timeouts.request,
            attempt_timeout: timeouts.attempt,
            identity,
            tls,
            endpoints,
            channels: Mutex::new(BTreeMap::new()),
            hearsay: Hearsay::default(),
        }
    }

    /// A request of this client, with a deadline.
    pub(crate) fn request<T>(&self, message: T, timeout: Duration) -> Request<T> {
        self.identity.request(message, timeout)
    }

    /// What administration needs, or that it is not there: then nothing is worth trying.
    #[allow(clippy::result_large_err, reason = "the transport's own error type")]
    pub(crate) fn endpoints(&self) -> Result<&Endpoints, Status> {
        self.endpoints.as_ref().ok_or_else(|| {
            Status::unauthenticated(
                "administration needs the cluster's secret: --secret-file or RAFTMQ_SECRET_FILE for `raftmq`, \
                 ClientBuilder::administration for a program",
            )
        })
    }

    pub(crate) fn channel(
        &self,
        address: &str,
        speaks: As,
    ) -> Result<Channel, network::NetworkError> {
        let mut channels = self
            .channels
            .lock()
            .expect("nothing panics while channels are locked");
        let key = (Arc::from(address), speaks);
        if let Some(channel) = channels.get(&key) {
            return Ok(channel.clone());
        }
        // What never leaves the machine needs no certificate for a name that only the machine itself uses.
        let plain = speaks == As::Operator && is_loopback(address);
        let secret = self.endpoints.as_ref().map(|one| one.secret.clone());
        let options = ChannelOptions {
            connect_timeout_ms: CONNECT_TIMEOUT_MS,
            tls: self.tls.clone().filter(|_| !plain),
            secret: secret.filter(|_| speaks != As::Client),
            ..ChannelOptions::default()
        };
        let channel = network::channel(address, &options)?;
        if channels.len() >= CHANNELS_MAX {
            channels.pop_first();
        }
        channels.insert(key, channel.clone());
        Ok(channel)
    }

    /// The next call to this address opens a connection of its own.
    pub(crate) fn forget(&self, address: &str) {
        let mut channels = self
            .channels
            .lock()
            .expect("nothing panics while channels are locked");
        channels.remove(&(address.into(), As::Client));
    }

    /// A client of the messaging service at an address.
    pub(crate) fn messaging(&self, address: &str) -> Result<MessagingServiceClient, Status> {
        Ok(opaque::messaging_client(
            self.channel(address, As::Client).map_err(bad_address)?,
        ))
    }

    /// A client of what the broker at an address tells every client.
    pub(crate) fn inquiry(&self, address: &str) -> Result<InquiryClient, Status> {
        Ok(cluster::inquiry_client(
            self.channel(address, As::Client).map_err(bad_address)?,
        ))
    }

    /// A client of the retries of failed messages at the broker at an address.
    pub(crate) fn redelivery(&self, address: &str) -> Result<RedeliveryClient, Status> {
        Ok(redelivery::redelivery_client(
            self.channel(address, As::Client).map_err(bad_address)?,
        ))
    }

    /// A client of the name server at an address, for whoever administers.
    pub(crate) fn name_server(&self, address: &str) -> Result<cluster::NameServerClient, Status> {
        self.endpoints()?;
        Ok(cluster::name_server_client(
            self.channel(address, As::Proven).map_err(bad_address)?,
        ))
    }

    /// Reads what came of one attempt; whether it named another leader.
    pub(crate) fn read<R: Answer>(
        &self,
        group: &str,
        address: &str,
        result: Result<Response<R>, Status>,
    ) -> (Attempt<R>, bool) {
        let heard = |metadata: &MetadataMap| {
            answer::leader_hint(metadata)
                .is_some_and(|leader| self.brokers.heard(group, leader, address))
        };
        match result {
            Ok(response) => {
                self.brokers.answered(group, address);
                let redirected = heard(response.metadata());
                (answer::read_answer(response.into_inner()), redirected)
            }
            Err(status) => (answer::read_status(&status), heard(status.metadata())),
        }
    }

    /// One attempt at one address.
    pub(crate) async fn attempt<R, F>(
        &self,
        group: &str,
        address: &str,
        timeout: Duration,
        call: F,
    ) -> (Attempt<R>, bool)
    where
        R: Answer,
        F: Future<Output = Result<Response<R>, Status>>,
    {
        let result = tokio::time::timeout(timeout, call)
            .await
            .unwrap_or_else(|_| Err(late(timeout)));
        self.read(group, address, result)
    }
}

/// The status of an attempt that was given up.
pub(crate) fn late(timeout: Duration) -> Status {
    Status::deadline_exceeded(format!("no answer within {} ms", timeout.as_millis()))
}

fn is_loopback(address: &str) -> bool {
    let host = address.rsplit_once(':').map_or(address, |(host, _)| host);
    let ip = host.trim_start_matches('[').trim_end_matches(']').parse();
    host == "localhost" || ip.is_ok_and(|ip: std::net::IpAddr| ip.is_loopback())
}

/// An address that a server gave us and that is none.
fn bad_address(error: network::NetworkError) -> Status {
    Status::unavailable(format!("tcp connect error: {error}"))
}
