//! How administration calls travel: proven, through the listener for operators of any one broker, which passes them on
//! to the broker that they are for.
//!
//! Must never send an administration call anywhere without a proof.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use futures::stream::{FuturesUnordered, StreamExt};
use host::network::ClusterSecret;
use proto::cluster::{BrokerAdminClient, BrokerStatusRequest};
use tonic::{Request, Response, Status};

use crate::answer::{self, Attempt};
use crate::connection::{As, Connection};
use crate::endpoints::Endpoints;
use crate::error::Error;

/// Where a broker on this machine serves operators unless told otherwise.
const ENDPOINT_DEFAULT: &str = "127.0.0.1:7081";
/// Longest wait for a listener to show that it is there.
const PING_TIMEOUT: Duration = Duration::from_millis(1_000);
/// In a call: the broker that it is for.
const BROKER_HEADER: &str = "x-raftmq-broker";

/// What a client needs to administer: the cluster's secret, and a broker's listener for operators.
#[derive(Clone, Debug)]
pub struct Administration {
    secret: ClusterSecret,
    endpoints: Vec<String>,
}

impl Administration {
    /// With the secret of the cluster, over the listener of a broker on this machine (`127.0.0.1:7081`).
    pub fn new(secret: ClusterSecret) -> Administration {
        Administration {
            secret,
            endpoints: vec![ENDPOINT_DEFAULT.to_owned()],
        }
    }

    /// Over these listeners instead (`host:port`, each a broker's `admin_listen`); any one that answers is enough, whatever
    /// broker is meant. Those on loopback are spoken to in plaintext, others in TLS if the client speaks TLS.
    #[must_use]
    pub fn endpoints<S: Into<String>>(mut self, endpoints: impl IntoIterator<Item = S>) -> Self {
        self.endpoints = endpoints.into_iter().map(Into::into).collect();
        self
    }

    /// As the environment says: `RAFTMQ_SECRET_FILE` names the secret's file, `RAFTMQ_ADMIN` the listeners, separated by
    /// commas. `None` without the first. Blocks.
    ///
    /// # Errors
    /// [`Error::Invalid`]: the file cannot be read, is not private, or holds no secret.
    pub fn from_environment() -> Result<Option<Administration>, Error> {
        let Some(file) = std::env::var_os("RAFTMQ_SECRET_FILE") else {
            return Ok(None);
        };
        let secret = ClusterSecret::load(&PathBuf::from(file))
            .map_err(|error| Error::invalid("RAFTMQ_SECRET_FILE", error.to_string()))?;
        let administration = Administration::new(secret);
        Ok(Some(match std::env::var("RAFTMQ_ADMIN") {
            Ok(endpoints) => administration.endpoints(split(&endpoints)),
            Err(_) => administration,
        }))
    }

    /// What a client keeps of it.
    pub(crate) fn to_endpoints(&self) -> Endpoints {
        Endpoints::new(self.secret.clone(), &self.endpoints)
    }
}

fn split(endpoints: &str) -> Vec<String> {
    let endpoints = endpoints.split([',', ';']).map(str::trim);
    let endpoints = endpoints.filter(|endpoint| !endpoint.is_empty());
    endpoints.map(str::to_owned).collect()
}

impl Endpoints {
    /// The listener to use: the one in use, or the first that answers.
    async fn choose(&self, connection: &Connection) -> Result<Arc<str>, Status> {
        let (now, failed) = {
            let chosen = self.chosen();
            (chosen.now.clone(), chosen.failed.clone())
        };
        if let Some(now) = now {
            return Ok(now);
        }
        let first = self.addresses().first().ok_or_else(|| {
            Status::unauthenticated("no listener for operators is known (admin_listen)")
        })?;
        let others: Vec<&Arc<str>> = (self.addresses().iter())
            .filter(|address| Some(*address) != failed.as_ref())
            .collect();
        let found = match (self.addresses().len(), others.is_empty()) {
            (1, _) | (_, true) => Some(first.clone()),
            _ => first_to_answer(connection, &others).await,
        };
        let found = found.or(failed).unwrap_or_else(|| first.clone());
        self.chosen().now = Some(found.clone());
        Ok(found)
    }
}

async fn first_to_answer(connection: &Connection, addresses: &[&Arc<str>]) -> Option<Arc<str>> {
    let asked = addresses.iter().map(|address| async move {
        let request = connection.request(BrokerStatusRequest {}, PING_TIMEOUT);
        let mut client = connection.admin_client(address).ok()?;
        let answer = tokio::time::timeout(PING_TIMEOUT, client.status(request)).await;
        answer.ok()?.ok().map(|_| Arc::clone(address))
    });
    let mut asked: FuturesUnordered<_> = asked.collect();
    while let Some(answer) = asked.next().await {
        if answer.is_some() {
            return answer;
        }
    }
    None
}

/// A call that is under way through a listener. One that is given up has failed.
pub(crate) struct Passage<'a> {
    endpoints: &'a Endpoints,
    address: Arc<str>,
    held: bool,
}

impl Passage<'_> {
    /// What came of the call: after a refusal the listener is as good as after a yes.
    pub(crate) fn ended<R>(
        mut self,
        result: Result<Response<R>, Status>,
    ) -> Result<Response<R>, Status> {
        self.held = match &result {
            Ok(_) => true,
            Err(status) => matches!(answer::read_status::<()>(status), Attempt::Refused(_)),
        };
        result
    }
}

impl Drop for Passage<'_> {
    fn drop(&mut self) {
        if !self.held {
            self.endpoints.failed(&self.address);
        }
    }
}

impl Connection {
    #[allow(clippy::result_large_err, reason = "the transport's own error type")]
    pub(crate) fn admin_client(&self, endpoint: &str) -> Result<BrokerAdminClient, Status> {
        let channel = self.channel(endpoint, As::Operator);
        let channel = channel.map_err(|error| Status::unavailable(error.to_string()))?;
        Ok(proto::cluster::broker_admin_client(channel))
    }

    /// The way of an administration call to the broker that clients, or other replicas, reach at `broker`.
    pub(crate) async fn passage<M>(
        &self,
        broker: &str,
        message: M,
        timeout: Duration,
    ) -> Result<(Passage<'_>, BrokerAdminClient, Request<M>), Status> {
        let endpoints = self.endpoints()?;
        let mut request = self.request(message, timeout);
        let header = broker.parse();
        let header = header.map_err(|_| Status::invalid_argument("that is no address"))?;
        request.metadata_mut().insert(BROKER_HEADER, header);
        let address = endpoints.choose(self).await?;
        let client = self.admin_client(&address)?;
        let passage = Passage {
            endpoints,
            address,
            held: false,
        };
        Ok((passage, client, request))
    }
}
