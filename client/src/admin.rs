//! Topics, groups and brokers, for operators and their tools.

mod description;

use std::time::Duration;

pub use description::{
    BrokerAddress, BrokerStatus, CommittedOffset, GroupDescription, GroupSettings, MessageType, QueueBounds,
    TopicDescription, TopicSettings,
};

use crate::consumer::TopicQueue;
use crate::error::Error;

/// Administration calls. Each goes to the leader of the broker group, follows it through an election, and ends by the
/// client's request timeout unless [`Admin::timeout`] sets another.
#[derive(Clone)]
pub struct Admin {}

impl Admin {
    /// The same, with another deadline for each call.
    #[must_use]
    pub fn timeout(self, timeout: Duration) -> Admin { unimplemented!() }
    /// The same, for one broker group by name. Without it: the only group, or the first by name.
    #[must_use]
    pub fn broker_group(self, group: impl Into<String>) -> Admin { unimplemented!() }

    /// Makes a topic.
    pub async fn create_topic(&self, name: &str, settings: &TopicSettings) -> Result<(), Error> { unimplemented!() }
    /// Changes a topic.
    pub async fn alter_topic(&self, name: &str, settings: &TopicSettings) -> Result<(), Error> { unimplemented!() }
    /// Deletes a topic and its messages.
    pub async fn delete_topic(&self, name: &str) -> Result<(), Error> { unimplemented!() }
    /// All topics, sorted by name.
    pub async fn list_topics(&self) -> Result<Vec<TopicDescription>, Error> { unimplemented!() }
    /// One topic, if it exists.
    pub async fn topic(&self, name: &str) -> Result<Option<TopicDescription>, Error> { unimplemented!() }

    /// Makes a consumer group.
    pub async fn create_group(&self, name: &str, settings: &GroupSettings) -> Result<(), Error> { unimplemented!() }
    /// Changes a consumer group.
    pub async fn alter_group(&self, name: &str, settings: &GroupSettings) -> Result<(), Error> { unimplemented!() }
    /// Deletes a consumer group and its offsets.
    pub async fn delete_group(&self, name: &str) -> Result<(), Error> { unimplemented!() }
    /// All consumer groups, sorted by name.
    pub async fn list_groups(&self) -> Result<Vec<GroupDescription>, Error> { unimplemented!() }
    /// One consumer group, if it exists.
    pub async fn group(&self, name: &str) -> Result<Option<GroupDescription>, Error> { unimplemented!() }
    /// Client ids of the consumers of a group that sent a heartbeat lately, sorted.
    pub async fn members(&self, group: &str) -> Result<Vec<String>, Error> { unimplemented!() }
    /// Sets a group's offset in one queue, back or forth.
    pub async fn reset_offset(&self, group: &str, queue: &TopicQueue, offset: u64) -> Result<(), Error> { unimplemented!() }

    /// All replicas of all broker groups that the seeds know.
    pub async fn brokers(&self) -> Result<Vec<BrokerAddress>, Error> { unimplemented!() }
    /// What the replica at `address` (`host:port`, its client address) says about itself.
    pub async fn status(&self, address: &str) -> Result<BrokerStatus, Error> { unimplemented!() }
    /// Asks the leader to hand over to the replica of this number.
    pub async fn transfer_leader(&self, to_broker_id: u64) -> Result<(), Error> { unimplemented!() }
    /// Adds a replica that does not vote.
    pub async fn add_learner(&self, broker: &BrokerAddress) -> Result<(), Error> { unimplemented!() }
    /// Sets who votes.
    pub async fn change_voters(&self, broker_ids: &[u64]) -> Result<(), Error> { unimplemented!() }
    /// Makes the replica at `address` take a checkpoint of its tables now. Returns its log index.
    pub async fn checkpoint(&self, address: &str) -> Result<u64, Error> { unimplemented!() }
    /// Drops sealed segments now, as far as retention by size would with this many bytes. Returns the first kept index.
    pub async fn drop_log(&self, retain_bytes: u64) -> Result<u64, Error> { unimplemented!() }
}
