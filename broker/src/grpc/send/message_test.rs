//! Every rule with its code.

use prost::Message as _;
use proto::v2::{Digest as BodyDigest, Message, MessageType, Resource, SystemProperties};

use super::*;

const NOW_MS: u64 = 1_700_000_000_000;
const LIMITS: Limits = Limits {
    body_bytes_max: 1_000,
    now_ms: NOW_MS,
};

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
            body_encoding: Encoding::Identity.into(),
            message_type: MessageType::Normal.into(),
            ..Default::default()
        }),
        body: Bytes::from_static(b"body"),
    }
}

type Change = fn(&mut Message, &mut SystemProperties);

fn changed(change: Change) -> Bytes {
    let mut message = message();
    let mut properties = message.system_properties.take().unwrap();
    change(&mut message, &mut properties);
    message.system_properties = Some(properties);
    message.encode_to_vec().into()
}

fn read_one(encoded: Bytes) -> Result<Accepted, Refusal> {
    let messages = [encoded];
    let (_, mut accepted) = read_all(&messages, &LIMITS)?;
    accepted.remove(0).map_err(|(_, refusal)| refusal)
}

fn seconds(time_ms: u64) -> prost_types::Timestamp {
    prost_types::Timestamp {
        seconds: (time_ms / 1_000) as i64,
        nanos: 0,
    }
}

fn digest(kind: DigestType, checksum: &str) -> Option<BodyDigest> {
    Some(BodyDigest {
        r#type: kind.into(),
        checksum: checksum.to_owned(),
    })
}

#[test]
fn a_message_that_keeps_the_rules_is_accepted() {
    let accepted = read_one(changed(|_, _| {})).unwrap();
    assert_eq!(accepted.kind, MessageKind::Normal);
    assert_eq!(accepted.queue, Choice::Wish(0));
    assert_eq!(accepted.message_id, "01AABBCCDDEEFF00110000000100000002");
    assert_eq!(accepted.id, 0xAABB_CCDD_EEFF_0011_0000_0001_0000_0002);
}

#[test]
#[allow(clippy::too_many_lines, reason = "a table: one line of it a rule")]
fn every_broken_rule_has_its_code() {
    let cases: Vec<(Code, Change)> = vec![
        (Code::MessageBodyEmpty, |message, _| {
            message.body = Bytes::new()
        }),
        (Code::MessageBodyTooLarge, |message, _| {
            message.body = vec![0; 1_001].into()
        }),
        (Code::MessagePropertiesTooLarge, |message, _| {
            message.user_properties = (0..129).map(|n| (format!("k{n}"), String::new())).collect();
        }),
        (Code::MessagePropertiesTooLarge, |message, _| {
            message.user_properties = [("k".to_owned(), "v".repeat(16 * 1024))].into();
        }),
        (Code::MessagePropertiesTooLarge, |_, properties| {
            properties.keys = vec!["k".repeat(16 * 1024)];
        }),
        (Code::IllegalMessagePropertyKey, |message, _| {
            message.user_properties = [("UNIQ_KEY".to_owned(), "v".to_owned())].into();
        }),
        (Code::IllegalMessagePropertyKey, |message, _| {
            message.user_properties = [("a\u{7}".to_owned(), "v".to_owned())].into();
        }),
        (Code::IllegalMessagePropertyKey, |message, _| {
            message.user_properties = [(String::new(), "v".to_owned())].into();
        }),
        (Code::IllegalMessageTag, |_, properties| {
            properties.tag = Some(" ".to_owned())
        }),
        (Code::IllegalMessageTag, |_, properties| {
            properties.tag = Some("a|b".to_owned())
        }),
        (Code::IllegalMessageTag, |_, properties| {
            properties.tag = Some("a\n".to_owned())
        }),
        (Code::IllegalMessageKey, |_, properties| {
            properties.keys.push("  ".to_owned())
        }),
        (Code::IllegalMessageKey, |_, properties| {
            properties.keys.push("a\u{0}".to_owned())
        }),
        (Code::IllegalMessageGroup, |_, properties| {
            properties.message_group = Some(String::new());
        }),
        (Code::IllegalMessageGroup, |_, properties| {
            properties.message_group = Some("g".repeat(64));
        }),
        (Code::IllegalMessageGroup, |_, properties| {
            properties.message_group = Some("g\t".to_owned());
        }),
        (Code::IllegalMessageId, |_, properties| {
            properties.message_id = " ".to_owned()
        }),
        (Code::IllegalMessageId, |_, properties| {
            properties.message_id = "x".repeat(256)
        }),
        (Code::IllegalMessageId, |_, properties| {
            properties.message_id = format!("01{}", "F".repeat(32));
        }),
        (Code::IllegalDeliveryTime, |_, properties| {
            properties.delivery_timestamp = Some(seconds(NOW_MS + 25 * 60 * 60 * 1_000));
        }),
        (Code::BadRequest, |_, properties| {
            properties.orphaned_transaction_recovery_duration = Some(prost_types::Duration {
                seconds: 3_601,
                nanos: 0,
            });
        }),
        (Code::MessageCorrupted, |_, properties| {
            properties.body_digest = digest(DigestType::Md5, "841A2D689AD86BD1611447453C22C6FD");
        }),
        (Code::MessageCorrupted, |_, properties| {
            properties.body_digest = digest(DigestType::Md5, "841A");
        }),
        (Code::MessageCorrupted, |_, properties| {
            properties.body_encoding = 9
        }),
    ];
    for (place, (code, change)) in cases.into_iter().enumerate() {
        let refusal = read_one(changed(change)).expect_err(&format!("case {place}, {code:?}"));
        assert_eq!(refusal.code, code, "case {place}: {}", refusal.reason);
    }
}

