//! The decoder of received messages, for `fuzz/`: only there with `--cfg fuzzing`.

use bytes::Bytes;

use crate::received::ReceivedMessage;

/// Reads any bytes as a message, and every part of what could be read.
pub fn received(data: &[u8]) {
    let Ok(message) = ReceivedMessage::decode(Bytes::copy_from_slice(data)) else {
        return;
    };
    let _ = (message.message_id(), message.tag(), message.keys());
    let _ = (message.message_group(), message.body(), message.encoded());
    let _ = (message.born_ms(), message.stored_ms());
    let _ = format!("{message:?}");
    for (key, value) in message.properties() {
        assert_eq!(message.property(key), Some(value));
    }
    if let Some(offset) = message.queue_offset() {
        assert!(offset < u64::MAX, "the consumer asks for the next one");
    }
}
