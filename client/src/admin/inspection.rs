//! Looking closely: one consumer group, single messages, what each name server believes.

use std::collections::BTreeSet;
use std::sync::Arc;

use futures::future::join_all;
use proto::cluster;

use super::description::{BrokerAddress, GroupDescription};
use super::{Admin, group, topic};
use crate::consumer::{Delivery, TopicQueue};
use crate::error::Error;
use crate::offsets;
use crate::received::ReceivedMessage;

/// A living member of a consumer group.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct GroupMember {
    /// Its client id.
    pub client_id: String,
    /// Since its last heartbeat reached the leader, milliseconds.
    pub seen_ms_ago: u64,
    /// Since another living process claimed this client id and was refused, milliseconds; `None` if none did lately.
    pub disputed_ms_ago: Option<u64>,
}

/// Who pulled a queue last. Consumers share queues out among themselves, so this is what the leader saw.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct QueueOwner {
    /// Its client id. It need not be a living member: it may have died since.
    pub client_id: String,
    /// Since that pull reached the leader, milliseconds; a pull may wait for messages for a long time.
    pub seen_ms_ago: u64,
    /// Where that pull began: what lies before was given to the owner.
    pub pulled_offset: u64,
}

/// One queue that a consumer group reads, or has read.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct GroupQueue {
    /// The queue.
    pub queue: TopicQueue,
    /// Offset of the oldest message that is still there.
    pub min_offset: u64,
    /// Offset that the next message will get.
    pub max_offset: u64,
    /// The next offset to deliver; `None` if the group has committed nothing here.
    pub committed: Option<u64>,
    /// Messages still there that the group has not passed: behind what it has committed, or behind where it starts if that is
    /// nothing.
    pub unread: u64,
    /// Messages that it has passed and that wait for another delivery.
    pub retries: u64,
    /// Age of the oldest message that is not finished, milliseconds by the log's time; 0 if there is none.
    pub lag_ms: u64,
    /// Who reads it, as far as the leader saw lately.
    pub owner: Option<QueueOwner>,
}

impl GroupQueue {
    /// Messages that the group has yet to finish here.
    pub fn lag(&self) -> u64 {
        self.unread + self.retries
    }
}

/// A consumer group at one moment.
#[derive(Clone, Debug)]
pub struct GroupState {
    /// Its settings.
    pub description: GroupDescription,
    /// Consumers that sent a heartbeat lately, by client id.
    pub members: Vec<GroupMember>,
    /// The queues of every topic in which it has committed or pulled lately, by topic and number.
    pub queues: Vec<GroupQueue>,
}

/// Which messages [`Admin::read_messages`] looks for.
#[derive(Clone, Debug, Default)]
pub struct MessageQuery {
    /// Where to begin; below the oldest message: there.
    pub offset: u64,
    /// Stop before this offset; `None`: at the end of the queue.
    pub end_offset: Option<u64>,
    /// Messages in the answer at most. The servers have a bound of their own.
    pub messages_max: u32,
    /// Only the message of this id.
    pub message_id: Option<String>,
    /// Only messages that have this key.
    pub key: Option<String>,
}

/// A part of a queue.
#[derive(Clone, Debug)]
pub struct MessagePage {
    /// What was asked for, in order.
    pub messages: Vec<Delivery>,
    /// Where to go on; what lies before was looked at.
    pub next_offset: u64,
    /// Offset of the oldest message that is still there.
    pub min_offset: u64,
    /// Offset that the next message will get.
    pub max_offset: u64,
}

/// What a name server believes about one broker group.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct GroupRoute {
    /// The broker group.
    pub group: String,
    /// The Raft term of the leader that registered; the higher (epoch, version) is the newer.
    pub epoch: u64,
    /// Counts the registrations of that term.
    pub version: u64,
    /// Who leads.
    pub leader: u64,
    /// The group's replicas.
    pub replicas: Vec<BrokerAddress>,
    /// Its topics by name, and how many queues each has.
    pub topics: Vec<(String, u32)>,
}

/// What one name server believes.
#[derive(Clone, Debug)]
pub struct NameServerTable {
    /// Its address.
    pub address: String,
    /// The broker groups, by name.
    pub groups: Vec<GroupRoute>,
    /// The name servers that it knows to live, itself first.
    pub name_servers: Vec<String>,
}

