//! A member's part in sharing its group's queues: says that it lives, asks who else does, takes its share and gives up
//! the rest. No member decides for another; they agree because all compute the same from the same lists.
//!
//! For a moment after a change two members may hold one queue: both then read from what is committed, and messages are
//! delivered twice. What is done is committed before a queue is given up, to keep that stretch short.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use futures::future::join_all;
use proto::cluster::{ListMembersResponse, NameRequest};
use proto::v2::{
    ClientType, HeartbeatRequest, HeartbeatResponse, NotifyClientTerminationRequest,
    NotifyClientTerminationResponse,
};
use tokio::time::Instant;

use crate::connection::Call;
use crate::consumer::allocation::SharedQueue;
use crate::consumer::delivery::{Filter, TopicQueue};
use crate::consumer::membership::Membership;
use crate::consumer::shared::Shared;
use crate::error::Error;
use crate::route::{Route, resource};

/// A new leader is given this many heartbeat intervals to hear of every member.
const GRACE_INTERVALS: u32 = 3;

/// See the module's text.
#[derive(Default)]
pub(super) struct Rebalancer {
    subscriptions: BTreeMap<Arc<str>, Filter>,
    membership: Membership,
    /// Broker groups that were told of this member.
    known_to: BTreeSet<Arc<str>>,
}

impl Rebalancer {
    pub(super) fn is_idle(&self) -> bool {
        self.subscriptions.is_empty()
    }

    pub(super) fn subscribe(&mut self, topic: Arc<str>, filter: Filter) {
        self.subscriptions.insert(topic, filter);
    }

    pub(super) fn topics(&self) -> Vec<String> {
        self.subscriptions
            .keys()
            .map(|topic| topic.to_string())
            .collect()
    }

    pub(super) fn filter(&self, topic: &str) -> Option<&Filter> {
        self.subscriptions.get(topic)
    }

    /// Gives up a topic. The next round goes without it.
    pub(super) async fn unsubscribe(&mut self, shared: &Arc<Shared>, topic: &str) {
        if self.subscriptions.remove(topic).is_some() {
            let held = shared.holdings().held();
            let of_topic: Vec<TopicQueue> = held
                .into_iter()
                .filter(|queue| &*queue.topic == topic)
                .collect();
            shared.give_up(&of_topic).await;
        }
    }

    /// One round. If it fails, everything stays as it was.
    pub(super) async fn round(&mut self, shared: &Arc<Shared>) -> Result<(), Error> {
        let mut routes: Vec<Arc<Route>> = Vec::new();
        for topic in self.subscriptions.keys() {
            routes.push(shared.core.route(topic).await?);
        }
        let broker_groups: BTreeSet<Arc<str>> =
            routes.iter().flat_map(|route| route.groups()).collect();
        let Some(first) = broker_groups.first().cloned() else {
            return Ok(());
        };
        let beats = broker_groups
            .iter()
            .map(|broker_group| heartbeat(shared, broker_group));
        for (beat, broker_group) in join_all(beats).await.into_iter().zip(&broker_groups) {
            beat?;
            self.known_to.insert(broker_group.clone());
        }
        // Any one broker group's list would do; all members must use the same one's.
        let listed = list_members(shared, &first).await?;
        let leader = shared.core.connection.brokers.address(&first, 0);
        let grace = shared.settings.heartbeat_interval * GRACE_INTERVALS;
        let members = self
            .membership
            .observe(leader, listed, Instant::now(), grace);
        let own = shared.identity.client_id();
        if !members.iter().any(|member| member == own) {
            tracing::debug!(group = %shared.group, "not listed as a member yet");
            return Ok(());
        }
        let mut shares: BTreeMap<TopicQueue, Filter> = BTreeMap::new();
        for route in &routes {
            let queues: Vec<SharedQueue> = route
                .readable()
                .map(|queue| SharedQueue {
                    queue: TopicQueue::new(route.topic.clone(), queue.queue),
                    broker_group: queue.group.clone(),
                })
                .collect();
            let filter = self
                .subscriptions
                .get(&route.topic)
                .cloned()
                .unwrap_or_default();
            let mut share = shared.settings.allocation.share(&queues, members, own);
            share.retain(|queue| queues.iter().any(|shared| shared.queue == *queue));
            shares.extend(share.into_iter().map(|queue| (queue, filter.clone())));
        }
        exchange(shared, shares).await;
        Ok(())
    }

    /// Tells the servers that this member is gone, so that the others need not wait until it is missed.
    pub(super) async fn leave(&mut self, shared: &Arc<Shared>) -> Result<(), Error> {
        self.subscriptions.clear();
        let groups = std::mem::take(&mut self.known_to);
        let results = join_all(groups.iter().map(|group| say_goodbye(shared, group))).await;
        results.into_iter().collect()
    }
}

/// Gives up what is not in the share, then takes what is new in it.
async fn exchange(shared: &Arc<Shared>, shares: BTreeMap<TopicQueue, Filter>) {
    let held = shared.holdings().held();
    let lost: Vec<TopicQueue> = held
        .into_iter()
        .filter(|queue| !shares.contains_key(queue))
        .collect();
    if !lost.is_empty() {
        tracing::info!(group = %shared.group, queues = lost.len(), "giving up queues to other members");
        shared.give_up(&lost).await;
    }
    for (queue, filter) in shares {
        shared.take([queue], &filter);
    }
}

async fn heartbeat(shared: &Shared, broker_group: &Arc<str>) -> Result<(), Error> {
    let request = HeartbeatRequest {
        group: Some(resource(shared.group.as_str())),
        client_type: ClientType::PullConsumer as i32,
    };
    let connection = &shared.core.connection;
    let _: HeartbeatResponse = connection
        .call(
            call(shared, "heartbeat", broker_group),
            |address, timeout| {
                let request = shared.identity.request(request.clone(), timeout);
                async move { connection.messaging(&address)?.heartbeat(request).await }
            },
        )
        .await?;
    Ok(())
}

async fn list_members(shared: &Shared, broker_group: &Arc<str>) -> Result<Vec<String>, Error> {
    let request = NameRequest {
        name: shared.group.as_str().to_owned(),
    };
    let connection = &shared.core.connection;
    let answer: ListMembersResponse = connection
        .call(
            call(shared, "list members", broker_group),
            |address, timeout| {
                let request = shared.identity.request(request.clone(), timeout);
                async move { connection.admin(&address)?.list_members(request).await }
            },
        )
        .await?;
    Ok(answer.client_ids)
}

async fn say_goodbye(shared: &Shared, broker_group: &Arc<str>) -> Result<(), Error> {
    let request = NotifyClientTerminationRequest {
        group: Some(resource(shared.group.as_str())),
    };
    let connection = &shared.core.connection;
    let _: NotifyClientTerminationResponse = connection
        .call(call(shared, "leave", broker_group), |address, timeout| {
            let request = shared.identity.request(request.clone(), timeout);
            async move {
                connection
                    .messaging(&address)?
                    .notify_client_termination(request)
                    .await
            }
        })
        .await?;
    Ok(())
}

fn call(shared: &Shared, operation: &'static str, broker_group: &Arc<str>) -> Call {
    Call {
        operation,
        subject: format!("group {}", shared.group),
        group: broker_group.clone(),
        timeout: shared.core.connection.request_timeout,
        changes: false,
    }
}
