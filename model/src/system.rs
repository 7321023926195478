//! Names that RocketMQ keeps to itself. Clients may neither make nor use them.

const TOPIC_PREFIX: &str = "rmq_sys_";
const TOPICS: [&str; 3] = [
    "SCHEDULE_TOPIC_XXXX",
    "TRANS_CHECK_MAX_TIME_TOPIC",
    "TBW102",
];
const GROUP_PREFIX: &str = "CID_RMQ_SYS_";

/// Whether a topic of this name is the system's.
pub fn is_topic(name: &str) -> bool {
    starts_with(name, TOPIC_PREFIX) || TOPICS.contains(&name)
}

/// Whether a consumer group of this name is the system's.
pub fn is_group(name: &str) -> bool {
    starts_with(name, GROUP_PREFIX)
}

/// In upper and lower case, as RocketMQ compares them.
fn starts_with(name: &str, prefix: &str) -> bool {
    name.get(..prefix.len())
        .is_some_and(|start| start.eq_ignore_ascii_case(prefix))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Catches a name that is only compared in one case, or cut within a character.
    #[test]
    fn system_names_are_known_in_every_case() {
        for topic in [
            "rmq_sys_x",
            "RMQ_SYS_TRANS_HALF_TOPIC",
            "SCHEDULE_TOPIC_XXXX",
            "TBW102",
        ] {
            assert!(is_topic(topic), "{topic}");
        }
        assert!(is_group("CID_RMQ_SYS_TRANS") && is_group("cid_rmq_sys_x"));
        assert!(!is_topic("rmq_sy\u{f6}_x") && !is_topic("orders") && !is_group("CID_orders"));
    }

    proptest! {
        /// Catches a prefix that counts in the middle of a name.
        #[test]
        fn whoever_begins_otherwise_is_a_client_s(first in "[a-bd-qs-z]", rest in "[a-zA-Z_]{0,30}") {
            let name = format!("{first}{rest}");
            prop_assert!(!is_topic(&name) && !is_group(&name), "{}", name);
        }
    }
}
