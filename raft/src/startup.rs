//! The way from an opened data directory to a running replica.
//!
//! ```text
//! damaged    repair from peers        (does not serve, and votes for whoever has all that it promised)
//! pristine   wait for the group, or make it
//! otherwise  run at once: a majority must be able to come back without asking anybody
//! ```

mod ending;
mod replace;
mod tail;

pub(crate) use replace::GivenUp;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use host::Shutdown;
use proto::raft as wire;
use store::{CommitLog, DataDir};
use tokio::sync::{Mutex, watch};

use crate::abdication::Abdication;
use crate::bootstrap::{Candidate, Step};
use crate::config::RaftConfig;
use crate::connections::Connections;
use crate::error::RaftError;
use crate::introductions::{Acquaintance, Acquaintances};
use crate::leadership::LeadershipWatch;
use crate::log_storage::{LogReader, LogStorage};
use crate::maintenance::Maintenance;
use crate::network::Network;
use crate::peers::Peers;
use crate::relocation::Relocation;
use crate::repair::{Fetcher, Repairer};
use crate::service::Ballot;
use crate::snapshot::Snapshots;
use crate::stall_watch::StallWatch;
use crate::standing::Phase;
use crate::state::State;
use crate::state_machine::{Raft, StateMachine};
use crate::tables::Tables;
use crate::terms::TERM_MAX;
use crate::timekeeper::Timekeeper;
use crate::types::RaftLogId;

/// Longest wait for openraft to end its tasks.
const STOP_TIMEOUT: Duration = Duration::from_secs(10);

/// Starts Raft when it is safe to, and what belongs to it.
pub(crate) struct Startup {
    pub(crate) config: RaftConfig,
    pub(crate) data_dir: Arc<DataDir>,
    pub(crate) log: CommitLog,
    pub(crate) tables: Arc<Mutex<Tables>>,
    pub(crate) applied: Arc<watch::Sender<Option<RaftLogId>>>,
    pub(crate) snapshots: Arc<Snapshots>,
    pub(crate) state: Arc<State>,
    pub(crate) peers: Peers,
    pub(crate) connections: Connections,
    pub(crate) known: watch::Receiver<Acquaintances>,
    pub(crate) fetcher: Fetcher,
    pub(crate) repairer: Repairer,
    pub(crate) maintenance: Arc<Maintenance>,
    pub(crate) ballot: Arc<Ballot>,
    /// Peers that were asked for help.
    pub(crate) asked: AtomicUsize,
    pub(crate) given_up: GivenUp,
}

impl Startup {
    /// Whether Raft can run without hearing from anybody.
    pub(crate) fn is_ready(&self) -> bool {
        !self.needs_repair() && (!self.state.is_pristine() || self.is_alone())
    }

    /// Whether something that was promised is not there, or cannot be read.
    fn needs_repair(&self) -> bool {
        self.log.damage().is_some() || self.tables_are_lost() || self.given_up.are_waiting()
    }

    /// One of the peers that can help, each time another one: the last one may be about to die, or damaged itself.
    fn any_peer(&self, can_help: impl Fn(&wire::StatusResponse) -> bool) -> Option<Acquaintance> {
        let known = self.known.borrow();
        let helpers: Vec<_> = known
            .values()
            .filter(|peer| peer.answers() && can_help(&peer.status))
            .collect();
        let turn = self.asked.fetch_add(1, Ordering::Relaxed);
        let helper = helpers.get(turn % helpers.len().max(1));
        helper.copied().cloned()
    }

    fn is_alone(&self) -> bool {
        self.config.configured_ids() == [self.peers.identity().broker_id]
    }

    /// Waits for what has to be waited for, then starts Raft.
    pub(crate) async fn start(&mut self) -> Result<Raft, RaftError> {
        while self.needs_repair() {
            self.state.enter(Phase::Repairing);
            self.learn_promise().await?;
            self.repair_log().await?;
            self.restore_tables().await?;
            self.replace_given_up().await?;
            self.look_for_damage().await?;
        }
        if !self.given_up.are_used() {
            let applied = self.state.applied_index();
            self.snapshots.remove_former(applied).await?;
        }
        let step = match self.state.is_pristine() {
            true => self.wait_for_group().await?,
            false => Step::Join,
        };
        // Raft reads the vote now, and gives the next ones.
        self.ballot.close().await;
        let raft = self.start_raft().await?;
        if let Step::Initialize(nodes) = step {
            tracing::info!(members = ?nodes.keys(), "making the group");
            raft.initialize(nodes).await.map_err(failed)?;
        }
        // Until its core has gone round once, Raft knows of no membership, and this replica would take its peers for
        // strangers.
        raft.with_raft_state(|_| ()).await.map_err(failed)?;
        self.state.started(raft.clone());
        Ok(raft)
    }

