// SPDX-License-Identifier: AGPL-3.0-only
//! Numbers of the AMQP front beyond the broker's own: per shard where the operator needs to know which.

use std::sync::atomic::AtomicU64;

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family, gauge::Gauge},
    registry::Registry,
};

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub(super) struct Shard {
    pub(super) shard: u32,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub(super) struct Event {
    pub(super) event: String,
}

/// See the module's documentation.
#[derive(Debug)]
pub(super) struct Metrics {
    /// Events given to the broker.
    pub(super) events: Family<Event, Counter>,
    /// Events that no queue was bound for.
    pub(super) unrouted: Family<Event, Counter>,
    /// Events that are too large to be sent.
    pub(super) unsendable: Counter,
    /// Gap markers.
    pub(super) gaps: Counter,
    /// Positions that went before they were published.
    pub(super) lost: Counter,
    /// Time in which the broker could not be published to.
    pub(super) outage: Counter<f64, AtomicU64>,
    /// Events between the confirmed one and the log's last.
    pub(super) lag: Family<Shard, Gauge>,
    /// The same in bytes.
    pub(super) lag_bytes: Family<Shard, Gauge>,
    /// Seconds without progress while events wait.
    pub(super) stalled: Family<Shard, Gauge>,
}

impl Metrics {
    pub(super) fn new(registry: &mut Registry) -> Self {
        let metrics = Self {
            events: Family::default(),
            unrouted: Family::default(),
            unsendable: Counter::default(),
            gaps: Counter::default(),
            lost: Counter::default(),
            outage: Counter::default(),
            lag: Family::default(),
            lag_bytes: Family::default(),
            stalled: Family::default(),
        };
        let name = |name: &str| format!("holdfast_ws_amqp_{name}");
        registry.register(
            name("events"),
            "Events given to the broker, repeated ones too",
            metrics.events.clone(),
        );
        registry.register(name("unrouted"), "Events that no queue was bound for", metrics.unrouted.clone());
        registry.register(
            name("unsendable"),
            "Events that are too large to be sent",
            metrics.unsendable.clone(),
        );
        registry.register(name("gaps"), "Gap markers published", metrics.gaps.clone());
        registry.register(
            name("lost_events"),
            "Events that the log had to drop, or that were damaged in it, before they were published",
            metrics.lost.clone(),
        );
        registry.register(
            name("outage_seconds"),
            "Time in which the broker could not be reached, refused or took nothing",
            metrics.outage.clone(),
        );
        registry.register(
            name("lag_events"),
            "Events in the log that the broker has not confirmed",
            metrics.lag.clone(),
        );
        registry.register(
            name("lag_bytes"),
            "Bytes in the log that the broker has not confirmed",
            metrics.lag_bytes.clone(),
        );
        registry.register(
            name("stalled_seconds"),
            "Time since the broker confirmed anything while events wait",
            metrics.stalled.clone(),
        );
        metrics
    }
}
