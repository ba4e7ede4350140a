// SPDX-License-Identifier: AGPL-3.0-only
//! What becomes of commands and requests, by the names that docs/contract.md gives.

use std::sync::atomic::AtomicU64;

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family, gauge::Gauge},
    registry::Registry,
};

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Outcome {
    kind: &'static str,
    outcome: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Answer {
    outcome: &'static str,
}

/// See the module's documentation.
#[derive(Debug, Default)]
pub(in crate::amqp) struct Metrics {
    commands: Family<Outcome, Counter>,
    guilds: Family<Answer, Counter>,
    pub(super) forwarded: Counter,
    pub(super) expired: Counter,
    pub(super) in_flight: Gauge<u64, AtomicU64>,
    pub(super) replies_undelivered: Counter,
}

impl Metrics {
    pub(super) fn new(registry: &mut Registry) -> Self {
        let metrics = Self::default();
        let name = |name: &str| format!("holdfast_amqp_{name}");
        registry.register(name("commands"), "Commands that ended, by how", metrics.commands.clone());
        registry.register(
            name("commands_forwarded"),
            "Commands handed on to the shard of their target",
            metrics.forwarded.clone(),
        );
        registry.register(
            name("commands_expired"),
            "Commands whose deadline passed before they were sent",
            metrics.expired.clone(),
        );
        registry.register(
            name("commands_in_flight"),
            "Commands taken in whose last reply isn't sent",
            metrics.in_flight.clone(),
        );
        registry.register(
            name("replies_undelivered"),
            "Replies to commands that did not arrive",
            metrics.replies_undelivered.clone(),
        );
        registry.register(name("guilds_read"), "Requests for a guild, by answer", metrics.guilds.clone());
        metrics
    }

    /// A command has ended.
    pub(super) fn ended(&self, kind: &'static str, outcome: &'static str) {
        self.commands.get_or_create(&Outcome { kind, outcome }).inc();
    }

    /// A request for a guild was answered.
    pub(in crate::amqp) fn read(&self, outcome: &'static str) {
        self.guilds.get_or_create(&Answer { outcome }).inc();
    }
}
