//! Topics, groups and brokers, for operators and their tools.

mod description;
mod inspection;
mod known;
mod replicas;

use std::sync::Arc;
use std::time::Duration;

use proto::cluster;
use tokio::time::Instant;
use tonic::{Request, Response, Status};

pub use description::{
    BrokerAddress, BrokerStatus, CommittedOffset, DedupStatus, GroupDescription, GroupSettings,
    MessageType, QueueBounds, TopicDescription, TopicSettings, TransferStatus,
};
pub use inspection::{
    GroupMember, GroupQueue, GroupRoute, GroupState, MessagePage, MessageQuery, NameServerTable,
    QueueOwner,
};

use crate::answer::Answer;
use crate::backoff::Backoff;
use crate::connection::{Call, name_group};
use crate::consumer::TopicQueue;
use crate::core::Core;
use crate::deadline;
use crate::error::Error;
use known::Known;

/// Administration calls, for who holds the cluster's secret ([`ClientBuilder::administration`](crate::ClientBuilder::administration)).
/// They go through the listener for operators of any one broker, which passes them on.
///
/// Calls that change or list something go to the leader of a broker group, follow it through an election, and are
/// repeated until their deadline: the client's request timeout, unless [`Admin::timeout`] sets another. Their errors:
/// [`Error::Refused`] is final and nothing was done; after [`Error::OutcomeUnknown`] look before you repeat.
#[derive(Clone)]
pub struct Admin {
    core: Arc<Core>,
    timeout: Duration,
    group: Option<Arc<str>>,
}

/// What one attempt of an administration call does with a client of the right address.
type Client = cluster::BrokerAdminClient;

impl Admin {
    pub(crate) fn new(core: Arc<Core>) -> Admin {
        let timeout = core.connection.request_timeout;
        Admin {
            core,
            timeout,
            group: None,
        }
    }

    /// The same, with another deadline for each call.
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Admin {
        self.timeout = timeout.min(deadline::LONGEST);
        self
    }

    /// The same, for one broker group by name. Without it: the only group, or the first by name.
    #[must_use]
    pub fn broker_group(mut self, group: impl Into<String>) -> Admin {
        self.group = Some(group.into().into());
        self
    }

    /// Makes a topic.
    ///
    /// # Errors
    /// Refused if the name is bad, or taken and not `if_absent`.
    pub async fn create_topic(&self, name: &str, settings: &TopicSettings) -> Result<(), Error> {
        let request = put_topic(name, settings);
        self.change(
            "create",
            topic(name),
            request,
            async |mut client, request| client.create_topic(request).await,
        )
        .await
    }

    /// Changes a topic. The number of queues may only grow.
    ///
    /// # Errors
    /// Refused if there is no such topic.
    pub async fn alter_topic(&self, name: &str, settings: &TopicSettings) -> Result<(), Error> {
        let request = put_topic(name, settings);
        self.change(
            "alter",
            topic(name),
            request,
            async |mut client, request| client.alter_topic(request).await,
        )
        .await
    }

    /// Deletes a topic and its messages.
    ///
    /// # Errors
    /// Refused if there is no such topic.
    pub async fn delete_topic(&self, name: &str) -> Result<(), Error> {
        let request = cluster::NameRequest {
            name: name.to_owned(),
        };
        self.change(
            "delete",
            topic(name),
            request,
            async |mut client, request| client.delete_topic(request).await,
        )
        .await
    }

    /// All topics, sorted by name.
    ///
    /// # Errors
    /// No leader answered by the deadline.
    pub async fn list_topics(&self) -> Result<Vec<TopicDescription>, Error> {
        let call = self.call("list", "topics".to_owned(), false).await?;
        let answer = self
            .ask(
                call,
                cluster::ListRequest {},
                async |mut client, request| client.list_topics(request).await,
            )
            .await?;
        let mut topics: Vec<TopicDescription> = answer
            .topics
            .into_iter()
            .map(TopicDescription::from)
            .collect();
        topics.sort_by(|one, other| one.name.cmp(&other.name));
        Ok(topics)
    }

    /// One topic, if it exists.
    ///
    /// # Errors
    /// As [`Admin::list_topics`].
    pub async fn topic(&self, name: &str) -> Result<Option<TopicDescription>, Error> {
        Ok(self
            .list_topics()
            .await?
            .into_iter()
            .find(|topic| topic.name == name))
    }

    /// Makes a consumer group.
    ///
    /// # Errors
    /// Refused if the name is bad, or taken and not `if_absent`.
    pub async fn create_group(&self, name: &str, settings: &GroupSettings) -> Result<(), Error> {
        let request = put_group(name, settings);
        self.change(
            "create",
            group(name),
            request,
            async |mut client, request| client.create_group(request).await,
        )
        .await
    }

    /// Changes a consumer group.
    ///
    /// # Errors
    /// Refused if there is no such group.
    pub async fn alter_group(&self, name: &str, settings: &GroupSettings) -> Result<(), Error> {
        let request = put_group(name, settings);
        self.change(
            "alter",
            group(name),
            request,
            async |mut client, request| client.alter_group(request).await,
        )
        .await
    }

