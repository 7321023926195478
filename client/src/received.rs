//! A message that was received: read in one pass, its parts left where they arrived.
//!
//! The counterpart of `encode`. Never copies a body that is not compressed, never panics on what a server sends.

use std::sync::Arc;

use bytes::Bytes;
use proto::message::MessageError;
use proto::message::wire::{Fields, Value};
use proto::v2::Encoding;

use crate::compression::decompress;

/// A message as it was stored. Its parts are slices of the buffer that it arrived in: keeping one small part for long
/// keeps the whole answer in memory, so copy what is to be kept.
#[derive(Clone)]
pub struct ReceivedMessage {
    encoded: Bytes,
    body: Bytes,
    /// Why the body could not be unpacked.
    body_error: Option<Arc<str>>,
    system: Span,
    message_id: Span,
    tag: Option<Span>,
    message_group: Option<Span>,
    born_ms: u64,
    stored_ms: u64,
    queue_offset: Option<u64>,
}

/// A part of `encoded` that is known to be UTF-8 (or, for `system`, a sub-message).
#[derive(Clone, Copy, Debug, Default)]
struct Span {
    start: usize,
    end: usize,
}

impl Span {
    /// Where a part stands in what it is a part of.
    fn of(whole: &[u8], part: &[u8]) -> Span {
        let start = part.as_ptr() as usize - whole.as_ptr() as usize;
        Span {
            start,
            end: start + part.len(),
        }
    }

    /// That of a part that is text.
    fn of_text(whole: &[u8], value: Value<'_>, field: &'static str) -> Result<Span, MessageError> {
        Ok(Span::of(whole, value.text(field)?.as_bytes()))
    }
}

impl ReceivedMessage {
    /// Reads an encoded `v2.Message`.
    pub(crate) fn decode(encoded: Bytes) -> Result<ReceivedMessage, MessageError> {
        let mut message = ReceivedMessage {
            body: Bytes::new(),
            body_error: None,
            system: Span::default(),
            message_id: Span::default(),
            tag: None,
            message_group: None,
            born_ms: 0,
            stored_ms: 0,
            queue_offset: None,
            encoded,
        };
        let bytes = message.encoded.clone();
        let mut encoding = 0;
        let mut fields = Fields::of(&bytes);
        while let Some((field, value)) = fields.next_field()? {
            match field {
                2 => drop(property(value.bytes("user_properties")?)?),
                3 => {
                    let system = value.bytes("system_properties")?;
                    message.system = Span::of(&bytes, system);
                    message.read_system_properties(&bytes, system, &mut encoding)?;
                }
                4 => message.body = bytes.slice_ref(value.bytes("body")?),
                _ => {}
            }
        }
        if encoding == Encoding::Gzip as u64 {
            match decompress(&message.body) {
                Ok(body) => message.body = body,
                Err(error) => message.body_error = Some(error.to_string().into()),
            }
        }
        Ok(message)
    }