impl Admin {
    /// A consumer group's members, who reads which queue, and how far behind it is.
    ///
    /// # Errors
    /// [`Error::Refused`] with `CONSUMER_GROUP_NOT_FOUND`; no leader answered by the deadline.
    pub async fn describe_group(&self, name: &str) -> Result<GroupState, Error> {
        let call = self.call("describe", group(name), false).await?;
        let request = cluster::NameRequest {
            name: name.to_owned(),
        };
        let answer = self
            .ask(call, request, async |mut client, request| {
                client.describe_group(request).await
            })
            .await?;
        let members = answer.members.into_iter().map(|member| GroupMember {
            client_id: member.client_id,
            seen_ms_ago: member.seen_ms_ago,
            disputed_ms_ago: member.disputed.then_some(member.disputed_ms_ago),
        });
        Ok(GroupState {
            description: answer.group.unwrap_or_default().into(),
            members: members.collect(),
            queues: answer.queues.into_iter().map(GroupQueue::from).collect(),
        })
    }

    /// Messages of a queue as they are stored: moves no offset, needs no consumer group. There is no index by id or key:
    /// with one of those the leader reads on from the offset, a bounded number of messages; go on at `next_offset`.
    ///
    /// # Errors
    /// [`Error::Refused`] if there is no such queue; no leader answered by the deadline.
    pub async fn read_messages(
        &self,
        queue: &TopicQueue,
        query: &MessageQuery,
    ) -> Result<MessagePage, Error> {
        let call = self
            .call("read messages", format!("queue {queue}"), false)
            .await?;
        let subject = call.subject.clone();
        let request = cluster::ReadMessagesRequest {
            topic: queue.topic.to_string(),
            queue: queue.queue,
            offset: query.offset,
            end_offset: query.end_offset.unwrap_or(0),
            messages_max: query.messages_max,
            scan_max: 0,
            message_id: query.message_id.clone().unwrap_or_default(),
            key: query.key.clone().unwrap_or_default(),
        };
        let answer = self
            .ask(call, request, async |mut client, request| {
                client.read_messages(request).await
            })
            .await?;
        let messages = answer.messages.into_iter().map(|encoded| {
            let message = ReceivedMessage::decode(encoded).map_err(|error| Error::Protocol {
                operation: "read messages",
                subject: subject.clone(),
                address: "the leader".to_owned(),
                reason: error.to_string(),
            })?;
            Ok(Delivery {
                life: None,
                topic: queue.topic.clone(),
                queue: queue.queue,
                offset: message.queue_offset().unwrap_or_default(),
                attempt: 1,
                message,
            })
        });
        Ok(MessagePage {
            messages: messages.collect::<Result<_, Error>>()?,
            next_offset: answer.next_offset,
            min_offset: answer.min_offset,
            max_offset: answer.max_offset,
        })
    }

    /// Offset of the first message of a queue that was stored at or after a time, in milliseconds since the Unix epoch; the
    /// next message's offset if there is none.
    ///
    /// # Errors
    /// [`Error::Refused`] if there is no such queue; [`Error::TimedOut`].
    pub async fn offset_at(&self, queue: &TopicQueue, time_ms: u64) -> Result<u64, Error> {
        offsets::query(&self.core, queue, offsets::Place::AtMs(time_ms)).await
    }

    /// Takes a replica that does not vote out of its broker group. Its id is not used again.
    ///
    /// # Errors
    /// Refused if it votes, or is not in the group.
    pub async fn remove_learner(&self, broker_id: u64) -> Result<(), Error> {
        let request = cluster::RemoveLearnerRequest { broker_id };
        let subject = format!("learner {broker_id}");
        self.change("remove", subject, request, async |mut client, request| {
            client.remove_learner(request).await
        })
        .await
    }

    /// The broker group that serves a topic, if a name server knows one; the first by name of those that share it.
    pub async fn group_of_topic(&self, name: &str) -> Option<String> {
        self.groups_of_topic(name).await.pop_first()
    }

