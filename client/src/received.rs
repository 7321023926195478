//! A message that was received.

use bytes::Bytes;

/// A message as it was stored. Its parts are slices of the buffer that it arrived in.
#[derive(Clone, Debug)]
pub struct ReceivedMessage {}

impl ReceivedMessage {
    /// What it carries.
    pub fn body(&self) -> &Bytes { unimplemented!() }
    /// Its id.
    pub fn message_id(&self) -> &str { unimplemented!() }
    /// Its tag.
    pub fn tag(&self) -> Option<&str> { unimplemented!() }
    /// Its keys.
    pub fn keys(&self) -> Vec<&str> { unimplemented!() }
    /// The group within which order is kept.
    pub fn message_group(&self) -> Option<&str> { unimplemented!() }
    /// One property.
    pub fn property(&self, key: &str) -> Option<&str> { unimplemented!() }
    /// All properties, sorted by key.
    pub fn properties(&self) -> Vec<(&str, &str)> { unimplemented!() }
    /// When its producer made it, in milliseconds since the Unix epoch by the producer's clock; 0 if it does not say.
    pub fn born_ms(&self) -> u64 { unimplemented!() }
    /// When its leader stored it, in milliseconds since the Unix epoch by the leader's clock; 0 if it does not say.
    pub fn stored_ms(&self) -> u64 { unimplemented!() }
    /// The whole v2.Message as it came.
    pub fn encoded(&self) -> &Bytes { unimplemented!() }
}
