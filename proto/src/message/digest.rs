//! What a message says, as one number: two messages with one id are the same if this is the same.
//!
//! Of everything that makes a message what it is. Left out is what an attempt to send may change: the id (it is compared
//! by itself), the queue that is wished for, the time and host of birth (clients take both anew for each attempt), the
//! trace, and the checksum of the body, which follows from it. The order of user properties does not count: clients
//! write them in the order of a hash map.
//!
//! The numbers stand in the log: what they are made of may never change.

use twox_hash::XxHash3_64;

use super::View;

/// The parts of a message that are hashed on their own.
const PARTS: usize = 11;

/// The number. Not for adversaries: whoever wants to can make two messages with one number.
pub fn digest(view: &View<'_>) -> u64 {
    let keys = match view.key_count {
        0 => 0,
        _ => view.keys().fold(1, |sum, key| hash(sum, key.as_bytes())),
    };
    let parts: [u64; PARTS] = [
        hash(0, view.body()),
        hash(1, view.topic.as_bytes()),
        text(Some(view.topic_namespace).filter(|text| !text.is_empty())),
        text(view.tag),
        keys,
        properties(view),
        text(view.message_group),
        text(view.lite_topic),
        number(view.delivery_timestamp_ms),
        number(view.priority.map(i64::from)),
        u64::from(view.body_encoding as u32) << 32 | u64::from(view.message_type as u32),
    ];
    let mut bytes = [0; PARTS * 8];
    for (place, part) in bytes.chunks_exact_mut(8).zip(parts) {
        place.copy_from_slice(&part.to_be_bytes());
    }
    hash(0, &bytes)
}

fn hash(seed: u64, bytes: &[u8]) -> u64 {
    XxHash3_64::oneshot_with_seed(seed, bytes)
}

/// What is absent has a number that no text is likely to have.
fn text(text: Option<&str>) -> u64 {
    text.map_or(0, |text| hash(2, text.as_bytes()))
}

fn number(number: Option<i64>) -> u64 {
    number.map_or(0, |number| hash(3, &number.to_be_bytes()))
}

/// A sum, so that their order does not count.
fn properties(view: &View<'_>) -> u64 {
    if view.user_property_count == 0 {
        return 0;
    }
    let each = view
        .user_properties()
        .map(|(key, value)| hash(hash(4, key.as_bytes()), value.as_bytes()));
    each.fold(5, u64::wrapping_add)
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use prost::Message as _;

    use super::*;
    use crate::v2::{Message, Resource, SystemProperties};

    fn message() -> Message {
        Message {
            topic: Some(Resource {
                resource_namespace: String::new(),
                name: "orders".to_owned(),
            }),
            user_properties: [("color".to_owned(), "red".to_owned())].into(),
            system_properties: Some(SystemProperties {
                message_id: "01AABBCCDDEEFF00110000000100000002".to_owned(),
                tag: Some("tag".to_owned()),
                keys: vec!["key".to_owned()],
                ..Default::default()
            }),
            body: Bytes::from_static(b"body"),
        }
    }

    type Change = fn(&mut Message, &mut SystemProperties);

    fn changed(change: Change) -> u64 {
        let mut message = message();
        let mut properties = message.system_properties.take().unwrap_or_default();
        change(&mut message, &mut properties);
        message.system_properties = Some(properties);
        of(&message.encode_to_vec())
    }

    fn of(encoded: &[u8]) -> u64 {
        digest(&View::parse(encoded).expect("it is a message"))
    }

    /// Catches a retry that is taken for another message because its client stamped it anew.
    #[test]
    fn what_an_attempt_changes_does_not_count() {
        let same: [Change; 5] = [
            |_, system| system.queue_id = 7,
            |_, system| system.message_id = "other".to_owned(),
            |_, system| system.born_host = "host".to_owned(),
            |_, system| {
                system.born_timestamp = Some(prost_types::Timestamp {
                    seconds: 5,
                    nanos: 0,
                });
            },
            |_, system| system.trace_context = Some("trace".to_owned()),
        ];
        for (place, change) in same.into_iter().enumerate() {
            assert_eq!(changed(change), changed(|_, _| {}), "case {place}");
        }
    }

    /// Catches a message that is dropped as another one's repetition although it says something else.
    #[test]
    fn whatever_a_message_says_counts() {
        let others: Vec<Change> = vec![
            |_, _| {},
            |message, _| message.body = Bytes::from_static(b"Body"),
            |message, _| message.topic.as_mut().expect("has one").name.push('2'),
            |message, _| {
                message.topic.as_mut().expect("has one").resource_namespace = "n".to_owned();
            },
            |message, _| message.user_properties.clear(),
            |message, _| {
                message.user_properties = [("red".to_owned(), "color".to_owned())].into();
            },
            |message, _| {
                message
                    .user_properties
                    .insert("size".to_owned(), String::new());
            },
            |_, system| system.tag = None,
            |_, system| system.tag = Some(String::new()),
            |_, system| system.keys.clear(),
            |_, system| system.keys = vec!["k".to_owned(), "ey".to_owned()],
            |_, system| system.keys = vec!["ey".to_owned(), "k".to_owned()],
            |_, system| system.message_group = Some("tag".to_owned()),
            |_, system| system.lite_topic = Some("tag".to_owned()),
            |_, system| system.priority = Some(1),
            |_, system| system.body_encoding = 2,
            |_, system| system.message_type = 2,
            |_, system| {
                system.delivery_timestamp = Some(prost_types::Timestamp {
                    seconds: 1,
                    nanos: 0,
                });
            },
        ];
        let count = others.len();
        let numbers: std::collections::BTreeSet<u64> = others.into_iter().map(changed).collect();
        assert_eq!(numbers.len(), count);
    }

    /// Catches a client whose retries write their properties in another order.
    #[test]
    fn the_order_of_properties_does_not_count() {
        let part = |key: &str| {
            Message {
                user_properties: [(key.to_owned(), "value".to_owned())].into(),
                ..Default::default()
            }
            .encode_to_vec()
        };
        assert_eq!(
            of(&[part("a"), part("b")].concat()),
            of(&[part("b"), part("a")].concat())
        );
    }

    /// Digests stand in the log: another number for the same message would store a repetition again.
    #[test]
    fn the_number_is_fixed() {
        // XXH3's own test vector for no bytes and seed 0.
        assert_eq!(hash(0, b""), 0x2d06_8005_38d3_94c2);
        // By an independent XXH3.
        assert_eq!(changed(|_, _| {}), 0xc56f_a613_ad68_8821);
    }
}
