//! What clients are told: which group serves which topic, and where its leader is.
//!
//! A [`RouteTable`] is one state of the registry, frozen: built at each visible change, then only read. Pure.

use std::collections::BTreeMap;
use std::sync::Arc;

use proto::cluster::{QueryTableResponse, Registration, Replica};
use proto::v2::{Broker, Endpoints, MessageQueue, Permission, Resource};
use proto::{accepted_types, endpoints};

/// One state of the table.
#[derive(Clone, Debug, Default)]
pub struct RouteTable {
    version: u64,
    registrations: Vec<Arc<Registration>>,
    /// Topic to the places in `registrations` of the groups that have it.
    topics: BTreeMap<String, Vec<usize>>,
}

/// A broker group's part in serving a topic.
#[derive(Clone, Copy, Debug)]
pub struct Share<'a> {
    /// The group's registration.
    pub registration: &'a Registration,
    /// Number of the topic's first queue in this group.
    pub first_queue: u32,
    /// Number after that of its last queue in this group.
    pub queue_count: u32,
    /// A `v2::MessageType`, or 0 for any.
    pub message_type: i32,
}

impl RouteTable {
    /// The table of `registrations`, which come sorted by group and checked.
    pub fn new(version: u64, registrations: Vec<Arc<Registration>>) -> RouteTable {
        let mut topics: BTreeMap<String, Vec<usize>> = BTreeMap::new();
        for (place, registration) in registrations.iter().enumerate() {
            for topic in &registration.topics {
                topics.entry(topic.name.clone()).or_default().push(place);
            }
        }
        RouteTable {
            version,
            registrations,
            topics,
        }
    }

    /// Grows with every change, within one run of one name server.
    pub fn version(&self) -> u64 {
        self.version
    }

    /// All groups, by name.
    pub fn registrations(&self) -> &[Arc<Registration>] {
        &self.registrations
    }

    /// Who serves a topic, by group; nobody if the topic is unknown or has no queues.
    pub fn shares(&self, topic: &str) -> Vec<Share<'_>> {
        let places = self.topics.get(topic).map_or(&[][..], Vec::as_slice);
        let share = |place: &usize| {
            let registration = self.registrations[*place].as_ref();
            let topics = &registration.topics;
            let found = topics
                .binary_search_by(|route| route.name.as_str().cmp(topic))
                .ok()?;
            let route = &topics[found];
            (route.queue_count > 0).then_some(Share {
                registration,
                first_queue: route.first_queue,
                queue_count: route.queue_count,
                message_type: route.message_type,
            })
        };
        places.iter().filter_map(share).collect()
    }

    /// The answer to a client that has `known_version` of `known_instance`.
    pub fn answer(
        &self,
        instance: u64,
        known_instance: u64,
        known_version: u64,
    ) -> QueryTableResponse {
        let unchanged = known_instance == instance && known_version == self.version;
        let registrations = match unchanged {
            true => Vec::new(),
            false => self
                .registrations
                .iter()
                .map(|held| Registration::clone(held))
                .collect(),
        };
        QueryTableResponse {
            version: self.version,
            instance,
            unchanged,
            registrations,
            ..Default::default()
        }
    }
}

/// The replica that leads.
pub fn leader(registration: &Registration) -> Option<&Replica> {
    registration
        .replicas
        .iter()
        .find(|replica| replica.broker_id == registration.leader)
}

/// Where a call for the group may go: the leader first, then those who know a newer leader if that one is gone.
pub fn candidates(registration: &Registration) -> Vec<String> {
    let mut addresses: Vec<String> = leader(registration)
        .map(|replica| replica.client_address.clone())
        .into_iter()
        .collect();
    for replica in &registration.replicas {
        if replica.broker_id != registration.leader {
            addresses.push(replica.client_address.clone());
        }
    }
    addresses
}