    /// Deletes a consumer group and its offsets.
    ///
    /// # Errors
    /// Refused if there is no such group.
    pub async fn delete_group(&self, name: &str) -> Result<(), Error> {
        let request = cluster::NameRequest {
            name: name.to_owned(),
        };
        self.change(
            "delete",
            group(name),
            request,
            async |mut client, request| client.delete_group(request).await,
        )
        .await
    }

    /// All consumer groups, sorted by name.
    ///
    /// # Errors
    /// No leader answered by the deadline.
    pub async fn list_groups(&self) -> Result<Vec<GroupDescription>, Error> {
        let call = self
            .call("list", "consumer groups".to_owned(), false)
            .await?;
        let answer = self
            .ask(
                call,
                cluster::ListRequest {},
                async |mut client, request| client.list_groups(request).await,
            )
            .await?;
        let mut groups: Vec<GroupDescription> = answer
            .groups
            .into_iter()
            .map(GroupDescription::from)
            .collect();
        groups.sort_by(|one, other| one.name.cmp(&other.name));
        Ok(groups)
    }

    /// One consumer group, if it exists.
    ///
    /// # Errors
    /// As [`Admin::list_groups`].
    pub async fn group(&self, name: &str) -> Result<Option<GroupDescription>, Error> {
        Ok(self
            .list_groups()
            .await?
            .into_iter()
            .find(|group| group.name == name))
    }

    /// Client ids of the consumers of a group that sent a heartbeat lately, sorted.
    ///
    /// # Errors
    /// No leader answered by the deadline.
    pub async fn members(&self, name: &str) -> Result<Vec<String>, Error> {
        let call = self.call("list members", group(name), false).await?;
        let request = cluster::ListMembersRequest {
            name: name.to_owned(),
            subscriptions: None,
        };
        let answer = self
            .ask(call, request, async |mut client, request| {
                client.list_members(request).await
            })
            .await?;
        Ok(answer.client_ids)
    }

    /// Sets a group's offset in one queue, back or forth. Its consumers go on where they are until they start anew.
    ///
    /// # Errors
    /// Refused if there is no such group or queue. [`Error::OutcomeUnknown`]: the answer was lost. It is not repeated then:
    /// the lost one may still arrive, later than what consumers commit meanwhile. Look what is committed before you ask again.
    pub async fn reset_offset(
        &self,
        name: &str,
        queue: &TopicQueue,
        offset: u64,
    ) -> Result<(), Error> {
        self.set_offset(name, queue, offset, false).await
    }

    /// The same, and gives up what waits for another delivery before that offset: it does not come again.
    ///
    /// # Errors
    /// As [`Admin::reset_offset`].
    pub async fn skip_to(&self, name: &str, queue: &TopicQueue, offset: u64) -> Result<(), Error> {
        self.set_offset(name, queue, offset, true).await
    }

    async fn set_offset(
        &self,
        name: &str,
        queue: &TopicQueue,
        offset: u64,
        settle_retries: bool,
    ) -> Result<(), Error> {
        let request = cluster::ResetOffsetRequest {
            group: name.to_owned(),
            topic: queue.topic.to_string(),
            queue: queue.queue,
            offset,
            settle_retries,
        };
        let mut call = self.call("reset offset", group(name), true).await?;
        call.once = true;
        let answered = self.ask(call, request, async |mut client, request| {
            client.reset_offset(request).await
        });
        answered.await.map(|_: cluster::AdminResponse| ())
    }

    /// A call whose answer is only yes or no.
    async fn change<M: Clone>(
        &self,
        operation: &'static str,
        subject: String,
        message: M,
        attempt: impl AsyncFn(Client, Request<M>) -> Result<Response<cluster::AdminResponse>, Status>,
    ) -> Result<(), Error> {
        let call = self.call(operation, subject, true).await?;
        self.ask(call, message, attempt).await.map(|_| ())
    }

    /// A call to the leader of the broker group.
    async fn ask<M: Clone, R: Answer>(
        &self,
        call: Call,
        message: M,
        attempt: impl AsyncFn(Client, Request<M>) -> Result<Response<R>, Status>,
    ) -> Result<R, Error> {
        let connection = &self.core.connection;
        let group = call.group.clone();
        connection
            .call(call, |address, timeout| {
                let (message, attempt, group) = (message.clone(), &attempt, &group);
                async move {
                    let way = connection.passage(&address, message, timeout).await?;
                    let (passage, client, mut request) = way;
                    name_group(request.metadata_mut(), group);
                    passage.ended(attempt(client, request).await)
                }
            })
            .await
    }

