//! Names as clients send them, to names as they are stored, or to the refusal that they get. The rules are `model`'s. Pure.

use std::borrow::Cow;

use model::namespace::qualified;
use model::{GroupName, TopicName, dead_letter, system};
use proto::v2::{Code, Resource};

use super::status::{self, Refusal};

/// The stored name of a topic that may be read, checked.
pub(crate) fn topic_name(resource: Option<&Resource>) -> Result<Cow<'_, str>, Refusal> {
    let (namespace, name) = parts(resource);
    let stored = qualified(namespace, name);
    check_topic_to_read(&stored)?;
    Ok(stored)
}

/// The stored name of a consumer group, checked.
pub(crate) fn group_name(resource: Option<&Resource>) -> Result<Cow<'_, str>, Refusal> {
    let (namespace, name) = parts(resource);
    let stored = qualified(namespace, name);
    check_group(&stored)?;
    Ok(stored)
}

/// Whether `name` can be a topic of a client's: one to make and to send to.
pub(crate) fn check_topic(name: &str) -> Result<(), Refusal> {
    check_topic_to_read(name)?;
    if dead_letter::group_of(name).is_some() {
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
    if system::is_topic(name) {
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
    if system::is_group(name) {
        return Err(Refusal::new(
            Code::IllegalConsumerGroup,
            format!("consumer group {name} is a system group"),
        ));
    }
    Ok(())
}

fn parts(resource: Option<&Resource>) -> (&str, &str) {
    resource.map_or(("", ""), |resource| {
        (&resource.resource_namespace, &resource.name)
    })
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
