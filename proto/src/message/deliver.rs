//! Adds to a stored message what only a delivery knows.

use std::ops::Range;
use std::time::Duration;

use bytes::Bytes;

use super::view::View;
use super::wire::{Fields, Value};
use crate::{QueueId, QueueOffset, TimestampMs};

/// What a delivery adds to the stored message.
#[derive(Clone, Copy, Debug)]
pub struct Delivery<'a> {
    /// The queue where the message is.
    pub queue_id: QueueId,
    /// Its place there.
    pub queue_offset: QueueOffset,
    /// When it was stored.
    pub store_timestamp_ms: TimestampMs,
    /// `host:port` of the broker that delivers.
    pub store_host: &'a str,
    /// What an acknowledgement has to name; absent when the consumer keeps offsets.
    pub receipt_handle: Option<&'a str>,
    /// 1 for the first delivery.
    pub attempt: u32,
    /// How long the consumer has the message for itself.
    pub invisible_duration: Option<Duration>,
}

/// The message as a consumer gets it: the stored bytes, with the delivery's fields behind the other
/// system properties. One allocation, of the result's size.
///
/// A field that the producer had set occurs twice then, and every parser takes the last one. The
/// sub-message itself stays one, because parsers do not agree on how to merge two.
///
/// `encoded` has passed [`View::parse`](super::View::parse) when it was stored. Other bytes do not
/// panic: what is added is appended as system properties of its own.
pub fn deliver(encoded: &Bytes, delivery: &Delivery<'_>) -> Bytes {
    // Full to the last byte, a vector becomes `Bytes` without moving.
    Bytes::from(assemble(encoded, &Added::of(delivery)))
}

/// Like [`deliver`], for a message of a dead-letter queue: says which topic it came from, and what its id
/// was there.
pub fn deliver_dead_letter(encoded: &Bytes, delivery: &Delivery<'_>) -> Bytes {
    let view = View::parse(encoded);
    let origin = view.as_ref().map(|view| (view.topic, view.message_id));
    let added = Added {
        dead_letter: origin.ok(),
        ..Added::of(delivery)
    };
    Bytes::from(assemble(encoded, &added))
}

fn assemble(encoded: &[u8], added: &Added<'_>) -> Vec<u8> {
    let field = system_properties(encoded);
    let kept = field.properties.len();
    let length = kept as u64 + added.encoded_len() as u64;
    let field_len = 1 + varint_len(length);
    let total = encoded.len() - field.whole.len() + field_len + kept + added.encoded_len();

    let mut delivered = Vec::with_capacity(total);
    delivered.extend_from_slice(&encoded[..field.whole.start]);
    delivered.push(SYSTEM_PROPERTIES_KEY);
    put_varint(&mut delivered, length);
    delivered.extend_from_slice(&encoded[field.properties]);
    added.put(&mut delivered);
    delivered.extend_from_slice(&encoded[field.whole.end..]);
    delivered
}

const SYSTEM_PROPERTIES: u32 = 3;
const SYSTEM_PROPERTIES_KEY: u8 = key(SYSTEM_PROPERTIES, BYTES);
const VARINT: u8 = 0;
const BYTES: u8 = 2;

/// A field's key where it takes one byte: up to number 15.
const fn key(number: u32, wire_type: u8) -> u8 {
    assert!(number < 16);
    (number as u8) << 3 | wire_type
}

/// Where the system properties stand: the field with its key and length, and its content.
struct Field {
    whole: Range<usize>,
    properties: Range<usize>,
}

fn system_properties(encoded: &[u8]) -> Field {
    let mut fields = Fields::of(encoded);
    let mut start = 0;
    while let Ok(Some((number, value))) = fields.next_field() {
        let end = fields.position();
        if let (SYSTEM_PROPERTIES, Value::Bytes(properties)) = (number, value) {
            return Field {
                whole: start..end,
                properties: end - properties.len()..end,
            };
        }
        start = end;
    }
    let end = encoded.len();
    Field {
        whole: end..end,
        properties: end..end,
    }
}

/// The delivery in the numbers that are written.
///
/// Fields whose value is the default are written too: they replace what the producer may have set.
struct Added<'a> {
    store_timestamp: (u64, u64),
    store_host: &'a str,
    receipt_handle: Option<&'a str>,
    queue_id: u64,
    queue_offset: u64,
    invisible_duration: Option<(u64, u64)>,
    attempt: u64,
    /// Topic and message id.
    dead_letter: Option<(&'a str, &'a str)>,
}

impl<'a> Added<'a> {
    fn of(delivery: &Delivery<'a>) -> Self {
        let stored = Duration::from_millis(delivery.store_timestamp_ms);
        Self {
            store_timestamp: (stored.as_secs(), stored.subsec_nanos().into()),
            store_host: delivery.store_host,
            receipt_handle: delivery.receipt_handle,
            queue_id: delivery.queue_id.into(),
            queue_offset: delivery.queue_offset,
            invisible_duration: delivery
                .invisible_duration
                .map(|duration| (duration.as_secs(), duration.subsec_nanos().into())),
            attempt: delivery.attempt.into(),
            dead_letter: None,
        }
    }

    fn encoded_len(&self) -> usize {
        let text_len = |text: &str| 1 + varint_len(text.len() as u64) + text.len();
        let number_len = |number| 1 + varint_len(number);
        2 + time_len(self.store_timestamp)
            + text_len(self.store_host)
            + self.receipt_handle.map_or(0, text_len)
            + number_len(self.queue_id)
            + number_len(self.queue_offset)
            + self.invisible_duration.map_or(0, |duration| 2 + time_len(duration))
            + 1 // the key of field 16 takes two bytes
            + number_len(self.attempt)
            + self.dead_letter.map_or(0, |origin| {
                let length = origin_len(origin);
                2 + varint_len(length as u64) + length
            })
    }

