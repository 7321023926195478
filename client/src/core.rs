//! What all parts of one client share: the connection, and the topic_publish_info_table with its refreshes.
//!
//! A route is fetched when first needed, again when it is older than 30 s and in use, and at once when an answer shows
//! that it is wrong. Old routes are used until a newer one is there: a wrong one costs a redirect, not an error.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use host::Disk;
use proto::cluster::{ListReplicasResponse, ListRequest};
use proto::place::BROKER_GROUP;
use proto::v2;
use tokio::time::Instant;

use crate::answer::Said;
use crate::broker_table::ROUTES;
use crate::connection::{Call, Connection};
use crate::error::Error;
use crate::route::{Route, endpoints, resource};

/// A route in use is fetched again after this time.
const REFRESH_AFTER: Duration = Duration::from_secs(30);
/// What shows that a route is wrong, or lacks something, refreshes it at most this often.
const REFRESH_SPACING: Duration = Duration::from_millis(200);
/// Wait for the answer to a question that only helps.
const HINT_TIMEOUT: Duration = Duration::from_secs(1);
/// Seeds that are asked for the replicas of a group, one after the other, if its leader does not answer.
const SEEDS_ASKED_MAX: usize = 4;

/// See the module's text.
pub(crate) struct Core {
    pub(crate) connection: Connection,
    /// For what users want kept in files.
    pub(crate) disk: Arc<dyn Disk>,
    topics: Mutex<BTreeMap<Arc<str>, Arc<TopicEntry>>>,
    /// The broker group of calls that name none, once it is known.
    only_group: Mutex<Option<Arc<str>>>,
}

/// One topic's line in the table.
#[derive(Debug, Default)]
struct TopicEntry {
    route: Mutex<Option<Arc<Route>>>,
    /// The broker group of each queue that a route ever had: one that is away is in no route, and its queues are its own.
    homes: Mutex<BTreeMap<u32, Arc<str>>>,
    /// Held while the first route is fetched, so that a thousand first sends make one call, in order.
    first_fetch: tokio::sync::Mutex<()>,
    refreshing: AtomicBool,
    last_refresh: Mutex<Option<Instant>>,
}

impl TopicEntry {
    fn replace(&self, route: Arc<Route>) {
        let homes = route.queues.iter();
        self.homes
            .lock()
            .expect("nothing panics while it is locked")
            .extend(homes.map(|queue| (queue.queue, queue.group.clone())));
        *self
            .route
            .lock()
            .expect("nothing panics while it is locked") = Some(route);
    }

    fn known(&self) -> Option<Arc<Route>> {
        self.route
            .lock()
            .expect("nothing panics while it is locked")
            .clone()
    }

    fn home_of(&self, queue: u32) -> Option<Arc<str>> {
        let homes = self.homes.lock();
        let homes = homes.expect("nothing panics while it is locked");
        homes.get(&queue).cloned()
    }
}

impl Core {
    pub(crate) fn new(connection: Connection, disk: Arc<dyn Disk>) -> Core {
        Core {
            connection,
            disk,
            topics: Mutex::new(BTreeMap::new()),
            only_group: Mutex::new(None),
        }
    }

    /// The broker group of calls that name none.
    pub(crate) fn only_group(&self) -> Option<Arc<str>> {
        self.only_group
            .lock()
            .expect("nothing panics while it is locked")
            .clone()
    }

    pub(crate) fn set_only_group(&self, group: Arc<str>) {
        *self
            .only_group
            .lock()
            .expect("nothing panics while it is locked") = Some(group);
    }

    /// A topic's route: the known one, or the first to be fetched.
    pub(crate) async fn route(self: &Arc<Self>, topic: &Arc<str>) -> Result<Arc<Route>, Error> {
        let entry = self.entry(topic);
        if let Some(route) = self.known(topic, &entry) {
            return Ok(route);
        }
        let _fetching = entry.first_fetch.lock().await;
        match self.known(topic, &entry) {
            Some(route) => Ok(route),
            None => self.fetch(topic, &entry).await,
        }
    }

    /// The broker group of a queue. One that name servers do not hear of any more is still that of its queues: another one has
    /// others of these numbers. A queue that no route had yet may have been made since: then the route is fetched again, unless
    /// that was just done.
    pub(crate) async fn group_of(
        self: &Arc<Self>,
        topic: &Arc<str>,
        queue: u32,
    ) -> Result<Arc<str>, Error> {
        self.route(topic).await?;
        if let Some(known) = self.known_group_of(topic, queue) {
            return Ok(known);
        }
        let fresh = self.route_younger_than(topic, REFRESH_SPACING).await?;
        Ok(fresh.group_of(queue))
    }

    /// The same, as far as it is known now.
    pub(crate) fn known_group_of(
        self: &Arc<Self>,
        topic: &Arc<str>,
        queue: u32,
    ) -> Option<Arc<str>> {
        let route = self.known_route(topic).filter(|route| route.has(queue));
        let route = route.map(|route| route.group_of(queue));
        route.or_else(|| self.entry(topic).home_of(queue))
    }

    /// A topic's route as it is known now, if it is; starts a refresh if it is old.
    pub(crate) fn known_route(self: &Arc<Self>, topic: &Arc<str>) -> Option<Arc<Route>> {
        self.known(topic, &self.entry(topic))
    }

