//! Writes a [`Message`] as an `apache.rocketmq.v2.Message`, directly in wire form and once in its life.
//!
//! Retries send the same bytes; brokers store and deliver them as they are. Never decides an id, a queue or a time.

use bytes::{Bytes, BytesMut};
use md5::{Digest, Md5};
use proto::message::wire::{
    bytes_field_len, put_bytes_field, put_length, put_varint_field, varint_field_len,
};
use proto::v2::{DigestType, Encoding, MessageType};

use crate::message::Message;

/// What a message gets when it leaves.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Stamp<'a> {
    pub(crate) message_id: &'a str,
    pub(crate) queue: u32,
    /// When it was handed over, in milliseconds since the Unix epoch.
    pub(crate) born_ms: u64,
}

/// Field numbers of `Message`.
mod message_field {
    pub(super) const TOPIC: u32 = 1;
    pub(super) const USER_PROPERTIES: u32 = 2;
    pub(super) const SYSTEM_PROPERTIES: u32 = 3;
    pub(super) const BODY: u32 = 4;
}

/// Field numbers of `SystemProperties`, those that a sender sets.
mod system_field {
    pub(super) const TAG: u32 = 1;
    pub(super) const KEYS: u32 = 2;
    pub(super) const MESSAGE_ID: u32 = 3;
    pub(super) const BODY_DIGEST: u32 = 4;
    pub(super) const BODY_ENCODING: u32 = 5;
    pub(super) const MESSAGE_TYPE: u32 = 6;
    pub(super) const BORN_TIMESTAMP: u32 = 7;
    pub(super) const QUEUE_ID: u32 = 13;
    pub(super) const MESSAGE_GROUP: u32 = 17;
}

/// `name` of a `Resource`.
const RESOURCE_NAME: u32 = 2;
/// Bytes of an MD5 checksum as hexadecimal digits.
const CHECKSUM_BYTES: usize = 32;

/// Room that an encoded message takes beyond its body, tag, keys, group and properties, roughly. For bounds.
pub(crate) const OVERHEAD_BYTES: usize = 128;

/// Appends the encoded message to `buffer` and splits it off.
pub(crate) fn encode(buffer: &mut BytesMut, message: &Message, stamp: Stamp<'_>) -> Bytes {
    debug_assert!(buffer.is_empty(), "the message is all that is split off");
    let sizes = Sizes::of(message, stamp);
    buffer.reserve(sizes.total);

    put_length(buffer, message_field::TOPIC, sizes.topic);
    put_bytes_field(buffer, RESOURCE_NAME, message.topic.as_bytes());
    for (key, value) in &message.properties {
        put_length(
            buffer,
            message_field::USER_PROPERTIES,
            property_len(key, value),
        );
        put_text(buffer, 1, key);
        put_text(buffer, 2, value);
    }
    put_length(buffer, message_field::SYSTEM_PROPERTIES, sizes.system);
    put_system_properties(buffer, message, stamp, &sizes);
    put_bytes_field(buffer, message_field::BODY, &message.body);

    debug_assert_eq!(buffer.len(), sizes.total);
    buffer.split().freeze()
}

/// Lengths that stand before what they measure, in bytes.
struct Sizes {
    topic: usize,
    born: usize,
    digest: usize,
    system: usize,
    total: usize,
}

