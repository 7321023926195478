//! What a message is that is to be stored, or why it is refused. The rules are `model`'s. Pure.

use std::borrow::Cow;

use bytes::Bytes;
use md5::{Digest, Md5};
use model::message::{self, Broken};
use model::namespace::qualified;
use model::{MessageKind, id_number};
use proto::message::{View, digest};
use proto::v2::{Code, DigestType, Encoding};
use proto::{TimestampMs, message_kind};

use super::queue_choice::Choice;
use crate::grpc::status::{Refusal, not_implemented};
use crate::view::Topic;

/// Limits that are configured, and the time.
pub(super) struct Limits {
    pub(super) body_bytes_max: u64,
    pub(super) now_ms: TimestampMs,
}

/// A message that kept every rule which does not depend on its topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Accepted {
    pub(super) message_id: String,
    /// Number of the message id.
    pub(super) id: u128,
    /// What the message says.
    pub(super) digest: u64,
    pub(super) kind: MessageKind,
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
        topic.map(|(namespace, name)| qualified(namespace, name)),
        accepted,
    ))
}

fn read(view: &View<'_>, limits: &Limits) -> Result<Accepted, Refusal> {
    let id = check_id(view.message_id)?;
    check_body(view, limits)?;
    check_texts(view)?;
    check_times(view, limits)?;
    let queue = match view.message_group {
        Some(group) => Choice::group(group),
        None => Choice::Wish(view.queue_id),
    };
    Ok(Accepted {
        message_id: view.message_id.to_owned(),
        id,
        digest: digest(view),
        kind: kind_of(view),
        queue,
        named: view.queue_id,
    })
}

/// The id's number.
fn check_id(id: &str) -> Result<u128, Refusal> {
    message::check_id(id)?;
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
    message::check_body(body.len(), limits.body_bytes_max)?;
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

fn check_texts(view: &View<'_>) -> Result<(), Broken> {
    let bytes = view.user_property_bytes + view.key_bytes + view.tag.map_or(0, str::len);
    message::check_properties(view.user_property_count, bytes)?;
    if view.user_property_count > 0 {
        let mut keys = view.user_properties().map(|(key, _)| key);
        keys.try_for_each(message::check_property_key)?;
    }
    view.tag.map_or(Ok(()), message::check_tag)?;
    if view.key_count > 0 {
        view.keys().try_for_each(message::check_key)?;
    }
    view.message_group.map_or(Ok(()), message::check_group)
}

fn check_times(view: &View<'_>, limits: &Limits) -> Result<(), Broken> {
    if let Some(at_ms) = view.delivery_timestamp_ms {
        message::check_delivery_time(at_ms, limits.now_ms)?;
    }
    (view.orphaned_transaction_recovery_ms).map_or(Ok(()), message::check_recovery)
}

/// By the properties, whatever the client calls it, except for what has none.
fn kind_of(view: &View<'_>) -> MessageKind {
    let said = message_kind(view.message_type);
    let is = |kind: MessageKind| said == Some(kind);
    if is(MessageKind::Transaction) {
        MessageKind::Transaction
    } else if view.delivery_timestamp_ms.is_some() || is(MessageKind::Delay) {
        MessageKind::Delay
    } else if view.lite_topic.is_some() || is(MessageKind::Lite) {
        MessageKind::Lite
    } else if view.priority.is_some() || is(MessageKind::Priority) {
        MessageKind::Priority
    } else if view.message_group.is_some() {
        MessageKind::Fifo
    } else {
        MessageKind::Normal
    }
}

/// Whether the topic takes messages of this kind, and this version stores them.
pub(super) fn check_storable(kind: MessageKind, topic: &Topic) -> Result<(), Refusal> {
    let wanted = message_kind(topic.message_type);
    if let Some(wanted) = wanted.filter(|_| !kind.fits(wanted)) {
        return Err(Refusal::new(
            Code::MessagePropertyConflictWithType,
            format!(
                "topic {} takes messages of type {wanted}, not {kind}",
                topic.name
            ),
        ));
    }
    match kind.is_stored() {
        true => Ok(()),
        false => Err(not_implemented(&format!("a message of type {kind}"))),
    }
}

#[cfg(test)]
#[path = "message_test.rs"]
mod message_test;
