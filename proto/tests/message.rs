//! Encoded messages against prost: what we read and what we write must be what every decoder sees.

use std::collections::HashMap;
use std::time::Duration;

use bytes::Bytes;
use proptest::collection::{hash_map, vec};
use proptest::option;
use proptest::prelude::*;
use prost::Message as _;
use prost_types::Timestamp;
use proto::message::{Delivery, MessageError, View, deliver};
use proto::v2::{DeadLetterQueue, Digest, Message, Resource, SystemProperties};
use proto::{opaque, v2};

fn timestamp() -> impl Strategy<Value = Timestamp> {
    (any::<i32>(), 0..1_000_000_000).prop_map(|(seconds, nanos)| Timestamp {
        seconds: seconds.into(),
        nanos,
    })
}

fn duration() -> impl Strategy<Value = prost_types::Duration> {
    (0..100_000i64, 0..1_000_000_000)
        .prop_map(|(seconds, nanos)| prost_types::Duration { seconds, nanos })
}

prop_compose! {
    fn from_the_client()(
        (tag, keys, message_id) in (option::of(".{0,8}"), vec(".{0,8}", 0..4), ".{0,40}"),
        digest in option::of((any::<i32>(), ".{0,8}")),
        (body_encoding, message_type, queue_id) in any::<(i32, i32, i32)>(),
        (born_timestamp, delivery_timestamp) in (option::of(timestamp()), option::of(timestamp())),
        born_host in ".{0,8}",
        (message_group, trace_context, lite_topic) in
            (option::of(".{0,8}"), option::of(".{0,8}"), option::of(".{0,8}")),
        recovery in option::of(duration()),
        dead in option::of((".{0,8}", ".{0,8}")),
        priority: Option<i32>,
    ) -> SystemProperties {
        SystemProperties {
            tag, keys, message_id, body_encoding, message_type, queue_id, born_timestamp,
            delivery_timestamp, born_host, message_group, trace_context, lite_topic, priority,
            body_digest: digest.map(|(r#type, checksum)| Digest { r#type, checksum }),
            orphaned_transaction_recovery_duration: recovery,
            dead_letter_queue: dead.map(|(topic, message_id)| DeadLetterQueue { topic, message_id }),
            ..SystemProperties::default()
        }
    }
}

prop_compose! {
    /// With what a client should leave to the broker, and need not.
    fn system_properties()(
        mut properties in from_the_client(),
        forged in option::weighted(0.3, (timestamp(), ".{0,8}", ".{0,8}", duration(), any::<(i64, i32)>())),
    ) -> SystemProperties {
        if let Some((stored, host, handle, invisible, (offset, attempt))) = forged {
            properties.store_timestamp = Some(stored);
            properties.store_host = host;
            properties.receipt_handle = Some(handle);
            properties.invisible_duration = Some(invisible);
            properties.queue_offset = Some(offset);
            properties.delivery_attempt = Some(attempt);
        }
        properties
    }
}

prop_compose! {
    fn message()(
        topic in option::of((".{0,8}", ".{0,8}")),
        user_properties in hash_map(".{0,8}", ".{0,8}", 0..4),
        system_properties in option::weighted(0.9, system_properties()),
        body in vec(any::<u8>(), 0..300),
    ) -> Message {
        Message {
            topic: topic.map(|(resource_namespace, name)| Resource { resource_namespace, name }),
            user_properties,
            system_properties,
            body: body.into(),
        }
    }
}

prop_compose! {
    fn owned_delivery()(
        (queue_id, queue_offset) in (0..=i32::MAX as u32, 0..=i64::MAX as u64),
        store_timestamp_ms in 0..=253_402_300_799_999u64,
        (store_host, receipt_handle) in (".{0,20}", option::of(".{0,300}")),
        attempt in 0..=i32::MAX as u32,
        invisible_duration in option::of((0..100_000u64, 0..1_000_000_000u32)),
    ) -> OwnedDelivery {
        let invisible_duration = invisible_duration.map(|(s, n)| Duration::new(s, n));
        OwnedDelivery { queue_id, queue_offset, store_timestamp_ms, store_host, receipt_handle, attempt, invisible_duration }
    }
}

#[derive(Clone, Debug)]
struct OwnedDelivery {
    queue_id: u32,
    queue_offset: u64,
    store_timestamp_ms: u64,
    store_host: String,
    receipt_handle: Option<String>,
    attempt: u32,
    invisible_duration: Option<Duration>,
}

impl OwnedDelivery {
    fn deliver(&self, encoded: &Bytes) -> Bytes {
        deliver(
            encoded,
            &Delivery {
                queue_id: self.queue_id,
                queue_offset: self.queue_offset,
                store_timestamp_ms: self.store_timestamp_ms,
                store_host: &self.store_host,
                receipt_handle: self.receipt_handle.as_deref(),
                attempt: self.attempt,
                invisible_duration: self.invisible_duration,
            },
        )
    }

    /// What `deliver` shall do, on the decoded form.
    fn apply(&self, message: &mut Message) {
        let properties = message.system_properties.get_or_insert_default();
        properties.store_timestamp = Some(Timestamp {
            seconds: (self.store_timestamp_ms / 1000) as i64,
            nanos: (self.store_timestamp_ms % 1000) as i32 * 1_000_000,
        });
        properties.store_host.clone_from(&self.store_host);
        properties.queue_id = self.queue_id as i32;
        properties.queue_offset = Some(self.queue_offset as i64);
        properties.delivery_attempt = Some(self.attempt as i32);
        if self.receipt_handle.is_some() {
            properties.receipt_handle.clone_from(&self.receipt_handle);
        }
        if let Some(duration) = self.invisible_duration {
            let (seconds, nanos) = (duration.as_secs() as i64, duration.subsec_nanos() as i32);
            properties.invisible_duration = Some(prost_types::Duration { seconds, nanos });
        }
    }
}

fn milliseconds(seconds: i64, nanos: i32) -> i64 {
    seconds
        .saturating_mul(1000)
        .saturating_add(nanos.div_euclid(1_000_000).into())
}

/// The view says what prost says.
fn compare(view: &View<'_>, message: &Message) -> Result<(), TestCaseError> {
    let topic = message.topic.clone().unwrap_or_default();
    let properties = message.system_properties.clone().unwrap_or_default();
    let at = |time: Option<Timestamp>| time.map(|time| milliseconds(time.seconds, time.nanos));
    prop_assert_eq!(view.topic_namespace, topic.resource_namespace);
    prop_assert_eq!(view.topic, topic.name);
    prop_assert_eq!(view.message_id, properties.message_id);
    prop_assert_eq!(view.tag, properties.tag.as_deref());
    prop_assert!(view.keys().eq(properties.keys.iter().map(String::as_str)));
    prop_assert_eq!(view.key_count, properties.keys.len());
    prop_assert_eq!(
        view.key_bytes,
        properties.keys.iter().map(String::len).sum::<usize>()
    );
    prop_assert_eq!(view.message_group, properties.message_group.as_deref());
    prop_assert_eq!(
        view.delivery_timestamp_ms,
        at(properties.delivery_timestamp)
    );
    prop_assert_eq!(view.born_timestamp_ms, at(properties.born_timestamp));
    prop_assert_eq!(
        view.orphaned_transaction_recovery_ms,
        properties
            .orphaned_transaction_recovery_duration
            .map(|time| milliseconds(time.seconds, time.nanos))
    );
    prop_assert_eq!(view.message_type, properties.message_type);
    prop_assert_eq!(view.body_encoding, properties.body_encoding);
    prop_assert_eq!(
        view.body_digest,
        properties
            .body_digest
            .as_ref()
            .map(|digest| (digest.r#type, &*digest.checksum))
    );
    prop_assert_eq!(view.queue_id, properties.queue_id);
    prop_assert_eq!(view.lite_topic, properties.lite_topic.as_deref());
    prop_assert_eq!(view.priority, properties.priority);
    prop_assert_eq!(view.body(), &message.body);
    prop_assert_eq!(&view.encoded()[view.body_range()], &message.body);
    let seen: HashMap<_, _> = view
        .user_properties()
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .collect();
    prop_assert_eq!(seen, message.user_properties.clone());
    Ok(())
}

/// Positions of the top-level fields 3. Walks what the tests made, so it may panic.
fn system_properties_fields(encoded: &[u8]) -> usize {
    let mut rest = encoded;
    let mut count = 0;
    while !rest.is_empty() {
        let (number, wire_type) = prost::encoding::decode_key(&mut rest).expect("made by us");
        count += usize::from(number == 3);
        let context = prost::encoding::DecodeContext::default();
        prost::encoding::skip_field(wire_type, number, &mut rest, context).expect("made by us");
    }
    count
}

/// A byte changed, cut away, doubled: what a broken client or an attacker sends.
#[derive(Clone, Debug)]
enum Damage {
    Replace(prop::sample::Index, u8),
    Cut(prop::sample::Index),
    Repeat(prop::sample::Index, prop::sample::Index),
    Insert(prop::sample::Index, Vec<u8>),
}

fn damage() -> impl Strategy<Value = Damage> {
    let place = any::<prop::sample::Index>;
    prop_oneof![
        4 => (place(), any::<u8>()).prop_map(|(at, byte)| Damage::Replace(at, byte)),
        1 => place().prop_map(Damage::Cut),
        1 => (place(), place()).prop_map(|(from, to)| Damage::Repeat(from, to)),
        1 => (place(), vec(any::<u8>(), 1..8)).prop_map(|(at, bytes)| Damage::Insert(at, bytes)),
    ]
}

impl Damage {
    fn apply(&self, bytes: &mut Vec<u8>) {
        if bytes.is_empty() {
            return;
        }
        match self {
            Damage::Replace(at, byte) => *at.get_mut(bytes) = *byte,
            Damage::Cut(at) => bytes.truncate(at.index(bytes.len())),
            Damage::Repeat(from, to) => {
                let (from, to) = (from.index(bytes.len()), to.index(bytes.len()));
                let piece = bytes[from.min(to)..from.max(to)].to_vec();
                bytes.extend_from_slice(&piece);
            }
            Damage::Insert(at, more) => {
                let at = at.index(bytes.len());
                bytes.splice(at..at, more.iter().copied());
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    /// A field read from the wrong number, or a default read as a value.
    #[test]
    fn view_of_a_valid_message_is_what_prost_decodes(message in message()) {
        let encoded = message.encode_to_vec();
        compare(&View::parse(&encoded).unwrap(), &message)?;
    }

    /// A message that a broker takes and a consumer cannot decode would block a queue for good.
    #[test]
    fn whatever_parses_is_decoded_alike(message in message(), damage in vec(damage(), 1..3)) {
        let mut encoded = message.encode_to_vec();
        for damage in damage {
            damage.apply(&mut encoded);
        }
        if let Ok(view) = View::parse(&encoded) {
            let decoded = Message::decode(&*encoded);
            prop_assert!(decoded.is_ok(), "parsed, but prost says {:?}", decoded);
            compare(&view, &decoded.unwrap())?;
        }
    }

    #[test]
    fn garbage_never_panics(garbage in vec(any::<u8>(), 0..200), delivery in owned_delivery()) {
        let garbage = Bytes::from(garbage);
        if let Ok(view) = View::parse(&garbage) {
            view.keys().count();
            view.user_properties().count();
            view.body();
        }
        delivery.deliver(&garbage);
    }

    /// Nothing lost, nothing else changed, and one sub-message for parsers that do not merge two.
    #[test]
    fn a_delivery_changes_only_what_it_adds(mut message in message(), delivery in owned_delivery()) {
        let delivered = delivery.deliver(&message.encode_to_vec().into());
        delivery.apply(&mut message);
        prop_assert_eq!(system_properties_fields(&delivered), 1);
        prop_assert_eq!(Message::decode(delivered).unwrap(), message);
    }

    /// Fields of a newer contract travel through an older broker.
    #[test]
    fn a_delivery_keeps_fields_that_nobody_knows(
        message in message(), delivery in owned_delivery(), outer in 5..15u8, after: bool,
    ) {
        let unknown = [outer << 3, 0x2A];
        let encoded = if after {
            [message.encode_to_vec(), unknown.to_vec()].concat()
        } else {
            [unknown.to_vec(), message.encode_to_vec()].concat()
        };
        let delivered = delivery.deliver(&encoded.clone().into());
        if after && message.system_properties.is_some() {
            prop_assert!(delivered.ends_with(&unknown));
        } else if !after {
            prop_assert!(delivered.starts_with(&unknown));
        }
        let mut expected = Message::decode(&*encoded).unwrap();
        delivery.apply(&mut expected);
        prop_assert_eq!(Message::decode(delivered).unwrap(), expected);
    }

    /// The opaque service speaks the contract's wire form, both ways, and hands out slices.
    #[test]
    fn opaque_and_decoded_messages_are_the_same_on_the_wire(messages in vec(message(), 0..4)) {
        let request = v2::SendMessageRequest { messages: messages.clone() };
        // One encoding of the map is as good as another: compare what it decodes to.
        let received = opaque::SendMessageRequest::decode(request.encode_to_vec().as_slice()).unwrap();
        prop_assert_eq!(received.messages.len(), messages.len());
        prop_assert_eq!(v2::SendMessageRequest::decode(received.encode_to_vec().as_slice()).unwrap(), request);
        for (opaque, message) in received.messages.iter().zip(&messages) {
            prop_assert_eq!(&Message::decode(opaque.clone()).unwrap(), message);
            let pulled = opaque::PullMessageResponse {
                content: Some(opaque::pull_message_response::Content::Message(opaque.clone())),
            };
            prop_assert_eq!(
                v2::PullMessageResponse::decode(pulled.encode_to_vec().as_slice()).unwrap().content,
                Some(v2::pull_message_response::Content::Message(message.clone()))
            );
            let leased = opaque::ReceiveMessageResponse {
                content: Some(opaque::receive_message_response::Content::Message(opaque.clone())),
            };
            prop_assert_eq!(
                v2::ReceiveMessageResponse::decode(leased.encode_to_vec().as_slice()).unwrap().content,
                Some(v2::receive_message_response::Content::Message(message.clone()))
            );
        }
    }
}

/// A copy of each body on its way in would show in every benchmark.
#[test]
fn opaque_messages_are_slices_of_what_was_received() {
    let message = Message {
        body: vec![7; 1000].into(),
        ..Message::default()
    };
    let request = v2::SendMessageRequest {
        messages: vec![message; 3],
    };
    let buffer = Bytes::from(request.encode_to_vec());
    let memory = buffer.as_ptr_range();
    let received = opaque::SendMessageRequest::decode(buffer).unwrap();
    for message in received.messages {
        assert!(memory.contains(&message.as_ptr()));
    }
}

#[test]
fn refuses_what_parsers_read_differently() {
    let field =
        |number: u8, content: &[u8]| [&[number << 3 | 2, content.len() as u8], content].concat();
    for (number, name) in [(1, "topic"), (3, "system_properties"), (4, "body")] {
        let twice = [field(number, b""), field(number, b"")].concat();
        assert_eq!(
            View::parse(&twice).unwrap_err(),
            MessageError::Twice { field: name }
        );
    }
    let varint_topic = [1 << 3, 1];
    assert_eq!(
        View::parse(&varint_topic).unwrap_err(),
        MessageError::WireType { field: "topic" }
    );
    let not_text = field(2, &field(1, &[0xFF]));
    let field = "user_properties.key";
    assert_eq!(
        View::parse(&not_text).unwrap_err(),
        MessageError::NotUtf8 { field }
    );
    let group = [5 << 3 | 3, 5 << 3 | 4];
    assert_eq!(View::parse(&group).unwrap_err(), MessageError::Malformed);
}