impl Sizes {
    fn of(message: &Message, stamp: Stamp<'_>) -> Sizes {
        let (seconds, nanoseconds) = timestamp(stamp.born_ms);
        let topic = bytes_field_len(RESOURCE_NAME, message.topic.len());
        let born = varint_field_len(1, seconds) + varint_field_len(2, nanoseconds);
        let digest =
            varint_field_len(1, DigestType::Md5 as u64) + bytes_field_len(2, CHECKSUM_BYTES);
        let mut system = bytes_field_len(system_field::MESSAGE_ID, stamp.message_id.len())
            + varint_field_len(system_field::BODY_ENCODING, body_encoding(message))
            + varint_field_len(system_field::MESSAGE_TYPE, message_type(message))
            + bytes_field_len(system_field::BORN_TIMESTAMP, born)
            + varint_field_len(system_field::QUEUE_ID, u64::from(stamp.queue));
        if let Some(tag) = &message.tag {
            system += bytes_field_len(system_field::TAG, tag.len());
        }
        for key in &message.keys {
            system += bytes_field_len(system_field::KEYS, key.len());
        }
        if message.digest {
            system += bytes_field_len(system_field::BODY_DIGEST, digest);
        }
        if let Some(group) = &message.message_group {
            system += bytes_field_len(system_field::MESSAGE_GROUP, group.len());
        }
        let properties: usize = message
            .properties
            .iter()
            .map(|(key, value)| {
                bytes_field_len(message_field::USER_PROPERTIES, property_len(key, value))
            })
            .sum();
        let total = bytes_field_len(message_field::TOPIC, topic)
            + properties
            + bytes_field_len(message_field::SYSTEM_PROPERTIES, system)
            + bytes_field_len(message_field::BODY, message.body.len());
        Sizes {
            topic,
            born,
            digest,
            system,
            total,
        }
    }
}

fn put_system_properties(
    buffer: &mut BytesMut,
    message: &Message,
    stamp: Stamp<'_>,
    sizes: &Sizes,
) {
    if let Some(tag) = &message.tag {
        put_bytes_field(buffer, system_field::TAG, tag.as_bytes());
    }
    for key in &message.keys {
        put_bytes_field(buffer, system_field::KEYS, key.as_bytes());
    }
    put_bytes_field(
        buffer,
        system_field::MESSAGE_ID,
        stamp.message_id.as_bytes(),
    );
    if message.digest {
        put_length(buffer, system_field::BODY_DIGEST, sizes.digest);
        put_varint_field(buffer, 1, DigestType::Md5 as u64);
        put_bytes_field(buffer, 2, &checksum(&message.body));
    }
    put_varint_field(buffer, system_field::BODY_ENCODING, body_encoding(message));
    put_varint_field(buffer, system_field::MESSAGE_TYPE, message_type(message));
    put_length(buffer, system_field::BORN_TIMESTAMP, sizes.born);
    let (seconds, nanoseconds) = timestamp(stamp.born_ms);
    put_varint_field(buffer, 1, seconds);
    put_varint_field(buffer, 2, nanoseconds);
    put_varint_field(buffer, system_field::QUEUE_ID, u64::from(stamp.queue));
    if let Some(group) = &message.message_group {
        put_bytes_field(buffer, system_field::MESSAGE_GROUP, group.as_bytes());
    }
}

fn body_encoding(message: &Message) -> u64 {
    match message.compressed {
        true => Encoding::Gzip as u64,
        false => Encoding::Identity as u64,
    }
}

fn message_type(message: &Message) -> u64 {
    match message.message_group {
        Some(_) => MessageType::Fifo as u64,
        None => MessageType::Normal as u64,
    }
}

fn timestamp(ms: u64) -> (u64, u64) {
    (ms / 1000, ms % 1000 * 1_000_000)
}

/// An empty text is not written, as everywhere in proto3.
fn put_text(buffer: &mut BytesMut, field: u32, text: &str) {
    if !text.is_empty() {
        put_bytes_field(buffer, field, text.as_bytes());
    }
}

fn property_len(key: &str, value: &str) -> usize {
    let text_len = |field, text: &str| {
        if text.is_empty() {
            0
        } else {
            bytes_field_len(field, text.len())
        }
    };
    text_len(1, key) + text_len(2, value)
}

/// MD5 in upper-case hexadecimal digits: the one form that all official clients verify alike.
fn checksum(body: &[u8]) -> [u8; CHECKSUM_BYTES] {
    const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
    let mut text = [0; CHECKSUM_BYTES];
    for (pair, byte) in text.chunks_exact_mut(2).zip(Md5::digest(body)) {
        pair[0] = DIGITS[usize::from(byte >> 4)];
        pair[1] = DIGITS[usize::from(byte & 15)];
    }
    text
}