    /// The broker groups that serve a topic, as far as name servers know.
    pub async fn groups_of_topic(&self, name: &str) -> BTreeSet<String> {
        let tables = self.name_server_tables().await;
        let known = tables.into_iter().filter_map(|(_, table)| table.ok());
        let serving = known
            .flat_map(|table| table.groups)
            .filter(|group| group.topics.iter().any(|(topic, _)| topic == name));
        serving.map(|group| group.group).collect()
    }

    /// What every name server believes: those among the seeds, and those that they know. A seed that is a broker has no
    /// table and is left out; one that does not answer is in the list with the reason.
    pub async fn name_server_tables(&self) -> Vec<(String, Result<NameServerTable, Error>)> {
        let mut waiting: Vec<Arc<str>> = self.core.connection.brokers.seeds().to_vec();
        let mut asked: Vec<Arc<str>> = Vec::new();
        let mut tables = Vec::new();
        while !waiting.is_empty() {
            let answers = join_all(waiting.iter().map(|address| self.table_of(address))).await;
            asked.append(&mut waiting);
            for (address, answer) in answers {
                for other in answer.iter().flat_map(|table| &table.name_servers) {
                    if !asked.iter().chain(&waiting).any(|known| **known == **other) {
                        waiting.push(other.as_str().into());
                    }
                }
                match answer {
                    // Brokers do not serve tables.
                    Err(Error::Refused { .. }) => {}
                    answer => tables.push((address, answer)),
                }
            }
        }
        tables.sort_by(|(one, _), (other, _)| one.cmp(other));
        tables
    }

    async fn table_of(&self, address: &str) -> (String, Result<NameServerTable, Error>) {
        let answer = self.raw_table(address).await.map(|answer| NameServerTable {
            address: address.to_owned(),
            groups: answer.registrations.into_iter().map(route).collect(),
            name_servers: answer.name_servers,
        });
        (address.to_owned(), answer)
    }

    /// The same, for the broker group that serves a topic; for the first by name of those that share it.
    ///
    /// # Errors
    /// As [`Admin::topic`]; [`Error::Refused`] with `TOPIC_NOT_FOUND` if no group has it.
    pub async fn of_topic(&self, name: &str) -> Result<Admin, Error> {
        Ok(self.each_of_topic(name).await?.swap_remove(0))
    }

    /// The same, for each of the broker groups that share a topic, by name; at least one.
    ///
    /// # Errors
    /// As [`Admin::of_topic`].
    pub async fn each_of_topic(&self, name: &str) -> Result<Vec<Admin>, Error> {
        let groups = self.groups_of_topic(name).await;
        if !groups.is_empty() {
            let each = groups.into_iter();
            return Ok(each.map(|group| self.clone().broker_group(group)).collect());
        }
        // Name servers may lag behind a topic that was just made, or there may be none: the brokers know.
        match self.topic(name).await? {
            Some(_) => Ok(vec![self.clone()]),
            None => Err(Error::Refused {
                operation: "find",
                subject: topic(name),
                address: self.core.connection.brokers.seeds().join(","),
                code: proto::v2::Code::TopicNotFound,
                reason: "no broker group has it".to_owned(),
            }),
        }
    }
}

fn route(registration: cluster::Registration) -> GroupRoute {
    let mut topics: Vec<(String, u32)> = registration
        .topics
        .into_iter()
        .map(|topic| {
            let queues = topic.queue_count.saturating_sub(topic.first_queue);
            (topic.name, queues)
        })
        .collect();
    topics.sort_unstable();
    GroupRoute {
        replicas: super::replicas(&registration.group, registration.replicas),
        group: registration.group,
        epoch: registration.epoch,
        version: registration.version,
        leader: registration.leader,
        topics,
    }
}

impl From<cluster::GroupQueue> for GroupQueue {
    fn from(queue: cluster::GroupQueue) -> GroupQueue {
        let owner = QueueOwner {
            client_id: queue.owner,
            seen_ms_ago: queue.owner_seen_ms_ago,
            pulled_offset: queue.pulled_offset,
        };
        GroupQueue {
            queue: TopicQueue::new(queue.topic, queue.queue),
            min_offset: queue.min_offset,
            max_offset: queue.max_offset,
            committed: queue.committed.then_some(queue.offset),
            unread: queue.unread,
            retries: queue.retries,
            lag_ms: queue.lag_ms,
            owner: (!owner.client_id.is_empty()).then_some(owner),
        }
    }
}
