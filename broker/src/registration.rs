//! Tells every name server who leads the group and what topics it has.
//!
//! Only the leader registers. Registrations are ordered by (term, version): the version counts the
//! changes that this leader has seen, so whichever registration is newer wins wherever it arrives from.
//! One task follows the changes, and one task for each name server keeps it up to date, so that one that
//! does not answer holds up no other.

use std::sync::Arc;
use std::time::Duration;

use host::network::{self, ChannelOptions};
use proto::cluster::{RegisterRequest, RegisterResponse, Registration, Replica, TopicRoute};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout};
use tonic::Request;

use crate::service::Service;

/// Renewals in one lease: two may be lost before it ends.
const RENEWALS_PER_LEASE: u32 = 3;

/// Pause before a name server that did not answer is tried again.
const RETRY_PAUSE: Duration = Duration::from_millis(500);

/// Refusals that wait to be looked at; more are dropped, since one is enough.
const REFUSALS_MAX: usize = 16;

/// Starts the tasks; they run until the broker stops.
pub(crate) fn start(service: &Arc<Service>) -> Vec<JoinHandle<()>> {
    if service.config.name_servers.is_empty() {
        return Vec::new();
    }
    let (current, registrations) = watch::channel(None);
    let (refusals, refused) = mpsc::channel(REFUSALS_MAX);
    let follower = Follower {
        service: service.clone(),
        current,
        refused,
        version: 0,
    };
    let mut tasks = vec![tokio::spawn(follower.run())];
    for address in &service.config.name_servers {
        let sender = Sender {
            service: service.clone(),
            address: address.clone(),
            registrations: registrations.clone(),
            refusals: refusals.clone(),
        };
        tasks.push(tokio::spawn(sender.run()));
    }
    tasks
}

/// A newer pair that a name server holds.
struct Newer {
    epoch: u64,
    version: u64,
}

/// Follows leadership, topics and members, and says what is to be registered.
struct Follower {
    service: Arc<Service>,
    current: watch::Sender<Option<Registration>>,
    refused: mpsc::Receiver<Newer>,
    version: u64,
}

impl Follower {
    async fn run(mut self) {
        let service = self.service.clone();
        let mut leadership = service.leadership.changes();
        let mut config = service.view.config_changes();
        let lease = Duration::from_millis(service.config.registration_lease_ms);
        loop {
            self.update();
            tokio::select! {
                biased;
                () = service.shutdown.wait() => return,
                changed = leadership.changed() => if changed.is_err() { return },
                changed = config.changed() => if changed.is_err() { return },
                () = service.members_changed.notified() => {}
                Some(newer) = self.refused.recv() => self.overtake(&newer),
                // Members also change without a word of ours, as by another broker's command.
                () = tokio::time::sleep(lease / RENEWALS_PER_LEASE) => {}
            }
        }
    }

    /// Says what holds now, if it is news.
    fn update(&mut self) {
        let now = self.registration();
        self.current.send_if_modified(|current| {
            let same = match (&mut *current, &now) {
                (Some(before), Some(now)) => {
                    before.version == self.version
                        && Registration {
                            version: before.version,
                            ..now.clone()
                        } == *before
                }
                (None, None) => true,
                _ => false,
            };
            if !same {
                self.version += 1;
                *current = now.map(|now| Registration {
                    version: self.version,
                    ..now
                });
            }
            !same
        });
    }

    /// Goes past a version of this term that a name server has from elsewhere.
    fn overtake(&mut self, newer: &Newer) {
        let epoch = self
            .current
            .borrow()
            .as_ref()
            .map(|registration| registration.epoch);
        if epoch == Some(newer.epoch) && self.version <= newer.version {
            self.version = newer.version + 1;
        }
    }

    /// What the leader registers, but for the version; `None` on the others.
    fn registration(&self) -> Option<Registration> {
        let leadership = self.service.leadership.changes().borrow().clone();
        if !(leadership.is_leader && leadership.serving) {
            return None;
        }
        let mut replicas: Vec<Replica> = self
            .service
            .group
            .status()
            .members
            .iter()
            .map(|one| replica(&one.member))
            .collect();
        replicas.sort_by_key(|replica| replica.broker_id);
        let mut topics: Vec<TopicRoute> = (self.service.view.topics().iter())
            .map(|topic| TopicRoute {
                name: topic.name.clone(),
                queue_count: topic.queue_count,
                message_type: topic.message_type,
                first_queue: topic.first_queue(),
            })
            .collect();
        topics.sort_by(|one, other| one.name.cmp(&other.name));
        Some(Registration {
            group: self.service.config.group.clone(),
            epoch: leadership.term,
            version: 0,
            leader: self.service.own.broker_id,
            replicas,
            topics,
            cluster_id: self.service.config.cluster_id.clone(),
        })
    }
}

pub(crate) fn replica(member: &raft::Member) -> Replica {
    Replica {
        broker_id: member.broker_id,
        client_address: member.client_address.clone(),
        peer_address: member.peer_address.clone(),
    }
}

/// Keeps one name server up to date.
struct Sender {
    service: Arc<Service>,
    address: String,
    registrations: watch::Receiver<Option<Registration>>,
    refusals: mpsc::Sender<Newer>,
}

impl Sender {
    async fn run(mut self) {
        let lease_ms = self.service.config.registration_lease_ms;
        let interval = Duration::from_millis(lease_ms) / RENEWALS_PER_LEASE;
        let options = ChannelOptions {
            secret: Some(self.service.admin_pool.secret().clone()),
            ..ChannelOptions::default()
        };
        let client = match network::channel(&self.address, &options) {
            Ok(channel) => proto::cluster::name_server_client(channel),
            Err(error) => {
                tracing::error!(address = self.address, %error, "cannot register");
                return;
            }
        };
        loop {
            let registration = self.registrations.borrow_and_update().clone();
            let (started, mut pause) = (Instant::now(), interval);
            if let Some(registration) = registration {
                let request = RegisterRequest {
                    registration: Some(registration),
                    lease_ms,
                };
                let call = {
                    let mut client = client.clone();
                    async move { client.register(Request::new(request)).await }
                };
                match timeout(interval, call).await {
                    Ok(Ok(response)) => self.learn(&response.into_inner()),
                    Ok(Err(error)) => {
                        tracing::debug!(address = self.address, %error, "cannot register");
                        pause = pause.min(RETRY_PAUSE);
                    }
                    Err(_) => tracing::debug!(address = self.address, "no answer in time"),
                }
                pause = pause.saturating_sub(started.elapsed());
            }
            tokio::select! {
                biased;
                () = self.service.shutdown.wait() => return,
                changed = self.registrations.changed() => if changed.is_err() { return },
                () = tokio::time::sleep(pause) => {}
            }
        }
    }

    fn learn(&self, response: &RegisterResponse) {
        if response.accepted {
            return;
        }
        tracing::info!(
            address = self.address,
            epoch = response.epoch,
            version = response.version,
            "a name server holds a newer registration"
        );
        let newer = Newer {
            epoch: response.epoch,
            version: response.version,
        };
        // A full queue holds an equal refusal already.
        let _ = self.refusals.try_send(newer);
    }
}