    async fn call(
        &self,
        operation: &'static str,
        subject: String,
        changes: bool,
    ) -> Result<Call, Error> {
        if let Err(status) = self.core.connection.endpoints() {
            return Err(Error::Refused {
                operation,
                subject,
                address: "nobody".to_owned(),
                code: proto::v2::Code::Unauthorized,
                reason: status.message().to_owned(),
            });
        }
        let deadline = deadline::after(self.timeout);
        let group = self
            .known_group(deadline)
            .await
            .map_err(|reason| Error::TimedOut {
                operation,
                subject: subject.clone(),
                address: self.core.connection.brokers.seeds().join(","),
                reason,
            })?;
        let timeout = deadline.saturating_duration_since(Instant::now());
        Ok(Call {
            operation,
            subject,
            group,
            timeout,
            changes,
            once: false,
        })
    }

    fn call_to(&self, operation: &'static str, address: &str, changes: bool) -> Call {
        let timeout = self.timeout.min(self.core.connection.attempt_timeout);
        let subject = format!("broker {address}");
        Call {
            operation,
            subject,
            group: "".into(),
            timeout,
            changes,
            once: false,
        }
    }

    /// The group to ask, after learning where it is, if that is not known: name servers do not answer for brokers, and
    /// may not know any yet. The error says what kept it from being known until the deadline.
    async fn known_group(&self, deadline: Instant) -> Result<Arc<str>, String> {
        let table = &self.core.connection.brokers;
        let mut backoff = Backoff::default();
        loop {
            if let Some(group) = self.group.clone().or_else(|| self.core.only_group())
                && table.knows(&group)
            {
                return Ok(group);
            }
            let reason = match self.known().await {
                Ok(known) => match self.learn(&known) {
                    Some(group) => return Ok(group),
                    None => self.unknown_group(),
                },
                Err(error) => error.to_string(),
            };
            let wait = backoff.next_wait();
            if Instant::now() + wait >= deadline {
                return Err(reason);
            }
            tokio::time::sleep(wait).await;
        }
    }

    /// Remembers where the group's brokers are; the group, if it is among them.
    fn learn(&self, known: &Known) -> Option<Arc<str>> {
        let group = match &self.group {
            Some(group) => group.clone(),
            None => {
                // Also one of which name servers hear nothing any more: another one is not meant because it is away.
                let all = known.live.iter().chain(&known.expired);
                all.map(|broker| broker.group.as_str()).min()?.into()
            }
        };
        let brokers = known.live.iter().chain(&known.expired);
        let of_group = brokers.filter(|broker| *broker.group == *group);
        let addresses: Vec<Arc<str>> = of_group
            .map(|broker| broker.client_address.as_str().into())
            .collect();
        if addresses.is_empty() {
            return None;
        }
        self.core.connection.brokers.members(&group, addresses);
        if self.group.is_none() {
            self.core.set_only_group(group.clone());
        }
        Some(group)
    }

    fn unknown_group(&self) -> String {
        match &self.group {
            Some(group) => format!("no broker of group {group} is known there"),
            None => "no broker is known there".to_owned(),
        }
    }

    async fn raw_table(&self, address: &str) -> Result<cluster::QueryTableResponse, Error> {
        let connection = &self.core.connection;
        let call = self.call_to("query table", address, false);
        let timeout = call.timeout;
        connection
            .call_at(call, address, async {
                let request = cluster::QueryTableRequest {
                    with_expired: true,
                    ..Default::default()
                };
                let request = connection.request(request, timeout);
                connection.name_server(address)?.query_table(request).await
            })
            .await
    }

    async fn raw_status(&self, address: &str) -> Result<cluster::BrokerStatusResponse, Error> {
        let connection = &self.core.connection;
        let call = self.call_to("status", address, false);
        let timeout = call.timeout;
        connection
            .call_at(call, address, async {
                let request = cluster::BrokerStatusRequest {};
                let way = connection.passage(address, request, timeout).await?;
                let (passage, mut client, request) = way;
                passage.ended(client.status(request).await)
            })
            .await
    }
}

fn replicas(group: &str, replicas: Vec<cluster::Replica>) -> Vec<BrokerAddress> {
    replicas
        .into_iter()
        .map(|replica| BrokerAddress::from_wire(group, replica))
        .collect()
}

fn topic(name: &str) -> String {
    format!("topic {name}")
}

fn group(name: &str) -> String {
    format!("consumer group {name}")
}

fn put_topic(name: &str, settings: &TopicSettings) -> cluster::PutTopicRequest {
    cluster::PutTopicRequest {
        name: name.to_owned(),
        queue_count: settings.queue_count,
        message_type: settings.message_type.to_wire(),
        attributes: settings.attributes.clone().into_iter().collect(),
        if_absent: settings.if_absent,
    }
}

fn put_group(name: &str, settings: &GroupSettings) -> cluster::PutGroupRequest {
    let (consume_from, consume_from_ms) = settings.consume_from.to_wire();
    cluster::PutGroupRequest {
        name: name.to_owned(),
        fifo: settings.fifo,
        max_attempts: i32::try_from(settings.max_attempts).unwrap_or(i32::MAX),
        consume_from,
        consume_from_ms,
        if_absent: settings.if_absent,
        attributes: settings.attributes.clone().into_iter().collect(),
    }
}
