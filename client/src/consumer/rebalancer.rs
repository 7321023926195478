//! A member's part in sharing its group's queues: says that it lives, asks who else does, takes its share and gives up
//! the rest. No member decides for another; they agree because all compute the same from the same lists.
//!
//! For a moment after a change two members may hold one queue: both then read from what is committed, and messages are
//! delivered twice. What is done is committed before a queue is given up, to keep that stretch short.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use proto::cluster::{ListMembersRequest, ListMembersResponse, Subscriptions};
use proto::place::{CONSUME_FROM, LOG_TIME, StartAt};
use proto::v2::{
    Code, HeartbeatRequest, HeartbeatResponse, NotifyClientTerminationRequest,
    NotifyClientTerminationResponse,
};
use tokio::time::Instant;

use crate::answer;
use crate::connection::Call;
use crate::consumer::allocation::SharedQueue;
use crate::consumer::delivery::{Filter, TopicQueue};
use crate::consumer::hand_over::{HandOver, TopicShare};
use crate::consumer::membership::{Listed, Membership};
use crate::consumer::shared::{Shared, Sharing};
use crate::deadline;
use crate::error::Error;
use crate::route::{Route, RouteQueue, resource};

/// A new leader is given this many heartbeat intervals to hear of every member.
const GRACE_INTERVALS: u32 = 3;

/// See the module's text.
#[derive(Default)]
pub(crate) struct Rebalancer {
    subscriptions: BTreeMap<Arc<str>, Filter>,
    /// Of each topic.
    membership: BTreeMap<Arc<str>, Membership>,
    hand_over: HandOver,
    /// Broker groups that were told of this member.
    known_to: BTreeSet<Arc<str>>,
    /// Broker groups that did not hear the last beat, while others did.
    silent: BTreeSet<Arc<str>>,
    /// Where the group starts, as brokers say: those that do not know the group yet make it so.
    start: Option<StartAt>,
}

/// What a broker group said to a heartbeat.
#[derive(Clone, Copy, Debug)]
struct Said {
    start: Option<StartAt>,
    log_time_ms: Option<u64>,
}

