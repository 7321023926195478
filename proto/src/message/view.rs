//! What a broker wants to know of an encoded message.

use std::ops::Range;

use super::MessageError;
use super::wire::{Fields, Value};

/// A message's fields, read in one pass over its encoded form and borrowed from it.
///
/// Whatever parses is a message that prost decodes, to the same values. Absent fields read as
/// protobuf's defaults.
#[derive(Clone, Debug)]
pub struct View<'a> {
    encoded: &'a [u8],
    /// Namespace of the topic.
    pub topic_namespace: &'a str,
    /// Name of the topic, unchecked.
    pub topic: &'a str,
    /// The client's id for the message, unchecked.
    pub message_id: &'a str,
    /// The tag, if there is one.
    pub tag: Option<&'a str>,
    /// Number of keys; see [`View::keys`].
    pub key_count: usize,
    /// Bytes of all keys.
    pub key_bytes: usize,
    /// The ordering key of a FIFO message.
    pub message_group: Option<&'a str>,
    /// When a delayed message shall be delivered, milliseconds since the Unix epoch.
    pub delivery_timestamp_ms: Option<i64>,
    /// When the client made the message, milliseconds since the Unix epoch.
    pub born_timestamp_ms: Option<i64>,
    /// First check of a half message: how long to wait, in milliseconds.
    pub orphaned_transaction_recovery_ms: Option<i64>,
    /// A `v2::MessageType`, or any other number that a client sent.
    pub message_type: i32,
    /// A `v2::Encoding`, or any other number that a client sent.
    pub body_encoding: i32,
    /// A `v2::DigestType` and the checksum's text.
    pub body_digest: Option<(i32, &'a str)>,
    /// The queue that the client wished.
    pub queue_id: i32,
    /// The lite topic, if there is one.
    pub lite_topic: Option<&'a str>,
    /// The priority, if there is one.
    pub priority: Option<i32>,
    /// Number of user properties; see [`View::user_properties`].
    pub user_property_count: usize,
    /// Bytes of all user properties' keys and values.
    pub user_property_bytes: usize,
    body: Range<usize>,
    system_properties: Option<&'a [u8]>,
}

impl<'a> View<'a> {
    /// Reads an encoded `v2::Message`.
    ///
    /// # Errors
    /// When it is not well-formed, when a consumer's parser would refuse it, or when a field that
    /// parsers treat differently occurs twice. Never panics, whatever the bytes.
    pub fn parse(encoded: &'a [u8]) -> Result<Self, MessageError> {
        let mut view = Self::empty(encoded);
        let mut fields = Fields::of(encoded);
        let (mut topic_seen, mut body_seen) = (false, false);
        while let Some((number, value)) = fields.next_field()? {
            match number {
                1 => {
                    once("topic", &mut topic_seen)?;
                    view.read_topic(value.bytes("topic")?)?;
                }
                2 => view.read_user_property(value.bytes("user_properties")?)?,
                3 => {
                    let mut seen = view.system_properties.is_some();
                    once("system_properties", &mut seen)?;
                    let properties = value.bytes("system_properties")?;
                    view.system_properties = Some(properties);
                    view.read_system_properties(properties)?;
                }
                4 => {
                    once("body", &mut body_seen)?;
                    let length = value.bytes("body")?.len();
                    view.body = fields.position() - length..fields.position();
                }
                _ => {}
            }
        }
        Ok(view)
    }

