//! A member's part in sharing its group's queues: says that it lives, asks who else does, takes its share and gives up
//! the rest. No member decides for another; they agree because all compute the same from the same lists.
//!
//! For a moment after a change two members may hold one queue: both then read from what is committed, and messages are
//! delivered twice. What is done is committed before a queue is given up, to keep that stretch short.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use futures::future::join_all;
use proto::place::StartAt;
use proto::v2::Code;
use tokio::time::Instant;

use crate::consumer::allocation::SharedQueue;
use crate::consumer::delivery::{Filter, TopicQueue};
use crate::consumer::hand_over::{HandOver, TopicShare};
use crate::consumer::member_calls::{Said, heartbeat, list_members, say_goodbye};
use crate::consumer::membership::{Listed, Membership};
use crate::consumer::shared::{Shared, Sharing};
use crate::deadline;
use crate::error::Error;
use crate::route::{Route, RouteQueue};

/// A new leader is given this many heartbeat intervals to hear of every member.
const GRACE_INTERVALS: u32 = 3;

/// See the module's text.
#[derive(Default)]
pub(crate) struct Rebalancer {
    subscriptions: BTreeMap<Arc<str>, Filter>,
    /// Of each topic.
    membership: BTreeMap<Arc<str>, Membership>,
    hand_over: HandOver,
    /// Broker groups that may know of this member.
    known_to: BTreeSet<Arc<str>>,
    was_heard: bool,
    /// Broker groups that did not hear the last beat, while others did.
    silent: BTreeSet<Arc<str>>,
    /// Where the group starts, as brokers say: those that do not know the group yet make it so.
    start: Option<StartAt>,
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
        if !self.is_idle() {
            return;
        }
        let ((reached, silent), full) = (self.end(), shared.core.connection.request_timeout);
        let reached = say_goodbye(shared, &reached, full);
        let silent = say_goodbye(shared, &silent, shared.brief_timeout());
        let (reached, silent) = tokio::join!(reached, silent);
        if let Err(error) = reached.and(silent) {
            tracing::debug!(group = %shared.group, %error, "left without a word");
        }
    }

    /// One round. If it fails, everything stays as it was; but if another living process has this member's client id, this one
    /// reads nothing until that is gone.
    pub(crate) async fn round(&mut self, shared: &Arc<Shared>) -> Result<(), Error> {
        let result = tokio::select! {
            biased;
            // Whoever closes the consumer gives up everything itself, and waits for no server that a round waits for.
            () = shared.closed() => return Ok(()),
            result = self.try_round(shared) => result,
        };
        if result.is_err() {
            for topic in self.subscriptions.keys() {
                self.hand_over.interrupt(topic);
            }
        }
        result
    }

    async fn try_round(&mut self, shared: &Arc<Shared>) -> Result<(), Error> {
        match self.shares(shared).await {
            Ok(Some(shares)) => exchange(shared, shares).await,
            Ok(None) => {}
            Err(error) => {
                if is_taken(&error) {
                    stand_back(shared, &error).await;
                }
                return Err(error);
            }
        }
        Ok(())
    }

    /// What this member should hold, as the servers say; `None` if there is nobody to ask.
    async fn shares(
        &mut self,
        shared: &Arc<Shared>,
    ) -> Result<Option<BTreeMap<TopicQueue, Filter>>, Error> {
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
        let heard_by = self.beat(shared, broker_groups).await?;
        if heard_by.is_empty() {
            return Ok(None);
        }
        if shared.settings.sharing == Sharing::AllForEach {
            return Ok(Some(self.all_of(&routes)));
        }
        self.share_out(shared, &routes, &heard_by).await.map(Some)
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
        // Also those that hear it and cannot say so any more.
        self.known_to.extend(broker_groups.iter().cloned());
        let beats = broker_groups.iter().map(|broker_group| {
            let timeout = match self.silent.contains(broker_group) {
                // The others' queues should not wait for it each time.
                true => shared.brief_timeout(),
                false => shared.core.connection.request_timeout,
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
        let is_first = !self.was_heard;
        let heard = heard(broker_groups.into_iter().zip(beats).collect(), is_first)?;
        self.was_heard |= !heard.by.is_empty();
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

    /// No round does anything any more. Returns the broker groups that may know of this member: those that it can say
    /// goodbye to at once, and those that did not hear its last beat.
    pub(crate) fn end(&mut self) -> (BTreeSet<Arc<str>>, BTreeSet<Arc<str>>) {
        self.subscriptions.clear();
        let known_to = std::mem::take(&mut self.known_to);
        let silent = &known_to & &std::mem::take(&mut self.silent);
        (&known_to - &silent, silent)
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

/// The broker group whose list of a topic's members counts: the first by name of those that have the topic and heard the
/// beat. All members of the topic beat there, so it is the same one for all, or is so again soon after a group became silent
/// or came back.
fn listing(route: &Route, heard_by: &BTreeSet<Arc<str>>) -> Option<Arc<str>> {
    let mut groups = route.groups().into_iter();
    groups.find(|group| heard_by.contains(group))
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
