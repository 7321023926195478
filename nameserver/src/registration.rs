//! What a registration must look like before anybody believes it.
//!
//! Registrations come from the network, from brokers and from other name servers. This file brings them into one canonical
//! form, so that equal content is equal everywhere, and refuses what would send clients astray. Pure.

use proto::cluster::Registration;
use thiserror::Error;

/// Longest name of a broker group, in bytes.
pub const GROUP_BYTES_MAX: usize = 127;

/// Longest name of a cluster, in bytes.
pub const CLUSTER_BYTES_MAX: usize = 127;

/// Most replicas of one broker group, learners included.
pub const REPLICAS_MAX: usize = 64;

/// Most topics of one broker group.
pub const TOPICS_MAX: usize = 100_000;

/// Most queues of one topic in one broker group.
pub const QUEUES_MAX: u32 = 65_536;

/// Longest `host:port`, in bytes: a DNS name has at most 253.
pub const ADDRESS_BYTES_MAX: usize = 260;

/// Most epochs, or versions of one epoch, between what is held of a group and what is told of it: whoever registered the
/// highest number could never be overruled. It can refuse nobody who speaks the truth: at thirty elections a second it takes
/// a thousand years to get there, and a group that was restored from copies (each skips a million epochs) may have been a
/// million times.
pub const LEAP_MAX: u64 = 1 << 40;

/// Why a registration is refused whatever its epoch.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum RegistrationError {
    /// No registration in the request.
    #[error("the registration is missing")]
    Missing,
    /// The name of the group cannot be shown or sent on.
    #[error("the group's name is empty, too long or has control characters")]
    Group,
    /// The name of the cluster is too long.
    #[error("group {group} names a cluster with more than {CLUSTER_BYTES_MAX} bytes")]
    ClusterName {
        /// The broker group.
        group: String,
    },
    /// A number of things above its bound.
    #[error("group {group} registers {count} {what}, more than {max}")]
    TooMany {
        /// The broker group.
        group: String,
        /// What there is too much of.
        what: &'static str,
        /// How many.
        count: usize,
        /// How many there may be.
        max: usize,
    },
    /// One thing named twice.
    #[error("group {group} registers {what} {name} twice")]
    Twice {
        /// The broker group.
        group: String,
        /// What occurs twice.
        what: &'static str,
        /// Its name or number.
        name: String,
    },
    /// The leader is none of the replicas.
    #[error("group {group} is led by broker {leader}, which is none of its replicas")]
    Leader {
        /// The broker group.
        group: String,
        /// The leader's broker id.
        leader: u64,
    },
    /// No client could be sent there.
    #[error(
        "broker {broker_id} of group {group} has the address {address:?}, which is not host:port"
    )]
    Address {
        /// The broker group.
        group: String,
        /// Whose address.
        broker_id: u64,
        /// The address.
        address: String,
    },
    /// A topic that no client could ask for.
    #[error("group {group} registers a topic without a name that topics may have: {reason}")]
    Topic {
        /// The broker group.
        group: String,
        /// What is wrong with it.
        reason: String,
    },
    /// It belongs to a cluster that this name server does not serve.
    #[error("group {group} belongs to cluster {theirs:?}, this name server serves {ours:?}")]
    Cluster {
        /// The broker group.
        group: String,
        /// Its cluster.
        theirs: String,
        /// Ours.
        ours: String,
    },
    /// No elections, and no changes, lead from what is known to this.
    #[error("group {group} registers {what} {told}, which cannot follow {known}")]
    Leap {
        /// The broker group.
        group: String,
        /// Epoch or version.
        what: &'static str,
        /// The one that is held; 0 if none is.
        known: u64,
        /// The one that was told.
        told: u64,
    },
    /// There is no room for another group.
    #[error("group {group} is one too many: this name server holds at most {max}")]
    GroupsFull {
        /// The broker group.
        group: String,
        /// The bound.
        max: usize,
    },
}

/// `registration` in canonical form: replicas by id, topics by name.
///
/// # Errors
///
/// Says what is wrong with it.
pub fn checked(mut registration: Registration) -> Result<Registration, RegistrationError> {
    let group = &registration.group;
    if !is_label(group, GROUP_BYTES_MAX) {
        return Err(RegistrationError::Group);
    }
    at_most(group, "replicas", registration.replicas.len(), REPLICAS_MAX)?;
    at_most(group, "topics", registration.topics.len(), TOPICS_MAX)?;
    if registration.cluster_id.len() > CLUSTER_BYTES_MAX {
        return Err(RegistrationError::ClusterName {
            group: group.clone(),
        });
    }
    for replica in &registration.replicas {
        let peer = &replica.peer_address;
        let addresses = [
            Some(&replica.client_address),
            Some(peer).filter(|peer| !peer.is_empty()),
        ];
        if let Some(address) = addresses
            .into_iter()
            .flatten()
            .find(|given| !is_address(given))
        {
            return Err(RegistrationError::Address {
                group: group.clone(),
                broker_id: replica.broker_id,
                address: address.clone(),
            });
        }
    }
    if !registration
        .replicas
        .iter()
        .any(|replica| replica.broker_id == registration.leader)
    {
        return Err(RegistrationError::Leader {
            group: group.clone(),
            leader: registration.leader,
        });
    }
    for topic in &registration.topics {
        at_most(
            group,
            "queues of a topic",
            topic.queue_count as usize,
            QUEUES_MAX as usize,
        )?;
        model::TopicName::check(&topic.name).map_err(|error| RegistrationError::Topic {
            group: group.clone(),
            reason: error.to_string(),
        })?;
    }
    registration
        .replicas
        .sort_by_key(|replica| replica.broker_id);
    registration
        .topics
        .sort_by(|one, other| one.name.cmp(&other.name));
    none_twice(&registration)?;
    Ok(registration)
}

