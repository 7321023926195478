//! Names as clients send them, to names as they are stored.
//!
//! A namespace is part of the stored name (`namespace%name`), as in RocketMQ. Pure.

use std::borrow::Cow;

use proto::v2::{Code, Resource};
use proto::{GroupName, TopicName};

use super::status::{self, Refusal};
use crate::machine::dead_letter::TOPIC_PREFIX;

/// Names that RocketMQ keeps to itself; clients may not use them.
const SYSTEM_TOPIC_PREFIX: &str = "rmq_sys_";
const SYSTEM_TOPICS: [&str; 3] = [
    "SCHEDULE_TOPIC_XXXX",
    "TRANS_CHECK_MAX_TIME_TOPIC",
    "TBW102",
];
const SYSTEM_GROUP_PREFIX: &str = "CID_RMQ_SYS_";

/// The stored name of a topic that may be read, checked.
pub(crate) fn topic_name(resource: Option<&Resource>) -> Result<Cow<'_, str>, Refusal> {
    let (namespace, name) = parts(resource);
    let stored = stored_name(namespace, name);
    check_topic_to_read(&stored)?;
    Ok(stored)
}

/// The stored name of a consumer group, checked.
pub(crate) fn group_name(resource: Option<&Resource>) -> Result<Cow<'_, str>, Refusal> {
    let (namespace, name) = parts(resource);
    let stored = stored_name(namespace, name);
    check_group(&stored)?;
    Ok(stored)
}

/// Whether `name` can be a topic of a client's: one to make and to send to.
pub(crate) fn check_topic(name: &str) -> Result<(), Refusal> {
    check_topic_to_read(name)?;
    if name.starts_with(TOPIC_PREFIX) {
        return Err(Refusal::new(
            Code::IllegalTopic,
            format!(
                "topic {name} is a dead-letter queue: the broker makes it and puts messages there"
            ),
        ));
    }
    Ok(())
}

/// Whether `name` can be a topic that a client reads.
pub(crate) fn check_topic_to_read(name: &str) -> Result<(), Refusal> {
    TopicName::check(name).map_err(|error| status::illegal_topic(&error))?;
    if starts_with(name, SYSTEM_TOPIC_PREFIX) || SYSTEM_TOPICS.contains(&name) {
        return Err(Refusal::new(
            Code::IllegalTopic,
            format!("topic {name} is a system topic"),
        ));
    }
    Ok(())
}

/// Whether `name` can be a consumer group of a client's.
pub(crate) fn check_group(name: &str) -> Result<(), Refusal> {
    GroupName::check(name).map_err(|error| status::illegal_group(&error))?;
    if starts_with(name, SYSTEM_GROUP_PREFIX) {
        return Err(Refusal::new(
            Code::IllegalConsumerGroup,
            format!("consumer group {name} is a system group"),
        ));
    }
    Ok(())
}

/// `namespace%name`, or just the name.
pub(super) fn stored_name<'a>(namespace: &str, name: &'a str) -> Cow<'a, str> {
    // A name that is wrong by itself must not become right by its namespace.
    if namespace.is_empty() || name.is_empty() {
        Cow::Borrowed(name)
    } else if let Some(group) = name.strip_prefix(TOPIC_PREFIX) {
        // The dead letters of a group of this namespace.
        Cow::Owned(format!("{TOPIC_PREFIX}{namespace}%{group}"))
    } else {
        Cow::Owned(format!("{namespace}%{name}"))
    }
}

fn parts(resource: Option<&Resource>) -> (&str, &str) {
    resource.map_or(("", ""), |resource| {
        (&resource.resource_namespace, &resource.name)
    })
}

fn starts_with(name: &str, prefix: &str) -> bool {
    name.get(..prefix.len())
        .is_some_and(|start| start.eq_ignore_ascii_case(prefix))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resource(namespace: &str, name: &str) -> Resource {
        Resource {
            resource_namespace: namespace.to_owned(),
            name: name.to_owned(),
        }
    }

    /// Catches two namespaces that share a topic, and names that nobody can use.
    #[test]
    fn names_are_checked_and_kept_apart() {
        assert_eq!(topic_name(Some(&resource("", "orders"))).unwrap(), "orders");
        assert_eq!(
            topic_name(Some(&resource("shop", "orders"))).unwrap(),
            "shop%orders"
        );
        for bad in [
            "",
            "a b",
            "ö",
            "rmq_sys_x",
            "RMQ_SYS_TRANS_HALF_TOPIC",
            "SCHEDULE_TOPIC_XXXX",
        ] {
            let refusal = topic_name(Some(&resource("", bad))).unwrap_err();
            assert_eq!(refusal.code, Code::IllegalTopic, "{bad:?}");
        }
        assert_eq!(
            topic_name(Some(&resource("shop", ""))).unwrap_err().code,
            Code::IllegalTopic
        );
        let letters = resource("shop", "%DLQ%readers");
        assert_eq!(topic_name(Some(&letters)).unwrap(), "%DLQ%shop%readers");
        let refusal = check_topic("%DLQ%shop%readers").unwrap_err();
        assert_eq!(refusal.code, Code::IllegalTopic);
        assert_eq!(topic_name(None).unwrap_err().code, Code::IllegalTopic);
        for bad in ["", "a b", "CID_RMQ_SYS_TRANS"] {
            let refusal = group_name(Some(&resource("", bad))).unwrap_err();
            assert_eq!(refusal.code, Code::IllegalConsumerGroup, "{bad:?}");
        }
    }
}