    /// The bytes that were read.
    pub fn encoded(&self) -> &'a [u8] {
        self.encoded
    }

    /// The body as the client encoded it.
    pub fn body(&self) -> &'a [u8] {
        &self.encoded[self.body.clone()]
    }

    /// Where the body stands in the encoded message.
    pub fn body_range(&self) -> Range<usize> {
        self.body.clone()
    }

    /// The keys, in order.
    pub fn keys(&self) -> impl Iterator<Item = &'a str> + use<'a> {
        occurrences(self.system_properties.unwrap_or_default(), 2)
            .filter_map(|key| std::str::from_utf8(key).ok())
    }

    /// The user's properties, in the order of the encoded form. Where a key occurs again, the last
    /// one counts.
    pub fn user_properties(&self) -> impl Iterator<Item = (&'a str, &'a str)> + use<'a> {
        occurrences(self.encoded, 2).filter_map(|entry| map_entry(entry).ok())
    }

    fn empty(encoded: &'a [u8]) -> Self {
        Self {
            encoded,
            topic_namespace: "",
            topic: "",
            message_id: "",
            tag: None,
            key_count: 0,
            key_bytes: 0,
            message_group: None,
            delivery_timestamp_ms: None,
            born_timestamp_ms: None,
            orphaned_transaction_recovery_ms: None,
            message_type: 0,
            body_encoding: 0,
            body_digest: None,
            queue_id: 0,
            lite_topic: None,
            priority: None,
            user_property_count: 0,
            user_property_bytes: 0,
            body: 0..0,
            system_properties: None,
        }
    }

    fn read_topic(&mut self, encoded: &'a [u8]) -> Result<(), MessageError> {
        let mut fields = Fields::of(encoded);
        while let Some((number, value)) = fields.next_field()? {
            match number {
                1 => self.topic_namespace = value.text("topic.resource_namespace")?,
                2 => self.topic = value.text("topic.name")?,
                _ => {}
            }
        }
        Ok(())
    }

    fn read_user_property(&mut self, entry: &'a [u8]) -> Result<(), MessageError> {
        let (key, value) = map_entry(entry)?;
        self.user_property_count += 1;
        self.user_property_bytes += key.len() + value.len();
        Ok(())
    }

    /// Every field is checked, also those that nobody here looks at: one that a consumer's parser
    /// refuses would make the message, and the queue behind it, unreadable.
    fn read_system_properties(&mut self, encoded: &'a [u8]) -> Result<(), MessageError> {
        let mut fields = Fields::of(encoded);
        let (mut born, mut delivery, mut recovery) = (None, None, None);
        while let Some((number, value)) = fields.next_field()? {
            match number {
                1 => self.tag = Some(value.text("tag")?),
                2 => {
                    self.key_count += 1;
                    self.key_bytes += value.text("keys")?.len();
                }
                3 => self.message_id = value.text("message_id")?,
                4 => self.read_digest(value.bytes("body_digest")?)?,
                5 => self.body_encoding = value.int32("body_encoding")?,
                6 => self.message_type = value.int32("message_type")?,
                7 => read_time(&mut born, value, "born_timestamp")?,
                11 => read_time(&mut delivery, value, "delivery_timestamp")?,
                13 => self.queue_id = value.int32("queue_id")?,
                17 => self.message_group = Some(value.text("message_group")?),
                19 => read_time(
                    &mut recovery,
                    value,
                    "orphaned_transaction_recovery_duration",
                )?,
                21 => self.lite_topic = Some(value.text("lite_topic")?),
                22 => self.priority = Some(value.int32("priority")?),
                _ => check_unused(number, value)?,
            }
        }
        self.born_timestamp_ms = born.map(Time::as_ms);
        self.delivery_timestamp_ms = delivery.map(Time::as_ms);
        self.orphaned_transaction_recovery_ms = recovery.map(Time::as_ms);
        Ok(())
    }

    fn read_digest(&mut self, encoded: &'a [u8]) -> Result<(), MessageError> {
        let (mut kind, mut checksum) = self.body_digest.unwrap_or_default();
        let mut fields = Fields::of(encoded);
        while let Some((number, value)) = fields.next_field()? {
            match number {
                1 => kind = value.int32("body_digest.type")?,
                2 => checksum = value.text("body_digest.checksum")?,
                _ => {}
            }
        }
        self.body_digest = Some((kind, checksum));
        Ok(())
    }
}

/// Checks the system properties that the view does not keep.
fn check_unused(number: u32, value: Value<'_>) -> Result<(), MessageError> {
    match number {
        8 => value.text("born_host").map(|_| ()),
        9 => read_time(&mut None, value, "store_timestamp"),
        10 => value.text("store_host").map(|_| ()),
        12 => value.text("receipt_handle").map(|_| ()),
        14 => value.int64("queue_offset").map(|_| ()),
        15 => read_time(&mut None, value, "invisible_duration"),
        16 => value.int32("delivery_attempt").map(|_| ()),
        18 => value.text("trace_context").map(|_| ()),
        20 => {
            let mut fields = Fields::of(value.bytes("dead_letter_queue")?);
            while let Some((number, value)) = fields.next_field()? {
                if number == 1 || number == 2 {
                    value.text("dead_letter_queue")?;
                }
            }
            Ok(())
        }
        _ => Ok(()),
    }
}

/// A `Timestamp` or a `Duration`: both have the seconds first and the nanoseconds second.
#[derive(Clone, Copy, Default)]
struct Time {
    seconds: i64,
    nanoseconds: i32,
}

impl Time {
    fn as_ms(self) -> i64 {
        let of_second = i64::from(self.nanoseconds.div_euclid(1_000_000));
        self.seconds.saturating_mul(1000).saturating_add(of_second)
    }
}

/// Merges an occurrence into what earlier ones gave, as parsers do.
fn read_time(
    time: &mut Option<Time>,
    value: Value<'_>,
    field: &'static str,
) -> Result<(), MessageError> {
    let time = time.get_or_insert_default();
    let mut fields = Fields::of(value.bytes(field)?);
    while let Some((number, value)) = fields.next_field()? {
        match number {
            1 => time.seconds = value.int64(field)?,
            2 => time.nanoseconds = value.int32(field)?,
            _ => {}
        }
    }
    Ok(())
}

fn map_entry(entry: &[u8]) -> Result<(&str, &str), MessageError> {
    let (mut key, mut content) = ("", "");
    let mut fields = Fields::of(entry);
    while let Some((number, value)) = fields.next_field()? {
        match number {
            1 => key = value.text("user_properties.key")?,
            2 => content = value.text("user_properties.value")?,
            _ => {}
        }
    }
    Ok((key, content))
}

/// The contents of each field `wanted`, in order. Only for bytes that were read before.
fn occurrences(encoded: &[u8], wanted: u32) -> impl Iterator<Item = &[u8]> {
    let mut fields = Fields::of(encoded);
    std::iter::from_fn(move || {
        while let Ok(Some((number, value))) = fields.next_field() {
            if let (true, Value::Bytes(bytes)) = (number == wanted, value) {
                return Some(bytes);
            }
        }
        None
    })
}

fn once(field: &'static str, seen: &mut bool) -> Result<(), MessageError> {
    if std::mem::replace(seen, true) {
        Err(MessageError::Twice { field })
    } else {
        Ok(())
    }
}
