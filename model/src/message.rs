//! What a message may be: RocketMQ's limits, and what its texts must not be.
//!
//! Knows no message type: each rule takes what it is about, so that who builds a message and who is sent one ask the same.

use crate::TimestampMs;

/// Largest body that a broker takes unless it is configured otherwise, in bytes.
pub const BODY_BYTES_MAX: usize = 4 << 20;
/// Most user properties of one message.
pub const PROPERTIES_MAX: usize = 128;
/// Most bytes that tag, keys and user properties of one message take together.
pub const PROPERTIES_BYTES_MAX: usize = 16 << 10;
/// Longest message group, in bytes.
pub const GROUP_BYTES_MAX: usize = 63;
/// Longest message id, in bytes.
pub const ID_BYTES_MAX: usize = 255;
/// Longest time until a delayed message is delivered, in milliseconds.
const DELAY_MS_MAX: u64 = 24 * 60 * 60 * 1_000;
/// Longest time until a transaction that nobody ends is asked about for the first time, in milliseconds.
const RECOVERY_MS_MAX: i64 = 60 * 60 * 1_000;

/// Property keys that RocketMQ uses itself; sorted.
const RESERVED_KEYS: [&str; 51] = [
    "1ST_POP_TIME",
    "ARRIVE_TIME",
    "BORN_TIMESTAMP",
    "BUYER_ID",
    "CLUSTER",
    "CONSUME_START_TIME",
    "CORRECTION_FLAG",
    "CORRELATION_ID",
    "DELAY",
    "DLQ_ORIGIN_MESSAGE_ID",
    "DLQ_ORIGIN_TOPIC",
    "DUP_INFO",
    "EXTEND_UNIQ_INFO",
    "INNER_MULTI_QUEUE_OFFSET",
    "INSTANCE_ID",
    "KEYS",
    "MAX_OFFSET",
    "MAX_RECONSUME_TIMES",
    "MIN_OFFSET",
    "MQ2_FLAG",
    "MSG_REGION",
    "MSG_TYPE",
    "ORIGIN_MESSAGE_ID",
    "PGROUP",
    "POP_CK",
    "POP_CK_OFFSET",
    "PUSH_REPLY_TIME",
    "REAL_QID",
    "REAL_TOPIC",
    "RECONSUME_TIME",
    "REPLY_TO_CLIENT",
    "RETRY_TOPIC",
    "TAGS",
    "TIMER_DELAY_LEVEL",
    "TIMER_DELAY_MS",
    "TIMER_DELAY_SEC",
    "TIMER_DELIVER_MS",
    "TIMER_DEL_UNIQKEY",
    "TIMER_DEQUEUE_MS",
    "TIMER_ENQUEUE_MS",
    "TIMER_OUT_MS",
    "TIMER_ROLL_TIMES",
    "TRACE_ON",
    "TRANSFER_FLAG",
    "TRAN_MSG",
    "TRAN_PREPARED_QUEUE_OFFSET",
    "TTL",
    "UNIQ_KEY",
    "WAIT",
    "__BORNHOST",
    "__CRC32#",
];

/// A rule of messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rule {
    /// There is a body.
    BodyEmpty,
    /// It is not too long.
    BodySize,
    /// The id is one.
    Id,
    /// The tag is one.
    Tag,
    /// Each key is one.
    Key,
    /// The message group is one.
    Group,
    /// The name of each user property is one, and not RocketMQ's own.
    PropertyKey,
    /// Tag, keys and properties are neither too many nor too long.
    PropertiesSize,
    /// A delivery time is not too far away.
    DeliveryTime,
    /// Nor is the first question about a transaction.
    Recovery,
}

/// Which rule is broken, by what, and how.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{subject}: {reason}")]
pub struct Broken {
    /// The rule.
    pub rule: Rule,
    /// The part of the message that breaks it, as `tag "a|b"`.
    pub subject: String,
    /// What is wrong with it.
    pub reason: String,
}

fn broken(rule: Rule, subject: impl Into<String>, reason: impl Into<String>) -> Result<(), Broken> {
    Err(Broken {
        rule,
        subject: subject.into(),
        reason: reason.into(),
    })
}

/// A body has 1 to `max` bytes.
///
/// # Errors
/// [`Rule::BodyEmpty`], [`Rule::BodySize`].
pub fn check_body(bytes: usize, max: u64) -> Result<(), Broken> {
    match bytes as u64 {
        0 => broken(Rule::BodyEmpty, "message body", "it is empty"),
        bytes if bytes > max => {
            let reason = format!("it has {bytes} bytes, more than {max}");
            broken(Rule::BodySize, "message body", reason)
        }
        _ => Ok(()),
    }
}

/// An id is not blank, has no control characters and at most [`ID_BYTES_MAX`] bytes.
///
/// # Errors
/// [`Rule::Id`].
pub fn check_id(id: &str) -> Result<(), Broken> {
    check_text(Rule::Id, "message id", id, ID_BYTES_MAX)
}

/// A tag is not blank, and has neither control characters nor `|`, which separates tags in filters.
///
/// # Errors
/// [`Rule::Tag`].
pub fn check_tag(tag: &str) -> Result<(), Broken> {
    check_text(Rule::Tag, "tag", tag, PROPERTIES_BYTES_MAX)?;
    match tag.contains('|') {
        true => broken(Rule::Tag, format!("tag {tag:?}"), "it contains '|'"),
        false => Ok(()),
    }
}

/// A key is not blank and has no control characters.
///
/// # Errors
/// [`Rule::Key`].
pub fn check_key(key: &str) -> Result<(), Broken> {
    check_text(Rule::Key, "key", key, PROPERTIES_BYTES_MAX)
}

