//! Where a topic's queues are: what a `QueryRoute` answered, in the form that is asked often.
//!
//! Pure. A route is never changed; a newer one replaces it.

use std::collections::BTreeMap;
use std::sync::Arc;

use proto::v2;
use tokio::time::Instant;

/// One topic's queues.
#[derive(Debug)]
pub(crate) struct Route {
    pub(crate) topic: Arc<str>,
    /// Sorted by number; no number twice.
    pub(crate) queues: Vec<RouteQueue>,
    pub(crate) fetched: Instant,
}

/// One queue.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct RouteQueue {
    pub(crate) queue: u32,
    /// The broker group that has it.
    pub(crate) group: Arc<str>,
    pub(crate) readable: bool,
    pub(crate) writable: bool,
}

impl Route {
    /// Reads an answer. Also returns, for each broker group in it, where its leader is said to be.
    pub(crate) fn read(
        topic: Arc<str>,
        queues: &[v2::MessageQueue],
        fetched: Instant,
    ) -> (Route, BTreeMap<Arc<str>, String>) {
        let mut by_number: BTreeMap<u32, RouteQueue> = BTreeMap::new();
        let mut leaders: BTreeMap<Arc<str>, String> = BTreeMap::new();
        for queue in queues {
            let Some(broker) = queue.broker.as_ref().filter(|broker| broker.id == 0) else {
                continue;
            };
            let Ok(number) = u32::try_from(queue.id) else {
                continue;
            };
            let group = match leaders.get_key_value(broker.name.as_str()) {
                Some((group, _)) => group.clone(),
                None => {
                    let group: Arc<str> = broker.name.as_str().into();
                    leaders.insert(group.clone(), first_address(broker).unwrap_or_default());
                    group
                }
            };
            let permission = v2::Permission::try_from(queue.permission).unwrap_or_default();
            let known = by_number.get(&number).map(|known| &known.group);
            if let Some(known) = known.filter(|known| **known != group) {
                tracing::warn!(
                    %topic, queue = number, %known, other = %group,
                    "two broker groups have a queue of this number: the other's messages are not seen"
                );
            }
            by_number.entry(number).or_insert(RouteQueue {
                queue: number,
                group,
                readable: matches!(permission, v2::Permission::Read | v2::Permission::ReadWrite),
                writable: matches!(
                    permission,
                    v2::Permission::Write | v2::Permission::ReadWrite
                ),
            });
        }
        leaders.retain(|_, address| !address.is_empty());
        (
            Route {
                topic,
                queues: by_number.into_values().collect(),
                fetched,
            },
            leaders,
        )
    }

    pub(crate) fn writable(&self) -> impl Iterator<Item = &RouteQueue> + Clone {
        self.queues.iter().filter(|queue| queue.writable)
    }

    pub(crate) fn readable(&self) -> impl Iterator<Item = &RouteQueue> {
        self.queues.iter().filter(|queue| queue.readable)
    }

    /// This route, which has the queues of one broker group only, and those of others that were known before.
    pub(crate) fn with_others(mut self, known: &Route, group: &str) -> Route {
        let others = known.queues.iter().filter(|queue| *queue.group != *group);
        let others: Vec<RouteQueue> = others
            .filter(|queue| !self.has(queue.queue))
            .cloned()
            .collect();
        self.queues.extend(others);
        self.queues.sort_by_key(|queue| queue.queue);
        self
    }

    pub(crate) fn has(&self, queue: u32) -> bool {
        self.queues.iter().any(|candidate| candidate.queue == queue)
    }

    /// The broker group that has a queue; the topic's first group for a queue that is not in the route.
    pub(crate) fn group_of(&self, queue: u32) -> Arc<str> {
        self.queues
            .iter()
            .find(|candidate| candidate.queue == queue)
            .or(self.queues.first())
            .map_or_else(|| "".into(), |queue| queue.group.clone())
    }

    /// The broker groups that have its queues, sorted.
    pub(crate) fn groups(&self) -> Vec<Arc<str>> {
        let mut groups: Vec<Arc<str>> = self
            .queues
            .iter()
            .map(|queue| queue.group.clone())
            .collect();
        groups.sort();
        groups.dedup();
        groups
    }
}

