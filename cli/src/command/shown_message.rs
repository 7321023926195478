//! One message, for people and for programs.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use raftmq_client::Delivery;
use serde_json::{Value, json};

use crate::moments::shown;

/// A JSON object. A body that is no UTF-8 has its bytes in `body_hex` and `null` as `body`.
pub(super) fn as_json(delivery: &Delivery) -> Value {
    let message = &delivery.message;
    let properties: BTreeMap<_, _> = message.properties().into_iter().collect();
    let body = std::str::from_utf8(message.body()).ok();
    let mut value = json!({
        "topic": &*delivery.topic,
        "queue": delivery.queue,
        "offset": delivery.offset,
        "message_id": message.message_id(),
        "tag": message.tag(),
        "keys": message.keys(),
        "message_group": message.message_group(),
        "properties": properties,
        "born_ms": message.born_ms(),
        "stored_ms": message.stored_ms(),
        "body": body,
    });
    if body.is_none() {
        value["body_hex"] = hex(message.body()).into();
    }
    value
}

/// A line that says where and what the message is, before its body.
pub(super) fn heading(delivery: &Delivery) -> String {
    let message = &delivery.message;
    let mut line = format!(
        "{}/{} offset {}  stored {}  id {}",
        delivery.topic,
        delivery.queue,
        delivery.offset,
        shown(message.stored_ms()),
        message.message_id()
    );
    let keys = message.keys().join(",");
    let parts = [
        ("tag", message.tag().unwrap_or_default()),
        ("keys", keys.as_str()),
        ("message group", message.message_group().unwrap_or_default()),
    ];
    for (name, value) in parts.iter().filter(|(_, value)| !value.is_empty()) {
        let _ = write!(line, "  {name} {value}");
    }
    for (key, value) in message.properties() {
        let _ = write!(line, "  {key}={value}");
    }
    line
}

fn hex(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len() * 2);
    for byte in bytes {
        let _ = write!(text, "{byte:02x}");
    }
    text
}
