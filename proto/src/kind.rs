//! How the contract spells the kinds of messages.

use model::MessageKind;

use crate::v2::MessageType;

impl From<MessageKind> for MessageType {
    fn from(kind: MessageKind) -> MessageType {
        match kind {
            MessageKind::Normal => MessageType::Normal,
            MessageKind::Fifo => MessageType::Fifo,
            MessageKind::Delay => MessageType::Delay,
            MessageKind::Transaction => MessageType::Transaction,
            MessageKind::Lite => MessageType::Lite,
            MessageKind::Priority => MessageType::Priority,
        }
    }
}

/// The kind that this number of a [`MessageType`] names: none for 0, which is "any" of a topic and "not said" of a message, nor
/// for a number that is unknown.
pub fn message_kind(number: i32) -> Option<MessageKind> {
    match MessageType::try_from(number).ok()? {
        MessageType::Unspecified => None,
        MessageType::Normal => Some(MessageKind::Normal),
        MessageType::Fifo => Some(MessageKind::Fifo),
        MessageType::Delay => Some(MessageKind::Delay),
        MessageType::Transaction => Some(MessageKind::Transaction),
        MessageType::Lite => Some(MessageKind::Lite),
        MessageType::Priority => Some(MessageKind::Priority),
    }
}

/// What a route says that a topic accepts which is made for this [`MessageType`], as numbers of the same.
pub fn accepted_types(topic: i32) -> Vec<i32> {
    let kinds = MessageKind::accepted_by(message_kind(topic)).into_iter();
    kinds.map(|kind| MessageType::from(kind).into()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Catches a kind that another one is read as, and a name that is not the contract's.
    #[test]
    fn each_kind_is_spelt_and_read_back() {
        for number in -1..20 {
            let spelt = MessageType::try_from(number);
            match message_kind(number) {
                Some(kind) => {
                    assert_eq!(Ok(MessageType::from(kind)), spelt);
                    assert_eq!(
                        Ok(kind.to_string().as_str()),
                        spelt.map(|kind| kind.as_str_name())
                    );
                }
                None => assert!(matches!(spelt, Err(_) | Ok(MessageType::Unspecified))),
            }
        }
    }
}
