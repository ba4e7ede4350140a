// SPDX-License-Identifier: AGPL-3.0-only
//! The section `[webhook]`, and what the service needs of others: what the user wrote comes in as sections, a checked
//! [`Config`] goes out. Every default stands beside what it fills; docs/configuration.md has the arithmetic.

use std::time::Duration;

use holdfast_broker::BrokerSettings;
use holdfast_rest::LimitSettings;
use holdfast_service::settings::{Document, GIB, MIB, Section};

const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3600);

/// Everything that the service needs to know.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// Base of Discord's API.
    pub api_url: String,
    /// How long Discord may take to begin its answer.
    pub upstream_timeout: Duration,
    /// Queues over which webhooks are spread.
    pub partitions: u32,
    /// Messages of one partition that are taken in and not yet over.
    pub in_flight: u16,
    /// Of them, those of one webhook that may wait for their turn.
    pub parked: usize,
    /// Bytes of all messages that wait, over all partitions.
    pub parked_memory: usize,
    /// How long a message is tried, at most.
    pub max_wait: Duration,
    /// Bounds of each queue.
    pub queue: QueueBounds,
    /// How long a drain may take.
    pub drain_timeout: Duration,
    /// Limits.
    pub limits: LimitSettings,
    /// The broker; without it, that of this process.
    pub broker: Option<BrokerSettings>,
    /// The store in which replicas share one account; without it this process has its own.
    pub cluster: Option<holdfast_cluster::Settings>,
}

/// Bounds of a queue at the broker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct QueueBounds {
    /// Most messages that wait.
    pub max_length: u64,
    /// Most bytes that wait.
    pub max_bytes: u64,
    /// How often a message is delivered again before it is a dead letter.
    pub delivery_limit: u32,
}

/// What others' sections say, for a process that reads them already.
#[derive(Debug, Clone, PartialEq)]
pub struct Beside {
    /// `discord.api_url`.
    pub api_url: String,
    /// `api.upstream_timeout`.
    pub upstream_timeout: Duration,
    /// What `[api]` says of limits.
    pub limits: LimitSettings,
    /// `[broker]`.
    pub broker: Option<BrokerSettings>,
    /// `[cluster]`.
    pub cluster: Option<holdfast_cluster::Settings>,
}

impl Config {
    /// Reads the section, and what it needs of others, in a process of this service alone.
    #[must_use]
    pub fn read(root: &Section<'_>) -> Self {
        let api_url = root.section("discord", |discord| {
            discord.pass_over_others();
            discord.url("api_url", "https://discord.com/api/v10", &["https", "http"])
        });
        let (limits, upstream_timeout) = root.section("api", |api| {
            api.pass_over_others();
            (LimitSettings::read(api), api.duration("upstream_timeout", MINUTE, SECOND / 10..=HOUR))
        });
        let broker = BrokerSettings::read(root);
        if broker.is_none() {
            root.problem("broker", "missing: messages come by it");
        }
        let cluster = root.optional_section("cluster", holdfast_cluster::Settings::read);
        Self::beside(root, Beside { api_url, upstream_timeout, limits, broker, cluster })
    }

    /// Reads the section alone.
    #[must_use]
    pub fn beside(root: &Section<'_>, beside: Beside) -> Self {
        let Beside { api_url, upstream_timeout, limits, broker, cluster } = beside;
        root.section("webhook", |webhook| Self {
            api_url,
            upstream_timeout,
            partitions: narrow(webhook.integer("partitions", 4, 1..=256)),
            // × about 4 KiB = 8 MiB a partition. Sixteen webhooks that have all that they may have parked fill it.
            in_flight: u16::try_from(webhook.integer("in_flight", 2_048, 1..=65_535)).unwrap_or(u16::MAX),
            // Discord takes about 5 in 2 s: 51 s.
            parked: size(webhook.integer("parked", 128, 0..=65_535)),
            parked_memory: size(webhook.bytes("parked_memory", 64 * MIB, MIB..=16 * GIB)),
            max_wait: webhook.duration("max_wait", 10 * MINUTE, SECOND..=24 * HOUR),
            queue: QueueBounds {
                max_length: webhook.integer("max_length", 100_000, 1..=1_000_000_000),
                max_bytes: webhook.bytes("max_bytes", GIB, MIB..=1024 * GIB),
                delivery_limit: narrow(webhook.integer("delivery_limit", 20, 1..=10_000)),
            },
            drain_timeout: webhook.duration("drain_timeout", 20 * SECOND, SECOND..=HOUR),
            limits,
            broker,
            cluster,
        })
    }
}

impl Default for Config {
    /// Everything at its default, and this process's own broker.
    fn default() -> Self {
        let beside = |root: &Section<'_>| {
            let beside = Beside {
                api_url: "https://discord.com/api/v10".to_owned(),
                upstream_timeout: MINUTE,
                limits: LimitSettings::default(),
                broker: None,
                cluster: None,
            };
            Self::beside(root, beside)
        };
        Document::empty().read(beside).value
    }
}

fn narrow(number: u64) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

/// A number that was checked to be in a range far below what a `usize` holds.
fn size(number: u64) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}
