//! What kind of message a message is, and which kinds a topic takes.

use std::fmt;

/// A kind of message: decides how it is stored and when it is delivered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum MessageKind {
    /// Delivered at once, in no order that it can count on.
    Normal,
    /// Keeps its order among those of its message group.
    Fifo,
    /// Delivered at a time of its own.
    Delay,
    /// Delivered once its transaction has been committed.
    Transaction,
    /// Of a lite topic.
    Lite,
    /// Has a priority.
    Priority,
}

impl MessageKind {
    /// Those that brokers store so far. Any other is refused: stored as a normal message it would be delivered at a wrong time.
    pub const STORED: [MessageKind; 2] = [MessageKind::Normal, MessageKind::Fifo];

    /// Whether brokers store it.
    pub fn is_stored(self) -> bool {
        MessageKind::STORED.contains(&self)
    }

    /// Whether a topic takes this kind that is made for one kind, or, where it is made for none, for all of them.
    pub fn fits(self, topic: Option<MessageKind>) -> bool {
        topic.is_none_or(|kind| kind == self)
    }

    /// What a topic accepts that is made for this kind, or for none.
    pub fn accepted_by(topic: Option<MessageKind>) -> Vec<MessageKind> {
        topic.map_or_else(|| MessageKind::STORED.to_vec(), |kind| vec![kind])
    }
}

impl fmt::Display for MessageKind {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        to.write_str(match self {
            MessageKind::Normal => "NORMAL",
            MessageKind::Fifo => "FIFO",
            MessageKind::Delay => "DELAY",
            MessageKind::Transaction => "TRANSACTION",
            MessageKind::Lite => "LITE",
            MessageKind::Priority => "PRIORITY",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Catches a route that names a kind which the topic does not take, or does not store.
    #[test]
    fn a_topic_takes_what_its_route_says() {
        use MessageKind::{Delay, Fifo, Lite, Normal, Priority, Transaction};
        let all = [Normal, Fifo, Delay, Transaction, Lite, Priority];
        for topic in all.map(Some).into_iter().chain([None]) {
            for kind in MessageKind::accepted_by(topic) {
                assert!(kind.fits(topic), "{topic:?} {kind}");
            }
            for kind in all
                .into_iter()
                .filter(|kind| topic.is_some_and(|topic| topic != *kind))
            {
                assert!(!kind.fits(topic), "{topic:?} {kind}");
            }
        }
        assert!(
            MessageKind::accepted_by(None)
                .into_iter()
                .all(MessageKind::is_stored)
        );
    }
}
