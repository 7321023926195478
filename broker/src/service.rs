//! What the calls of one running broker share.

use std::sync::Arc;
use std::sync::atomic::AtomicU32;

use bytes::Bytes;
use gateway::Forwarder;
use host::network::Bounds;
use host::{Host, Shutdown};
use proto::command::{self, Command, CommandReply, command::Body};
use raft::{Member, RaftGroup};
use store::StoreError;
use tokio::sync::{Notify, Semaphore};

use crate::admin_pool::AdminPool;
use crate::clients::Clients;
use crate::config::BrokerConfig;
use crate::disk_space::DiskSpace;
use crate::grpc::check_topic;
use crate::grpc::status::{CallError, Refusal, topic_not_found};
use crate::leadership::Leadership;
use crate::log_time::{LogTime, Moment};
use crate::machine::Location;
use crate::proposer::Proposer;
use crate::pullers::Pullers;
use crate::view::{Topic, View};

/// Everything that answering a call may need. Shared by reference; holds no state of a client that a
/// request needs to be answered.
pub(crate) struct Service {
    pub(crate) config: BrokerConfig,
    /// This broker, as the others know it.
    pub(crate) own: Member,
    pub(crate) host: Host,
    pub(crate) group: RaftGroup,
    pub(crate) view: View,
    pub(crate) proposer: Proposer,
    pub(crate) leadership: Leadership,
    pub(crate) forwarder: Forwarder,
    pub(crate) admin_pool: AdminPool,
    pub(crate) clients: Clients,
    pub(crate) pullers: Pullers,
    pub(crate) disk_space: DiskSpace,
    /// What is held of clients' requests and answers.
    pub(crate) bounds: Bounds,
    pub(crate) log_time: Arc<LogTime>,
    /// A permit for each pull that waits.
    pub(crate) long_polls: Semaphore,
    /// Whose turn it is among a topic's queues, for messages whose client named none that exists.
    pub(crate) queue_turn: AtomicU32,
    /// Tells the registration that the members changed.
    pub(crate) members_changed: Notify,
    pub(crate) started: tokio::time::Instant,
    pub(crate) shutdown: Shutdown,
}

impl Service {
    /// The topic, created if it is unknown and the configuration says so. Only on the leader.
    pub(crate) async fn topic_or_create(&self, name: &str) -> Result<Arc<Topic>, CallError> {
        if let Some(topic) = self.view.topic(name) {
            return Ok(topic);
        }
        if self.config.auto_create_topics && check_topic(name).is_ok() {
            self.propose(Body::PutTopic(command::PutTopic {
                name: name.to_owned(),
                queue_count: self.config.auto_create_queue_count,
                create: true,
                if_absent: true,
                ..Default::default()
            }))
            .await?;
        }
        self.topic(name).map_err(CallError::from)
    }

    /// The topic, which must exist.
    pub(crate) fn topic(&self, name: &str) -> Result<Arc<Topic>, Refusal> {
        self.view.topic(name).ok_or_else(|| topic_not_found(name))
    }

    /// The message that stands somewhere in the log, as it was stored; none if there is no message. What
    /// turns out to be damaged on the disk is fetched from another replica first.
    pub(crate) async fn message_at(&self, location: Location) -> Result<Option<Bytes>, StoreError> {
        match self.view.message_at(location).await {
            Err(error) if self.repaired(&error).await => self.view.message_at(location).await,
            result => result,
        }
    }

    /// Whether an entry was damaged on the disk, and another replica's has taken its place.
    pub(crate) async fn repaired(&self, error: &StoreError) -> bool {
        let StoreError::Corrupt {
            index: Some(index), ..
        } = error
        else {
            return false;
        };
        let index = *index;
        match self.group.repair_entry(index).await {
            Ok(()) => true,
            Err(unrepaired) => {
                tracing::error!(index, %unrepaired, "a damaged entry cannot be repaired");
                false
            }
        }
    }

    /// What time it is for whoever writes to the log, and how much has passed along it.
    pub(crate) fn now(&self) -> Moment {
        self.log_time.now(self.view.last_moment())
    }

    /// Has one change agreed on and applied.
    pub(crate) async fn propose(&self, body: Body) -> Result<CommandReply, CallError> {
        Ok(self.proposer.command(Command { body: Some(body) }).await?)
    }

    /// Like [`Service::propose`], for what makes room on the disk.
    pub(crate) async fn propose_upkeep(&self, body: Body) -> Result<CommandReply, CallError> {
        Ok(self.proposer.upkeep(Command { body: Some(body) }).await?)
    }

    /// Makes sure that this broker still leads, so that what it has applied is the newest there is.
    pub(crate) async fn confirm_leadership(
        &self,
        wait: std::time::Duration,
    ) -> Result<(), CallError> {
        self.group
            .read_barrier(wait)
            .await
            .map_err(|error| CallError::Moved(error.to_string()))
    }
}