/// The queues of `topic` as clients want them: every queue writable and readable, under broker id 0. Some clients take
/// queues of any broker id, and balance over every address they get.
///
/// A queue is at its leader's address, or at `access_point`, which forwards. A topic of several groups is always at its
/// leaders: a call does not say which group's queue it means.
pub fn message_queues(
    topic: &Resource,
    shares: &[Share<'_>],
    access_point: Option<&Endpoints>,
) -> Vec<MessageQueue> {
    let mut queues = Vec::new();
    let access_point = access_point.filter(|_| shares.len() == 1);
    for share in shares {
        let Some(leader) =
            leader(share.registration).and_then(|leader| endpoints(&leader.client_address))
        else {
            continue;
        };
        let endpoints = access_point.cloned().unwrap_or(leader);
        let broker = Broker {
            name: share.registration.group.clone(),
            id: 0,
            endpoints: Some(endpoints),
        };
        let accept_message_types = accepted_types(share.message_type);
        for id in share.first_queue..share.queue_count {
            queues.push(MessageQueue {
                topic: Some(topic.clone()),
                id: id as i32,
                permission: Permission::ReadWrite.into(),
                broker: Some(broker.clone()),
                accept_message_types: accept_message_types.clone(),
            });
        }
    }
    queues
}

#[cfg(test)]
mod tests {
    use proto::cluster::TopicRoute;
    use proto::v2::{AddressScheme, MessageType};

    use super::*;

    fn registration(group: &str, leader: u64, topics: &[(&str, u32, i32)]) -> Arc<Registration> {
        let replica = |broker_id: u64| Replica {
            broker_id,
            client_address: format!("{group}-{broker_id}:8081"),
            peer_address: String::new(),
        };
        let topic = |(name, queue_count, message_type): &(&str, u32, i32)| TopicRoute {
            name: (*name).into(),
            queue_count: *queue_count,
            message_type: *message_type,
            first_queue: 0,
        };
        Arc::new(Registration {
            group: group.into(),
            leader,
            replicas: (1..=3).map(replica).collect(),
            topics: topics.iter().map(topic).collect(),
            ..Default::default()
        })
    }

    fn resource(name: &str) -> Resource {
        Resource {
            resource_namespace: String::new(),
            name: name.into(),
        }
    }

    /// Catches queues that a client cannot use: another broker id, another address than the leader's, a missing type.
    #[test]
    fn each_queue_is_the_leader_s() {
        let groups = vec![
            registration("a", 2, &[("t", 2, 0)]),
            registration("b", 1, &[("t", 1, MessageType::Fifo.into())]),
            registration("c", 1, &[("other", 1, 0), ("t", 0, 0)]),
        ];
        let table = RouteTable::new(1, groups);
        let queues = message_queues(&resource("t"), &table.shares("t"), None);
        let seen: Vec<_> = queues
            .iter()
            .map(|queue| {
                let broker = queue.broker.as_ref().unwrap();
                let endpoints = broker.endpoints.as_ref().unwrap();
                assert_eq!(broker.id, 0);
                assert_eq!(endpoints.addresses.len(), 1);
                assert_eq!(endpoints.scheme(), AddressScheme::DomainName);
                assert_eq!(queue.permission(), Permission::ReadWrite);
                let host = endpoints.addresses[0].host.as_str();
                (
                    broker.name.as_str(),
                    queue.id,
                    host,
                    queue.accept_message_types.clone(),
                )
            })
            .collect();
        let mixed = vec![1, 2];
        assert_eq!(
            seen,
            [
                ("a", 0, "a-2", mixed.clone()),
                ("a", 1, "a-2", mixed),
                ("b", 0, "b-1", vec![2]),
            ]
        );
        assert!(table.shares("unknown").is_empty());
    }

    /// Catches two queues of one number, of which a client would see one only.
    #[test]
    fn groups_that_share_a_topic_offer_their_own_queues() {
        let mut second = Registration::clone(&registration("b", 1, &[("t", 4, 0)]));
        second.topics[0].first_queue = 2;
        let groups = vec![registration("a", 1, &[("t", 2, 0)]), Arc::new(second)];
        let table = RouteTable::new(1, groups);
        let queues = message_queues(&resource("t"), &table.shares("t"), None);
        let numbers: Vec<i32> = queues.iter().map(|queue| queue.id).collect();
        assert_eq!(numbers, [0, 1, 2, 3]);
        let names = queues.iter().filter_map(|queue| queue.broker.as_ref());
        let names: Vec<&str> = names.map(|broker| broker.name.as_str()).collect();
        assert_eq!(names, ["a", "a", "b", "b"]);
    }

    /// Catches a client that does not follow leaders being sent to one, and a call whose group nobody could tell.
    #[test]
    fn the_access_point_stands_in_for_the_leader_of_the_one_group() {
        let groups = vec![
            registration("a", 2, &[("alone", 1, 0), ("shared", 1, 0)]),
            registration("b", 1, &[("shared", 1, 0)]),
        ];
        let table = RouteTable::new(1, groups);
        let access_point = endpoints("gateway:8081");
        let hosts = |topic: &str| -> Vec<String> {
            message_queues(
                &resource(topic),
                &table.shares(topic),
                access_point.as_ref(),
            )
            .iter()
            .map(|queue| queue.broker.as_ref().unwrap().endpoints.as_ref().unwrap())
            .map(|endpoints| endpoints.addresses[0].host.clone())
            .collect()
        };
        assert_eq!(hosts("alone"), ["gateway"]);
        assert_eq!(hosts("shared"), ["a-2", "b-1"]);
    }

    /// Catches a client being told that nothing changed by a name server that counts anew after its restart.
    #[test]
    fn unchanged_is_said_only_of_the_same_instance_and_version() {
        let table = RouteTable::new(5, vec![registration("a", 1, &[])]);
        assert!(table.answer(9, 9, 5).unchanged);
        for (instance, version) in [(8, 5), (9, 4), (9, 6)] {
            let answer = table.answer(9, instance, version);
            assert!(!answer.unchanged);
            assert_eq!(
                (answer.instance, answer.version, answer.registrations.len()),
                (9, 5, 1)
            );
        }
    }

    /// Catches calls that go to a follower although the leader is known, or that give up when the leader is gone.
    #[test]
    fn the_leader_is_the_first_candidate() {
        let candidates = candidates(&registration("a", 2, &[]));
        assert_eq!(candidates, ["a-2:8081", "a-1:8081", "a-3:8081"]);
    }
}