    /// An answer shows that the route may be wrong: fetches it again, soon, in the background.
    pub(crate) fn refresh_soon(self: &Arc<Self>, topic: &Arc<str>) {
        let entry = self.entry(topic);
        let last = *entry
            .last_refresh
            .lock()
            .expect("nothing panics while it is locked");
        if last.is_some_and(|last| last.elapsed() < REFRESH_SPACING) {
            return;
        }
        self.start_refresh(topic, &entry);
    }

    /// A topic's route that is not older than this, if it can be had; the known one otherwise.
    pub(crate) async fn route_younger_than(
        self: &Arc<Self>,
        topic: &Arc<str>,
        age_max: Duration,
    ) -> Result<Arc<Route>, Error> {
        let known = self.route(topic).await?;
        if known.fetched.elapsed() <= age_max {
            return Ok(known);
        }
        match self.fetch(topic, &self.entry(topic)).await {
            Err(error) if error.may_pass() => Ok(known),
            fresh => fresh,
        }
    }

    /// The route as it is now, whatever is known.
    pub(crate) async fn fresh_route(
        self: &Arc<Self>,
        topic: &Arc<str>,
    ) -> Result<Arc<Route>, Error> {
        self.fetch(topic, &self.entry(topic)).await
    }

    fn entry(&self, topic: &Arc<str>) -> Arc<TopicEntry> {
        let mut topics = self
            .topics
            .lock()
            .expect("nothing panics while the table is locked");
        if let Some(entry) = topics.get(topic) {
            return entry.clone();
        }
        topics.entry(topic.clone()).or_default().clone()
    }

    fn known(self: &Arc<Self>, topic: &Arc<str>, entry: &Arc<TopicEntry>) -> Option<Arc<Route>> {
        let route = entry.known()?;
        if route.fetched.elapsed() > REFRESH_AFTER {
            self.start_refresh(topic, entry);
        }
        Some(route)
    }

    fn start_refresh(self: &Arc<Self>, topic: &Arc<str>, entry: &Arc<TopicEntry>) {
        if entry.refreshing.swap(true, Ordering::AcqRel) {
            return;
        }
        let (core, topic, entry) = (self.clone(), topic.clone(), entry.clone());
        tokio::spawn(async move {
            if let Err(error) = core.fetch(&topic, &entry).await {
                tracing::debug!(%topic, %error, "route not refreshed");
            }
            entry.refreshing.store(false, Ordering::Release);
        });
    }

    async fn fetch(
        self: &Arc<Self>,
        topic: &Arc<str>,
        entry: &TopicEntry,
    ) -> Result<Arc<Route>, Error> {
        *entry
            .last_refresh
            .lock()
            .expect("nothing panics while it is locked") = Some(Instant::now());
        let call = Call {
            operation: "query route",
            subject: format!("topic {topic}"),
            group: ROUTES.into(),
            timeout: self.connection.request_timeout,
            changes: false,
            once: false,
        };
        let (connection, said) = (&self.connection, Said::default());
        let answer: v2::QueryRouteResponse = connection
            .call(call, |address, timeout| {
                let said = &said;
                async move {
                    let request = v2::QueryRouteRequest {
                        topic: Some(resource(topic)),
                        endpoints: Some(endpoints(&address)),
                    };
                    let request = connection.request(request, timeout);
                    let answered = connection.messaging(&address)?.query_route(request).await;
                    said.hear(answered)
                }
            })
            .await?;
        let (route, leaders) = Route::read(topic.clone(), &answer.message_queues, Instant::now());
        for (group, leader) in leaders {
            connection.brokers.routed(&group, &leader);
            self.learn_replicas(group, leader);
        }
        let route = match (said.header(BROKER_GROUP), entry.known()) {
            (Some(group), Some(known)) => route.with_others(&known, &group),
            _ => route,
        };
        let route = Arc::new(route);
        entry.replace(route.clone());
        Ok(route)
    }

    /// Asks a leader for its peers, so that there is someone else to ask when it is gone. If it is gone already, a seed may be
    /// one of them: its answer says of which group it is. A help, not a need.
    fn learn_replicas(self: &Arc<Self>, group: Arc<str>, leader: String) {
        let core = self.clone();
        tokio::spawn(async move {
            let brokers = &core.connection.brokers;
            let seeds = brokers.seeds().iter().filter(|seed| ***seed != *leader);
            let leader: Arc<str> = leader.as_str().into();
            let asked: Vec<Arc<str>> = std::iter::once(leader.clone())
                .chain(seeds.take(SEEDS_ASKED_MAX).cloned())
                .collect();
            for address in asked {
                let Some(replicas) = core.replicas_at(&address).await else {
                    continue;
                };
                // Brokers of before this do not say of which group they are.
                let is_old_leader = replicas.group.is_empty() && address == leader;
                if *replicas.group != *group && !is_old_leader {
                    tracing::debug!(%group, %address, other = replicas.group, "a broker of another group is there");
                    continue;
                }
                let addresses = replicas.client_addresses.into_iter().map(Arc::from);
                brokers.members(&group, addresses);
                brokers.led(&group, &replicas.leader, replicas.term);
                return;
            }
        });
    }

    /// What a broker says of the replicas of its group.
    async fn replicas_at(&self, address: &str) -> Option<ListReplicasResponse> {
        let connection = &self.connection;
        let mut inquiry = connection.inquiry(address).ok()?;
        let request = connection.request(ListRequest {}, HINT_TIMEOUT);
        let asking = inquiry.list_replicas(request);
        let answer = tokio::time::timeout(HINT_TIMEOUT, asking).await;
        Some(answer.ok()?.ok()?.into_inner())
    }
}
