//! A group of real processes for one test: free ports, a directory of its own, waits with deadlines.

use std::future::Future;
use std::ops::{Deref, DerefMut};
use std::path::Path;
use std::time::Duration;

use cli::process::{BrokerPorts, Group, GroupPlan, Led, free_ports};
use proto::cluster::BrokerStatusResponse;
use raftmq_client::{Client, TopicSettings};
use tempfile::TempDir;
use tokio::time::Instant;

/// Space that the brokers keep free: little, because the machine's disk is not the subject.
pub(crate) const DISK_RESERVE_BYTES: i64 = 64 << 20;
/// Longest wait for a leader: elections take about a second, and the machine may be busy.
pub(crate) const LEADER_PATIENCE: Duration = Duration::from_secs(20);
/// Longest wait for anything else that the system must do by itself.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);
const LOOK_INTERVAL: Duration = Duration::from_millis(25);

/// This project's binary.
pub(crate) fn program() -> &'static Path {
    Path::new(env!("CARGO_BIN_EXE_raftmq"))
}

/// Names the file that lists a process's disk faults; see `host::OsDisk`.
pub(crate) const DISK_FAULTS: &str = "RAFTMQ_TEST_DISK_FAULTS";

/// The same with hooks for disk faults, which the first one has not.
fn program_with_faults() -> &'static Path {
    Path::new(env!("CARGO_BIN_EXE_raftmq-with-faults"))
}

/// Processes that end, and files that go, with the test.
pub(crate) struct Cluster {
    group: Group,
    directory: TempDir,
}

impl Deref for Cluster {
    type Target = Group;

    fn deref(&self) -> &Group {
        &self.group
    }
}

impl DerefMut for Cluster {
    fn deref_mut(&mut self) -> &mut Group {
        &mut self.group
    }
}

impl Cluster {
    /// Three brokers with their usual configuration; returns when one leads.
    pub(crate) async fn start() -> Cluster {
        Cluster::start_with(|plan| plan).await
    }

    /// The same with small segments and frequent checkpoints, so that a test sees many of them.
    pub(crate) async fn start_small() -> Cluster {
        Cluster::start_with(small).await
    }

    /// Three brokers, configured as `change` says; returns when one leads.
    pub(crate) async fn start_with(change: impl FnOnce(GroupPlan) -> GroupPlan) -> Cluster {
        let cluster = Cluster::launch(change);
        cluster.wait_for_leader(LEADER_PATIENCE).await.unwrap();
        cluster
    }

    /// Starts the processes and waits for nothing.
    pub(crate) fn launch(change: impl FnOnce(GroupPlan) -> GroupPlan) -> Cluster {
        let directory = tempfile::tempdir().unwrap();
        let plan = GroupPlan::on_free_ports(program(), directory.path(), "test").unwrap();
        // The machine's disk may be nearly full; that is the subject of one test only.
        let mut plan = change(plan.with("disk_reserve_bytes", DISK_RESERVE_BYTES));
        let mut variables = plan.environment.values().flatten();
        if variables.any(|(name, _)| name == DISK_FAULTS) {
            plan.program = program_with_faults().to_owned();
        }
        Cluster {
            group: Group::start(plan).unwrap(),
            directory,
        }
    }

    /// Plans broker `id`, which does not run, on ports that nobody has.
    pub(crate) fn give_free_ports(&mut self, id: u64) {
        let ports = free_ports(3).unwrap();
        let ports = BrokerPorts::of(ports.first_chunk().unwrap());
        self.plan_mut().brokers.insert(id, ports);
    }

    /// Where everything is.
    pub(crate) fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// Who leads; waits for it.
    pub(crate) async fn led(&self) -> Led {
        self.wait_for_leader(LEADER_PATIENCE).await.unwrap()
    }

    /// The brokers that do not lead.
    pub(crate) async fn followers(&self) -> Vec<u64> {
        let led = self.led().await;
        self.ids()
            .into_iter()
            .filter(|id| *id != led.broker_id)
            .collect()
    }

    /// A client that knows every address.
    pub(crate) async fn client(&self) -> Client {
        let seeds = self.plan().seeds();
        let builder = Client::builder()
            .seeds(seeds)
            .administration(self.plan().administration().unwrap())
            .start_timeout(PATIENCE);
        builder.request_timeout(PATIENCE).build().await.unwrap()
    }

    /// Makes a topic of four queues.
    pub(crate) async fn topic(&self, name: &str) {
        let settings = TopicSettings {
            queue_count: 4,
            ..TopicSettings::default()
        };
        self.client()
            .await
            .admin()
            .create_topic(name, &settings)
            .await
            .unwrap();
    }

    /// Kills broker `id` with SIGKILL and waits until it is gone.
    pub(crate) async fn kill(&mut self, id: u64) {
        self.broker(id).destroy().await;
    }

    /// Waits until broker `id` says what `wanted` wants to hear.
    pub(crate) async fn wait_for_status(
        &self,
        id: u64,
        what: &str,
        wanted: impl Fn(&BrokerStatusResponse) -> bool,
    ) -> BrokerStatusResponse {
        let last = std::cell::RefCell::new(None);
        let found = eventually(PATIENCE, || async {
            let status = self.status(id).await;
            last.borrow_mut().clone_from(&status);
            status.filter(|status| wanted(status))
        });
        match found.await {
            Some(status) => status,
            None => panic!(
                "broker {id}: not within {PATIENCE:?}: {what}\nlast: {:?}\n{}",
                last.into_inner(),
                self.last_words()
            ),
        }
    }

    /// Waits until broker `id` has applied all that is committed now.
    pub(crate) async fn wait_until_caught_up(&self, id: u64) {
        let led = self.led().await;
        let goal = self
            .status(led.broker_id)
            .await
            .map_or(0, |status| status.applied);
        self.wait_for_status(id, "applied what the leader has", |status| {
            status.applied >= goal
        })
        .await;
    }

    /// Waits until broker `id`'s process has ended by itself; its exit code.
    pub(crate) async fn wait_for_end(&mut self, id: u64) -> Option<i32> {
        let status = self.broker(id).wait(PATIENCE).await;
        let status =
            status.unwrap_or_else(|| panic!("broker {id} still runs\n{}", self.last_words()));
        let code = status.code();
        assert!(
            code.is_some(),
            "broker {id} ended by {status}\n{}",
            self.last_words()
        );
        code
    }
}

/// Small limits: many segments and checkpoints after a few megabytes.
pub(crate) fn small(plan: GroupPlan) -> GroupPlan {
    plan.with("message_bytes_max", 128 << 10)
        .with("request_bytes_max", 256 << 10)
        .with("segment_bytes", 1 << 20)
        .with("checkpoint_log_bytes", 1 << 20)
}

/// Asks again and again until there is an answer or `patience` is over.
pub(crate) async fn eventually<T, F>(patience: Duration, ask: impl Fn() -> F) -> Option<T>
where
    F: Future<Output = Option<T>>,
{
    let deadline = Instant::now() + patience;
    loop {
        if let Some(answer) = ask().await {
            return Some(answer);
        }
        if Instant::now() > deadline {
            return None;
        }
        tokio::time::sleep(LOOK_INTERVAL).await;
    }
}
