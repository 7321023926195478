//! Name servers telling each other what they heard.
//!
//! Each round asks a few random peers: digests of everything go out, what the caller lacks comes back, and what the
//! other lacks is sent after it. So news travels in both directions and a message that is lost costs one round. A
//! registration that changed something starts a round at once.
//!
//! Every message is bounded: what does not fit waits for the next one. A request that carries entries is only that: it is
//! answered without any. A request with neither digests nor entries comes from a name server that knows nothing.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::future::join_all;
use host::Shutdown;
use host::network::{self, ChannelOptions, ClusterSecret};
use proto::cluster::name_server_client::NameServerClient;
use proto::cluster::{self, GossipRequest, GossipResponse};
use tokio::time::timeout;
use tonic::Status;
use tonic::transport::Channel;
use tracing::{debug, info};

use crate::config::NameServerConfig;
use crate::directory::Directory;
use crate::membership::{MEMBERS_MAX, Membership};

/// Pause between two attempts to fill the table at the start.
const FILL_RETRY: Duration = Duration::from_millis(100);

/// Shortest time between two rounds, however much news there is.
const ROUND_PAUSE: Duration = Duration::from_millis(20);

/// Messages in one exchange with one peer; the rest waits for the next round.
const MESSAGES_MAX: usize = 256;

type Client = NameServerClient<Channel>;

/// This name server's part in the gossip.
pub(crate) struct Gossip {
    own: String,
    secret: ClusterSecret,
    directory: Arc<Directory>,
    membership: Mutex<Membership>,
    clients: Mutex<BTreeMap<String, Client>>,
    interval: Duration,
    patience: Duration,
    fanout: usize,
    bytes_max: usize,
}

impl Gossip {
    pub(crate) fn new(
        own: &str,
        config: &NameServerConfig,
        secret: &ClusterSecret,
        directory: Arc<Directory>,
    ) -> Self {
        let membership = Membership::new(own, config.gossip_interval_ms, &config.peers);
        Gossip {
            own: own.to_owned(),
            secret: secret.clone(),
            directory,
            membership: Mutex::new(membership),
            clients: Mutex::new(BTreeMap::new()),
            interval: Duration::from_millis(config.gossip_interval_ms),
            patience: Duration::from_millis(config.gossip_timeout_ms),
            fanout: config.gossip_fanout,
            bytes_max: config.gossip_bytes_max,
        }
    }

    /// The name servers that a broker or a client may try, this one first.
    pub(crate) fn members(&self) -> Vec<String> {
        let now = self.directory.now();
        self.with_membership(|membership| membership.worth_telling(now))
    }

    /// Answers a peer's request.
    pub(crate) fn answer(&self, request: GossipRequest) -> GossipResponse {
        let now = self.directory.now();
        self.with_membership(|membership| {
            membership.called(&request.from, now);
            membership.learn(request.members.iter().take(MEMBERS_MAX), now);
        });
        let mut response = GossipResponse {
            members: self.members(),
            ..Default::default()
        };
        if request.entries.is_empty() {
            response.entries = self.directory.newer_than(&request.digests, self.bytes_max);
            response.wanted = self.directory.wanted(&request.digests);
        } else {
            self.directory.merge(&request.from, request.entries);
        }
        response
    }

    /// Fills the table from whoever can be reached, within `wait`. Then clients are answered, whatever came of it: when
    /// all name servers start for the first time, nobody has anything, and none may wait for the others for ever.
    pub(crate) async fn fill(&self, wait: Duration) {
        let filled = timeout(wait, async {
            while !self.fill_once().await {
                tokio::time::sleep(FILL_RETRY).await;
            }
        });
        if filled.await.is_err() {
            info!("no peer could be reached to fill the table from");
        }
        self.directory.set_filled();
    }

