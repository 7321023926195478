//! A message that is to be sent: what the user says, checked by the rules that brokers have, at once.
//!
//! Never encodes anything (that is `encode`'s work, once, when the message leaves) and never talks to a server.

use std::sync::Arc;

use bytes::Bytes;
use model::TopicName;
use model::message::{self, BODY_BYTES_MAX, Broken};

use crate::error::Error;

/// A message to send. Made by [`Message::builder`]; cheap to clone in its body.
#[derive(Clone, Debug)]
pub struct Message {
    pub(crate) topic: Arc<str>,
    pub(crate) body: Bytes,
    pub(crate) tag: Option<String>,
    pub(crate) keys: Vec<String>,
    pub(crate) message_group: Option<String>,
    pub(crate) properties: Vec<(String, String)>,
    pub(crate) message_id: Option<String>,
    pub(crate) queue: Option<u32>,
    pub(crate) digest: bool,
    /// The body is gzip.
    pub(crate) compressed: bool,
}

impl Message {
    /// Starts a message to `topic`.
    pub fn builder(topic: impl Into<Arc<str>>) -> MessageBuilder {
        MessageBuilder {
            message: Message {
                topic: topic.into(),
                body: Bytes::new(),
                tag: None,
                keys: Vec::new(),
                message_group: None,
                properties: Vec::new(),
                message_id: None,
                queue: None,
                digest: false,
                compressed: false,
            },
        }
    }

    /// A message that is only a topic and a body.
    ///
    /// # Errors
    /// As [`MessageBuilder::build`].
    pub fn new(topic: impl Into<Arc<str>>, body: impl Into<Bytes>) -> Result<Message, Error> {
        Message::builder(topic).body(body).build()
    }

    /// The topic that it goes to.
    pub fn topic(&self) -> &str {
        &self.topic
    }

    /// What it carries.
    pub fn body(&self) -> &Bytes {
        &self.body
    }

    /// The group within which order is kept, if there is one.
    pub fn message_group(&self) -> Option<&str> {
        self.message_group.as_deref()
    }
}

/// Gathers the parts of a [`Message`].
#[derive(Clone, Debug)]
pub struct MessageBuilder {
    message: Message,
}

impl MessageBuilder {
    /// What the message carries: 1 byte to 4 MiB (a broker may be configured to take less).
    #[must_use]
    pub fn body(mut self, body: impl Into<Bytes>) -> Self {
        self.message.body = body.into();
        self
    }

    /// The one tag, by which consumers may filter.
    #[must_use]
    pub fn tag(mut self, tag: impl Into<String>) -> Self {
        self.message.tag = Some(tag.into());
        self
    }

    /// Business keys, by which people look for messages.
    #[must_use]
    pub fn keys<K: Into<String>>(mut self, keys: impl IntoIterator<Item = K>) -> Self {
        self.message.keys.extend(keys.into_iter().map(Into::into));
        self
    }

    /// Messages of one group are stored, and delivered, in the order in which they were handed to one producer.
    #[must_use]
    pub fn message_group(mut self, group: impl Into<String>) -> Self {
        self.message.message_group = Some(group.into());
        self
    }

    /// One property; a later value of the same key replaces the earlier.
    #[must_use]
    pub fn property(mut self, key: impl Into<String>, value: impl Into<String>) -> Self {
        let key = key.into();
        self.message
            .properties
            .retain(|(existing, _)| *existing != key);
        self.message.properties.push((key, value.into()));
        self
    }

    /// Several properties.
    #[must_use]
    pub fn properties<K: Into<String>, V: Into<String>>(
        self,
        properties: impl IntoIterator<Item = (K, V)>,
    ) -> Self {
        properties
            .into_iter()
            .fold(self, |builder, (key, value)| builder.property(key, value))
    }

    /// The message's own id, instead of a new one. Sending the same message again (its body, properties, tag, keys and
    /// message group) with the id of a send whose outcome is unknown stores it at most once, if it comes within the
    /// brokers' window for duplicates: two minutes by default, shorter where so much is sent that brokers cannot remember
    /// each message for so long (`dedup_bytes_max`). Another message under the same id is stored beside it.
    #[must_use]
    pub fn message_id(mut self, id: impl Into<String>) -> Self {
        self.message.message_id = Some(id.into());
        self
    }