/// A message group is not blank, has no control characters and at most [`GROUP_BYTES_MAX`] bytes.
///
/// # Errors
/// [`Rule::Group`].
pub fn check_group(group: &str) -> Result<(), Broken> {
    check_text(Rule::Group, "message group", group, GROUP_BYTES_MAX)
}

/// The name of a user property is not blank, has no control characters, and is none that RocketMQ uses itself.
///
/// # Errors
/// [`Rule::PropertyKey`].
pub fn check_property_key(key: &str) -> Result<(), Broken> {
    check_text(Rule::PropertyKey, "property key", key, PROPERTIES_BYTES_MAX)?;
    match RESERVED_KEYS.binary_search(&key) {
        Ok(_) => {
            let reason = "RocketMQ uses it itself";
            broken(Rule::PropertyKey, format!("property key {key:?}"), reason)
        }
        Err(_) => Ok(()),
    }
}

/// There are at most [`PROPERTIES_MAX`] user properties; tag, keys and properties have at most [`PROPERTIES_BYTES_MAX`] `bytes`
/// together.
///
/// # Errors
/// [`Rule::PropertiesSize`].
pub fn check_properties(count: usize, bytes: usize) -> Result<(), Broken> {
    if count <= PROPERTIES_MAX && bytes <= PROPERTIES_BYTES_MAX {
        return Ok(());
    }
    let reason = format!(
        "there are {count}, and with tag and keys they have {bytes} bytes; \
         at most {PROPERTIES_MAX} and {PROPERTIES_BYTES_MAX} are taken"
    );
    broken(Rule::PropertiesSize, "message properties", reason)
}

/// A message is delivered within a day of `now_ms`.
///
/// # Errors
/// [`Rule::DeliveryTime`].
pub fn check_delivery_time(at_ms: i64, now_ms: TimestampMs) -> Result<(), Broken> {
    let latest = i64::try_from(now_ms.saturating_add(DELAY_MS_MAX)).unwrap_or(i64::MAX);
    match at_ms > latest {
        true => {
            let reason = format!("it is more than {DELAY_MS_MAX} ms away");
            broken(Rule::DeliveryTime, format!("delivery time {at_ms}"), reason)
        }
        false => Ok(()),
    }
}

/// A transaction that nobody ends is asked about within an hour.
///
/// # Errors
/// [`Rule::Recovery`].
pub fn check_recovery(wait_ms: i64) -> Result<(), Broken> {
    match wait_ms > RECOVERY_MS_MAX {
        true => {
            let subject = format!("recovery of the transaction after {wait_ms} ms");
            let reason = format!("that is more than {RECOVERY_MS_MAX} ms");
            broken(Rule::Recovery, subject, reason)
        }
        false => Ok(()),
    }
}

fn check_text(rule: Rule, what: &str, text: &str, bytes_max: usize) -> Result<(), Broken> {
    let reason = if text.trim().is_empty() {
        "it is blank".to_owned()
    } else if text.chars().any(char::is_control) {
        "it has a control character".to_owned()
    } else if text.len() > bytes_max {
        let reason = format!("it has {} bytes, more than {bytes_max}", text.len());
        // Long texts are not repeated.
        return broken(rule, what, reason);
    } else {
        return Ok(());
    };
    broken(rule, format!("{what} {text:?}"), reason)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Catches a limit that is off by one, and a reserved name that is not found because the list is not sorted.
    #[test]
    fn limits_are_what_they_say() {
        assert!(check_body(1, 4).is_ok() && check_body(4, 4).is_ok());
        assert_eq!(check_body(0, 4).unwrap_err().rule, Rule::BodyEmpty);
        assert_eq!(check_body(5, 4).unwrap_err().rule, Rule::BodySize);
        assert!(check_group(&"g".repeat(63)).is_ok() && check_group(&"g".repeat(64)).is_err());
        assert!(check_id(&"i".repeat(255)).is_ok() && check_id(&"i".repeat(256)).is_err());
        assert!(check_properties(128, 16_384).is_ok());
        assert!(check_properties(129, 0).is_err() && check_properties(0, 16_385).is_err());
        let day = 24 * 60 * 60 * 1_000;
        assert!(
            check_delivery_time(day + 1, 1).is_ok() && check_delivery_time(day + 2, 1).is_err()
        );
        assert!(check_recovery(3_600_000).is_ok() && check_recovery(3_600_001).is_err());
        for key in RESERVED_KEYS {
            assert_eq!(
                check_property_key(key).unwrap_err().rule,
                Rule::PropertyKey,
                "{key}"
            );
        }
    }

    proptest! {
        /// Catches a text that is refused, or taken, for what is not in it; each kind of text by the same rule.
        #[test]
        fn texts_are_neither_blank_nor_of_control_characters(text in "\\PC{0,40}|[ \t]{0,3}|[a-z]{0,5}\\x00[a-z]{0,5}") {
            let bad = text.trim().is_empty() || text.chars().any(char::is_control);
            let long = text.len() > GROUP_BYTES_MAX;
            prop_assert_eq!(check_key(&text).is_err(), bad);
            prop_assert_eq!(check_id(&text).is_err(), bad);
            prop_assert_eq!(check_group(&text).is_err(), bad || long);
            prop_assert_eq!(check_tag(&text).is_err(), bad || text.contains('|'));
            prop_assert!(bad || check_property_key(&text).is_ok() || RESERVED_KEYS.contains(&&*text));
        }
    }
}
