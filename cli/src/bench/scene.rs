//! Where the loads run: a broker group of its own, a topic, a client, ids that never repeat.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use host::network::{self, ChannelOptions};
use proto::opaque::messaging_service_client::MessagingServiceClient;
use raftmq_client::{Client, TopicSettings};
use tonic::transport::Channel;

use crate::failure::Failure;
use crate::process::{Group, GroupPlan, Led};

/// Longest wait for a leader at any time.
const LEADER_PATIENCE: Duration = Duration::from_secs(30);
/// Longest wait for a restarted replica to have what the others have.
const CATCH_UP_PATIENCE: Duration = Duration::from_secs(120);
const LOOK_INTERVAL: Duration = Duration::from_millis(50);
/// Bytes of sealed log that the group keeps: enough to consume from, little enough for any disk.
const LOG_RETAIN_BYTES: i64 = 2 << 30;
/// Queues of each topic.
const QUEUES: u32 = 4;

/// A running group and what the loads need of it.
pub struct Scene {
    /// The processes.
    pub group: Group,
    /// Below it is everything that the benchmark writes.
    pub directory: PathBuf,
    loads: AtomicU64,
}

impl Scene {
    /// Starts a group below `directory`, its brokers configured by `settings`, and waits for its leader; also the time from start to leader.
    ///
    /// # Errors
    ///
    /// If there is no leader in time.
    pub async fn start(
        program: &Path,
        directory: &Path,
        settings: &[(String, toml::Value)],
    ) -> Result<(Scene, Duration), Failure> {
        let plan = GroupPlan::on_free_ports(program, &directory.join("group"), "bench")?
            .with("log_retain_bytes", LOG_RETAIN_BYTES);
        Scene::start_plan(plan, directory, settings).await
    }

    /// The same with a group of one broker, whose log is kept as `settings` say.
    ///
    /// # Errors
    ///
    /// If it does not lead in time.
    pub async fn alone(
        program: &Path,
        directory: &Path,
        settings: &[(String, toml::Value)],
    ) -> Result<(Scene, Duration), Failure> {
        let mut plan = GroupPlan::on_free_ports(program, &directory.join("alone"), "alone")?;
        plan.brokers.retain(|id, _| *id == 1);
        Scene::start_plan(plan, directory, settings).await
    }

    async fn start_plan(
        mut plan: GroupPlan,
        directory: &Path,
        settings: &[(String, toml::Value)],
    ) -> Result<(Scene, Duration), Failure> {
        for (key, value) in settings {
            plan = plan.with(key, value.clone());
        }
        let started = tokio::time::Instant::now();
        let group = Group::start(plan)?;
        group.wait_for_leader(LEADER_PATIENCE).await?;
        let elapsed = started.elapsed();
        let directory = directory.to_owned();
        Ok((
            Scene {
                group,
                directory,
                loads: AtomicU64::new(1),
            },
            elapsed,
        ))
    }

    /// Who leads; waits for it.
    ///
    /// # Errors
    ///
    /// If nobody does in time.
    pub async fn leader(&self) -> Result<Led, Failure> {
        self.group.wait_for_leader(LEADER_PATIENCE).await
    }

    /// A client of the SDK.
    ///
    /// # Errors
    ///
    /// If no broker answers.
    pub async fn client(&self) -> Result<Client, Failure> {
        Ok(Client::builder()
            .seeds(self.group.plan().seeds())
            .administration(self.group.plan().administration()?)
            .build()
            .await?)
    }

    /// Makes a topic of four queues.
    ///
    /// # Errors
    ///
    /// If the brokers refuse.
    pub async fn topic(&self, name: &str) -> Result<u32, Failure> {
        let settings = TopicSettings {
            queue_count: QUEUES,
            ..TopicSettings::default()
        };
        self.client()
            .await?
            .admin()
            .create_topic(name, &settings)
            .await?;
        Ok(QUEUES)
    }

    /// A raw client of the leader's messaging service, on a connection of its own.
    ///
    /// # Errors
    ///
    /// If nobody leads in time.
    pub async fn messaging(&self) -> Result<MessagingServiceClient<Channel>, Failure> {
        let led = self.leader().await?;
        let address = self.group.plan().client_address(led.broker_id);
        let channel = network::channel(&address, &ChannelOptions::default())
            .map_err(|error| Failure::during(address, error))?;
        Ok(proto::opaque::messaging_client(channel))
    }

    /// A number that no load of this run had before.
    pub fn next_load(&self) -> u64 {
        self.loads.fetch_add(1, Ordering::Relaxed)
    }

    /// Waits until broker `id` has applied what the leader has applied by now.
    ///
    /// # Errors
    ///
    /// If it has not in time.
    pub async fn wait_until_caught_up(&self, id: u64) -> Result<(), Failure> {
        let led = self.leader().await?;
        let goal = self
            .group
            .status(led.broker_id)
            .await
            .map_or(0, |status| status.applied);
        let deadline = tokio::time::Instant::now() + CATCH_UP_PATIENCE;
        while self
            .group
            .status(id)
            .await
            .is_none_or(|status| status.applied < goal)
        {
            if tokio::time::Instant::now() > deadline {
                return Err(Failure::Operation(format!("broker {id} did not catch up")));
            }
            tokio::time::sleep(LOOK_INTERVAL).await;
        }
        Ok(())
    }

    /// A broker that does not lead.
    ///
    /// # Errors
    ///
    /// If nobody leads in time.
    pub async fn a_follower(&self) -> Result<u64, Failure> {
        let led = self.leader().await?;
        let other = self.group.ids().into_iter().find(|id| *id != led.broker_id);
        other.ok_or_else(|| Failure::Operation("a group of one has no follower".to_owned()))
    }
}