/// Broker groups after a beat.
#[derive(Debug)]
struct Heard {
    by: BTreeSet<Arc<str>>,
    silent: BTreeSet<Arc<str>>,
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
            self.membership.remove(topic);
            self.hand_over.forget(topic);
            let held = shared.holdings().held();
            let of_topic: Vec<TopicQueue> = held
                .into_iter()
                .filter(|queue| &*queue.topic == topic)
                .collect();
            shared.give_up_at_once(&of_topic).await;
        }
    }

    /// Says goodbye if nothing is subscribed to any more: no round does, and the others would wait until this member is
    /// missed.
    pub(crate) async fn leave_if_idle(&mut self, shared: &Arc<Shared>) {
        if self.is_idle()
            && let Err(error) = self.leave(shared).await
        {
            tracing::debug!(group = %shared.group, %error, "left without a word");
        }
    }

    /// One round. If it fails, everything stays as it was; but if another living process has this member's client id, this one
    /// reads nothing until that is gone.
    pub(crate) async fn round(&mut self, shared: &Arc<Shared>) -> Result<(), Error> {
        let result = self.try_round(shared).await;
        if result.is_err() {
            for topic in self.subscriptions.keys() {
                self.hand_over.interrupt(topic);
            }
        }
        result
    }

    async fn try_round(&mut self, shared: &Arc<Shared>) -> Result<(), Error> {
        let mut routes: Vec<Arc<Route>> = Vec::new();
        let age_max = shared.settings.heartbeat_interval;
        for topic in self.subscriptions.keys() {
            match shared.core.route_younger_than(topic, age_max).await {
                Ok(route) => routes.push(route),
                // It was deleted, and may be made again: the others go on.
                Err(error) if error.code() == Some(Code::TopicNotFound) => {
                    tracing::debug!(group = %shared.group, %topic, %error, "left out");
                }
                Err(error) => return Err(error),
            }
        }
        let broker_groups: BTreeSet<Arc<str>> =
            routes.iter().flat_map(|route| route.groups()).collect();
        let heard_by = match self.beat(shared, broker_groups).await {
            Ok(heard_by) => heard_by,
            Err(error) => {
                if is_taken(&error) {
                    stand_back(shared, &error).await;
                }
                return Err(error);
            }
        };
        if heard_by.is_empty() {
            return Ok(());
        }
        if shared.settings.sharing == Sharing::AllForEach {
            exchange(shared, self.all_of(&routes)).await;
            return Ok(());
        }
        let shares = self.share_out(shared, &routes, &heard_by).await?;
        exchange(shared, shares).await;
        Ok(())
    }

    /// This member's queues. Of a topic whose members nobody tells, or that does not count this one yet: those that it has.
    async fn share_out(
        &mut self,
        shared: &Arc<Shared>,
        routes: &[Arc<Route>],
        heard_by: &BTreeSet<Arc<str>>,
    ) -> Result<BTreeMap<TopicQueue, Filter>, Error> {
        let topics: Vec<String> = self.topics();
        let mut lists: BTreeMap<Arc<str>, Vec<Listed>> = BTreeMap::new();
        let mut shares = BTreeMap::new();
        for route in routes {
            let listing = listing(route, heard_by);
            if let Some(group) = &listing
                && !lists.contains_key(group)
            {
                let listed = list_members(shared, group, &topics).await?;
                lists.insert(group.clone(), listed);
            }
            let listing = listing.and_then(|group| lists.get_key_value(&group));
            let share = listing.and_then(|listing| self.topic_share(shared, route, listing));
            match share {
                Some(share) => shares.extend(self.share_of(shared, &share)),
                None => {
                    self.hand_over.interrupt(&route.topic);
                    let held = shared.holdings().held().into_iter();
                    let of_topic = held.filter(|queue| queue.topic == route.topic);
                    let filter = self.filter(&route.topic).cloned().unwrap_or_default();
                    shares.extend(of_topic.map(|queue| (queue, filter.clone())));
                }
            }
        }
        Ok(shares)
    }

    /// Who shares a topic, according to a broker group's list; `None` if this member is not among them yet.
    fn topic_share(
        &mut self,
        shared: &Shared,
        route: &Route,
        (group, listed): (&Arc<str>, &Vec<Listed>),
    ) -> Option<TopicShare> {
        let grace = shared
            .settings
            .heartbeat_interval
            .saturating_mul(GRACE_INTERVALS)
            .min(deadline::LONGEST);
        let leader = shared.core.connection.brokers.address(group, 0);
        let membership = self.membership.entry(route.topic.clone()).or_default();
        let listed = (&**listed, &*route.topic);
        let leader = (group.clone(), leader);
        if !membership.is_told_by(&leader) {
            self.hand_over.interrupt(&route.topic);
        }
        let members = membership.observe(leader, listed, Instant::now(), grace);
        let own = shared.identity.client_id();
        if !members.iter().any(|member| member == own) {
            tracing::debug!(group = %shared.group, topic = %route.topic, "not listed as a member yet");
            return None;
        }
        Some(TopicShare {
            topic: route.topic.clone(),
            queues: shared_queues(route),
            members: members.to_vec(),
        })
    }

    /// Tells all broker groups that this member lives. Returns those that heard it.
    async fn beat(
        &mut self,
        shared: &Shared,
        broker_groups: BTreeSet<Arc<str>>,
    ) -> Result<BTreeSet<Arc<str>>, Error> {
        let full = shared.core.connection.request_timeout;
        let beats = broker_groups.iter().map(|broker_group| {
            let timeout = match self.silent.contains(broker_group) {
                // The others' queues should not wait for it each time.
                true => full.min(shared.settings.heartbeat_interval),
                false => full,
            };
            heartbeat(shared, self.start, broker_group, timeout)
        });
        let beats = join_all(beats).await;
        let said: Vec<Said> = beats
            .iter()
            .filter_map(|beat| beat.as_ref().ok().copied())
            .collect();
        self.note(shared, &said);
        let beats = beats.into_iter().map(|beat| beat.map(|_| ()));
        let is_first = self.known_to.is_empty();
        let heard = heard(broker_groups.into_iter().zip(beats).collect(), is_first)?;
        self.known_to.extend(heard.by.iter().cloned());
        self.silent = heard.silent;
        Ok(heard.by)
    }

    /// Where the group starts, and since when: one that is made elsewhere later must be no younger, or it would pass by what
    /// came in between.
    fn note(&mut self, shared: &Shared, said: &[Said]) {
        let is_first = self.start.is_none();
        for start in said.iter().filter_map(|said| said.start) {
            self.start = Some(match (self.start, start) {
                (None, start) => start,
                (
                    Some(StartAt::Latest {
                        since_ms: Some(known),
                    }),
                    StartAt::Latest {
                        since_ms: Some(since),
                    },
                ) => StartAt::Latest {
                    since_ms: Some(known.min(since)),
                },
                (Some(known), _) => known,
            });
        }
        if is_first
            && let (Some(wish), Some(start)) = (shared.settings.consume_from, self.start)
            && !wish.is(start)
        {
            tracing::warn!(group = %shared.group, ?wish, %start, "the group starts elsewhere than this consumer wishes; it was made so");
        }
        let log_time_ms = said.iter().filter_map(|said| said.log_time_ms).min();
        if let Some(log_time_ms) = log_time_ms.filter(|_| shared.is_young()) {
            shared.born(log_time_ms);
        }
    }

    /// This member's share of a topic, without the queues that are left to their former owners yet.
    fn share_of(&mut self, shared: &Shared, topic: &TopicShare) -> BTreeMap<TopicQueue, Filter> {
        let (own, settings) = (shared.identity.client_id(), &shared.settings);
        let wait = settings
            .heartbeat_interval
            .saturating_mul(settings.handover_intervals);
        let (now, until) = (Instant::now(), deadline::after(wait));
        let allocation = &*settings.allocation;
        self.hand_over.note(allocation, topic, own, now, until);
        let mut share = topic.share(allocation, own);
        let holdings = shared.holdings();
        share.retain(|queue| holdings.holds(queue) || !self.hand_over.waits(queue));
        let filtered = share.into_iter().map(|queue| {
            let filter = self.filter(&queue.topic).cloned();
            (queue, filter.unwrap_or_default())
        });
        filtered.collect()
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

    /// Tells the servers that this member is gone, so that the others need not wait until it is missed.
    pub(crate) async fn leave(&mut self, shared: &Arc<Shared>) -> Result<(), Error> {
        self.subscriptions.clear();
        let groups = std::mem::take(&mut self.known_to);
        let results = join_all(groups.iter().map(|group| say_goodbye(shared, group))).await;
        results.into_iter().collect()
    }
}

