//! Where messages go that a consumer group gave up: the topic `%DLQ%<group>`, which brokers make and clients only read.

/// What the name of such a topic begins with; the group's name follows.
const PREFIX: &str = "%DLQ%";

/// The topic of a group's dead letters.
pub fn topic_of(group: &str) -> String {
    format!("{PREFIX}{group}")
}

/// The group whose dead letters are in this topic, if it is such a topic.
pub fn group_of(topic: &str) -> Option<&str> {
    topic.strip_prefix(PREFIX)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{GroupName, TopicName};

    proptest! {
        /// Catches a group that is not found again, another topic taken for one, and a group whose dead letters would have
        /// no room for their name.
        #[test]
        fn each_group_has_one_topic(group in "[a-zA-Z0-9%|_-]{1,120}", topic in "[a-zA-Z0-9_-]{1,20}") {
            prop_assert!(GroupName::check(&group).is_ok());
            let letters = topic_of(&group);
            prop_assert!(TopicName::check(&letters).is_ok());
            prop_assert_eq!(group_of(&letters), Some(&*group));
            prop_assert_eq!(group_of(&topic), None);
        }
    }
}