/// Whether `address` is `host:port`, as far as one can tell without a resolver.
pub fn is_address(address: &str) -> bool {
    let Some((host, port)) = address.rsplit_once(':') else {
        return false;
    };
    is_label(address, ADDRESS_BYTES_MAX)
        && !host.is_empty()
        && !host.contains(['/', ' ', '@'])
        && host.contains(':') == (host.starts_with('[') && host.ends_with(']'))
        && port.parse::<u16>().is_ok_and(|port| port != 0)
}

fn is_label(text: &str, bytes_max: usize) -> bool {
    !text.is_empty() && text.len() <= bytes_max && !text.chars().any(char::is_control)
}

fn at_most(
    group: &str,
    what: &'static str,
    count: usize,
    max: usize,
) -> Result<(), RegistrationError> {
    if count <= max {
        return Ok(());
    }
    Err(RegistrationError::TooMany {
        group: group.to_owned(),
        what,
        count,
        max,
    })
}

fn none_twice(sorted: &Registration) -> Result<(), RegistrationError> {
    let twice = |what, name| RegistrationError::Twice {
        group: sorted.group.clone(),
        what,
        name,
    };
    for pair in sorted.replicas.windows(2) {
        if pair[0].broker_id == pair[1].broker_id {
            return Err(twice("broker", pair[0].broker_id.to_string()));
        }
    }
    for pair in sorted.topics.windows(2) {
        if pair[0].name == pair[1].name {
            return Err(twice("topic", pair[0].name.clone()));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use proto::cluster::{Replica, TopicRoute};

    use super::*;

    fn replica(broker_id: u64) -> Replica {
        let client_address = format!("10.0.0.{broker_id}:8081");
        Replica {
            broker_id,
            client_address,
            peer_address: String::new(),
        }
    }

    fn topic(name: &str) -> TopicRoute {
        TopicRoute {
            name: name.into(),
            queue_count: 4,
            message_type: 0,
            first_queue: 0,
        }
    }

    fn registration() -> Registration {
        Registration {
            group: "g".into(),
            leader: 2,
            replicas: vec![replica(3), replica(1), replica(2)],
            topics: vec![topic("b"), topic("a")],
            ..Default::default()
        }
    }

    /// Catches two name servers that hold the same facts and think that they differ.
    #[test]
    fn the_order_in_which_facts_are_listed_does_not_matter() {
        let mut other = registration();
        other.replicas.reverse();
        other.topics.reverse();
        assert_eq!(checked(registration()).unwrap(), checked(other).unwrap());
    }

    /// Catches each registration that would send clients to nobody.
    #[test]
    fn a_registration_that_would_lead_clients_astray_is_refused() {
        let refused = |change: fn(&mut Registration)| {
            let mut registration = registration();
            change(&mut registration);
            checked(registration).unwrap_err()
        };
        assert_eq!(refused(|r| r.group.clear()), RegistrationError::Group);
        assert_eq!(
            refused(|r| r.group = "a\nb".into()),
            RegistrationError::Group
        );
        assert!(matches!(
            refused(|r| r.leader = 9),
            RegistrationError::Leader { leader: 9, .. }
        ));
        assert!(matches!(
            refused(|r| r.replicas.clear()),
            RegistrationError::Leader { .. }
        ));
        assert!(matches!(
            refused(|r| r.replicas[0].client_address = "nowhere".into()),
            RegistrationError::Address { broker_id: 3, .. }
        ));
        assert!(matches!(
            refused(|r| r.replicas[1].peer_address = "x".repeat(1_000)),
            RegistrationError::Address { broker_id: 1, .. }
        ));
        assert!(matches!(
            refused(|r| r.cluster_id = "x".repeat(1_000)),
            RegistrationError::ClusterName { .. }
        ));
        assert!(matches!(
            refused(|r| r.replicas.push(replica(1))),
            RegistrationError::Twice { what: "broker", .. }
        ));
        assert!(matches!(
            refused(|r| r.topics.push(topic("a"))),
            RegistrationError::Twice { what: "topic", .. }
        ));
        assert!(matches!(
            refused(|r| r.topics.push(topic("no spaces"))),
            RegistrationError::Topic { .. }
        ));
        assert!(matches!(
            refused(|r| r.topics[0].queue_count = u32::MAX),
            RegistrationError::TooMany { .. }
        ));
    }

    /// Catches an address check that refuses what brokers really have.
    #[test]
    fn addresses_are_host_and_port() {
        for address in ["10.0.0.1:8081", "broker-1.example.com:1", "[::1]:8081"] {
            assert!(is_address(address), "{address}");
        }
        for address in [
            "",
            ":1",
            "host",
            "host:",
            "host:0",
            "host:65536",
            "::1:80",
            "a b:1",
            "a/b:1",
        ] {
            assert!(!is_address(address), "{address}");
        }
    }
}