/// Who heard a beat: one broker group without a leader must not keep the queues of the others from being shared. An error if
/// none did; and at the `first` beat if one of them will never hear it, so that the user is told.
fn heard(beats: Vec<(Arc<str>, Result<(), Error>)>, first: bool) -> Result<Heard, Error> {
    let mut heard = Heard {
        by: BTreeSet::new(),
        silent: BTreeSet::new(),
    };
    let mut failure = None;
    for (broker_group, beat) in beats {
        match beat {
            Ok(()) => {
                heard.by.insert(broker_group);
            }
            Err(error) if is_taken(&error) || (first && !error.is_retriable()) => {
                return Err(error);
            }
            Err(error) => {
                tracing::debug!(%broker_group, %error, "heartbeat not heard");
                heard.silent.insert(broker_group);
                failure.get_or_insert(error);
            }
        }
    }
    match failure {
        Some(error) if heard.by.is_empty() => Err(error),
        _ => Ok(heard),
    }
}

/// Whether a beat was refused because another living process is a consumer with the same client id.
fn is_taken(beat: &Error) -> bool {
    beat.code() == Some(Code::PreconditionFailed)
}

/// The member's queues are another process's, which has its client id: whatever both read would be worked on twice. The user
/// is told at once, and again with each beat that is refused.
async fn stand_back(shared: &Arc<Shared>, refused: &Error) {
    let held = {
        let mut holdings = shared.holdings();
        holdings.refused(refused.clone());
        holdings.held()
    };
    if !held.is_empty() {
        let client_id = shared.identity.client_id();
        tracing::error!(group = %shared.group, client_id, error = %refused, "giving up all queues: another process has this client id");
    }
    shared.arrived.notify_waiters();
    shared.give_up_at_once(&held).await;
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

async fn heartbeat(
    shared: &Shared,
    start: Option<StartAt>,
    broker_group: &Arc<str>,
    timeout: Duration,
) -> Result<Said, Error> {
    let request = HeartbeatRequest {
        group: Some(resource(shared.group.as_str())),
        client_type: shared.settings.client_type as i32,
    };
    let connection = &shared.core.connection;
    let call = Call {
        timeout,
        ..call(shared, "heartbeat", broker_group)
    };
    let mut identity = shared.identity.for_group(broker_group);
    if let Some(start) = start {
        identity = identity.with(CONSUME_FROM, &start);
    }
    if shared.is_young() {
        identity = identity.with(LOG_TIME, &"?");
    }
    let said = answer::Said::default();
    let _: HeartbeatResponse = connection
        .call(call, |address, timeout| {
            let (request, said) = (identity.request(request.clone(), timeout), &said);
            async move {
                let answered = connection.messaging(&address)?.heartbeat(request).await;
                said.hear(answered)
            }
        })
        .await?;
    Ok(Said {
        start: said
            .header(CONSUME_FROM)
            .and_then(|start| start.parse().ok()),
        log_time_ms: said.header(LOG_TIME).and_then(|time| time.parse().ok()),
    })
}

/// The broker group whose list of a topic's members counts: the first by name of those that have the topic and heard the
/// beat. All members of the topic beat there, so it is the same one for all, or is so again soon after a group became silent
/// or came back.
fn listing(route: &Route, heard_by: &BTreeSet<Arc<str>>) -> Option<Arc<str>> {
    let mut groups = route.groups().into_iter();
    groups.find(|group| heard_by.contains(group))
}

/// Says to what this member subscribes, and asks who else is there.
async fn list_members(
    shared: &Shared,
    broker_group: &Arc<str>,
    topics: &[String],
) -> Result<Vec<Listed>, Error> {
    let request = ListMembersRequest {
        name: shared.group.as_str().to_owned(),
        subscriptions: Some(Subscriptions {
            topics: topics.to_vec(),
        }),
    };
    let connection = &shared.core.connection;
    let identity = shared.identity.for_group(broker_group);
    let answer: ListMembersResponse = connection
        .call(
            call(shared, "list members", broker_group),
            |address, timeout| {
                let request = identity.request(request.clone(), timeout);
                async move { connection.inquiry(&address)?.list_members(request).await }
            },
        )
        .await?;
    let members = answer.members.into_iter();
    Ok(members
        .map(|member| Listed {
            client_id: member.client_id,
            topics: (member.subscriptions).map(|said| said.topics.into_iter().collect()),
        })
        .collect())
}

async fn say_goodbye(shared: &Shared, broker_group: &Arc<str>) -> Result<(), Error> {
    let request = NotifyClientTerminationRequest {
        group: Some(resource(shared.group.as_str())),
    };
    let connection = &shared.core.connection;
    let identity = shared.identity.for_group(broker_group);
    let _: NotifyClientTerminationResponse = connection
        .call(call(shared, "leave", broker_group), |address, timeout| {
            let request = identity.request(request.clone(), timeout);
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
        once: false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn beats(answers: &[(&str, Option<bool>)]) -> Vec<(Arc<str>, Result<(), Error>)> {
        let beat = |(broker_group, failure): &(&str, Option<bool>)| {
            let beat = match failure {
                None => Ok(()),
                Some(true) => Err(Error::TimedOut {
                    operation: "heartbeat",
                    subject: "group billing".to_owned(),
                    address: "a:1".to_owned(),
                    reason: "nobody leads".to_owned(),
                }),
                Some(false) => Err(Error::invalid("group billing", "refused for good")),
            };
            (Arc::from(*broker_group), beat)
        };
        answers.iter().map(beat).collect()
    }

    /// Catches one broker group without a leader that keeps the queues of all others where they are; and a refusal of
    /// which the user never hears, or one that stops everything later on.
    #[test]
    fn one_group_that_heard_the_beat_is_enough() {
        let (passes, stays) = (Some(true), Some(false));
        let outcome = heard(beats(&[("a", passes), ("b", None), ("c", None)]), true);
        let outcome = outcome.expect("two heard it");
        assert_eq!(outcome.by.first(), Some(&"b".into()), "its list counts");
        assert_eq!(outcome.silent, BTreeSet::from([Arc::from("a")]));
        assert!(heard(beats(&[("a", passes), ("b", passes)]), false).is_err());
        assert!(heard(beats(&[("a", None), ("b", stays)]), true).is_err());
        assert!(heard(beats(&[("a", None), ("b", stays)]), false).is_ok());
        let nobody = heard(Vec::new(), true).expect("there is nobody to tell");
        assert!(nobody.by.is_empty());
    }
}
