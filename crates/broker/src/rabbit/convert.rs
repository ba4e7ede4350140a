// SPDX-License-Identifier: AGPL-3.0-only
//! Our messages as AMQP's, and back. Texts are moved, not copied, where they are owned already.

use std::borrow::Cow;
use std::time::Duration;

use bytes::Bytes;
use lapin::BasicProperties;
use lapin::message::Delivery;
use lapin::types::{AMQPValue, FieldTable, LongString, ShortString};

use crate::message::{Header, Headers, Message, Properties, Publication, Text};
use crate::names::APP_ID;

/// AMQP's `delivery_mode`.
const PERSISTENT: u8 = 2;

/// A publication in the library's words.
pub(super) struct Frames {
    pub(super) exchange: ShortString,
    pub(super) key: ShortString,
    pub(super) mandatory: bool,
    pub(super) properties: BasicProperties,
    pub(super) body: Bytes,
}

impl Frames {
    /// Of a publication that was [checked](Publication::check); `None` if it wasn't.
    pub(super) fn of(publication: Publication) -> Option<Self> {
        let Publication { exchange, key, mandatory, message } = publication;
        Some(Self {
            exchange: short(exchange)?,
            key: short(key)?,
            mandatory,
            properties: properties(message.properties, message.headers)?,
            body: message.body,
        })
    }
}

fn short(text: Text) -> Option<ShortString> {
    ShortString::try_new(text.into_owned()).ok()
}

fn properties(properties: Properties, headers: Headers) -> Option<BasicProperties> {
    let mut out = BasicProperties::default().with_app_id(APP_ID.into());
    if let Some(id) = properties.message_id {
        out = out.with_message_id(short(id)?);
    }
    if let Some(id) = properties.correlation_id {
        out = out.with_correlation_id(short(id)?);
    }
    if let Some(queue) = properties.reply_to {
        out = out.with_reply_to(short(queue)?);
    }
    if let Some(kind) = properties.kind {
        out = out.with_type(short(kind)?);
    }
    if let Some(kind) = properties.content_type {
        out = out.with_content_type(short(kind)?);
    }
    if let Some(expiration) = properties.expiration {
        // RabbitMQ takes milliseconds in decimal.
        out = out.with_expiration(short(expiration.as_millis().to_string().into())?);
    }
    if let Some(priority) = properties.priority {
        out = out.with_priority(priority);
    }
    if let Some(seconds) = properties.timestamp {
        out = out.with_timestamp(seconds);
    }
    if properties.persistent {
        out = out.with_delivery_mode(PERSISTENT);
    }
    if !headers.is_empty() {
        let mut table = FieldTable::default();
        for (name, value) in headers.into_pairs() {
            table.insert(short(name)?, header(value));
        }
        out = out.with_headers(table);
    }
    Some(out)
}

fn header(value: Header) -> AMQPValue {
    match value {
        Header::Text(text) => AMQPValue::LongString(LongString::from(text.into_owned())),
        Header::Integer(number) => AMQPValue::LongLongInt(number),
        Header::Flag(flag) => AMQPValue::Boolean(flag),
    }
}

/// What was delivered or returned, with the exchange and key that it had.
pub(super) fn received(delivery: Delivery) -> (String, String, Message) {
    let Delivery { exchange, routing_key, properties, data, .. } = delivery;
    let headers = properties.headers().as_ref().map(headers).unwrap_or_default();
    let message = Message { body: Bytes::from(data), properties: received_properties(&properties), headers };
    (exchange.into(), routing_key.into(), message)
}

fn received_properties(properties: &BasicProperties) -> Properties {
    let text = |text: &Option<ShortString>| text.clone().map(|text| Cow::Owned(String::from(text)));
    let milliseconds = |text: &ShortString| text.as_str().parse().ok().map(Duration::from_millis);
    Properties {
        message_id: text(properties.message_id()),
        correlation_id: text(properties.correlation_id()),
        reply_to: text(properties.reply_to()),
        kind: text(properties.kind()),
        content_type: text(properties.content_type()),
        expiration: properties.expiration().as_ref().and_then(milliseconds),
        priority: *properties.priority(),
        timestamp: *properties.timestamp(),
        persistent: *properties.delivery_mode() == Some(PERSISTENT),
    }
}

fn headers(table: &FieldTable) -> Headers {
    let mut headers = Headers::with_capacity(table.inner().len());
    for (name, value) in table {
        if let Some(value) = received_header(value) {
            headers.push(name.as_str().to_owned(), value);
        }
    }
    headers
}

/// Other clients choose other kinds for the same thing.
fn received_header(value: &AMQPValue) -> Option<Header> {
    Some(match value {
        AMQPValue::LongString(text) => String::from_utf8_lossy(text.as_bytes()).into_owned().into(),
        AMQPValue::ShortString(text) => text.as_str().to_owned().into(),
        AMQPValue::Boolean(flag) => (*flag).into(),
        AMQPValue::ShortShortInt(number) => i64::from(*number).into(),
        AMQPValue::ShortShortUInt(number) => i64::from(*number).into(),
        AMQPValue::ShortInt(number) => i64::from(*number).into(),
        AMQPValue::ShortUInt(number) => i64::from(*number).into(),
        AMQPValue::LongInt(number) => i64::from(*number).into(),
        AMQPValue::LongUInt(number) => i64::from(*number).into(),
        AMQPValue::LongLongInt(number) => (*number).into(),
        AMQPValue::Timestamp(seconds) => i64::try_from(*seconds).unwrap_or(i64::MAX).into(),
        _ => return None,
    })
}
