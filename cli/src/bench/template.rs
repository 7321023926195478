//! Messages for the raw load: encoded once, then copied with another id each.
//!
//! The load shares its processors with the brokers, so it must cost little: a copy and 16 digits.

use bytes::{Bytes, BytesMut};
use prost::Message as _;
use proto::v2;

/// An id of version 1 in text: `01` and 16 bytes.
const ID_DIGITS: usize = 34;
const ID_PLACE: &str = "01FFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFF";
/// The digits that count; those before them name this load.
const COUNTER_DIGITS: usize = 16;
const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
const BODY_BYTE: u8 = b'x';

/// One message of one queue, ready to be copied.
pub(super) struct Template {
    encoded: Vec<u8>,
    counter_at: usize,
}

impl Template {
    /// A message to `queue` of `topic` with a body of `body_bytes`; `load` keeps its ids apart from others'.
    pub(super) fn new(topic: &str, queue: i32, body_bytes: usize, load: u64) -> Template {
        let message = v2::Message {
            topic: Some(v2::Resource {
                name: topic.to_owned(),
                ..Default::default()
            }),
            system_properties: Some(v2::SystemProperties {
                message_id: ID_PLACE.to_owned(),
                queue_id: queue,
                message_type: v2::MessageType::Normal.into(),
                body_encoding: v2::Encoding::Identity.into(),
                ..Default::default()
            }),
            body: Bytes::from(vec![BODY_BYTE; body_bytes]),
            ..Default::default()
        };
        let mut encoded = message.encode_to_vec();
        let id_at = encoded
            .windows(ID_DIGITS)
            .position(|window| window == ID_PLACE.as_bytes())
            .expect("the id was just encoded");
        let counter_at = id_at + ID_DIGITS - COUNTER_DIGITS;
        write_number(&mut encoded[id_at + 2..counter_at], load);
        Template {
            encoded,
            counter_at,
        }
    }

    /// `count` messages with the ids `first`, `first + 1`, …: slices of one buffer.
    pub(super) fn batch(&self, first: u64, count: usize) -> Vec<Bytes> {
        let size = self.encoded.len();
        let mut buffer = BytesMut::with_capacity(size * count);
        for place in 0..count {
            let start = buffer.len();
            buffer.extend_from_slice(&self.encoded);
            let counter = start + self.counter_at;
            write_number(
                &mut buffer[counter..counter + COUNTER_DIGITS],
                first + place as u64,
            );
        }
        let mut whole = buffer.freeze();
        (0..count).map(|_| whole.split_to(size)).collect()
    }
}

fn write_number(place: &mut [u8], number: u64) {
    for (digit, shift) in place.iter_mut().rev().zip((0..).step_by(4)) {
        *digit = DIGITS[(number >> shift) as usize & 15];
    }
}

#[cfg(test)]
mod tests {
    use prost::Message as _;
    use proto::v2;

    use super::Template;

    /// Catches ids that repeat, which the brokers would store once and the load would count twice.
    #[test]
    fn each_copy_differs_by_its_id_only() {
        let template = Template::new("bench", 3, 128, 0xAB);
        let batch = template.batch(0xFF, 2);
        let messages: Vec<v2::Message> = batch
            .into_iter()
            .map(|bytes| v2::Message::decode(bytes).expect("valid"))
            .collect();
        let ids: Vec<&str> = messages
            .iter()
            .map(|message| {
                message
                    .system_properties
                    .as_ref()
                    .expect("set")
                    .message_id
                    .as_str()
            })
            .collect();
        assert_eq!(
            ids,
            [
                "0100000000000000AB00000000000000FF",
                "0100000000000000AB0000000000000100"
            ]
        );
        assert!(messages.iter().all(|message| message.body.len() == 128));
    }
}
