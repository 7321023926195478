//! Brokers in this process, on loopback and in temporary directories, and a client that speaks to them.
#![allow(
    unreachable_pub,
    missing_docs,
    clippy::unwrap_used,
    reason = "part of a test"
)]

pub mod client;
#[path = "../../../../cli/src/process/ports.rs"]
mod ports;

use std::time::Duration;

use broker::{Broker, BrokerConfig, MemberConfig};
use futures::future::select_all;
use host::Host;
use tempfile::TempDir;

pub use client::{Client, message, ok};

/// Longest wait for anything that must happen.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Brokers of one group.
pub struct Cluster {
    pub brokers: Vec<Option<Broker>>,
    pub configs: Vec<BrokerConfig>,
    pub host: Host,
    _directory: TempDir,
}

impl Cluster {
    /// One broker alone, serving.
    pub async fn single() -> Cluster {
        Cluster::start(1, |_| {}).await
    }

    /// A group with a serving leader.
    pub async fn start(count: usize, change: impl Fn(&mut BrokerConfig)) -> Cluster {
        Cluster::start_on(Host::real(), count, change).await
    }

    /// A group on a machine of one's own.
    pub async fn start_on(host: Host, count: usize, change: impl Fn(&mut BrokerConfig)) -> Cluster {
        let directory = TempDir::new().unwrap();
        let members: Vec<MemberConfig> = (1..=count as u64).map(member).collect();
        let configs: Vec<BrokerConfig> = members
            .iter()
            .map(|own| config(own, &members, &directory, &change))
            .collect();
        let mut cluster = Cluster {
            brokers: Vec::new(),
            configs,
            host,
            _directory: directory,
        };
        for place in 0..count {
            cluster.brokers.push(None);
            cluster.restart(place).await;
        }
        cluster.leader().await;
        cluster
    }

    /// Starts a broker that does not run.
    pub async fn restart(&mut self, place: usize) {
        let started = Broker::start(self.configs[place].clone(), self.host.clone()).await;
        self.brokers[place] = Some(started.unwrap());
    }

    /// Stops a broker in order.
    pub async fn stop(&mut self, place: usize) {
        self.brokers[place].take().unwrap().stop().await;
    }

    /// Waits until a running broker serves as the leader; its place.
    pub async fn leader(&self) -> usize {
        let running = self.brokers.iter().enumerate();
        let waits = running.filter_map(|(place, broker)| {
            let mut leadership = broker.as_ref()?.group().leadership();
            Some(Box::pin(async move {
                leadership
                    .wait_for(|leadership| leadership.serving)
                    .await
                    .unwrap();
                place
            }))
        });
        let first = tokio::time::timeout(PATIENCE, select_all(waits)).await;
        first.expect("a leader is elected in time").0
    }

    /// A broker that does not lead and knows who does.
    pub async fn follower(&self) -> usize {
        let leader = self.leader().await;
        let place = (0..self.brokers.len())
            .find(|place| *place != leader && self.brokers[*place].is_some())
            .unwrap();
        let mut leadership = self.broker(place).group().leadership();
        let known = leadership.wait_for(|leadership| leadership.leader.is_some());
        tokio::time::timeout(PATIENCE, known)
            .await
            .unwrap()
            .unwrap();
        place
    }

    pub fn broker(&self, place: usize) -> &Broker {
        self.brokers[place].as_ref().unwrap()
    }

    pub fn address(&self, place: usize) -> &str {
        &self.configs[place].advertise
    }

    /// A client of one broker.
    pub fn client(&self, place: usize) -> Client {
        Client::new(self.address(place), &self.configs[place].admin_listen)
    }

    /// A client of the leader.
    pub async fn leader_client(&self) -> Client {
        self.client(self.leader().await)
    }
}

fn config(
    own: &MemberConfig,
    members: &[MemberConfig],
    directory: &TempDir,
    change: &impl Fn(&mut BrokerConfig),
) -> BrokerConfig {
    let mut config = BrokerConfig {
        cluster_id: "test".to_owned(),
        group: "broker-a".to_owned(),
        broker_id: own.broker_id,
        data_dir: directory.path().join(own.broker_id.to_string()),
        secret_file: host::testing::secret_file(),
        admin_listen: free_address(),
        listen: own.client_address.clone(),
        advertise: own.client_address.clone(),
        peer_listen: own.peer_address.clone(),
        peer_advertise: own.peer_address.clone(),
        members: members.to_vec(),
        disk_reserve_bytes: 0,
        message_bytes_max: 256 << 10,
        request_bytes_max: 1 << 20,
        segment_bytes: 4 << 20,
        ..BrokerConfig::default()
    };
    change(&mut config);
    config
}

fn member(broker_id: u64) -> MemberConfig {
    MemberConfig {
        broker_id,
        client_address: free_address(),
        peer_address: free_address(),
    }
}

/// An address that nobody listens on, and that no connection gets by chance.
pub fn free_address() -> String {
    let port = ports::free_ports(1).unwrap().remove(0);
    format!("127.0.0.1:{port}")
}
