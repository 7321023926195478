//! Why bytes are refused as a message.

/// Why bytes are not a message that a broker can take.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MessageError {
    /// No protobuf message at all: cut short, or a broken number or length.
    #[error("message is not well-formed")]
    Malformed,
    /// A known field is encoded as another kind.
    #[error("field {field} of the message has the wrong wire type")]
    WireType {
        /// Its name.
        field: &'static str,
    },
    /// Consumers could not decode it.
    #[error("field {field} of the message is not UTF-8")]
    NotUtf8 {
        /// Its name.
        field: &'static str,
    },
    /// Parsers disagree on what such a message means.
    #[error("field {field} occurs twice in the message")]
    Twice {
        /// Its name.
        field: &'static str,
    },
}
