//! The replicas of one broker group: who leads, who votes, where they are, what they keep.

use proto::cluster;

use super::Admin;
use super::description::{BrokerAddress, BrokerStatus};
use crate::error::Error;

impl Admin {
    /// What the replica at `address` says about itself: `host:port` at which clients reach it, or, of one that no group
    /// knows yet, at which other replicas will. One attempt.
    ///
    /// # Errors
    /// It did not answer.
    pub async fn status(&self, address: &str) -> Result<BrokerStatus, Error> {
        self.raw_status(address).await.map(BrokerStatus::from)
    }

    /// Asks the leader to hand over to the replica of this number.
    ///
    /// # Errors
    /// Refused if it is no voter, or too far behind.
    pub async fn transfer_leader(&self, to_broker_id: u64) -> Result<(), Error> {
        let request = cluster::TransferLeadershipRequest { to: to_broker_id };
        let subject = format!("leadership to broker {to_broker_id}");
        self.change("transfer", subject, request, async |mut client, request| {
            client.transfer_leader(request).await
        })
        .await
    }

    /// Adds a replica that does not vote.
    ///
    /// # Errors
    /// Refused if the leader cannot take it.
    pub async fn add_learner(&self, broker: &BrokerAddress) -> Result<(), Error> {
        let replica = cluster::Replica {
            broker_id: broker.broker_id,
            client_address: broker.client_address.clone(),
            peer_address: broker.peer_address.clone(),
        };
        let request = cluster::AddLearnerRequest {
            replica: Some(replica),
        };
        let subject = format!("learner {}", broker.broker_id);
        self.change("add", subject, request, async |mut client, request| {
            client.add_learner(request).await
        })
        .await
    }

    /// Has each broker whose listener for operators this client was given look for the replica of this number at
    /// `peer_address` too; an empty one takes that back. One outcome for each listener.
    pub async fn set_address(
        &self,
        broker_id: u64,
        peer_address: &str,
    ) -> Vec<(String, Result<(), Error>)> {
        let connection = &self.core.connection;
        let listeners = connection.endpoints.as_ref();
        let listeners = listeners.map_or_else(Vec::new, |one| one.addresses().to_vec());
        let mut outcomes = Vec::new();
        for listener in listeners {
            let request = cluster::SetAddressRequest {
                broker_id,
                peer_address: peer_address.to_owned(),
            };
            let call = self.call_to("set address", &listener, true);
            let timeout = call.timeout;
            let answer = connection.call_at(call, &listener, async {
                let request = connection.request(request, timeout);
                connection
                    .admin_client(&listener)?
                    .set_address(request)
                    .await
            });
            let answer: Result<cluster::AdminResponse, Error> = answer.await;
            outcomes.push((listener.to_string(), answer.map(drop)));
        }
        outcomes
    }

    /// Sets who votes.
    ///
    /// # Errors
    /// Refused if one of them is not a replica that has caught up.
    pub async fn change_voters(&self, broker_ids: &[u64]) -> Result<(), Error> {
        let request = cluster::ChangeMembersRequest {
            voters: broker_ids.to_vec(),
        };
        let subject = format!("voters to {broker_ids:?}");
        self.change("change", subject, request, async |mut client, request| {
            client.change_members(request).await
        })
        .await
    }

    /// Makes the replica at `address` take a checkpoint of its tables now. Returns its log index. One attempt.
    ///
    /// # Errors
    /// It did not answer, or it could not.
    pub async fn checkpoint(&self, address: &str) -> Result<u64, Error> {
        let connection = &self.core.connection;
        let mut call = self.call_to("checkpoint", address, true);
        // Longer than other calls: all its tables are written and synced first.
        call.timeout = self.timeout;
        let timeout = call.timeout;
        let answer: cluster::AdminResponse = connection
            .call_at(call, address, async {
                let request = cluster::BrokerStatusRequest {};
                let way = connection.passage(address, request, timeout).await?;
                let (passage, mut client, request) = way;
                passage.ended(client.checkpoint(request).await)
            })
            .await?;
        Ok(answer.value)
    }

    /// Drops sealed segments now, as far as retention by size would with this many bytes. Returns the first kept index.
    ///
    /// # Errors
    /// No leader answered by the deadline.
    pub async fn drop_log(&self, retain_bytes: u64) -> Result<u64, Error> {
        let call = self.call("drop", "log".to_owned(), true).await?;
        let request = cluster::DropLogRequest { retain_bytes };
        let answer = self
            .ask(call, request, async |mut client, request| {
                client.drop_log(request).await
            })
            .await?;
        Ok(answer.value)
    }
}
