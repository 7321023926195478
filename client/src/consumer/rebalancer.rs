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
    HeartbeatRequest, HeartbeatResponse, NotifyClientTerminationRequest,
    NotifyClientTerminationResponse,
};
use tokio::time::Instant;

use crate::connection::Call;
use crate::consumer::allocation::SharedQueue;
use crate::consumer::delivery::{Filter, TopicQueue};
use crate::consumer::membership::Membership;
use crate::consumer::shared::{Shared, Sharing};
use crate::error::Error;
use crate::route::{Route, RouteQueue, resource};

/// A new leader is given this many heartbeat intervals to hear of every member.
const GRACE_INTERVALS: u32 = 3;

/// See the module's text.
#[derive(Default)]
pub(crate) struct Rebalancer {
    subscriptions: BTreeMap<Arc<str>, Filter>,
    membership: Membership,
    /// Members at the last share-out.
    former: Vec<String>,
    /// Queues that are left to their former owners until then.
    handed_over: BTreeMap<TopicQueue, Instant>,
    /// Broker groups that were told of this member.
    known_to: BTreeSet<Arc<str>>,
}

impl Rebalancer {
    pub(crate) fn is_idle(&self) -> bool {
        self.subscriptions.is_empty()
    }

    pub(crate) fn subscribe(&mut self, topic: Arc<str>, filter: Filter) {
        self.subscriptions.insert(topic, filter);
    }

    pub(crate) fn topics(&self) -> Vec<String> {
        self.subscriptions
            .keys()
            .map(|topic| topic.to_string())
            .collect()
    }

    pub(crate) fn filter(&self, topic: &str) -> Option<&Filter> {
        self.subscriptions.get(topic)
    }

    /// Gives up a topic. The next round goes without it.
    pub(crate) async fn unsubscribe(&mut self, shared: &Arc<Shared>, topic: &str) {
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
    pub(crate) async fn round(&mut self, shared: &Arc<Shared>) -> Result<(), Error> {
        let mut routes: Vec<Arc<Route>> = Vec::new();
        let age_max = shared.settings.heartbeat_interval;
        for topic in self.subscriptions.keys() {
            routes.push(shared.core.route_younger_than(topic, age_max).await?);
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
        if shared.settings.sharing == Sharing::AllForEach {
            exchange(shared, self.all_of(&routes)).await;
            return Ok(());
        }
        // Any one broker group's list would do; all members must use the same one's.
        let listed = list_members(shared, &first).await?;
        let leader = shared.core.connection.brokers.address(&first, 0);
        let grace = shared.settings.heartbeat_interval * GRACE_INTERVALS;
        let members = self
            .membership
            .observe(leader, listed, Instant::now(), grace)
            .to_vec();
        let own = shared.identity.client_id();
        if !members.iter().any(|member| member == own) {
            tracing::debug!(group = %shared.group, "not listed as a member yet");
            return Ok(());
        }
        let mut shares = self.share_of(shared, &routes, &members, own);
        self.leave_to_former_owners(shared, &routes, &members, &mut shares);
        exchange(shared, shares).await;
        Ok(())
    }

    /// Takes those queues out of a share which another living member held before the members changed, until it has had
    /// time to hear of it, to finish and to commit.
    fn leave_to_former_owners(
        &mut self,
        shared: &Shared,
        routes: &[Arc<Route>],
        members: &[String],
        share: &mut BTreeMap<TopicQueue, Filter>,
    ) {
        let (now, settings) = (Instant::now(), &shared.settings);
        if self.former != members {
            let own = shared.identity.client_id();
            let mut former = std::mem::replace(&mut self.former, members.to_vec());
            if former.is_empty() {
                former = members.to_vec();
                former.retain(|member| member != own);
            }
            let until = now + settings.heartbeat_interval * settings.handover_intervals;
            let living = |member: &&String| *member != own && members.contains(*member);
            for member in former.iter().filter(living) {
                let held = self.share_of(shared, routes, &former, member);
                let wanted = held.into_keys().filter(|queue| share.contains_key(queue));
                self.handed_over.extend(wanted.map(|queue| (queue, until)));
            }
        }
        let waits = |queue: &TopicQueue, until: &Instant| share.contains_key(queue) && *until > now;
        self.handed_over.retain(|queue, until| waits(queue, until));
        let holdings = shared.holdings();
        share.retain(|queue, _| holdings.holds(queue) || !self.handed_over.contains_key(queue));
    }

    /// All readable queues, each with its filter.
    fn all_of(&self, routes: &[Arc<Route>]) -> BTreeMap<TopicQueue, Filter> {
        let queues = routes.iter().flat_map(|route| shared_queues(route));
        queues
            .map(|shared| {
                let filter = self.filter(&shared.queue.topic).cloned();
                (shared.queue, filter.unwrap_or_default())
            })
            .collect()
    }

    /// One member's share of the queues, each with its filter.
    fn share_of(
        &self,
        shared: &Shared,
        routes: &[Arc<Route>],
        members: &[String],
        member: &str,
    ) -> BTreeMap<TopicQueue, Filter> {
        let mut shares = BTreeMap::new();
        for route in routes {
            let queues = shared_queues(route);
            let filter = self.filter(&route.topic).cloned().unwrap_or_default();
            let mut share = shared.settings.allocation.share(&queues, members, member);
            share.retain(|queue| queues.iter().any(|shared| shared.queue == *queue));
            shares.extend(share.into_iter().map(|queue| (queue, filter.clone())));
        }
        shares
    }

    /// Tells the servers that this member is gone, so that the others need not wait until it is missed.
    pub(crate) async fn leave(&mut self, shared: &Arc<Shared>) -> Result<(), Error> {
        self.subscriptions.clear();
        let groups = std::mem::take(&mut self.known_to);
        let results = join_all(groups.iter().map(|group| say_goodbye(shared, group))).await;
        results.into_iter().collect()
    }
}

fn shared_queues(route: &Route) -> Vec<SharedQueue> {
    let shared = |queue: &RouteQueue| SharedQueue {
        queue: TopicQueue::new(route.topic.clone(), queue.queue),
        broker_group: queue.group.clone(),
    };
    route.readable().map(shared).collect()
}

/// Stops what is not in the share, takes what is new in it, then waits until what was stopped can be given up.
async fn exchange(shared: &Arc<Shared>, shares: BTreeMap<TopicQueue, Filter>) {
    let held = shared.holdings().held();
    let lost: Vec<TopicQueue> = held
        .into_iter()
        .filter(|queue| !shares.contains_key(queue))
        .collect();
    if !lost.is_empty() {
        tracing::info!(group = %shared.group, queues = lost.len(), "giving up queues to other members");
        shared.holdings().leave(&lost);
    }
    for (queue, filter) in shares {
        shared.take([queue], &filter);
    }
    if !lost.is_empty() {
        shared.give_up(&lost).await;
    }
}

async fn heartbeat(shared: &Shared, broker_group: &Arc<str>) -> Result<(), Error> {
    let request = HeartbeatRequest {
        group: Some(resource(shared.group.as_str())),
        client_type: shared.settings.client_type as i32,
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