    fn read_system_properties(
        &mut self,
        bytes: &[u8],
        system: &[u8],
        encoding: &mut u64,
    ) -> Result<(), MessageError> {
        let mut fields = Fields::of(system);
        while let Some((field, value)) = fields.next_field()? {
            match (field, value) {
                (1, tag) => self.tag = Some(Span::of_text(bytes, tag, "tag")?),
                (2, key) => drop(key.text("keys")?),
                (3, id) => self.message_id = Span::of_text(bytes, id, "message_id")?,
                (5, Value::Varint(number)) => *encoding = number,
                (7, Value::Bytes(born)) => self.born_ms = timestamp_ms(born)?,
                (9, Value::Bytes(stored)) => self.stored_ms = timestamp_ms(stored)?,
                // A negative number is no offset.
                (14, Value::Varint(number)) => {
                    self.queue_offset = Some(number).filter(|number| *number <= i64::MAX as u64);
                }
                (17, group) => {
                    self.message_group = Some(Span::of_text(bytes, group, "message_group")?);
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// What it carries, unpacked if it was compressed. As it was stored if it cannot be unpacked: see
    /// [`ReceivedMessage::body_error`].
    pub fn body(&self) -> &Bytes {
        &self.body
    }

    /// Why the body could not be unpacked, if it claims to be compressed and could not.
    pub fn body_error(&self) -> Option<&str> {
        self.body_error.as_deref()
    }

    /// Its id.
    pub fn message_id(&self) -> &str {
        self.text(self.message_id)
    }

    /// Its tag.
    pub fn tag(&self) -> Option<&str> {
        self.tag.map(|span| self.text(span))
    }

    /// Its keys.
    pub fn keys(&self) -> Vec<&str> {
        let mut keys = Vec::new();
        let mut fields = Fields::of(&self.encoded[self.system.start..self.system.end]);
        while let Ok(Some((field, value))) = fields.next_field() {
            if field == 2 {
                keys.extend(value.text("keys"));
            }
        }
        keys
    }

    /// The group within which order is kept.
    pub fn message_group(&self) -> Option<&str> {
        self.message_group.map(|span| self.text(span))
    }

    /// One property.
    pub fn property(&self, key: &str) -> Option<&str> {
        // The last one counts, as in every parser of protobuf maps.
        self.occurrences()
            .filter(|(name, _)| *name == key)
            .last()
            .map(|(_, value)| value)
    }

    /// All properties, sorted by key.
    pub fn properties(&self) -> Vec<(&str, &str)> {
        let sorted: std::collections::BTreeMap<&str, &str> = self.occurrences().collect();
        sorted.into_iter().collect()
    }

    /// When its producer made it, in milliseconds since the Unix epoch by the producer's clock; 0 if it does not say.
    pub fn born_ms(&self) -> u64 {
        self.born_ms
    }

    /// When its leader stored it, in milliseconds since the Unix epoch by the leader's clock; 0 if it does not say.
    pub fn stored_ms(&self) -> u64 {
        self.stored_ms
    }

    /// The whole `apache.rocketmq.v2.Message` as it came.
    pub fn encoded(&self) -> &Bytes {
        &self.encoded
    }

    /// Where it stands in its queue, if the server said so.
    pub(crate) fn queue_offset(&self) -> Option<u64> {
        self.queue_offset
    }

    fn text(&self, span: Span) -> &str {
        std::str::from_utf8(&self.encoded[span.start..span.end])
            .expect("was checked when the message was decoded")
    }

    fn occurrences(&self) -> impl Iterator<Item = (&str, &str)> {
        let mut fields = Fields::of(&self.encoded);
        std::iter::from_fn(move || {
            while let Ok(Some((field, value))) = fields.next_field() {
                if let (2, Value::Bytes(entry)) = (field, value) {
                    return property(entry).ok();
                }
            }
            None
        })
    }
}

impl std::fmt::Debug for ReceivedMessage {
    /// Without the bytes: bodies are large and may be private.
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("ReceivedMessage")
            .field("message_id", &self.message_id())
            .field("tag", &self.tag())
            .field("message_group", &self.message_group())
            .field("body_bytes", &self.body.len())
            .finish_non_exhaustive()
    }
}

/// Key and value of one map entry.
fn property(entry: &[u8]) -> Result<(&str, &str), MessageError> {
    let (mut key, mut content) = ("", "");
    let mut fields = Fields::of(entry);
    while let Some((field, value)) = fields.next_field()? {
        match field {
            1 => key = value.text("user_properties.key")?,
            2 => content = value.text("user_properties.value")?,
            _ => {}
        }
    }
    Ok((key, content))
}

/// A `google.protobuf.Timestamp`. Times before 1970 read as 0.
fn timestamp_ms(encoded: &[u8]) -> Result<u64, MessageError> {
    let (mut seconds, mut nanoseconds) = (0, 0);
    let mut fields = Fields::of(encoded);
    while let Some((field, value)) = fields.next_field()? {
        match field {
            1 => seconds = value.int64("seconds")?,
            2 => nanoseconds = value.int64("nanos")?,
            _ => {}
        }
    }
    let ms = seconds
        .saturating_mul(1000)
        .saturating_add(nanoseconds / 1_000_000);
    Ok(u64::try_from(ms).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use prost::Message as _;
    use proto::v2;

    use super::*;

    fn sample() -> v2::Message {
        v2::Message {
            topic: Some(v2::Resource {
                resource_namespace: String::new(),
                name: "orders".to_owned(),
            }),
            user_properties: [("b", "2"), ("a", "1")]
                .map(|(k, v)| (k.to_owned(), v.to_owned()))
                .into(),
            system_properties: Some(v2::SystemProperties {
                tag: Some("new".to_owned()),
                keys: vec!["k1".to_owned(), "k2".to_owned()],
                message_id: "01AB".to_owned(),
                message_group: Some("g".to_owned()),
                born_timestamp: Some(prost_types::Timestamp {
                    seconds: 7,
                    nanos: 5_000_000,
                }),
                store_timestamp: Some(prost_types::Timestamp {
                    seconds: 8,
                    nanos: 0,
                }),
                queue_offset: Some(42),
                ..Default::default()
            }),
            body: Bytes::from_static(b"hello"),
        }
    }

    /// Catches a field read from the wrong place.
    #[test]
    fn every_part_reads_back() {
        let message = ReceivedMessage::decode(sample().encode_to_vec().into()).expect("decodes");
        assert_eq!(message.body(), "hello");
        assert_eq!(message.message_id(), "01AB");
        assert_eq!(message.tag(), Some("new"));
        assert_eq!(message.keys(), ["k1", "k2"]);
        assert_eq!(message.message_group(), Some("g"));
        assert_eq!(message.properties(), [("a", "1"), ("b", "2")]);
        assert_eq!(
            (message.property("b"), message.property("c")),
            (Some("2"), None)
        );
        assert_eq!((message.born_ms(), message.stored_ms()), (7005, 8000));
        assert_eq!(message.queue_offset(), Some(42));
    }

    /// Catches an offset whose successor does not exist: the consumer asks for the next one.
    #[test]
    fn a_negative_offset_is_none() {
        let mut message = sample();
        message
            .system_properties
            .as_mut()
            .expect("has some")
            .queue_offset = Some(-1);
        let message = ReceivedMessage::decode(message.encode_to_vec().into()).expect("decodes");
        assert_eq!(message.queue_offset(), None);
    }

    /// Catches a body that is copied out of the answer.
    #[test]
    fn the_body_is_a_slice_of_the_answer() {
        let encoded = Bytes::from(sample().encode_to_vec());
        let message = ReceivedMessage::decode(encoded.clone()).expect("decodes");
        assert!(encoded.as_ptr_range().contains(&message.body().as_ptr()));
    }

    proptest! {
        /// Catches a panic, at once or later in an accessor, on what a broken server might send.
        #[test]
        fn garbage_is_refused_or_readable(mut bytes in Just(sample().encode_to_vec()), place: prop::sample::Index, byte: u8) {
            let place = place.index(bytes.len());
            bytes[place] = byte;
            if let Ok(message) = ReceivedMessage::decode(bytes.into()) {
                let _ = (message.message_id(), message.tag(), message.keys(), message.message_group());
                let _ = (message.properties(), message.body(), format!("{message:?}"));
            }
        }
    }
}
