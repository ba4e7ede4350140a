// SPDX-License-Identifier: AGPL-3.0-only
//! Numbers of a replica.

use prometheus_client::{
    metrics::{counter::Counter, gauge::Gauge},
    registry::Registry,
};

/// See the module's documentation.
pub(crate) struct Metrics {
    /// Shards with a lease of ours.
    pub(super) owned: Gauge,
    /// Shards taken.
    pub(super) takeovers: Counter,
    /// Shards that were begun to be handed over.
    pub(super) handovers: Counter,
    /// Leases found to be another's.
    pub(super) lost: Counter,
    /// Replicas that live, as far as this one knows.
    pub(super) replicas: Gauge,
    /// 1 while the store can be reached.
    pub(super) connected: Gauge,
}

impl Metrics {
    pub(crate) fn new(registry: &mut Registry) -> Self {
        let metrics = Self {
            owned: Gauge::default(),
            takeovers: Counter::default(),
            handovers: Counter::default(),
            lost: Counter::default(),
            replicas: Gauge::default(),
            connected: Gauge::default(),
        };
        let name = |name: &str| format!("holdfast_cluster_{name}");
        registry.register(name("shards_owned"), "Shards that this replica owns", metrics.owned.clone());
        registry.register(name("takeovers"), "Shards that this replica has taken", metrics.takeovers.clone());
        registry.register(
            name("handovers"),
            "Shards that this replica has begun to hand over to others",
            metrics.handovers.clone(),
        );
        registry.register(
            name("leases_lost"),
            "Shards that another had taken from this replica",
            metrics.lost.clone(),
        );
        registry.register(
            name("replicas"),
            "Replicas that live, this one among them",
            metrics.replicas.clone(),
        );
        registry.register(
            name("store_connected"),
            "1 while the shared store can be reached",
            metrics.connected.clone(),
        );
        metrics
    }
}