/// Catches limits that are one off.
#[test]
fn what_is_just_inside_a_limit_is_accepted() {
    let cases: Vec<Change> = vec![
        |message, _| message.body = vec![0; 1_000].into(),
        |message, _| {
            message.user_properties = (0..128).map(|n| (format!("k{n}"), String::new())).collect();
        },
        |_, properties| properties.message_group = Some("g".repeat(63)),
        |_, properties| properties.delivery_timestamp = Some(seconds(NOW_MS)),
        |_, properties| properties.delivery_timestamp = Some(seconds(1)),
        // The digest of "body", in either case.
        |_, properties| {
            properties.body_digest = digest(DigestType::Md5, "841A2D689AD86BD1611447453C22C6FC");
        },
        |_, properties| {
            properties.body_digest = digest(DigestType::Md5, "841a2d689ad86bd1611447453c22c6fc");
        },
        |_, properties| properties.body_digest = digest(DigestType::Crc32, "anything"),
    ];
    for (place, change) in cases.into_iter().enumerate() {
        assert!(read_one(changed(change)).is_ok(), "case {place}");
    }
}

/// Catches a kind that is stored as another one.
#[test]
fn the_kind_follows_from_the_properties() {
    let cases: Vec<(MessageKind, Change)> = vec![
        (MessageKind::Normal, |_, _| {}),
        (MessageKind::Fifo, |_, properties| {
            properties.message_group = Some("g".to_owned())
        }),
        (MessageKind::Delay, |_, properties| {
            properties.message_group = Some("g".to_owned());
            properties.delivery_timestamp = Some(seconds(NOW_MS));
        }),
        (MessageKind::Transaction, |_, properties| {
            properties.message_type = MessageType::Transaction.into();
            properties.delivery_timestamp = Some(seconds(NOW_MS));
        }),
        (MessageKind::Lite, |_, properties| {
            properties.lite_topic = Some("lite".to_owned())
        }),
        (MessageKind::Priority, |_, properties| {
            properties.priority = Some(3)
        }),
    ];
    for (kind, change) in cases {
        assert_eq!(read_one(changed(change)).unwrap().kind, kind);
    }
}

/// Catches a message stored in a topic that does not take its kind, and one of a kind that cannot be
/// stored yet.
#[test]
fn only_storable_kinds_pass() {
    let topic = |message_type: MessageType| Topic {
        id: 1,
        name: "orders".to_owned(),
        queue_count: 4,
        message_type: message_type.into(),
        attributes: Default::default(),
        dead_letters: false,
        mark: 0,
    };
    let any = topic(MessageType::Unspecified);
    let code = |kind: MessageKind, topic: &Topic| check_storable(kind, topic).map_err(|no| no.code);
    assert_eq!(code(MessageKind::Normal, &any), Ok(()));
    assert_eq!(code(MessageKind::Fifo, &any), Ok(()));
    for kind in [
        MessageKind::Delay,
        MessageKind::Transaction,
        MessageKind::Lite,
        MessageKind::Priority,
    ] {
        assert_eq!(code(kind, &any), Err(Code::NotImplemented));
    }
    assert_eq!(
        code(MessageKind::Delay, &topic(MessageType::Delay)),
        Err(Code::NotImplemented)
    );
    let conflict = Err(Code::MessagePropertyConflictWithType);
    assert_eq!(
        code(MessageKind::Normal, &topic(MessageType::Fifo)),
        conflict
    );
    assert_eq!(
        code(MessageKind::Fifo, &topic(MessageType::Normal)),
        conflict
    );
    assert_eq!(
        code(MessageKind::Delay, &topic(MessageType::Normal)),
        conflict
    );
}

/// Catches a request whose messages end up in another's topic, and a panic on nonsense.
#[test]
fn requests_are_of_one_topic_and_nonsense_is_corrupted() {
    let other = changed(|message, _| message.topic.as_mut().unwrap().name = "other".to_owned());
    let refusal = read_all(&[changed(|_, _| {}), other], &LIMITS).unwrap_err();
    assert_eq!(refusal.code, Code::MessageCorrupted);

    let nonsense = [Bytes::from_static(&[0xff; 40]), changed(|_, _| {})];
    let (topic, accepted) = read_all(&nonsense, &LIMITS).unwrap();
    assert_eq!(topic.as_deref(), Some("orders"));
    assert_eq!(
        accepted[0].as_ref().unwrap_err().1.code,
        Code::MessageCorrupted
    );
    assert!(accepted[1].is_ok());

    let (topic, _) = read_all(&nonsense[..1], &LIMITS).unwrap();
    assert_eq!(topic, None);
}