    /// Runs until shutdown what belongs to Raft, then stops it.
    pub(crate) async fn run(mut self, shutdown: Shutdown) {
        let raft = match self.state.raft() {
            Some(raft) => raft,
            None => {
                let started = tokio::select! {
                    biased;
                    () = shutdown.wait() => return,
                    started = self.start() => started,
                };
                match started {
                    Ok(raft) => raft,
                    Err(error) => return self.state.fail(error.to_string()),
                }
            }
        };
        let election_timeout = Duration::from_millis(self.config.election_timeout_ms_max);
        let interval = Duration::from_millis(self.config.heartbeat_interval_ms);
        let watch = LeadershipWatch {
            raft: raft.clone(),
            state: self.state.clone(),
            lease: self.config.lease(),
            known: self.known.clone(),
            interval,
        };
        let timekeeper = Timekeeper {
            raft: raft.clone(),
            state: self.state.clone(),
            known: self.known.clone(),
        };
        let stalls = StallWatch {
            state: self.state.clone(),
            log: self.log.clone(),
            known: self.known.clone(),
            patience: election_timeout,
            interval,
        };
        let abdication = Abdication {
            raft: raft.clone(),
            state: self.state.clone(),
            unreadable: self.repairer.unreadable().clone(),
            election_timeout,
            interval,
        };
        let relocation = Relocation {
            state: self.state.clone(),
            peers: self.peers.clone(),
            known: self.known.clone(),
        };
        tokio::join!(
            watch.run(shutdown.clone()),
            relocation.run(shutdown.clone()),
            stalls.run(shutdown.clone()),
            abdication.run(shutdown.clone()),
            timekeeper.run(shutdown.clone()),
            self.maintenance.run(raft.clone(), shutdown.clone()),
            self.watch_tables(shutdown.clone()),
            self.watch_tail(shutdown.clone())
        );
        shutdown.wait().await;
        self.stop(raft).await;
    }

    /// An orderly end: what is in the tables' memory need not be replayed.
    async fn stop(&self, raft: Raft) {
        self.state.enter(Phase::Stopped);
        if tokio::time::timeout(STOP_TIMEOUT, raft.shutdown())
            .await
            .is_err()
        {
            tracing::warn!("raft did not stop in time");
        }
        if tokio::time::timeout(STOP_TIMEOUT, self.log.close())
            .await
            .is_err()
        {
            tracing::warn!("the log was not written to its end in time");
        }
        let (kv, damage) = {
            let tables = self.tables.lock().await;
            (tables.kv().clone(), tables.damage())
        };
        if let Err(error) = kv.flush().await {
            tracing::warn!(%error, "tables were not flushed; they will be replayed");
        }
        // Also if Raft stopped for it before anybody else heard of it.
        let is_damaged = damage.borrow().is_some();
        if is_damaged && let Err(error) = self.give_up_tables().await {
            tracing::error!(%error, "the next start will find damaged tables");
        }
        // Who starts next finds the directory as it stays.
        if tokio::time::timeout(STOP_TIMEOUT, self.data_dir.settled())
            .await
            .is_err()
        {
            tracing::warn!("the superblock was not written in time");
        }
    }

    /// Waits until the group exists or is ours to make. A replica alone makes it at once.
    async fn wait_for_group(&mut self) -> Result<Step, RaftError> {
        let candidate = Candidate {
            broker_id: self.peers.identity().broker_id,
            replica_id: self.peers.incarnation().replica_id,
            members: &self.config.members,
        };
        loop {
            let step = candidate.decide(&self.known.borrow_and_update())?;
            if step != Step::Wait {
                return Ok(step);
            }
            if self.known.changed().await.is_err() {
                return Err(RaftError::ShutDown);
            }
        }
    }

    async fn start_raft(&self) -> Result<Raft, RaftError> {
        // Before the first entries arrive: on a full disk they are refused, where a failed append would end this replica.
        self.maintenance.look_at_room()?;
        if let Some(vote) = self.state.vote()
            && vote.term > TERM_MAX
        {
            return Err(failed(format!(
                "this replica was taken to term {}, which no elections reach: somebody forged it, and no leader can be \
                 elected after it; `raftmq log restore` makes a group of a copy of its data directory",
                vote.term
            )));
        }
        let reader = LogReader::new(
            self.log.clone(),
            self.data_dir.clone(),
            self.repairer.clone(),
        );
        let log_storage = LogStorage::new(self.log.clone(), self.data_dir.clone(), reader);
        let state_machine = StateMachine::new(
            self.tables.clone(),
            self.snapshots.clone(),
            self.applied.clone(),
        );
        let network = Network::new(self.peers.clone(), self.connections.clone());
        let broker_id = self.peers.identity().broker_id;
        let config = self.config.openraft()?;
        Raft::new(broker_id, config, network, log_storage, state_machine)
            .await
            .map_err(failed)
    }
}

fn failed(error: impl std::fmt::Display) -> RaftError {
    RaftError::Failed {
        reason: error.to_string(),
    }
}