    /// The queue to go to, instead of one that the producer chooses; one that the topic does not have is refused. A message
    /// group takes precedence.
    #[must_use]
    pub fn queue(mut self, queue: u32) -> Self {
        self.message.queue = Some(queue);
        self
    }

    /// Whether to carry an MD5 digest of the body, as the official clients do. Off by default: TCP, the log and the
    /// brokers' records have checksums of their own, and MD5 costs more than everything else done to a message here.
    #[must_use]
    pub fn digest(mut self, digest: bool) -> Self {
        self.message.digest = digest;
        self
    }

    /// The message, if it obeys the rules.
    ///
    /// # Errors
    /// [`Error::Invalid`]: a bad topic name; no body or one over 4 MiB; a blank tag or key or one with `|` (tag) or
    /// control characters; a message group that is empty or of 64 bytes and more; a message id of more than 255 bytes; too many
    /// or too large properties, or one that RocketMQ uses itself.
    pub fn build(self) -> Result<Message, Error> {
        let message = self.message;
        TopicName::new(message.topic.to_string()).map_err(|error| {
            Error::invalid(format!("topic {:?}", message.topic), error.to_string())
        })?;
        check(&message).map_err(|broken| Error::invalid(broken.subject, broken.reason))?;
        Ok(message)
    }
}

fn check(message: &Message) -> Result<(), Broken> {
    message::check_body(message.body.len(), BODY_BYTES_MAX as u64)?;
    let property = |(key, value): &(String, String)| key.len() + value.len();
    let bytes = message.tag.as_ref().map_or(0, String::len)
        + message.keys.iter().map(String::len).sum::<usize>()
        + message.properties.iter().map(property).sum::<usize>();
    message::check_properties(message.properties.len(), bytes)?;
    let mut keys = message.properties.iter().map(|(key, _)| key);
    keys.try_for_each(|key| message::check_property_key(key))?;
    (message.tag.as_deref()).map_or(Ok(()), message::check_tag)?;
    let mut keys = message.keys.iter();
    keys.try_for_each(|key| message::check_key(key))?;
    (message.message_group.as_deref()).map_or(Ok(()), message::check_group)?;
    (message.message_id.as_deref()).map_or(Ok(()), message::check_id)
}

#[cfg(test)]
mod tests {
    use model::message::PROPERTIES_BYTES_MAX;

    use super::*;

    /// Catches a rule that is only found out by the broker, a round trip later.
    #[test]
    fn bad_parts_are_named_before_anything_is_sent() {
        let good = || Message::builder("orders").body("x");
        assert!(good().build().is_ok());
        for (builder, part) in [
            (Message::builder("orders"), "body"),
            (Message::builder("no spaces please").body("x"), "topic"),
            (good().tag(" "), "tag"),
            (good().tag("a|b"), "tag"),
            (good().keys(["a\nb"]), "key"),
            (good().message_group("g".repeat(64)), "message group"),
            (good().message_group(""), "message group"),
            (
                good().property("k", "v".repeat(PROPERTIES_BYTES_MAX)),
                "properties",
            ),
            (
                good().properties((0..129).map(|i| (i.to_string(), ""))),
                "properties",
            ),
            (good().property("UNIQ_KEY", "v"), "property key"),
            (good().message_id("i".repeat(256)), "message id"),
            (good().body(vec![0; BODY_BYTES_MAX + 1]), "body"),
        ] {
            let error = builder.build().expect_err(part);
            assert!(error.to_string().contains(part), "{error}");
            assert!(!error.is_retriable());
        }
    }

    /// Catches a property list that would reach the broker with one key twice.
    #[test]
    fn a_later_property_replaces_the_earlier() {
        let message = Message::builder("t")
            .body("x")
            .property("k", "1")
            .property("k", "2")
            .build();
        assert_eq!(
            message.expect("valid").properties,
            vec![("k".to_owned(), "2".to_owned())]
        );
    }
}
