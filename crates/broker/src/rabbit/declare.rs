// SPDX-License-Identifier: AGPL-3.0-only
//! Declares a topology at RabbitMQ: our words become AMQP's methods and RabbitMQ's arguments (rabbitmq.com: Queues,
//! Optional Arguments).

use std::time::Duration;

use lapin::options::{ExchangeBindOptions, ExchangeDeclareOptions, QueueBindOptions, QueueDeclareOptions};
use lapin::types::{AMQPValue, FieldTable, ShortString};
use lapin::{Channel, Error};

use super::refusal::During;
use super::session::{Failure, Session};
use crate::error::Refusal;
use crate::topology::{Binding, Destination, Exchange, ExchangeKind, Overflow, Queue, QueueKind, Topology};

/// Declares everything, on a channel of its own: the broker closes the channel when it refuses.
pub(super) async fn all(session: &Session, topology: &Topology) -> Result<(), Failure> {
    if topology == &Topology::default() {
        return Ok(());
    }
    let channel = session.channel().await.map_err(failed)?;
    on(&channel, topology).await?;
    // The channel has served; if it can't be closed, it went with its connection.
    let _ = channel.close(200, "OK".into()).await;
    Ok(())
}

/// Declares everything on a given channel.
pub(super) async fn on(channel: &Channel, topology: &Topology) -> Result<(), Failure> {
    for exchange in &topology.exchanges {
        declare_exchange(channel, exchange).await?;
    }
    for queue in &topology.queues {
        declare_queue(channel, queue).await?;
    }
    for binding in &topology.bindings {
        bind(channel, binding).await?;
    }
    Ok(())
}

fn failed(error: Error) -> Failure {
    Failure::of(&error, During::Declare)
}

/// A name as AMQP has it.
pub(super) fn short(name: &str) -> Result<ShortString, Failure> {
    ShortString::try_new(name).map_err(|_| {
        let start: String = name.chars().take(40).collect();
        Failure::Refused(Refusal::Mismatch(format!("the name {start}… has more than 255 bytes")))
    })
}

async fn declare_exchange(channel: &Channel, exchange: &Exchange) -> Result<(), Failure> {
    let mut arguments = FieldTable::default();
    let kind = match &exchange.kind {
        ExchangeKind::Topic => lapin::ExchangeKind::Topic,
        ExchangeKind::Direct => lapin::ExchangeKind::Direct,
        ExchangeKind::Fanout => lapin::ExchangeKind::Fanout,
        ExchangeKind::ConsistentHash { header } => {
            set(&mut arguments, "hash-header", text(header));
            lapin::ExchangeKind::Custom("x-consistent-hash".to_owned())
        }
    };
    if let Some(alternate) = &exchange.alternate {
        set(&mut arguments, "alternate-exchange", text(alternate));
    }
    let options = ExchangeDeclareOptions {
        durable: true,
        auto_delete: exchange.auto_delete,
        ..ExchangeDeclareOptions::default()
    };
    channel.exchange_declare(short(&exchange.name)?, kind, options, arguments).await.map_err(failed)
}

async fn declare_queue(channel: &Channel, queue: &Queue) -> Result<(), Failure> {
    let options = QueueDeclareOptions {
        durable: queue.durable || queue.kind != QueueKind::Classic,
        exclusive: queue.exclusive,
        auto_delete: queue.auto_delete,
        ..QueueDeclareOptions::default()
    };
    channel.queue_declare(short(&queue.name)?, options, arguments(queue)).await.map_err(failed)?;
    Ok(())
}

async fn bind(channel: &Channel, binding: &Binding) -> Result<(), Failure> {
    let (source, key) = (short(&binding.source)?, short(&binding.key)?);
    let none = FieldTable::default();
    let bound = match &binding.destination {
        Destination::Queue(queue) => {
            channel.queue_bind(short(queue)?, source, key, QueueBindOptions::default(), none).await
        }
        Destination::Exchange(exchange) => {
            channel.exchange_bind(short(exchange)?, source, key, ExchangeBindOptions::default(), none).await
        }
    };
    bound.map_err(failed)
}

fn arguments(queue: &Queue) -> FieldTable {
    let mut table = FieldTable::default();
    let kind = match queue.kind {
        // The default; naming it would clash with queues that others declared without.
        QueueKind::Classic => None,
        QueueKind::Quorum => Some("quorum"),
        QueueKind::Stream => Some("stream"),
    };
    if let Some(kind) = kind {
        set(&mut table, "x-queue-type", text(kind));
    }
    if queue.single_active_consumer {
        set(&mut table, "x-single-active-consumer", AMQPValue::Boolean(true));
    }
    if queue.overflow == Overflow::RejectPublish {
        set(&mut table, "x-overflow", text("reject-publish"));
    }
    let numbers = [
        ("x-max-length", queue.max_length),
        ("x-max-length-bytes", queue.max_length_bytes),
        ("x-message-ttl", queue.message_ttl.map(milliseconds)),
        ("x-expires", queue.expires.map(milliseconds)),
        ("x-delivery-limit", queue.delivery_limit.map(u64::from)),
        ("x-max-priority", queue.max_priority.map(u64::from)),
    ];
    for (name, value) in numbers {
        if let Some(value) = value {
            set(&mut table, name, AMQPValue::LongLongInt(i64::try_from(value).unwrap_or(i64::MAX)));
        }
    }
    if let Some(age) = queue.max_age {
        set(&mut table, "x-max-age", text(&format!("{}s", age.as_secs().max(1))));
    }
    if let Some(dead_letter) = &queue.dead_letter {
        set(&mut table, "x-dead-letter-exchange", text(&dead_letter.exchange));
        if let Some(key) = &dead_letter.key {
            set(&mut table, "x-dead-letter-routing-key", text(key));
        }
    }
    table
}

fn set(table: &mut FieldTable, name: &'static str, value: AMQPValue) {
    table.insert(name.into(), value);
}

fn text(text: &str) -> AMQPValue {
    AMQPValue::LongString(text.into())
}

fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