/// About the bytes that the message will take encoded. For bounds; never less than the body.
pub(crate) fn size_hint(message: &Message) -> usize {
    OVERHEAD_BYTES
        + message.body.len()
        + message.topic.len()
        + message.tag.as_ref().map_or(0, String::len)
        + message.message_group.as_ref().map_or(0, String::len)
        + message.keys.iter().map(|key| key.len() + 4).sum::<usize>()
        + message
            .properties
            .iter()
            .map(|(key, value)| key.len() + value.len() + 12)
            .sum::<usize>()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use prost::Message as _;
    use proto::v2;

    use super::*;

    fn expected(message: &Message, stamp: Stamp<'_>) -> v2::Message {
        let text = |text: &str| text.to_owned();
        v2::Message {
            topic: Some(v2::Resource {
                resource_namespace: text(""),
                name: text(&message.topic),
            }),
            user_properties: message.properties.iter().cloned().collect(),
            system_properties: Some(v2::SystemProperties {
                tag: message.tag.clone(),
                keys: message.keys.clone(),
                message_id: text(stamp.message_id),
                body_digest: message.digest.then(|| v2::Digest {
                    r#type: DigestType::Md5 as i32,
                    checksum: String::from_utf8(checksum(&message.body).to_vec()).expect("digits"),
                }),
                body_encoding: body_encoding(message) as i32,
                message_type: message_type(message) as i32,
                born_timestamp: Some(prost_types::Timestamp {
                    seconds: (stamp.born_ms / 1000) as i64,
                    nanos: (stamp.born_ms % 1000 * 1_000_000) as i32,
                }),
                queue_id: stamp.queue as i32,
                message_group: message.message_group.clone(),
                ..Default::default()
            }),
            body: message.body.clone(),
        }
    }

    prop_compose! {
        fn any_message()(
            topic in "[a-z_%|-]{1,127}", body in proptest::collection::vec(any::<u8>(), 1..300), digest: bool, compressed: bool,
            tag in proptest::option::of(".{0,300}"), keys in proptest::collection::vec(".{0,200}", 0..4),
            group in proptest::option::of(".{0,63}"),
            properties in proptest::collection::btree_map(".{0,20}", ".{0,200}", 0..5),
        ) -> Message {
            Message {
                topic: topic.into(), body: body.into(), tag, keys, message_group: group,
                properties: properties.into_iter().collect(), message_id: None, queue: None, digest, compressed,
            }
        }
    }

    proptest! {
        /// Catches any difference between what is written by hand here and what every parser of the contract reads:
        /// a wrong number, a wrong length, a forgotten field.
        #[test]
        fn prost_reads_what_was_meant(
            message in any_message(), id in "[0-9A-F]{34}", queue in 0u32..100_000, born_ms in 0u64..1 << 45,
        ) {
            let stamp = Stamp { message_id: &id, queue, born_ms };
            let encoded = encode(&mut BytesMut::new(), &message, stamp);
            let decoded = v2::Message::decode(encoded.clone()).expect("decodes");
            prop_assert_eq!(&decoded, &expected(&message, stamp));
            // Canonical too: as long as prost's own encoding.
            prop_assert_eq!(decoded.encoded_len(), encoded.len());
            prop_assert!(size_hint(&message) >= message.body.len());
        }
    }

    /// Catches a checksum in the wrong case or over the wrong bytes (the value is RFC 1321's for `abc`).
    #[test]
    fn the_digest_is_md5_in_upper_case() {
        assert_eq!(&checksum(b"abc"), b"900150983CD24FB0D6963F7D28E17F72");
    }

    /// Catches messages of one request that overwrite or include each other.
    #[test]
    fn messages_split_from_one_buffer_stand_alone() {
        let mut buffer = BytesMut::with_capacity(4096);
        let message = |body: &'static str| Message::new("t", body).expect("valid");
        let stamp = Stamp {
            message_id: "01",
            queue: 1,
            born_ms: 1,
        };
        let first = encode(&mut buffer, &message("first"), stamp);
        let second = encode(&mut buffer, &message("second"), stamp);
        assert_eq!(v2::Message::decode(first).expect("decodes").body, "first");
        assert_eq!(v2::Message::decode(second).expect("decodes").body, "second");
    }
}