    fn put(&self, encoded: &mut Vec<u8>) {
        put_time(encoded, key(9, BYTES), self.store_timestamp);
        put_text(encoded, key(10, BYTES), self.store_host);
        if let Some(handle) = self.receipt_handle {
            put_text(encoded, key(12, BYTES), handle);
        }
        put_number(encoded, key(13, VARINT), self.queue_id);
        put_number(encoded, key(14, VARINT), self.queue_offset);
        if let Some(duration) = self.invisible_duration {
            put_time(encoded, key(15, BYTES), duration);
        }
        put_varint(encoded, 16 << 3 | u64::from(VARINT));
        put_varint(encoded, self.attempt);
        if let Some((topic, message_id)) = self.dead_letter {
            put_varint(encoded, 20 << 3 | u64::from(BYTES));
            put_varint(encoded, origin_len((topic, message_id)) as u64);
            put_text(encoded, key(1, BYTES), topic);
            put_text(encoded, key(2, BYTES), message_id);
        }
    }
}

/// Length of a `DeadLetterQueue`. Both fields are always written, as those of a time are.
fn origin_len((topic, message_id): (&str, &str)) -> usize {
    let text_len = |text: &str| 1 + varint_len(text.len() as u64) + text.len();
    text_len(topic) + text_len(message_id)
}

/// Content of a `Timestamp` or `Duration`. Both parts are always written, so that a parser that
/// merges it into an earlier one and a parser that replaces the earlier one end alike.
fn time_len((seconds, nanoseconds): (u64, u64)) -> usize {
    2 + varint_len(seconds) + varint_len(nanoseconds)
}

fn put_time(encoded: &mut Vec<u8>, field: u8, time: (u64, u64)) {
    encoded.push(field);
    encoded.push(time_len(time) as u8); // at most 2 + 10 + 5
    put_number(encoded, key(1, VARINT), time.0);
    put_number(encoded, key(2, VARINT), time.1);
}

fn put_text(encoded: &mut Vec<u8>, field: u8, text: &str) {
    encoded.push(field);
    put_varint(encoded, text.len() as u64);
    encoded.extend_from_slice(text.as_bytes());
}

fn put_number(encoded: &mut Vec<u8>, field: u8, number: u64) {
    encoded.push(field);
    put_varint(encoded, number);
}

fn put_varint(encoded: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        encoded.push(number as u8 | 0x80);
        number >>= 7;
    }
    encoded.push(number as u8);
}

fn varint_len(number: u64) -> usize {
    (63 - (number | 1).leading_zeros()) as usize / 7 + 1
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use prost::Message;

    use super::*;
    use crate::v2;

    proptest! {
        /// A wrong prediction costs a second allocation and a copy of every body.
        #[test]
        fn one_allocation_of_the_exact_size(
            encoded in proptest::collection::vec(any::<u8>(), 0..64),
            queue_id: u32, queue_offset: u64, store_timestamp_ms: u64, attempt: u32,
            store_host in ".{0,200}", receipt_handle in proptest::option::of(".{0,200}"),
            invisible_duration: Option<Duration>,
            origin in proptest::option::of((".{0,200}", ".{0,40}")),
        ) {
            let receipt_handle = receipt_handle.as_deref();
            let delivery = Delivery {
                queue_id, queue_offset, store_timestamp_ms, store_host: &store_host,
                receipt_handle, attempt, invisible_duration,
            };
            let dead_letter = origin.as_ref().map(|(topic, id)| (topic.as_str(), id.as_str()));
            let delivered = assemble(&encoded, &Added { dead_letter, ..Added::of(&delivery) });
            prop_assert_eq!(delivered.len(), delivered.capacity());
        }
    }

    /// Would catch a dead letter that does not say where it came from, or that says what its producer said.
    #[test]
    fn a_dead_letter_says_where_it_came_from() {
        let message = v2::Message {
            topic: Some(v2::Resource {
                name: "orders".into(),
                ..Default::default()
            }),
            system_properties: Some(v2::SystemProperties {
                message_id: "0123".into(),
                dead_letter_queue: Some(v2::DeadLetterQueue {
                    topic: "elsewhere".into(),
                    message_id: "9".into(),
                }),
                ..Default::default()
            }),
            body: "body".into(),
            ..Default::default()
        };
        let delivery = Delivery {
            queue_id: 0,
            queue_offset: 7,
            store_timestamp_ms: 1_000,
            store_host: "host:1",
            receipt_handle: None,
            attempt: 1,
            invisible_duration: None,
        };
        let delivered = deliver_dead_letter(&message.encode_to_vec().into(), &delivery);
        let delivered = v2::Message::decode(delivered).unwrap();
        let properties = delivered.system_properties.unwrap();
        let origin = properties.dead_letter_queue.unwrap();
        assert_eq!((&*origin.topic, &*origin.message_id), ("orders", "0123"));
        assert_eq!(properties.queue_offset, Some(7));
        assert_eq!(&delivered.body[..], b"body");
    }

    #[test]
    fn varint_lengths_at_their_borders() {
        for (number, length) in [
            (0, 1),
            (127, 1),
            (128, 2),
            (16_383, 2),
            (16_384, 3),
            (u64::MAX, 10),
        ] {
            let mut encoded = Vec::new();
            put_varint(&mut encoded, number);
            assert_eq!(
                (encoded.len(), varint_len(number)),
                (length, length),
                "{number}"
            );
        }
    }
}
