//! The rules that a message must keep, and its kind. Pure.

use std::borrow::Cow;

use bytes::Bytes;
use md5::{Digest, Md5};
use proto::TimestampMs;
use proto::message::{View, digest};
use proto::message_id::id_number;
use proto::v2::{Code, DigestType, Encoding, MessageType};

use super::queue_choice::Choice;
use crate::grpc::resource::stored_name;
use crate::grpc::status::{Refusal, not_implemented};
use crate::view::Topic;

/// Limits that are RocketMQ's defaults.
const USER_PROPERTIES_MAX: usize = 128;
const PROPERTY_BYTES_MAX: usize = 16 * 1024;
const MESSAGE_GROUP_BYTES_MAX: usize = 63;
const MESSAGE_ID_BYTES_MAX: usize = 255;
const DELIVERY_DELAY_MS_MAX: u64 = 24 * 60 * 60 * 1_000;
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

/// Limits that are configured, and the time.
pub(super) struct Limits {
    pub(super) body_bytes_max: u64,
    pub(super) now_ms: TimestampMs,
}

/// What a message is, by its properties.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Normal,
    Fifo,
    Delay,
    Transaction,
    Lite,
    Priority,
}

/// A message that kept every rule which does not depend on its topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Accepted {
    pub(super) message_id: String,
    /// Number of the message id.
    pub(super) id: u128,
    /// What the message says.
    pub(super) digest: u64,
    pub(super) kind: Kind,
    pub(super) queue: Choice,
    /// The queue that the client named, whatever decides.
    pub(super) named: i32,
}

/// What one message is, or its id and why it is refused.
pub(super) type Outcome = Result<Accepted, (String, Refusal)>;

/// The stored name of the topic that all messages share (unless none can be read), and for each message
/// what it is, or its id and why it is refused.
pub(super) fn read_all<'a>(
    messages: &'a [Bytes],
    limits: &Limits,
) -> Result<(Option<Cow<'a, str>>, Vec<Outcome>), Refusal> {
    let mut topic: Option<(&str, &str)> = None;
    let mut accepted = Vec::with_capacity(messages.len());
    for message in messages {
        let view = match View::parse(message) {
            Ok(view) => view,
            Err(error) => {
                let refusal = Refusal::new(Code::MessageCorrupted, error.to_string());
                accepted.push(Err((String::new(), refusal)));
                continue;
            }
        };
        let named = (view.topic_namespace, view.topic);
        if *topic.get_or_insert(named) != named {
            return Err(Refusal::new(
                Code::MessageCorrupted,
                "the messages of the request have different topics",
            ));
        }
        accepted.push(read(&view, limits).map_err(|refusal| (view.message_id.to_owned(), refusal)));
    }
    Ok((
        topic.map(|(namespace, name)| stored_name(namespace, name)),
        accepted,
    ))
}

fn read(view: &View<'_>, limits: &Limits) -> Result<Accepted, Refusal> {
    let id = check_id(view.message_id)?;
    check_body(view, limits)?;
    check_properties(view)?;
    check_times(view, limits)?;
    let queue = match view.message_group {
        Some(group) => Choice::group(group),
        None => Choice::Wish(view.queue_id),
    };
    Ok(Accepted {
        message_id: view.message_id.to_owned(),
        id,
        digest: digest(view),
        kind: Kind::of(view),
        queue,
        named: view.queue_id,
    })
}

/// The id's number.
fn check_id(id: &str) -> Result<u128, Refusal> {
    if id.trim().is_empty() {
        return Err(Refusal::new(
            Code::IllegalMessageId,
            "the message id is blank",
        ));
    }
    if id.len() > MESSAGE_ID_BYTES_MAX || id.chars().any(char::is_control) {
        return Err(Refusal::new(
            Code::IllegalMessageId,
            format!(
                "the message id is longer than {MESSAGE_ID_BYTES_MAX} bytes or has control characters"
            ),
        ));
    }
    let number = id_number(id);
    // A run of ids must have an end.
    if number == u128::MAX {
        return Err(Refusal::new(
            Code::IllegalMessageId,
            format!("message id {id} is reserved"),
        ));
    }
    Ok(number)
}

fn check_body(view: &View<'_>, limits: &Limits) -> Result<(), Refusal> {
    let body = view.body();
    if body.is_empty() {
        return Err(Refusal::new(
            Code::MessageBodyEmpty,
            "the message body is empty",
        ));
    }
    if body.len() as u64 > limits.body_bytes_max {
        return Err(Refusal::new(
            Code::MessageBodyTooLarge,
            format!(
                "the message body has {} bytes, more than {}",
                body.len(),
                limits.body_bytes_max
            ),
        ));
    }
    if Encoding::try_from(view.body_encoding).is_err() {
        return Err(Refusal::new(
            Code::MessageCorrupted,
            format!("body encoding {} is unknown", view.body_encoding),
        ));
    }
    match view.body_digest {
        Some((kind, checksum)) if kind == DigestType::Md5 as i32 => check_md5(body, checksum),
        _ => Ok(()),
    }
}

fn check_md5(body: &[u8], checksum: &str) -> Result<(), Refusal> {
    let digest = Md5::digest(body);
    let digits = checksum.as_bytes();
    let value = |digit: u8| char::from(digit).to_digit(16);
    let same = digits.len() == 2 * digest.len()
        && digest
            .iter()
            .zip(digits.chunks_exact(2))
            .all(|(byte, pair)| {
                value(pair[0]) == Some(u32::from(byte >> 4))
                    && value(pair[1]) == Some(u32::from(byte & 15))
            });
    if same {
        return Ok(());
    }
    Err(Refusal::new(
        Code::MessageCorrupted,
        "the message body does not match its MD5 digest",
    ))
}

