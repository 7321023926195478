//! Bodies of messages: each says its value, and nothing else could have been meant.
//!
//! ```text
//! value u64 big-endian | bytes that follow from the value, as many as follow from it
//! ```

use bytes::Bytes;

use crate::chance::Chance;
use crate::history::Value;

/// The body that says `value`, of up to so many bytes.
pub fn encode(value: Value, bytes_max: u64) -> Bytes {
    let mut chance = Chance::new(value, "body");
    let padding = chance.below(bytes_max.max(9) - 8);
    let mut body = value.to_be_bytes().to_vec();
    while (body.len() as u64) < padding + 8 {
        body.extend_from_slice(&chance.number().to_be_bytes());
    }
    body.truncate(padding as usize + 8);
    Bytes::from(body)
}

/// What a body says; none if not a byte of it may be believed.
pub fn decode(body: &[u8], bytes_max: u64) -> Option<Value> {
    let value = u64::from_be_bytes(body.get(..8)?.try_into().ok()?);
    (encode(value, bytes_max) == body).then_some(value)
}