fn first_address(broker: &v2::Broker) -> Option<String> {
    let endpoints = broker.endpoints.as_ref()?;
    let address = endpoints.addresses.first()?;
    if endpoints.scheme == v2::AddressScheme::IPv6 as i32 && !address.host.starts_with('[') {
        return Some(format!("[{}]:{}", address.host, address.port));
    }
    Some(format!("{}:{}", address.host, address.port))
}

/// An address of ours as the contract writes it.
pub(crate) fn endpoints(address: &str) -> v2::Endpoints {
    let (host, port) = address.rsplit_once(':').unwrap_or((address, ""));
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    let scheme = match bare.parse::<std::net::IpAddr>() {
        Ok(std::net::IpAddr::V4(_)) => v2::AddressScheme::IPv4,
        Ok(std::net::IpAddr::V6(_)) => v2::AddressScheme::IPv6,
        Err(_) => v2::AddressScheme::DomainName,
    };
    let address = v2::Address {
        host: bare.to_owned(),
        port: port.parse().unwrap_or(0),
    };
    v2::Endpoints {
        scheme: scheme as i32,
        addresses: vec![address],
    }
}

/// A topic or group as the contract writes it.
pub(crate) fn resource(name: &str) -> v2::Resource {
    v2::Resource {
        resource_namespace: String::new(),
        name: name.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn queue(id: i32, broker_id: i32, permission: v2::Permission) -> v2::MessageQueue {
        v2::MessageQueue {
            topic: Some(resource("t")),
            id,
            permission: permission as i32,
            broker: Some(v2::Broker {
                name: "g".to_owned(),
                id: broker_id,
                endpoints: Some(endpoints("10.0.0.1:8081")),
            }),
            accept_message_types: vec![],
        }
    }

    /// Catches sends to a queue that takes none, or to a follower's line of the route.
    #[test]
    fn only_leaders_lines_count_and_permissions_are_kept() {
        use v2::Permission::{None, Read, ReadWrite, Write};
        let lines = [
            queue(2, 0, Write),
            queue(0, 0, ReadWrite),
            queue(0, 0, None),
            queue(1, 0, Read),
            queue(3, 1, ReadWrite),
            queue(-1, 0, ReadWrite),
        ];
        let (route, leaders) = Route::read("t".into(), &lines, Instant::now());
        let numbers =
            |queues: Vec<&RouteQueue>| queues.iter().map(|queue| queue.queue).collect::<Vec<_>>();
        assert_eq!(numbers(route.writable().collect()), [0, 2]);
        assert_eq!(numbers(route.readable().collect()), [0, 1]);
        assert_eq!(leaders.get("g").map(String::as_str), Some("10.0.0.1:8081"));
        assert_eq!(route.groups(), ["g".into()]);
    }

    /// Catches a route that loses the queues of other broker groups because a broker was asked, which knows its own only; and
    /// one that keeps queues of that broker's group which are gone.
    #[test]
    fn a_broker_says_nothing_of_other_groups() {
        let queues = |numbers: &[u32], group: &str| {
            let queue = |number: &u32| RouteQueue {
                queue: *number,
                group: group.into(),
                readable: true,
                writable: true,
            };
            numbers.iter().map(queue).collect::<Vec<_>>()
        };
        let route = |queues| Route {
            topic: "t".into(),
            queues,
            fetched: Instant::now(),
        };
        let known = route([queues(&[0, 1], "a"), queues(&[10], "b")].concat());
        let told = route(queues(&[0], "a")).with_others(&known, "a");
        let expected = [queues(&[0], "a"), queues(&[10], "b")].concat();
        assert_eq!(told.queues, expected);
    }

    /// Catches an address that does not survive its way through the contract's form.
    #[test]
    fn addresses_go_there_and_back() {
        for address in ["10.0.0.1:8081", "[::1]:8081", "broker-1.example:8081"] {
            let broker = v2::Broker {
                name: String::new(),
                id: 0,
                endpoints: Some(endpoints(address)),
            };
            assert_eq!(first_address(&broker).as_deref(), Some(address));
        }
    }
}