fn check_properties(view: &View<'_>) -> Result<(), Refusal> {
    let bytes = view.user_property_bytes + view.key_bytes + view.tag.map_or(0, str::len);
    if view.user_property_count > USER_PROPERTIES_MAX || bytes > PROPERTY_BYTES_MAX {
        return Err(Refusal::new(
            Code::MessagePropertiesTooLarge,
            format!(
                "the message has {} user properties and {bytes} bytes of properties, \
                 more than {USER_PROPERTIES_MAX} or {PROPERTY_BYTES_MAX}",
                view.user_property_count
            ),
        ));
    }
    if view.user_property_count > 0 {
        for (key, _) in view.user_properties() {
            check_property_key(key)?;
        }
    }
    if let Some(tag) = view.tag
        && (is_blank_or_control(tag) || tag.contains('|'))
    {
        return Err(Refusal::new(
            Code::IllegalMessageTag,
            format!("tag {tag:?} is blank or has '|' or control characters"),
        ));
    }
    if view.key_count > 0
        && let Some(key) = view.keys().find(|key| is_blank_or_control(key))
    {
        return Err(Refusal::new(
            Code::IllegalMessageKey,
            format!("message key {key:?} is blank or has control characters"),
        ));
    }
    match view.message_group {
        Some(group) if is_blank_or_control(group) || group.len() > MESSAGE_GROUP_BYTES_MAX => {
            Err(Refusal::new(
                Code::IllegalMessageGroup,
                format!(
                    "the message group is blank, longer than {MESSAGE_GROUP_BYTES_MAX} bytes, \
                     or has control characters"
                ),
            ))
        }
        _ => Ok(()),
    }
}

fn check_property_key(key: &str) -> Result<(), Refusal> {
    if is_blank_or_control(key) {
        return Err(Refusal::new(
            Code::IllegalMessagePropertyKey,
            format!("property key {key:?} is blank or has control characters"),
        ));
    }
    if RESERVED_KEYS.binary_search(&key).is_ok() {
        return Err(Refusal::new(
            Code::IllegalMessagePropertyKey,
            format!("property key {key:?} is reserved"),
        ));
    }
    Ok(())
}

fn check_times(view: &View<'_>, limits: &Limits) -> Result<(), Refusal> {
    let latest = limits.now_ms.saturating_add(DELIVERY_DELAY_MS_MAX);
    if view
        .delivery_timestamp_ms
        .is_some_and(|time| time > latest as i64)
    {
        return Err(Refusal::new(
            Code::IllegalDeliveryTime,
            format!("the delivery time is more than {DELIVERY_DELAY_MS_MAX} ms away"),
        ));
    }
    if view
        .orphaned_transaction_recovery_ms
        .is_some_and(|wait| wait > RECOVERY_MS_MAX)
    {
        return Err(Refusal::new(
            Code::BadRequest,
            format!("the recovery duration of the transaction exceeds {RECOVERY_MS_MAX} ms"),
        ));
    }
    Ok(())
}

fn is_blank_or_control(text: &str) -> bool {
    text.trim().is_empty() || text.chars().any(char::is_control)
}

impl Kind {
    /// By the properties, whatever the client calls it, except for what has none.
    fn of(view: &View<'_>) -> Kind {
        let said = |kind: MessageType| view.message_type == kind as i32;
        if said(MessageType::Transaction) {
            Kind::Transaction
        } else if view.delivery_timestamp_ms.is_some() || said(MessageType::Delay) {
            Kind::Delay
        } else if view.lite_topic.is_some() || said(MessageType::Lite) {
            Kind::Lite
        } else if view.priority.is_some() || said(MessageType::Priority) {
            Kind::Priority
        } else if view.message_group.is_some() {
            Kind::Fifo
        } else {
            Kind::Normal
        }
    }

    fn message_type(self) -> MessageType {
        match self {
            Kind::Normal => MessageType::Normal,
            Kind::Fifo => MessageType::Fifo,
            Kind::Delay => MessageType::Delay,
            Kind::Transaction => MessageType::Transaction,
            Kind::Lite => MessageType::Lite,
            Kind::Priority => MessageType::Priority,
        }
    }

    /// Whether the topic takes messages of this kind, and this version can store them. What is not
    /// supported is refused: stored as a normal message it would be delivered at the wrong time.
    pub(super) fn check_storable(self, topic: &Topic) -> Result<(), Refusal> {
        let wanted = topic.message_type;
        if wanted != MessageType::Unspecified as i32 && wanted != self.message_type() as i32 {
            return Err(Refusal::new(
                Code::MessagePropertyConflictWithType,
                format!(
                    "topic {} takes messages of type {}, not {}",
                    topic.name,
                    MessageType::try_from(wanted).map_or("?", |kind| kind.as_str_name()),
                    self.message_type().as_str_name()
                ),
            ));
        }
        match self {
            Kind::Normal | Kind::Fifo => Ok(()),
            other => Err(not_implemented(&format!(
                "a message of type {}",
                other.message_type().as_str_name()
            ))),
        }
    }
}

#[cfg(test)]
#[path = "message_test.rs"]
mod message_test;
