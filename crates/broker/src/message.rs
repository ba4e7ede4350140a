// SPDX-License-Identifier: AGPL-3.0-only
//! What is sent and received: a body with its properties and headers, and where it goes. The same for both brokers.

use std::borrow::Cow;
use std::time::Duration;

use bytes::Bytes;

use crate::error::Unsendable;

/// A short text that is often known when the program is built.
pub type Text = Cow<'static, str>;

/// AMQP's bound on names, keys and properties, in bytes.
const SHORT_STRING: usize = 255;

/// A message: bytes with what is said about them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Message {
    /// The bytes.
    pub body: Bytes,
    /// What AMQP has a field for.
    pub properties: Properties,
    /// What it has none for.
    pub headers: Headers,
}

/// Properties of a message, by AMQP's names.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Properties {
    /// `message_id`; of events `stream:position`.
    pub message_id: Option<Text>,
    /// `correlation_id`: which request a reply belongs to.
    pub correlation_id: Option<Text>,
    /// `reply_to`: the queue that replies go to.
    pub reply_to: Option<Text>,
    /// `type`: the message's name.
    pub kind: Option<Text>,
    /// `content_type`.
    pub content_type: Option<Text>,
    /// `expiration`: how long it may wait in a queue. Milliseconds count.
    pub expiration: Option<Duration>,
    /// `priority`: higher goes first, in queues that have priorities.
    pub priority: Option<u8>,
    /// `timestamp`: seconds since 1970.
    pub timestamp: Option<u64>,
    /// `delivery_mode` 2: durable queues keep it over a restart of the broker.
    pub persistent: bool,
}

/// Headers of a message, in the order in which they were added. Kinds that AMQP has and this has not (tables,
/// arrays, floats) are left out when a message comes in.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Headers(Vec<(Text, Header)>);

/// The value of a header.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Header {
    /// A text.
    Text(Text),
    /// A whole number.
    Integer(i64),
    /// True or false.
    Flag(bool),
}

/// A message with the place that it goes to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Publication {
    /// The exchange; the one with the empty name routes to the queue that the key names.
    pub exchange: Text,
    /// The routing key.
    pub key: Text,
    /// Whether it comes back if no queue takes it.
    pub mandatory: bool,
    /// The message.
    pub message: Message,
}

impl Message {
    /// A message of a name (AMQP's `type`).
    #[must_use]
    pub fn new(kind: impl Into<Text>, body: impl Into<Bytes>) -> Self {
        let properties = Properties { kind: Some(kind.into()), ..Properties::default() };
        Self { body: body.into(), properties, headers: Headers::default() }
    }

    /// With one more header.
    #[must_use]
    pub fn header(mut self, name: impl Into<Text>, value: impl Into<Header>) -> Self {
        self.headers.push(name, value);
        self
    }
}

impl Headers {
    /// Room for some headers.
    #[must_use]
    pub fn with_capacity(capacity: usize) -> Self {
        Self(Vec::with_capacity(capacity))
    }

    /// Adds a header. A name is given once.
    pub fn push(&mut self, name: impl Into<Text>, value: impl Into<Header>) {
        self.0.push((name.into(), value.into()));
    }

    /// Sets a header, whether it is there already or not.
    pub fn set(&mut self, name: impl Into<Text>, value: impl Into<Header>) {
        let name = name.into();
        self.0.retain(|(known, _)| *known != name);
        self.push(name, value);
    }

    /// A header's value.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&Header> {
        self.0.iter().find_map(|(known, value)| (known == name).then_some(value))
    }

    /// A header's value, if it is a text.
    #[must_use]
    pub fn text(&self, name: &str) -> Option<&str> {
        match self.get(name) {
            Some(Header::Text(text)) => Some(text),
            _ => None,
        }
    }

    /// A header's value, if it is a whole number.
    #[must_use]
    pub fn integer(&self, name: &str) -> Option<i64> {
        match self.get(name) {
            Some(Header::Integer(number)) => Some(*number),
            _ => None,
        }
    }

    /// Whether a header is there and true.
    #[must_use]
    pub fn flag(&self, name: &str) -> bool {
        matches!(self.get(name), Some(Header::Flag(true)))
    }

    /// All headers.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Header)> {
        self.0.iter().map(|(name, value)| (name.as_ref(), value))
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn into_pairs(self) -> Vec<(Text, Header)> {
        self.0
    }
}

impl From<&'static str> for Header {
    fn from(text: &'static str) -> Self {
        Self::Text(Cow::Borrowed(text))
    }
}

impl From<String> for Header {
    fn from(text: String) -> Self {
        Self::Text(Cow::Owned(text))
    }
}

impl From<i64> for Header {
    fn from(number: i64) -> Self {
        Self::Integer(number)
    }
}

impl From<bool> for Header {
    fn from(flag: bool) -> Self {
        Self::Flag(flag)
    }
}

impl Publication {
    /// A message to an exchange, which may drop it if no queue takes it.
    #[must_use]
    pub fn new(exchange: impl Into<Text>, key: impl Into<Text>, message: Message) -> Self {
        Self { exchange: exchange.into(), key: key.into(), mandatory: false, message }
    }

    /// The same, but it comes back if no queue takes it.
    #[must_use]
    pub fn mandatory(mut self) -> Self {
        self.mandatory = true;
        self
    }

    /// Whether AMQP can carry it.
    pub(crate) fn check(&self, max_bytes: usize) -> Result<(), Unsendable> {
        let bytes = self.message.body.len();
        if bytes > max_bytes {
            return Err(Unsendable::TooLarge { bytes, max_bytes });
        }
        let properties = &self.message.properties;
        let texts = [
            ("exchange", Some(&self.exchange)),
            ("routing key", Some(&self.key)),
            ("message_id", properties.message_id.as_ref()),
            ("correlation_id", properties.correlation_id.as_ref()),
            ("reply_to", properties.reply_to.as_ref()),
            ("type", properties.kind.as_ref()),
            ("content_type", properties.content_type.as_ref()),
        ];
        let too_long = |text: &Text| text.len() > SHORT_STRING;
        if let Some((what, _)) = texts.iter().find(|(_, text)| text.is_some_and(too_long)) {
            return Err(Unsendable::TooLong { what });
        }
        if self.message.headers.iter().any(|(name, _)| name.len() > SHORT_STRING) {
            return Err(Unsendable::TooLong { what: "name of a header" });
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_amqp_cannot_carry_is_found_before_it_is_sent() {
        let message = |body: usize| Message::new("TEST", vec![0; body]);
        assert_eq!(Publication::new("", "queue", message(10)).check(10), Ok(()));
        assert_eq!(
            Publication::new("", "queue", message(11)).check(10),
            Err(Unsendable::TooLarge { bytes: 11, max_bytes: 10 })
        );
        let long = "x".repeat(256);
        let key = Publication::new("", long.clone(), message(1));
        assert_eq!(key.check(10), Err(Unsendable::TooLong { what: "routing key" }));
        let header = Publication::new("", "queue", message(1).header(long, true));
        assert_eq!(header.check(10), Err(Unsendable::TooLong { what: "name of a header" }));
    }

    #[test]
    fn a_header_is_set_once() {
        let mut headers = Headers::default();
        headers.push("a", "1");
        headers.set("a", 2);
        assert_eq!((headers.len(), headers.integer("a")), (1, Some(2)));
    }
}