    /// Gossips until `shutdown`.
    pub(crate) async fn run(&self, shutdown: &Shutdown) {
        loop {
            let pause = self.interval.mul_f64(rand::random_range(0.8..1.2));
            let news = async {
                self.directory.news().await;
                tokio::time::sleep(ROUND_PAUSE).await;
            };
            tokio::select! {
                biased;
                () = shutdown.wait() => return,
                () = news => {}
                () = tokio::time::sleep(pause) => {}
            }
            tokio::select! {
                biased;
                () = shutdown.wait() => return,
                () = self.round() => {}
            }
        }
    }

    async fn round(&self) {
        let now = self.directory.now();
        let picked =
            self.with_membership(|membership| membership.pick(self.fanout, now, &mut rand::rng()));
        join_all(picked.iter().map(|peer| self.exchange(peer, 1))).await;
    }

    /// Asks every peer for all it has. True if there is nobody to wait for: one answered, or there are none.
    async fn fill_once(&self) -> bool {
        let peers = self.with_membership(|membership| membership.all());
        let asked = peers.iter().map(|peer| self.exchange(peer, MESSAGES_MAX));
        let answered = join_all(asked).await;
        peers.is_empty() || answered.contains(&true)
    }

    /// One exchange with `peer`; up to `requests_max` requests for what is lacking. Whether the peer answered.
    async fn exchange(&self, peer: &str, requests_max: usize) -> bool {
        let outcome = self.pull_and_push(peer, requests_max).await;
        let now = self.directory.now();
        match outcome {
            Ok(()) => self.with_membership(|membership| membership.answered(peer, now)),
            Err(status) => {
                debug!(peer, %status, "gossip failed");
                self.with_membership(|membership| membership.failed(peer, now));
                return false;
            }
        }
        true
    }

    async fn pull_and_push(&self, peer: &str, requests_max: usize) -> Result<(), Status> {
        let mut wanted = Vec::new();
        for _ in 0..requests_max {
            let digests = self.directory.digests();
            let response = self
                .call(
                    peer,
                    GossipRequest {
                        digests,
                        ..self.request()
                    },
                )
                .await?;
            let complete = response.entries.is_empty();
            let now = self.directory.now();
            self.with_membership(|membership| {
                membership.learn(response.members.iter().take(MEMBERS_MAX), now);
            });
            self.directory.merge(peer, response.entries);
            wanted = response.wanted;
            if complete {
                break;
            }
        }
        let mut rest = wanted.as_slice();
        for _ in 0..MESSAGES_MAX {
            let (entries, done) = self.directory.entries(rest, self.bytes_max);
            if entries.is_empty() {
                break;
            }
            self.call(
                peer,
                GossipRequest {
                    entries,
                    ..self.request()
                },
            )
            .await?;
            rest = &rest[done..];
        }
        Ok(())
    }

    fn request(&self) -> GossipRequest {
        GossipRequest {
            from: self.own.clone(),
            members: self.members(),
            ..Default::default()
        }
    }

    async fn call(&self, peer: &str, request: GossipRequest) -> Result<GossipResponse, Status> {
        let mut client = self.client(peer)?;
        match timeout(self.patience, client.gossip(request)).await {
            Ok(answer) => Ok(answer?.into_inner()),
            Err(_) => Err(Status::deadline_exceeded(format!("{peer} did not answer"))),
        }
    }

    fn client(&self, peer: &str) -> Result<Client, Status> {
        let members = self.with_membership(|membership| membership.all());
        let mut clients = self
            .clients
            .lock()
            .expect("nothing panics while the clients are locked");
        clients.retain(|address, _| members.contains(address));
        if let Some(client) = clients.get(peer) {
            return Ok(client.clone());
        }
        let options = ChannelOptions {
            secret: Some(self.secret.clone()),
            ..ChannelOptions::default()
        };
        let channel = network::channel(peer, &options)
            .map_err(|error| Status::unavailable(error.to_string()))?;
        let client = cluster::name_server_client(channel);
        clients.insert(peer.to_owned(), client.clone());
        Ok(client)
    }

    fn with_membership<R>(&self, act: impl FnOnce(&mut Membership) -> R) -> R {
        act(&mut self
            .membership
            .lock()
            .expect("nothing panics while the membership is locked"))
    }
}
