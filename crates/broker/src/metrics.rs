// SPDX-License-Identifier: AGPL-3.0-only
//! What is counted on the way to the broker and back, by the names that docs/contract.md gives.

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;

/// All counters of one process's broker.
#[derive(Debug)]
pub(crate) struct Metrics {
    pub(crate) connections_lost: Counter,
    pub(crate) published: Counter,
    pub(crate) confirmed: Counter,
    pub(crate) returned: Counter,
    pub(crate) unsendable: Counter,
    pub(crate) interruptions: Counter,
    pub(crate) confirm_latency: Histogram,
    pub(crate) delivered: Counter,
    pub(crate) dead_lettered: Counter,
    pub(crate) stale_settlements: Counter,
    pub(crate) requests: Counter,
    pub(crate) requests_failed: Counter,
    pub(crate) requests_expired: Counter,
}

impl Metrics {
    pub(crate) fn new(registry: &mut Registry) -> Self {
        let metrics = Self {
            connections_lost: Counter::default(),
            published: Counter::default(),
            confirmed: Counter::default(),
            returned: Counter::default(),
            unsendable: Counter::default(),
            interruptions: Counter::default(),
            // 0.25 ms to 8 s, doubling.
            confirm_latency: Histogram::new(exponential_buckets(0.000_25, 2.0, 16)),
            delivered: Counter::default(),
            dead_lettered: Counter::default(),
            stale_settlements: Counter::default(),
            requests: Counter::default(),
            requests_failed: Counter::default(),
            requests_expired: Counter::default(),
        };
        metrics.register(registry);
        metrics
    }

    fn register(&self, registry: &mut Registry) {
        let mut add = |name: &str, help: &str, counter: &Counter| {
            registry.register(format!("holdfast_amqp_{name}"), help, counter.clone());
        };
        add("connections_lost", "Connections to the broker that ended", &self.connections_lost);
        add("published", "Messages given to the broker", &self.published);
        add("confirmed", "Messages that the broker confirmed", &self.confirmed);
        add("returned", "Messages that no queue took", &self.returned);
        add("unsendable", "Messages that were too large or malformed to be sent", &self.unsendable);
        add(
            "interruptions",
            "Ordered streams that had to go on from their first unconfirmed message",
            &self.interruptions,
        );
        add("delivered", "Messages received", &self.delivered);
        add("dead_lettered", "Messages rejected with a reason", &self.dead_lettered);
        add(
            "stale_settlements",
            "Acknowledgements of messages whose connection had ended; they come again",
            &self.stale_settlements,
        );
        add("requests", "Requests sent", &self.requests);
        add("requests_failed", "Requests without a last reply", &self.requests_failed);
        add("requests_expired", "Requests received too late to be answered", &self.requests_expired);
        registry.register(
            "holdfast_amqp_confirm_latency_seconds",
            "Time from giving a message to the broker until it confirmed it",
            self.confirm_latency.clone(),
        );
    }
}
