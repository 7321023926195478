//! Bodies of messages: each says its value, and nothing else could have been meant.
//!
//! ```text
//! value u64 big-endian | bytes that follow from the value, as many as follow from it
//! ```

use bytes::Bytes;

use crate::chance::Chance;
use crate::history::Value;

/// Where bodies may be so large, some are as large as they may be.
const LARGE: u64 = 4 << 10;

/// How many messages there are for one of them.
const FULL_ONE_IN: u64 = 8;

/// The body that says `value`, of up to so many bytes.
pub fn encode(value: Value, bytes_max: u64) -> Bytes {
    let mut chance = Chance::new(value, "body");
    let padding = match bytes_max >= LARGE && value.is_multiple_of(FULL_ONE_IN) {
        true => bytes_max - 8,
        false => chance.below(bytes_max.max(9) - 8),
    };
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

#[cfg(test)]
mod tests {
    use super::*;

    /// Catches bodies that grow beyond the limit, never reach it, or say something else than they should.
    #[test]
    fn some_bodies_are_as_large_as_they_may_be() {
        let lens: Vec<usize> = (0..100)
            .map(|value| {
                let body = encode(value, LARGE);
                assert_eq!(decode(&body, LARGE), Some(value));
                body.len()
            })
            .collect();
        assert!(lens.iter().all(|len| *len <= LARGE as usize));
        assert!(lens.contains(&(LARGE as usize)));
        assert!((0..100).all(|value| encode(value, 1_500).len() < 1_500));
    }
}
