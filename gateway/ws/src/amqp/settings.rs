// SPDX-License-Identifier: AGPL-3.0-only
//! The section `[ws.amqp]`: what is published, how much may be unconfirmed, which queues are declared.

use std::time::Duration;

use holdfast_discord::EventKind;
use holdfast_service::settings::{GIB, MIB, Section};

const SECOND: Duration = Duration::from_secs(1);
const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// RabbitMQ's own default since 4.0.
const DELIVERY_LIMIT: u64 = 20;

/// See the module's documentation.
#[derive(Debug, Clone, PartialEq)]
pub struct AmqpSettings {
    /// Names of the events that are published; empty: all.
    pub events: Vec<String>,
    /// Queues over which guilds are spread, each in order; 0: none.
    pub partitions: u32,
    /// Bounds of each partition's queue.
    pub partition: Bounds,
    /// Messages of a shard that may be unconfirmed.
    pub confirm_window: usize,
    /// Bytes that may be unconfirmed, of all shards together.
    pub confirm_bytes: u64,
    /// Commands of one shard that may wait or be under way; those of high priority a quarter more.
    pub commands_in_flight: usize,
    /// Whether events that no queue is bound for go to an exchange of their own.
    pub unrouted: bool,
    /// What happens when the broker is away for longer than the log holds.
    pub outage: Outage,
    /// Queues to declare.
    pub queues: Vec<QueueSettings>,
}

/// The broker is away, and the log is about to drop events that it hasn't had.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outage {
    /// A shard without WebSocket clients leaves Discord, resumably: Discord holds the backlog for some minutes.
    Disconnect,
    /// The oldest events are dropped.
    Drop,
}

/// One of `[[ws.amqp.queues]]`.
#[derive(Debug, Clone, PartialEq)]
pub struct QueueSettings {
    /// Its name, below the prefix.
    pub name: String,
    /// Routing keys of the exchange of events that it gets.
    pub bindings: Vec<String>,
    /// How it stores.
    pub kind: QueueType,
    /// Its bounds.
    pub bounds: Bounds,
    /// Whether one consumer gets everything until it leaves.
    pub single_active_consumer: bool,
}

/// What a queue holds at most; beyond it, the oldest go to the exchange of dead letters.
#[derive(Debug, Clone, PartialEq)]
pub struct Bounds {
    /// Messages (not of streams).
    pub max_length: u64,
    /// Bytes.
    pub max_bytes: u64,
    /// Age of streams' messages.
    pub max_age: Duration,
    /// Deliveries of a message before it is dead (quorum queues).
    pub delivery_limit: u32,
}

/// How a queue stores.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum QueueType {
    /// Replicated; a message goes when it is acknowledged.
    Quorum,
    /// A log that consumers read from where they like.
    Stream,
}

impl AmqpSettings {
    /// Reads the section within `[ws]`.
    pub(crate) fn read(ws: &Section<'_>) -> Self {
        ws.section("amqp", |amqp| Self {
            events: events(amqp),
            partitions: small(amqp.integer("partitions", 0, 0..=1024)),
            partition: amqp.section("partition", Bounds::read),
            confirm_window: usize::try_from(amqp.integer("confirm_window", 1024, 1..=65_536)).unwrap_or(1024),
            confirm_bytes: amqp.bytes("confirm_bytes", 64 * MIB, MIB..=16 * GIB),
            // Two minutes' worth of what Discord takes; at some 5 KiB each, a megabyte a shard.
            commands_in_flight: usize::try_from(amqp.integer("commands_in_flight", 256, 1..=4096))
                .unwrap_or(256),
            unrouted: amqp.flag("unrouted", false),
            outage: amqp.choice(
                "outage",
                Outage::Disconnect,
                &[("disconnect", Outage::Disconnect), ("drop", Outage::Drop)],
            ),
            queues: amqp.tables("queues", QueueSettings::read),
        })
    }

    /// Whether events of this name are published.
    pub(crate) fn publishes(&self, name: &str) -> bool {
        self.events.is_empty() || self.events.iter().any(|wanted| wanted == name)
    }
}

impl QueueSettings {
    fn read(queue: &Section<'_>) -> Self {
        let name = queue.text("name", "");
        if name.is_empty() || name.starts_with("amq.") {
            queue.problem("name", "missing: expected a name such as \"messages\", below broker.prefix");
        }
        let expected = "a list of routing keys such as \"MESSAGE_CREATE.#\" or \"*.*.81384788765712384\"";
        let bindings = queue.names("bindings", &[], expected, |key| (1..=255).contains(&key.len()));
        if bindings.is_empty() {
            queue.problem("bindings", format!("missing: expected {expected}"));
        }
        Self {
            name,
            bindings,
            kind: queue.choice(
                "type",
                QueueType::Quorum,
                &[("quorum", QueueType::Quorum), ("stream", QueueType::Stream)],
            ),
            bounds: Bounds::read(queue),
            single_active_consumer: queue.flag("single_active_consumer", false),
        }
    }
}

impl Bounds {
    fn read(section: &Section<'_>) -> Self {
        Self {
            max_length: section.integer("max_length", 1_000_000, 1..=1_000_000_000),
            max_bytes: section.bytes("max_bytes", GIB, MIB..=1024 * GIB),
            max_age: section.duration("max_age", DAY, SECOND..=365 * DAY),
            delivery_limit: small(section.integer("delivery_limit", DELIVERY_LIMIT, 1..=10_000)),
        }
    }
}

/// Names that this version doesn't know are allowed, spelt as Discord spells names: new events come.
fn events(amqp: &Section<'_>) -> Vec<String> {
    let expected = "a list of Discord's event names such as \"MESSAGE_CREATE\"";
    let known = |name: &str| EventKind::from_name(name) != EventKind::Unknown;
    let spelt =
        |name: &str| !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_uppercase() || byte == b'_');
    amqp.names("events", &[], expected, |name| known(name) || spelt(name))
}

fn small(number: u64) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}
